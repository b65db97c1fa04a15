//! Security contexts: what pod and container say, merged, as CRI wants it. Runtimes apply it; the one check made here
//! is runAsNonRoot, which needs the image's user.

use ironkeel_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

use crate::Error;

/// Paths below /proc and /sys that containers do not see.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths below /proc that containers may only read.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn of_pod(pod: &Pod) -> PodSecurityContext {
    pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default()
}

fn of_container(container: &Container) -> SecurityContext {
    container.security_context.clone().unwrap_or_default()
}

/// The namespaces of the pod's sandbox and containers.
pub(crate) fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = pod.spec.as_ref();
    let host = |flag: Option<bool>, otherwise: cri::NamespaceMode| match flag {
        Some(true) => cri::NamespaceMode::Node as i32,
        _ => otherwise as i32,
    };
    let shared = spec.and_then(|spec| spec.share_process_namespace) == Some(true);
    let pid = if shared { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: host(spec.and_then(|spec| spec.host_network), cri::NamespaceMode::Pod),
        pid: host(spec.and_then(|spec| spec.host_pid), pid),
        ipc: host(spec.and_then(|spec| spec.host_ipc), cri::NamespaceMode::Pod),
        target_id: String::new(),
        userns_options: None,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, seccomp_root: &str) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost) = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, None),
        Some("Localhost") => (ProfileType::Localhost, profile.and_then(|profile| profile.localhost_profile.as_deref())),
        _ => (ProfileType::Unconfined, None),
    };
    let localhost_ref = localhost.map(|file| format!("{seccomp_root}/{file}")).unwrap_or_default();
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group).collect()
}

fn groups_policy(pod: &PodSecurityContext) -> i32 {
    match pod.supplemental_groups_policy.as_deref() {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict as i32,
        _ => cri::SupplementalGroupsPolicy::Merge as i32,
    }
}

/// The sandbox's security context.
pub(crate) fn sandbox(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let context = of_pod(pod);
    let privileged = super::spec::containers(pod)
        .iter()
        .any(|(_, container)| of_container(container).privileged.unwrap_or_default());
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: context.run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: context.run_as_group.map(|value| cri::Int64Value { value }),
        supplemental_groups: groups(&context),
        supplemental_groups_policy: groups_policy(&context),
        privileged,
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

/// The container's security context. `target` is the container whose processes an ephemeral one sees.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    target: Option<&str>,
    seccomp_root: &str,
) -> cri::LinuxContainerSecurityContext {
    let pod_context = of_pod(pod);
    let own = of_container(container);
    let privileged = own.privileged.unwrap_or_default();
    let user = own.run_as_user.or(pod_context.run_as_user);
    let group = own.run_as_group.or(pod_context.run_as_group);
    let mut namespace_options = namespaces(pod);
    if let Some(target) = target {
        namespace_options.pid = cri::NamespaceMode::Target as i32;
        namespace_options.target_id = target.to_owned();
    }
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    let capabilities = own.capabilities.unwrap_or_default();
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespace_options),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        run_as_group: group.map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or_default(),
        supplemental_groups: groups(&pod_context),
        supplemental_groups_policy: groups_policy(&pod_context),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(
            own.seccomp_profile.as_ref().or(pod_context.seccomp_profile.as_ref()).filter(|_| !privileged),
            seccomp_root,
        )),
        ..Default::default()
    }
}

/// Whether the container must not run as root, and would.
pub(crate) fn verify_non_root(pod: &Pod, container: &Container, image: &cri::Image) -> Result<(), Error> {
    let pod_context = of_pod(pod);
    let own = of_container(container);
    if own.run_as_non_root.or(pod_context.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let refuse = |what: String| Err(Error::ContainerConfig(what));
    match own.run_as_user.or(pod_context.run_as_user) {
        Some(0) => return refuse("container's runAsUser breaks non-root policy".into()),
        Some(_) => return Ok(()),
        None => {}
    }
    match &image.uid {
        Some(uid) if uid.value == 0 => refuse("container has runAsNonRoot and image will run as root".into()),
        Some(_) => Ok(()),
        None if image.username.is_empty() || image.username == "root" => {
            refuse("container has runAsNonRoot and image will run as root".into())
        }
        None => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
            image.username
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(yaml: &str) -> (Pod, Container) {
        let pod: Pod = serde_yaml_ng::from_str(yaml).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        (pod, container)
    }

    #[test]
    fn run_as_non_root_judges_user_and_image() {
        let check = |yaml: &str, uid: Option<i64>, username: &str, fine: bool| {
            let (pod, container) = pod(yaml);
            let uid = uid.map(|value| cri::Int64Value { value });
            let image = cri::Image { uid, username: username.into(), ..Default::default() };
            assert_eq!(verify_non_root(&pod, &container, &image).is_ok(), fine, "{yaml} {username}");
        };
        let strict = "{spec: {securityContext: {runAsNonRoot: true}, containers: [{name: a}]}}";
        check(strict, Some(0), "", false);
        check(strict, Some(1000), "", true);
        check(strict, None, "www", false);
        check("{spec: {containers: [{name: a}]}}", Some(0), "", true);
        check("{spec: {containers: [{name: a, securityContext: {runAsNonRoot: true, runAsUser: 5}}]}}", None, "", true);
    }

    #[test]
    fn the_containers_context_wins_over_the_pods() {
        let (pod, c) =
            pod("{spec: {securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 7, supplementalGroups: [5]},
            containers: [{name: a, securityContext: {runAsUser: 3, procMount: Unmasked}}]}}");
        let context = container(&pod, &c, None, "/seccomp");
        assert_eq!(context.run_as_user.unwrap().value, 3);
        assert_eq!(context.run_as_group.unwrap().value, 2);
        assert_eq!(context.supplemental_groups, [5, 7]);
        assert!(context.masked_paths.is_empty());
    }
}
