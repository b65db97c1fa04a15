//! `ironkeel kubelet`: with the embedded runtime and pod network, or on another runtime's socket.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ironkeel_cni::LateNetwork;
use ironkeel_cri::CriClient;
use ironkeel_journal::Journal;
use ironkeel_kubelet::Config;
use tokio_util::sync::CancellationToken;

use super::kubelet_options::KubeletOptions;
use crate::components::Components;
use crate::host::{self, RuntimeParts};
use crate::node::{PodRange, own_node};
use crate::{Error, Instance, network, preflight};

pub(super) async fn run(options: KubeletOptions, shim_exe: PathBuf, shutdown: CancellationToken) -> Result<(), Error> {
    preflight::check_host()?;
    let instance = Instance::of(&options.data_dir)?;
    ironkeel_auth::pki::create_private_dir(&instance.dir)?;
    let _lock = preflight::lock(&instance.dir)?;
    if instance.recorded()?.is_some() {
        return Err(Error::OtherRole { dir: instance.dir, role: "a whole cluster (`ironkeel up`)" });
    }
    let journal = Journal::open(&instance.journal())?;
    let client = ironkeel_client::from_kubeconfig(&options.kubeconfig).await?;
    let node_ip = match options.node_ips.first() {
        Some(ip) => *ip,
        None => network::node_ip()?,
    };
    let config = config(&options, &instance, &journal, node_ip)?;
    let mut components = Components::default();
    if let Some((endpoint, images)) = &options.runtime {
        let failed = |e: ironkeel_cri::ConnectError| Error::Component { component: "kubelet", reason: e.to_string() };
        let cri = CriClient::connect_both(endpoint, images).await.map_err(failed)?;
        components.start("kubelet", |stop| ironkeel_kubelet::run(config, client, cri, stop));
        return until(components, shutdown).await;
    }
    let mut range = PodRange::open(&instance, &options.node_name)?;
    range.given(options.pod_cidr)?;
    host::make_run_dir(&instance, &journal)?;
    let late = LateNetwork::default();
    let runtime = host::start_runtime(RuntimeParts {
        instance: &instance,
        journal: &journal,
        network: Arc::new(late.clone()),
        shim_exe,
        registry_mirrors: &[],
    })
    .await?;
    let stopping = host::serve_runtime(&instance, &runtime, &mut components).await?;
    let (nodes, cri) = (own_node(&client, &options.node_name, shutdown.clone()), runtime.cri_client());
    components.start("kubelet", |stop| ironkeel_kubelet::run(config, client, cri, stop));
    let cluster_cidr = options.cluster_cidr;
    components.start("pod network", |stop| async move {
        if let Some(network) = range.start_network(&nodes, &journal, cluster_cidr, node_ip, &stop).await? {
            late.set(network);
            range.watch(&nodes, &stop).await?;
        }
        Ok::<(), Error>(())
    });
    // Pods stay, as with upstream's kubelet.
    let outcome = until(components, shutdown).await;
    stopping.cancel();
    runtime.stop();
    outcome
}

async fn until(mut components: Components, shutdown: CancellationToken) -> Result<(), Error> {
    let outcome = tokio::select! {
        error = components.failed() => Err(error),
        () = shutdown.cancelled() => Ok(()),
    };
    components.stop().await;
    outcome
}

fn config(options: &KubeletOptions, instance: &Instance, journal: &Journal, node_ip: IpAddr) -> Result<Config, Error> {
    let mut config = host::kubelet_config(instance, journal, &options.node_name, node_ip)?;
    if !options.node_ips.is_empty() {
        config.node_ips.clone_from(&options.node_ips);
    }
    if options.runtime.is_some() {
        config.container_id_scheme = None;
    }
    config.listen = options.listen;
    config.serving.clone_from(&options.serving);
    config.client_ca.clone_from(&options.client_ca);
    config.register_node = options.register_node;
    config.labels.clone_from(&options.labels);
    config.register_with_taints.clone_from(&options.taints);
    config.reserved.clone_from(&options.reserved);
    config.cluster_dns.clone_from(&options.cluster_dns);
    config.provider_id.clone_from(&options.provider_id);
    config.cgroup_driver = options.cgroup_driver;
    config.max_pods = options.max_pods;
    if options.one_pull {
        config.max_parallel_image_pulls = 1;
    }
    let (high, low, age) = options.image_gc;
    config.image_gc = ironkeel_kubelet::ImageGcThresholds { high_percent: high, low_percent: low, minimum_age: age };
    config.eviction.pressure_transition_period = options.pressure_transition;
    config.container_log_max_files = options.log_files;
    config.container_log_max_bytes = options.log_bytes;
    if let Some(domain) = &options.cluster_domain {
        config.cluster_domain.clone_from(domain);
    }
    if let Some(dir) = &options.root_dir {
        config.root_dir.clone_from(dir);
    }
    if let Some(dir) = &options.manifests {
        config.static_pods_dir = Some(dir.clone());
    }
    if let Some(path) = &options.resolv_conf {
        config.resolv_conf.clone_from(path);
    }
    if let Some(root) = &options.cgroup_root {
        config.cgroup_root.clone_from(root);
    }
    Ok(config)
}
