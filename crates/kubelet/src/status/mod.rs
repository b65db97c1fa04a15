//! Statuses of pods, computed from the runtime's view: container states, phase, conditions. Writing them to the API
//! is [`writer`]'s work.

pub(crate) mod conditions;
mod last_words;
pub(crate) mod writer;

use std::collections::{BTreeMap, HashMap};

use ironkeel_semantics::{
    qos_class,
    resources::{quantities, spec_limits, spec_requests},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodIP, PodStatus, ResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use crate::{
    pods::{
        reason::{self, Waiting},
        spec::{self, Role},
        worker::resize::Allocation,
    },
    runtime::{ContainerView, PodView, State},
};

/// Exit code of containers that nobody saw end.
const EXIT_CODE_UNKNOWN: i32 = 137;

/// What a status is computed from.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) view: &'a PodView,
    /// Why containers are not being started.
    pub(crate) waiting: &'a HashMap<String, Waiting>,
    pub(crate) health: &'a dyn Fn(&ContainerView, &Container) -> (bool, bool),
    /// The resources that containers were granted.
    pub(crate) resources: &'a Allocation,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ips: &'a [String],
    /// `containerd`, `ironkeel`.
    pub(crate) scheme: &'a str,
    /// Nothing will run any more: the pod was deleted, evicted or has ended.
    pub(crate) terminal: bool,
    pub(crate) previous: &'a PodStatus,
    pub(crate) now: Timestamp,
}

/// Computes the pod's status.
pub(crate) fn generate(input: &Input<'_>) -> PodStatus {
    let mut init = Vec::new();
    let mut regular = Vec::new();
    let mut ephemeral = Vec::new();
    let containers = spec::containers(input.pod);
    let initialized = init_done(input, &containers);
    for (role, container) in &containers {
        let mut status = container_status(input, *role, container, initialized);
        // Always there in upstream's answers, if only as `{}`.
        status.last_state.get_or_insert_default();
        if let Some(granted) = input.resources.of(&container.name) {
            status.allocated_resources = granted.requests.clone();
            let before = previous_status(input, *role, &container.name).and_then(|old| old.resources.clone());
            let applied = input.resources.is_applied(&container.name);
            status.resources = before.filter(|_| !applied).or_else(|| Some(granted.clone()));
        }
        match role {
            Role::Init | Role::Sidecar => init.push(status),
            Role::Regular => regular.push(status),
            Role::Ephemeral => ephemeral.push(status),
        }
    }
    let phase = phase(input, &containers, &init, &regular);
    let some = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: input.pod_ips.first().cloned(),
        pod_ips: (!input.pod_ips.is_empty()).then(|| input.pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        qos_class: Some(qos_class(input.pod).as_str().into()),
        start_time: Some(input.previous.start_time.clone().unwrap_or(Time(input.now))),
        observed_generation: input.pod.metadata.generation,
        init_container_statuses: some(init),
        container_statuses: some(regular),
        ephemeral_container_statuses: some(ephemeral),
        ..PodStatus::default()
    };
    if input.pod_ips.is_empty() {
        // Addresses of a pod that has ended stay readable.
        status.pod_ip = input.previous.pod_ip.clone();
        status.pod_ips = input.previous.pod_ips.clone();
    }
    whole_resources(input, &mut status);
    status.conditions = Some(conditions::generate(input, &status, initialized));
    status
}

/// What the pod was granted as a whole, and what of it is in force.
fn whole_resources(input: &Input<'_>, status: &mut PodStatus) {
    let granted = input.resources.granted(input.pod);
    let Some(spec) = &granted.spec else { return };
    let some = |list: BTreeMap<String, Quantity>| (!list.is_empty()).then_some(list);
    let requests = some(quantities(&spec_requests(spec)));
    status.allocated_resources = requests.clone();
    let limits = some(quantities(&spec_limits(spec)));
    let own =
        (requests.is_some() || limits.is_some()).then_some(ResourceRequirements { requests, limits, claims: None });
    let before = input.previous.resources.clone().filter(|_| !input.resources.is_all_applied());
    status.resources = before.or(own);
}

fn init_done(input: &Input<'_>, containers: &[(Role, Container)]) -> bool {
    let regular_seen = containers
        .iter()
        .any(|(role, container)| *role == Role::Regular && input.view.container(&container.name).is_some());
    regular_seen
        || containers.iter().all(|(role, container)| {
            let view = input.view.container(&container.name);
            match role {
                Role::Init => view.is_some_and(|view| view.state == State::Exited && view.exit_code == 0),
                Role::Sidecar => {
                    view.is_some_and(|view| view.state == State::Running && (input.health)(view, container).0)
                }
                _ => true,
            }
        })
}

fn id(scheme: &str, id: &str) -> String {
    format!("{scheme}://{id}")
}

fn terminated(input: &Input<'_>, container: &Container, view: &ContainerView) -> ContainerStateTerminated {
    let reason = match view.reason.as_str() {
        "" if view.exit_code == 0 => "Completed",
        "" => "Error",
        other => other,
    };
    let message =
        last_words::read(view, container).or_else(|| (!view.message.is_empty()).then(|| view.message.clone()));
    ContainerStateTerminated {
        exit_code: view.exit_code,
        reason: Some(reason.to_owned()),
        message,
        started_at: Some(Time(view.started_at)),
        finished_at: Some(Time(view.finished_at)),
        container_id: Some(id(input.scheme, &view.id)),
        signal: None,
    }
}

fn previous_status<'a>(input: &Input<'a>, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    let list = match role {
        Role::Init | Role::Sidecar => &input.previous.init_container_statuses,
        Role::Regular => &input.previous.container_statuses,
        Role::Ephemeral => &input.previous.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

fn container_status(input: &Input<'_>, role: Role, container: &Container, initialized: bool) -> ContainerStatus {
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    let ended = |terminated| ContainerState { terminated: Some(terminated), ..ContainerState::default() };
    let default_waiting = || {
        let waits_for_others = role == Role::Regular && !initialized;
        let own_turn = matches!(role, Role::Init | Role::Sidecar) && input.view.sandbox().is_some();
        let reason = if waits_for_others || own_turn { reason::POD_INITIALIZING } else { reason::CONTAINER_CREATING };
        waiting(reason, None)
    };
    let blocked = input.waiting.get(&container.name).filter(|_| !input.terminal);
    let blocked_state = blocked.map(|why| waiting(why.reason, Some(why.message.clone())));
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: false,
        started: Some(false),
        ..ContainerStatus::default()
    };
    let Some(view) = input.view.container(&container.name) else {
        let old = previous_status(input, role, &container.name);
        let old_state = old.and_then(|old| old.state.clone()).unwrap_or_default();
        status.restart_count = old.map(|old| old.restart_count).unwrap_or_default();
        status.last_state = old.and_then(|old| old.last_state.clone());
        status.state = Some(match (old_state.terminated, old_state.running) {
            (Some(terminated), _) if input.terminal || role != Role::Regular => ended(terminated),
            (None, Some(_)) if input.terminal => ended(ContainerStateTerminated {
                exit_code: EXIT_CODE_UNKNOWN,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                ..ContainerStateTerminated::default()
            }),
            (Some(terminated), _) => {
                status.last_state = Some(ended(terminated));
                blocked_state.unwrap_or_else(default_waiting)
            }
            _ => blocked_state.unwrap_or_else(default_waiting),
        });
        return status;
    };
    status.restart_count = view.restarts as i32;
    status.container_id = Some(id(input.scheme, &view.id));
    status.image_id = view.image_id.clone();
    if !view.image.is_empty() && !view.image.starts_with("sha256:") {
        status.image = view.image.clone();
    }
    let before = input.view.history(&container.name).nth(1).filter(|before| before.state == State::Exited);
    status.last_state = before.map(|before| ended(terminated(input, container, before)));
    if status.last_state.is_none() {
        // The dead container may have been collected; what was said of it stays.
        let old = previous_status(input, role, &container.name);
        status.last_state = old
            .filter(|old| old.restart_count == status.restart_count)
            .and_then(|old| old.last_state.clone())
            // While it waited, the container's own end was its last state.
            .filter(|state| state.terminated.as_ref().is_some_and(|end| end.container_id != status.container_id));
    }
    status.state = Some(match view.state {
        State::Running => {
            let (started, ready) = (input.health)(view, container);
            status.started = Some(started);
            status.ready = ready && (role != Role::Init);
            ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(view.started_at)) }),
                ..ContainerState::default()
            }
        }
        State::Created => blocked_state.unwrap_or_else(default_waiting),
        State::Exited => match blocked_state {
            Some(state) => {
                status.last_state = Some(ended(terminated(input, container, view)));
                state
            }
            None => {
                status.ready = role == Role::Init && view.exit_code == 0;
                ended(terminated(input, container, view))
            }
        },
        State::Unknown => ended(ContainerStateTerminated {
            exit_code: EXIT_CODE_UNKNOWN,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            container_id: Some(id(input.scheme, &view.id)),
            ..ContainerStateTerminated::default()
        }),
    });
    status
}

fn ended_of(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let state = status.state.as_ref()?;
    let last = || state.waiting.as_ref().and(status.last_state.as_ref()?.terminated.as_ref());
    state.terminated.as_ref().or_else(last)
}

fn phase(
    input: &Input<'_>,
    containers: &[(Role, Container)],
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> &'static str {
    let of = |name: &str| containers.iter().find(|(_, container)| container.name == name);
    let restarts = |status: &ContainerStatus, code: i32| {
        of(&status.name).is_some_and(|(role, container)| spec::should_restart(input.pod, *role, container, code))
    };
    let failed_init = init.iter().any(|status| {
        let is_init = of(&status.name).is_some_and(|(role, _)| *role == Role::Init);
        is_init && ended_of(status).is_some_and(|end| end.exit_code != 0 && !restarts(status, end.exit_code))
    });
    if failed_init {
        return "Failed";
    }
    let running = regular.iter().filter(|s| s.state.as_ref().is_some_and(|state| state.running.is_some())).count();
    let stopped: Vec<_> = regular.iter().filter_map(|status| ended_of(status).map(|end| (status, end))).collect();
    let computed = if running + stopped.len() < regular.len() {
        "Pending"
    } else if running > 0 || (!input.terminal && stopped.iter().any(|(status, end)| restarts(status, end.exit_code))) {
        "Running"
    } else if stopped.iter().all(|(_, end)| end.exit_code == 0) {
        "Succeeded"
    } else {
        "Failed"
    };
    let nothing_runs = !input.view.is_alive();
    if input.terminal && nothing_runs && !matches!(computed, "Succeeded" | "Failed") { "Failed" } else { computed }
}
