//! The host's side of a node: directories, pod network, container runtime and kubelet of one instance.
//! `up` and `node` start these alike; what differs is where a client comes from.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use ironkeel_cni::{BuiltinConfig, PodNetwork};
use ironkeel_journal::{Entry, Journal};
use ironkeel_runtime::{RegistryConfig, Runtime, RuntimeConfig};
use tokio_util::sync::CancellationToken;

use crate::components::Components;
use crate::instance::SHARED_RUN_DIR;
use crate::{Error, Instance, images, network};

/// The kubelet's port; the next free one when another cluster of this host has it.
pub(crate) const KUBELET_PORT: u16 = 10250;

/// Makes the directory of sockets and namespaces.
pub(crate) fn make_run_dir(instance: &Instance, journal: &Journal) -> Result<(), Error> {
    let run_dir = instance.run_dir();
    journal.record(Entry::Tree { path: run_dir.display().to_string() })?;
    std::fs::create_dir_all(&run_dir).map_err(Error::file("creating", &run_dir))
}

/// Settings of the built-in pod network of this instance.
pub(crate) fn network_config(
    instance: &Instance,
    pod_cidr: Ipv4Net,
    cluster_cidr: Ipv4Net,
    node_ip: IpAddr,
) -> Result<BuiltinConfig, Error> {
    Ok(BuiltinConfig {
        tag: instance.tag.clone(),
        state_dir: instance.dir.join("addresses"),
        pod_cidr,
        cluster_cidr,
        mtu: network::mtu_of(node_ip)?,
        table: instance.name.clone(),
        shared_dir: PathBuf::from(SHARED_RUN_DIR),
    })
}

/// What the container runtime is started with.
pub(crate) struct RuntimeParts<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) journal: &'a Journal,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) shim_exe: PathBuf,
    pub(crate) registry_mirrors: &'a [(String, String)],
}

/// Starts the embedded container runtime.
pub(crate) async fn start_runtime(parts: RuntimeParts<'_>) -> Result<Arc<Runtime>, Error> {
    let instance = parts.instance;
    let config = RuntimeConfig {
        root_dir: instance.dir.join("runtime"),
        state_dir: instance.run_dir().join("pods"),
        cgroup_root: format!("/{}", instance.name),
        network: parts.network,
        journal: Arc::new(parts.journal.clone()),
        shim_exe: parts.shim_exe,
        registries: RegistryConfig { mirrors: parts.registry_mirrors.to_vec(), ..RegistryConfig::default() },
        seccomp_default: true,
    };
    Ok(Runtime::start(config).await?)
}

/// Serves the runtime's sockets: `ironkeel image`, and CRI for others. The token ends both.
pub(crate) async fn serve_runtime(
    instance: &Instance,
    runtime: &Arc<Runtime>,
    components: &mut Components,
) -> Result<CancellationToken, Error> {
    let stopping = CancellationToken::new();
    images::serve(runtime.clone(), &instance.image_socket(), stopping.clone()).await?;
    let cri_socket = instance.cri_socket();
    let (serving, serving_stop) = (runtime.clone(), stopping.clone());
    components.start("container runtime", |stop| async move {
        tokio::select! {
            outcome = serving.serve_socket(&cri_socket, serving_stop) => outcome,
            () = stop.cancelled() => Ok(()),
        }
    });
    Ok(stopping)
}

/// The kubelet's settings that follow from the instance. Makes its directories.
pub(crate) fn kubelet_config(
    instance: &Instance,
    journal: &Journal,
    node_name: &str,
    node_ip: IpAddr,
) -> Result<ironkeel_kubelet::Config, Error> {
    let dir = &instance.dir;
    let mut config = ironkeel_kubelet::Config::new(node_name, dir.join("kubelet"));
    let manifests = dir.join("manifests");
    config.node_ips = vec![node_ip];
    config.pod_logs_dir = dir.join("logs/pods");
    config.cgroup_root = format!("/{}", instance.name);
    config.journal = Some(Arc::new(journal.clone()));
    config.container_id_scheme = Some("ironkeel".to_owned());
    for made in [&config.pod_logs_dir, &manifests] {
        std::fs::create_dir_all(made).map_err(Error::file("creating", made))?;
    }
    config.static_pods_dir = Some(manifests);
    Ok(config)
}

/// Upstream's port, or any other when a second cluster runs on this host.
pub(crate) fn kubelet_listener(node_ip: IpAddr) -> Result<std::net::TcpListener, Error> {
    let any: IpAddr = if node_ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let wanted = SocketAddr::new(any, KUBELET_PORT);
    let bound = std::net::TcpListener::bind(wanted).or_else(|_| std::net::TcpListener::bind((any, 0)));
    let listener = bound.map_err(|source| Error::Port { address: wanted, source })?;
    listener.set_nonblocking(true).map_err(|source| Error::Port { address: wanted, source })?;
    Ok(listener)
}
