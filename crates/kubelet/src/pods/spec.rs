//! A pod's containers as one list: init containers, sidecars, regular and ephemeral ones are started by the same code
//! and differ by their role.

use ironkeel_semantics::resources::is_sidecar;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that stays.
    Sidecar,
    /// Runs for the pod's life.
    Regular,
    /// Added to a running pod.
    Ephemeral,
}

/// Every container of the pod in order of start, with its role.
pub(crate) fn containers(pod: &Pod) -> Vec<(Role, Container)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let inits = spec.init_containers.iter().flatten().map(|container| {
        let role = if is_sidecar(container) { Role::Sidecar } else { Role::Init };
        (role, container.clone())
    });
    let regular = spec.containers.iter().map(|container| (Role::Regular, container.clone()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    inits.chain(regular).chain(ephemeral.map(|container| (Role::Ephemeral, as_container(container)))).collect()
}

/// The container of that name, and its role.
pub(crate) fn find(pod: &Pod, name: &str) -> Option<(Role, Container)> {
    containers(pod).into_iter().find(|(_, container)| container.name == name)
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        name: e.name,
        image: e.image,
        command: e.command,
        args: e.args,
        working_dir: e.working_dir,
        env: e.env,
        env_from: e.env_from,
        image_pull_policy: e.image_pull_policy,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        ..Container::default()
    }
}

/// The restart policy that applies to a container.
pub(crate) fn restart_policy<'a>(pod: &'a Pod, role: Role, container: &'a Container) -> &'a str {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    match role {
        Role::Sidecar => "Always",
        Role::Ephemeral => "Never",
        Role::Init => match container.restart_policy.as_deref().unwrap_or(of_pod) {
            "Always" => "OnFailure",
            other => other,
        },
        Role::Regular => container.restart_policy.as_deref().unwrap_or(of_pod),
    }
}

/// Whether a container that ended with this code is to be started again.
pub(crate) fn should_restart(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(on) = &rule.exit_codes else { continue };
        let listed = on.values.iter().flatten().any(|code| *code == exit_code);
        let matches = if on.operator == "NotIn" { !listed } else { listed };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    match restart_policy(pod, role, container) {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}
