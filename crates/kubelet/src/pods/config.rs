//! What the runtime is told: CRI configurations of a pod's sandbox and containers.

use std::{collections::HashMap, fs, path::Path};

use ironkeel_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{
    Error,
    error::FileContext,
    kubelet::Kubelet,
    names,
    resources::{self, CPU_PERIOD_US},
    volumes::{HostPaths, mounts},
};

use super::{
    env::{self, EnvContext, expand},
    network::{self, ClusterDns},
    security,
};

/// Where a container writes its last words unless it says otherwise.
const DEFAULT_TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// The sandbox's configuration.
pub(crate) fn sandbox(kubelet: &Kubelet, pod: &Pod, attempt: u32) -> Result<cri::PodSandboxConfig, Error> {
    let spec = pod.spec.as_ref();
    let cluster = ClusterDns {
        servers: &kubelet.config.cluster_dns,
        domain: &kubelet.config.cluster_domain,
        host: &kubelet.host_dns,
    };
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let mut port_mappings = Vec::new();
    for (_, container) in super::spec::containers(pod) {
        for port in container.ports.iter().flatten() {
            let Some(host_port) = port.host_port.filter(|port| *port > 0 && !host_network) else { continue };
            port_mappings.push(cri::PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => cri::Protocol::Udp as i32,
                    Some("SCTP") => cri::Protocol::Sctp as i32,
                    _ => cri::Protocol::Tcp as i32,
                },
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            });
        }
    }
    let sysctls = spec.and_then(|spec| spec.security_context.as_ref()?.sysctls.clone()).unwrap_or_default();
    let pod_resources = spec.map(|spec| cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_shares: resources::cpu_shares(resources::pod_request_milli(spec, "cpu")),
        cpu_quota: resources::pod_limit_milli(spec, "cpu").map(resources::cpu_quota_us).unwrap_or_default(),
        memory_limit_in_bytes: (resources::pod_limit_milli(spec, "memory").unwrap_or_default() / 1000) as i64,
        ..Default::default()
    });
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: names::name(pod).into(),
            uid: names::uid(pod).into(),
            namespace: names::namespace(pod).into(),
            attempt,
        }),
        hostname: network::kernel_hostname(pod, &kubelet.config.cluster_domain)?,
        log_directory: kubelet.paths.pod_logs(pod).to_string_lossy().into_owned(),
        dns_config: Some(network::dns_config(pod, &cluster)),
        port_mappings,
        labels: names::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: kubelet.cgroups.pod_path(pod),
            security_context: Some(security::sandbox(pod)),
            sysctls: sysctls.into_iter().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
            overhead: None,
            resources: pod_resources,
        }),
        windows: None,
    })
}

/// What a container's configuration is made from, beside the pod.
pub(crate) struct Start<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) restarts: u32,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_paths: &'a HostPaths,
    /// Id of the container whose processes an ephemeral container sees.
    pub(crate) target: Option<&'a str>,
}

/// The container's configuration.
pub(crate) async fn container(
    kubelet: &Kubelet,
    start: &Start<'_>,
    image: cri::ImageSpec,
) -> Result<cri::ContainerConfig, Error> {
    let (pod, container) = (start.pod, start.container);
    let host_ips = kubelet.host_ips();
    let allocatable = kubelet.node.allocatable();
    let context = EnvContext {
        pod,
        pod_ips: start.pod_ips,
        host_ips: &host_ips,
        services: kubelet.services.list(),
        objects: &kubelet.volumes.objects,
        allocatable: &allocatable,
    };
    let variables = env::environment(&context, container).await?;
    let lookup = |name: &str| variables.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let words = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let mut mounts = volume_mounts(kubelet, start, &lookup)?;
    add_managed_mounts(kubelet, start, &mut mounts)?;
    let labels = names::container_labels(pod, &container.name);
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: start.restarts }),
        image: Some(image),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: variables
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone().into() })
            .collect(),
        mounts,
        labels,
        annotations: annotations(start),
        log_path: names::Paths::container_log(&container.name, start.restarts),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(linux_resources(kubelet, pod, container)),
            security_context: Some(security::container(
                pod,
                container,
                start.target,
                &kubelet.paths.root().join("seccomp").to_string_lossy(),
            )),
        }),
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.as_deref())
            .and_then(cri::Signal::from_str_name)
            .unwrap_or(cri::Signal::RuntimeDefault) as i32,
        devices: host_devices(start),
        ..Default::default()
    })
}

fn annotations(start: &Start<'_>) -> HashMap<String, String> {
    let (pod, container) = (start.pod, start.container);
    let mut annotations = HashMap::from([
        (names::CONTAINER_HASH.to_owned(), names::container_hash(container)),
        (names::RESTART_COUNT.to_owned(), start.restarts.to_string()),
        (names::TERMINATION_MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (
            names::TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".into()),
        ),
    ]);
    if let Some(grace) = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) {
        annotations.insert(names::POD_GRACE_PERIOD.into(), grace.to_string());
    }
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(json) = hook.and_then(|hook| serde_json::to_string(hook).ok()) {
        annotations.insert(names::PRE_STOP.into(), json);
    }
    annotations
}

fn message_path(container: &Container) -> &str {
    match container.termination_message_path.as_deref() {
        Some(path) if !path.is_empty() => path,
        _ => DEFAULT_TERMINATION_MESSAGE_PATH,
    }
}

/// What the container may use, as CRI wants it.
pub(crate) fn linux_resources(kubelet: &Kubelet, pod: &Pod, container: &Container) -> cri::LinuxContainerResources {
    let cpu_limit = resources::limit_milli(container, "cpu");
    let cpu_request = resources::request_milli(container, "cpu");
    let shares = if cpu_request == 0 { cpu_limit.unwrap_or_default() } else { cpu_request };
    let hugepages = container.resources.iter().flat_map(|r| r.limits.iter().flatten()).filter_map(|(name, limit)| {
        let page_size = name.strip_prefix("hugepages-")?.replace("Ki", "KB").replace("Mi", "MB").replace("Gi", "GB");
        Some(cri::HugepageLimit { page_size, limit: resources::value(limit) as u64 })
    });
    cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: cpu_limit.map(resources::cpu_quota_us).unwrap_or_default(),
        cpu_shares: resources::cpu_shares(shares),
        memory_limit_in_bytes: (resources::limit_milli(container, "memory").unwrap_or_default() / 1000) as i64,
        oom_score_adj: resources::oom_score_adj(pod, container, kubelet.node.memory_bytes()),
        hugepage_limits: hugepages.collect(),
        ..Default::default()
    }
}

fn host_devices(start: &Start<'_>) -> Vec<cri::Device> {
    let devices = start.container.volume_devices.iter().flatten();
    devices
        .filter_map(|device| {
            let host_path = start.host_paths.get(&device.name)?.to_string_lossy().into_owned();
            Some(cri::Device { container_path: device.device_path.clone(), host_path, permissions: "mrw".into() })
        })
        .collect()
}

fn volume_mounts(
    kubelet: &Kubelet,
    start: &Start<'_>,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<cri::Mount>, Error> {
    let mut result = Vec::new();
    for (index, mount) in start.container.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = start.host_paths.get(&mount.name) else {
            return Err(Error::ContainerConfig(format!(
                "cannot find volume \"{}\" to mount into container \"{}\"",
                mount.name, start.container.name
            )));
        };
        let sub_path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
            Some(expression) => {
                let expanded = expand(expression, lookup);
                if expanded.contains("$(") {
                    let message = format!("subPathExpr {expression:?} names a variable that is not defined");
                    return Err(Error::ContainerConfig(message));
                }
                expanded
            }
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        let mut host = volume.clone();
        if !sub_path.is_empty() {
            if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
                let message = format!("subPath {sub_path:?} must be a relative path within the volume");
                return Err(Error::ContainerConfig(message));
            }
            host = kubelet.paths.subpath(names::uid(start.pod), &mount.name, &start.container.name, index);
            mounts::bind_subpath(volume, &sub_path, &host, kubelet.volumes.journal()).map_err(|error| {
                Error::ContainerConfig(format!("failed to prepare subPath for volumeMount: {error}"))
            })?;
        } else if !host.exists() {
            fs::create_dir_all(&host).file("creating", &host)?;
        }
        let path = &mount.mount_path;
        result.push(cri::Mount {
            container_path: if path.starts_with('/') { path.clone() } else { format!("/{path}") },
            host_path: host.to_string_lossy().into_owned(),
            readonly: mount.read_only.unwrap_or_default() || is_read_only(start.pod, &mount.name),
            recursive_read_only: mount.recursive_read_only.as_deref() == Some("Enabled"),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer as i32,
                Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional as i32,
                _ => cri::MountPropagation::PropagationPrivate as i32,
            },
            ..Default::default()
        });
    }
    Ok(result)
}

/// Content from the API is never written by containers; claims may be mounted read-only as a whole.
fn is_read_only(pod: &Pod, volume: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().find(|candidate| candidate.name == volume).is_some_and(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
            || volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only) == Some(true)
    })
}

/// The hosts file and the file for last words.
fn add_managed_mounts(kubelet: &Kubelet, start: &Start<'_>, mounts: &mut Vec<cri::Mount>) -> Result<(), Error> {
    let uid = names::uid(start.pod);
    let file = |container_path: &str, host: &Path| cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    };
    if !mounts.iter().any(|mount| mount.container_path == "/etc/hosts") {
        let path = kubelet.paths.etc_hosts(uid);
        network::write_hosts_file(&path, start.pod, start.pod_ips, &kubelet.config.cluster_domain)?;
        mounts.push(file("/etc/hosts", &path));
    }
    let directory = kubelet.paths.container(uid, &start.container.name);
    fs::create_dir_all(&directory).file("creating", &directory)?;
    let path = directory.join(format!("{:08x}", rand::random::<u32>()));
    fs::write(&path, "").file("creating", &path)?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).file("setting the mode of", &path)?;
    mounts.push(file(message_path(start.container), &path));
    Ok(())
}
