//! Conditions of pods: scheduled, sandbox ready, initialized, containers ready, ready.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    pods::spec::{self, Role},
    runtime::State,
};

use super::Input;

/// Conditions that the kubelet owns.
pub(crate) const OWNED: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

type Judgement = (bool, &'static str, String);

const FINE: Judgement = (true, "", String::new());

/// The pod's conditions: the kubelet's own, and others' as they were.
pub(crate) fn generate(input: &Input<'_>, status: &PodStatus, initialized: bool) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(input, status, phase);
    let ready = match &containers_ready {
        (true, ..) => gates(input),
        other => other.clone(),
    };
    let previous: &[PodCondition] = input.previous.conditions.as_deref().unwrap_or_default();
    let sandbox = input.view.sandbox().is_some_and(|sandbox| !sandbox.ips.is_empty() || host_network(input));
    let judgements = [
        ("PodReadyToStartContainers", (sandbox && !input.terminal, "", String::new())),
        ("Initialized", initialization(input, initialized, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", FINE),
    ];
    // Told while there is something to tell, and then gone.
    let resize = input.resources.pending.as_ref().map(|(pending, message)| {
        let (kind, reason) = pending.condition();
        (kind, (true, reason, message.clone()))
    });
    let own = judgements.into_iter().chain(resize).map(|(kind, (good, reason, message))| {
        let status = if good { "True" } else { "False" };
        let old = previous.iter().find(|condition| condition.type_ == kind);
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: (!message.is_empty()).then_some(message),
            last_transition_time: Some(since.unwrap_or(Time(input.now))),
            observed_generation: input.pod.metadata.generation,
            last_probe_time: None,
        }
    });
    let others = previous.iter().filter(|condition| !OWNED.contains(&condition.type_.as_str())).cloned();
    own.chain(others).collect()
}

fn host_network(input: &Input<'_>) -> bool {
    input.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

fn initialization(input: &Input<'_>, initialized: bool, phase: &str) -> Judgement {
    if initialized {
        let reason = if phase == "Succeeded" { "PodCompleted" } else { "" };
        return (true, reason, String::new());
    }
    let incomplete: Vec<String> = spec::containers(input.pod)
        .into_iter()
        .filter(|(role, container)| match (role, input.view.container(&container.name)) {
            (Role::Init, Some(view)) => !(view.state == State::Exited && view.exit_code == 0),
            (Role::Sidecar, Some(view)) => !(view.state == State::Running && (input.health)(view, container).0),
            (Role::Init | Role::Sidecar, None) => true,
            _ => false,
        })
        .map(|(_, container)| container.name)
        .collect();
    (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" ")))
}

fn containers_ready(input: &Input<'_>, status: &PodStatus, phase: &str) -> Judgement {
    match phase {
        "Succeeded" => return (false, "PodCompleted", String::new()),
        "Failed" => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|status| spec::find(input.pod, &status.name).is_some_and(|(role, _)| role == Role::Sidecar));
    let relevant = sidecars.chain(status.container_statuses.iter().flatten());
    let unready: Vec<&ContainerStatus> = relevant.filter(|status| !status.ready).collect();
    if unready.is_empty() {
        return FINE;
    }
    let names: Vec<&str> = unready.iter().map(|status| status.name.as_str()).collect();
    (false, "ContainersNotReady", format!("containers with unready status: [{}]", names.join(" ")))
}

fn gates(input: &Input<'_>) -> Judgement {
    let gates = input.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let given = input.previous.conditions.iter().flatten();
    for gate in gates.into_iter().flatten() {
        let condition = given.clone().find(|condition| condition.type_ == gate.condition_type);
        match condition {
            Some(condition) if condition.status == "True" => {}
            Some(_) => {
                let message = format!("the status of pod readiness gate \"{}\" is not \"True\"", gate.condition_type);
                return (false, "ReadinessGatesNotReady", message);
            }
            None => {
                let message = format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    gate.condition_type
                );
                return (false, "ReadinessGatesNotReady", message);
            }
        }
    }
    FINE
}
