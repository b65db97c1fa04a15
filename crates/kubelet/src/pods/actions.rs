//! What a pod needs next, computed from its spec and the runtime's view of it: a pure function, so that every
//! combination of dead sandboxes, half-done initialization and failed probes can be tested without a runtime.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{
    names,
    runtime::{ContainerView, PodView, State},
};

use super::spec::{self, Role};

/// What a health check knows of a running container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) started: bool,
    /// Why it must die, in the words of its event.
    pub(crate) kill: Option<String>,
}

/// A container that must stop, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) message: String,
}

/// What to do next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actions {
    /// The sandbox is missing or dead: stop what is left, then make this attempt.
    pub(crate) create_sandbox: Option<u32>,
    /// Containers to start, in this order where order matters.
    pub(crate) start: Vec<(Role, Container)>,
    /// Containers to stop.
    pub(crate) kill: Vec<Kill>,
    /// Nothing will ever run again: the pod ends.
    pub(crate) finished: bool,
}

/// Computes what the pod needs. `verdict` judges running containers.
pub(crate) fn compute(pod: &Pod, view: &PodView, verdict: impl Fn(&ContainerView, &Container) -> Verdict) -> Actions {
    let mut actions = Actions::default();
    let containers = spec::containers(pod);
    let sandbox = view.sandbox();
    let here =
        |name: &str| view.container(name).filter(|view| sandbox.is_some_and(|sandbox| view.sandbox_id == sandbox.id));
    // A regular container that ended is over when its policy says so, whichever sandbox it was in.
    let over = |role: Role, container: &Container| {
        view.container(&container.name).is_some_and(|view| {
            view.state == State::Exited && !spec::should_restart(pod, role, container, view.exit_code)
        })
    };
    let regular: Vec<_> = containers.iter().filter(|(role, _)| *role == Role::Regular).collect();
    if !regular.is_empty() && regular.iter().all(|(role, container)| over(*role, container)) {
        actions.finished = true;
        return actions;
    }
    let init_failed = containers.iter().filter(|(role, _)| *role == Role::Init).any(|(role, container)| {
        over(*role, container) && view.container(&container.name).is_some_and(|view| view.exit_code != 0)
    });
    if init_failed {
        actions.finished = true;
        return actions;
    }
    let Some(_) = sandbox else {
        let attempt = view.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or_default();
        actions.create_sandbox = Some(attempt);
        return actions;
    };
    let initialized = regular.iter().any(|(_, container)| here(&container.name).is_some());
    let mut blocked = false;
    for (role, container) in &containers {
        let view = here(&container.name);
        match role {
            Role::Init if initialized => continue,
            Role::Init | Role::Sidecar | Role::Regular if blocked => continue,
            _ => {}
        }
        let judge = |view: &ContainerView, actions: &mut Actions| {
            let verdict = verdict(view, container);
            let changed = view.hash != names::container_hash(container) && !view.hash.is_empty();
            let message = if changed && *role != Role::Init {
                Some(format!("Container {} definition changed, will be restarted", container.name))
            } else {
                verdict.kill.clone()
            };
            if let Some(message) = message {
                let (id, name) = (view.id.clone(), container.name.clone());
                actions.kill.push(Kill { id, name, message });
            }
            verdict.started
        };
        match (role, view, view.map(|view| view.state)) {
            (Role::Init, Some(view), Some(State::Exited)) if view.exit_code == 0 => {}
            (Role::Init, Some(_), Some(State::Exited)) | (Role::Init, None, _) => {
                actions.start.push((*role, container.clone()));
                blocked = true;
            }
            (Role::Init, Some(view), Some(State::Running)) => {
                judge(view, &mut actions);
                blocked = true;
            }
            (Role::Init, Some(_), _) => blocked = true,
            (Role::Sidecar, Some(view), Some(State::Running)) => {
                blocked = !judge(view, &mut actions) && !initialized;
            }
            (Role::Sidecar, _, _) => {
                actions.start.push((*role, container.clone()));
                blocked = !initialized;
            }
            (Role::Regular, Some(view), Some(State::Running)) => {
                judge(view, &mut actions);
            }
            (Role::Regular, Some(view), Some(State::Unknown)) => {
                let message =
                    format!("Container {} is in unknown state, try killing it before restart", container.name);
                actions.kill.push(Kill { id: view.id.clone(), name: container.name.clone(), message });
            }
            (Role::Regular, _, _) => {
                if !over(*role, container) {
                    actions.start.push((*role, container.clone()));
                }
            }
            (Role::Ephemeral, None, _) => actions.start.push((*role, container.clone())),
            (Role::Ephemeral, Some(_), _) => {}
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::SandboxView;
    use jiff::Timestamp;

    fn pod(policy: &str) -> Pod {
        serde_yaml_ng::from_str(&format!(
            "{{metadata: {{name: p, uid: u}}, spec: {{restartPolicy: {policy},
              initContainers: [{{name: i}}, {{name: s, restartPolicy: Always}}], containers: [{{name: a}}, {{name: b}}]}}}}"
        ))
        .unwrap()
    }

    fn view(sandbox_ready: bool, containers: &[(&str, State, i32)]) -> PodView {
        let sandbox = SandboxView { id: "s1".into(), ready: sandbox_ready, attempt: 0, created_at: 1, ips: vec![] };
        let container = |(name, state, exit_code): &(&str, State, i32)| ContainerView {
            id: format!("id-{name}"),
            name: (*name).into(),
            state: *state,
            sandbox_id: "s1".into(),
            hash: String::new(),
            restarts: 0,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            exit_code: *exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
            annotations: Default::default(),
            mounts: vec![],
        };
        PodView { sandboxes: vec![sandbox], containers: containers.iter().map(container).collect() }
    }

    fn check(policy: &str, view: &PodView, started: bool, expected: &[&str], finished: bool) {
        let actions = compute(&pod(policy), view, |_, _| Verdict { started, kill: None });
        let names: Vec<_> = actions.start.iter().map(|(_, container)| container.name.as_str()).collect();
        assert_eq!(names, expected);
        assert_eq!(actions.finished, finished);
    }

    #[test]
    fn containers_start_in_order_of_their_roles() {
        use State::{Exited, Running};
        check("Always", &view(true, &[]), true, &["i"], false);
        check("Always", &view(true, &[("i", Running, 0)]), true, &[], false);
        check("Always", &view(true, &[("i", Exited, 1)]), true, &["i"], false);
        check("Always", &view(true, &[("i", Exited, 0)]), true, &["s"], false);
        check("Always", &view(true, &[("i", Exited, 0), ("s", Running, 0)]), false, &[], false);
        check("Always", &view(true, &[("i", Exited, 0), ("s", Running, 0)]), true, &["a", "b"], false);
        let up = [("i", Exited, 0), ("s", Exited, 0), ("a", Running, 0), ("b", Exited, 0)];
        check("Always", &view(true, &up), true, &["s", "b"], false);
        check("OnFailure", &view(true, &up), true, &["s"], false);
    }

    #[test]
    fn a_pod_ends_when_nothing_may_run_again() {
        use State::{Exited, Running};
        let done = [("i", Exited, 0), ("s", Running, 0), ("a", Exited, 0), ("b", Exited, 1)];
        check("Never", &view(true, &done), true, &[], true);
        check("OnFailure", &view(true, &done), true, &["b"], false);
        check("Never", &view(true, &[("i", Exited, 1)]), true, &[], true);
    }

    #[test]
    fn a_dead_sandbox_is_replaced_by_the_next_attempt() {
        let actions = compute(&pod("Always"), &view(false, &[]), |_, _| Verdict::default());
        assert_eq!(actions.create_sandbox, Some(1));
        let actions = compute(&pod("Always"), &PodView::default(), |_, _| Verdict::default());
        assert_eq!(actions.create_sandbox, Some(0));
    }

    #[test]
    fn a_failed_probe_kills() {
        let view = view(true, &[("i", State::Exited, 0), ("a", State::Running, 0), ("b", State::Running, 0)]);
        let actions = compute(&pod("Always"), &view, |view, _| Verdict {
            started: true,
            kill: (view.name == "a").then(|| "Container a failed liveness probe, will be restarted".into()),
        });
        assert_eq!(actions.kill.len(), 1);
        assert_eq!(actions.kill[0].id, "id-a");
    }
}
