//! The kubelet: pods on this node, through CRI only.
//!
//! Here: the Node object and its lease, one worker a pod that converges what the API and the manifests directory ask
//! for with what the runtime has, volumes, images, probes, statuses, logs and the HTTPS server that the API server
//! proxies to. Not here: containers (the runtime, behind CRI), networks (CNI, behind the runtime), Services (the
//! proxy). Answers to upstream's kubelet.

mod config;
mod error;
mod images;
mod kubelet;
mod logs;
mod names;
mod node;
mod objects;
mod pods;
mod pressure;
mod probes;
mod resources;
mod runtime;
mod server;
mod status;
mod volumes;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU16},
    time::Duration,
};

use futures::future::BoxFuture;
use ironkeel_cri::CriClient;
use ironkeel_informer::{EventRecorder, Informer, WatchConfig};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{CgroupDriver, Config, EvictionThresholds, ImageGcThresholds, ServingCertificate};
pub use error::Error;

use error::FileContext;

/// How long pods' workers get to finish what they are at when the kubelet stops.
const WORKERS_END_MAX: Duration = Duration::from_secs(5);

/// Runs the kubelet until `shutdown`. Containers go on running after it returns.
pub fn run(
    config: Config,
    client: Client,
    cri: CriClient,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
    Box::pin(parts(config, client, cri, shutdown))
}

async fn parts(mut config: Config, client: Client, cri: CriClient, shutdown: CancellationToken) -> Result<(), Error> {
    ironkeel_client::install_crypto_provider();
    for directory in [&config.root_dir, &config.pod_logs_dir] {
        std::fs::create_dir_all(directory).file("creating", directory)?;
    }
    // Everything below ends with this token, also when a part cannot start.
    let stop = shutdown.child_token();
    let _stop_on_return = stop.clone().drop_guard();
    let listener = server::bind(&mut config)?;
    let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
    let tls = server::tls(&config)?;
    let runtime = runtime::Runtime::new(cri);
    let paths = names::Paths::new(&config.root_dir, &config.pod_logs_dir);
    let events = EventRecorder::new(client.clone(), "kubelet", &config.node_name, stop.clone());
    let (changed, changes) = mpsc::unbounded_channel();
    let objects = objects::Objects::new(client.clone(), stop.clone(), changed);
    let cgroups = pods::cgroups::Cgroups::prepare(
        &config.cgroup_root,
        config.cgroup_driver == CgroupDriver::Cgroupfs,
        config.journal.as_ref(),
    )?;
    let resolv_conf = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let kubelet = Arc::new(kubelet::Kubelet {
        images: images::Images::new(runtime.clone(), events.clone(), config.max_parallel_image_pulls),
        volumes: volumes::Volumes::new(client.clone(), paths.clone(), objects, config.journal.clone()),
        services: Informer::<Service>::start(Api::all(client.clone()), WatchConfig::default(), stop.clone()),
        node: node::NodeState::new(&config),
        host_dns: pods::network::parse_resolv_conf(&resolv_conf),
        port: AtomicU16::new(port),
        pods: Mutex::new(HashMap::new()),
        workers: TaskTracker::new(),
        granting: Mutex::new(()),
        ips: Mutex::new(HashMap::new()),
        shutdown: stop.clone(),
        config,
        client,
        runtime,
        paths,
        events,
        cgroups,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(node::watch_runtime(kubelet.clone()));
    tasks.spawn(node::run(kubelet.clone()));
    tasks.spawn(node::lease::run(kubelet.clone()));
    tasks.spawn(pods::pleg::run(kubelet.clone()));
    tasks.spawn(kubelet::dispatch(kubelet.clone(), changes));
    tasks.spawn(logs::rotate::run(kubelet.clone()));
    tasks.spawn(pressure::run(kubelet.clone()));
    tasks.spawn(server::run(kubelet.clone(), listener, tls));
    stop.cancelled().await;
    while tasks.join_next().await.is_some() {}
    kubelet.workers.close();
    if tokio::time::timeout(WORKERS_END_MAX, kubelet.workers.wait()).await.is_err() {
        tracing::warn!(workers = kubelet.workers.len(), "pods' workers are left in the middle of their work");
    }
    Ok(())
}
