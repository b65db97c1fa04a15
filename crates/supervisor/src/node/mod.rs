//! `ironkeel node`: one more host of a cluster. Kubelet, container runtime, service proxy and pod network,
//! all of them clients of an API server elsewhere, over TLS.

mod kubeconfig;
mod pod_range;
mod record;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use ironkeel_cni::{LateNetwork, NodeRoutesConfig};
use ironkeel_informer::{Informer, WatchConfig};
use ironkeel_journal::Journal;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::components::Components;
use crate::host::{self, RuntimeParts};
use crate::{Error, Instance, Progress, Stop, notify, preflight};

pub(crate) use kubeconfig::{NodeFacts, PROXY_CONTEXT, facts};
pub use kubeconfig::{node_kubeconfig, write_private};
pub(crate) use pod_range::PodRange;

/// How long the last report to the API server may take.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(2);

/// What `ironkeel node` was asked for.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The file of `ironkeel certificate node`.
    pub kubeconfig: PathBuf,
    /// Name of this node; the kubeconfig's by default, and it cannot be another.
    pub node_name: Option<String>,
    /// Address of this node; the kubeconfig's by default.
    pub node_ip: Option<IpAddr>,
    /// Leave pods running at the end.
    pub keep_pods: bool,
    /// (registry, mirror) pairs: pulls try the mirror first.
    pub registry_mirrors: Vec<(String, String)>,
}

/// Runs the node until `stop` resolves. Progress goes to stderr.
///
/// # Errors
/// The kubeconfig is not one of `ironkeel certificate node`, the host lacks something, a component ended.
pub fn node(options: NodeOptions, shim_exe: PathBuf, stop: Stop) -> LocalBoxFuture<'static, Result<(), Error>> {
    Box::pin(run(options, shim_exe, stop))
}

async fn run(options: NodeOptions, shim_exe: PathBuf, mut stop: Stop) -> Result<(), Error> {
    let progress = Progress::start(false);
    preflight::check_host()?;
    let instance = Instance::of(&options.data_dir)?;
    let facts = facts(&options.kubeconfig)?.ok_or_else(|| Error::NodeKubeconfig {
        path: options.kubeconfig.clone(),
        reason: "it lacks what `ironkeel certificate node` writes into it".to_owned(),
    })?;
    if let Some(name) = options.node_name.as_ref().filter(|name| **name != facts.node_name) {
        let reason = "the kubeconfig's certificates are another node's; make one with `ironkeel certificate node`";
        return Err(Error::NodeName { name: name.clone(), reason });
    }
    ironkeel_auth::pki::create_private_dir(&instance.dir)?;
    let _lock = preflight::lock(&instance.dir)?;
    if instance.recorded()?.is_some() {
        return Err(Error::OtherRole { dir: instance.dir, role: "a whole cluster (`ironkeel up`)" });
    }
    let range = PodRange::open(&instance, &facts.node_name)?;
    let node_ip = options.node_ip.unwrap_or(facts.node_ip);
    let journal = Journal::open(&instance.journal())?;
    host::make_run_dir(&instance, &journal)?;
    let kubelet_client = ironkeel_client::from_kubeconfig(&options.kubeconfig).await?;
    let proxy_client = ironkeel_client::from_kubeconfig_context(&options.kubeconfig, Some(PROXY_CONTEXT)).await?;

    let network = LateNetwork::default();
    let runtime = host::start_runtime(RuntimeParts {
        instance: &instance,
        journal: &journal,
        network: Arc::new(network.clone()),
        shim_exe,
        registry_mirrors: &options.registry_mirrors,
    })
    .await?;
    let mut components = Components::default();
    let stopping = host::serve_runtime(&instance, &runtime, &mut components).await?;
    progress.done("container runtime");

    let mut config = host::kubelet_config(&instance, &journal, &facts.node_name, node_ip)?;
    configure(&mut config, &facts);
    config.listener = Some(host::kubelet_listener(node_ip)?);
    let (client, cri) = (kubelet_client.clone(), runtime.cri_client());
    components.start("kubelet", |stop| ironkeel_kubelet::run(config, client, cri, stop));

    let parts = NodeParts {
        instance: instance.clone(),
        journal: journal.clone(),
        facts: facts.clone(),
        node_ip,
        client: kubelet_client.clone(),
        proxy_client,
    };
    components.start("pod network", |stop| parts.run(network, range, stop));

    let nodes = own_node(&kubelet_client, &facts.node_name, CancellationToken::new());
    tokio::select! {
        () = ready(&nodes) => {
            notify::notify("READY=1");
            progress.done(format!("node {} is Ready", facts.node_name));
        }
        error = components.failed() => return Err(error),
        () = &mut stop => {}
    }
    drop(nodes);
    let outcome = tokio::select! {
        error = components.failed() => Err(error),
        () = &mut stop => Ok(()),
    };
    notify::notify("STOPPING=1");
    if outcome.is_ok() {
        progress.say("Stopping.");
    }
    stopping.cancel();
    components.stop().await;
    if outcome.is_ok() && !options.keep_pods {
        farewell(&kubelet_client, &facts.node_name).await;
        runtime.remove_all().await?;
    }
    runtime.stop();
    outcome
}

/// What the cluster says about every kubelet.
fn configure(config: &mut ironkeel_kubelet::Config, facts: &NodeFacts) {
    config.cluster_dns = vec![facts.cluster_dns];
    config.cluster_domain.clone_from(&facts.cluster_domain);
    config.client_ca = Some(facts.client_ca.clone().into());
    config.serving = Some(ironkeel_kubelet::ServingCertificate {
        certificate: facts.serving_certificate.clone().into(),
        key: facts.serving_key.clone().into(),
    });
}

/// A view of one Node.
pub(crate) fn own_node(client: &kube::Client, name: &str, stop: CancellationToken) -> Informer<Node> {
    let own = WatchConfig { label_selector: None, field_selector: Some(format!("metadata.name={name}")) };
    Informer::start(Api::<Node>::all(client.clone()), own, stop)
}

/// Waits until the node is Ready.
pub(crate) async fn ready(nodes: &Informer<Node>) {
    let mut deltas = nodes.subscribe();
    while let Some(delta) = deltas.recv().await {
        let conditions = delta.object().and_then(|n| n.status.as_ref()?.conditions.as_ref());
        if conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True")) {
            return;
        }
    }
}

/// Tells the cluster that this node's pods end now, instead of leaving it to find out.
async fn farewell(client: &kube::Client, name: &str) {
    let now = Timestamp::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "the node was stopped",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    let api = Api::<Node>::all(client.clone());
    let (name, parameters) = (name.to_owned(), PatchParams::default());
    match tokio::time::timeout(FAREWELL, api.patch_status(&name, &parameters, &patch)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the API server was not told that the node stops"),
        Err(_) => tracing::debug!("the API server was not told that the node stops: no answer"),
    }
}

/// What the pod network of a node is made of.
struct NodeParts {
    instance: Instance,
    journal: Journal,
    facts: NodeFacts,
    node_ip: IpAddr,
    client: kube::Client,
    proxy_client: kube::Client,
}

impl NodeParts {
    /// Starts the pod network once the node has its range, then proxy and routes; until `stop`.
    async fn run(self, late: LateNetwork, mut range: PodRange, stop: CancellationToken) -> Result<(), Error> {
        let nodes = own_node(&self.client, &self.facts.node_name, stop.clone());
        let Some(network) =
            range.start_network(&nodes, &self.journal, Some(self.facts.pod_cidr), self.node_ip, &stop).await?
        else {
            return Ok(());
        };
        late.set(network.clone());
        let proxy = ironkeel_proxy::Config {
            node_name: self.facts.node_name.clone(),
            service_cidr: Some(self.facts.service_cidr),
            cluster_cidr: Some(self.facts.pod_cidr),
            table: self.instance.name.clone(),
            anchor_link: Some(network.anchor_link()),
            journal: self.journal.clone(),
        };
        let routes = NodeRoutesConfig { node_name: self.facts.node_name.clone(), journal: self.journal.clone() };
        let proxy = ironkeel_proxy::run(proxy, self.proxy_client.clone(), stop.clone());
        let routes = ironkeel_cni::follow_nodes(routes, self.proxy_client.clone(), stop.clone());
        let proxy =
            async { proxy.await.map_err(|e| Error::Component { component: "kube-proxy", reason: e.to_string() }) };
        let routes = async { routes.await.map_err(Error::from) };
        tokio::try_join!(proxy, routes, range.watch(&nodes, &stop)).map(drop)
    }
}

/// `up` does not take over the directory of a node.
pub(crate) fn refuse_node_directory(instance: &Instance) -> Result<(), Error> {
    match record::read(instance)? {
        Some(_) => {
            Err(Error::OtherRole { dir: instance.dir.clone(), role: "a node of another cluster (`ironkeel node`)" })
        }
        None => Ok(()),
    }
}
