//! The Node object: registered, its status kept true, its lease renewed. A change of the runtime's or the network's
//! readiness is written at once; an idle node writes its lease every 10 s and its status every 5 minutes.

pub(crate) mod lease;
pub(crate) mod machine;
mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use parking_lot::RwLock;
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    Error,
    config::Config,
    kubelet::Kubelet,
    resources::{self, ResourceList},
};

/// How often the runtime is asked while it or its network is not ready.
const POLL_UNREADY: Duration = Duration::from_millis(50);
/// How often it is asked when all is well.
const POLL_READY: Duration = Duration::from_secs(10);
/// A status without changes is written that often.
const REPORT_PERIOD: Duration = Duration::from_secs(300);
/// First wait after the API refused or did not answer.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(7);

/// What the runtime says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeHealth {
    /// Why the runtime is not ready.
    pub(crate) runtime: Option<String>,
    /// Why its network is not ready.
    pub(crate) network: Option<String>,
    /// Name and version, `containerd://1.6.0`.
    pub(crate) version: String,
}

/// Which pressures there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pid: bool,
}

/// The node as the rest of the kubelet sees it.
pub(crate) struct NodeState {
    capacity: ResourceList,
    allocatable: ResourceList,
    memory_bytes: u64,
    pub(crate) object: RwLock<Option<Node>>,
    health: RwLock<RuntimeHealth>,
    pressure: RwLock<Pressure>,
    /// Woken when something changed that the status must tell.
    pub(crate) changed: Notify,
}

impl NodeState {
    pub(crate) fn new(config: &Config) -> Self {
        let (memory_bytes, _) = machine::memory();
        let disk = machine::filesystem(&config.root_dir).unwrap_or_default();
        let mut capacity = ResourceList::new();
        let mut put = |name: &str, quantity: String| capacity.insert(name.to_owned(), Quantity(quantity));
        put("cpu", machine::processors().to_string());
        put("memory", format!("{}Ki", memory_bytes >> 10));
        put("ephemeral-storage", format!("{}Ki", disk.capacity_bytes >> 10));
        put("pods", config.max_pods.to_string());
        for (name, bytes) in machine::huge_pages() {
            put(&name, bytes.to_string());
        }
        let mut allocatable = capacity.clone();
        for (name, reserved) in &config.reserved {
            if let Some(quantity) = allocatable.get_mut(name) {
                let left = resources::milli(quantity) - resources::milli(&Quantity(reserved.clone()));
                *quantity = Quantity(milli_text(name, left.max(0)));
            }
        }
        Self {
            capacity,
            allocatable,
            memory_bytes,
            object: RwLock::default(),
            health: RwLock::new(RuntimeHealth {
                runtime: Some("the runtime has not answered yet".into()),
                network: Some("the runtime has not answered yet".into()),
                version: String::new(),
            }),
            pressure: RwLock::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn allocatable(&self) -> ResourceList {
        self.allocatable.clone()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(crate) fn network_ready(&self) -> bool {
        self.health.read().network.is_none()
    }

    pub(crate) fn runtime_ready(&self) -> bool {
        self.health.read().runtime.is_none()
    }

    /// The runtime's name, the scheme of container ids.
    pub(crate) fn runtime_name(&self) -> String {
        let version = self.health.read().version.clone();
        version.split("://").next().filter(|name| !name.is_empty()).unwrap_or("ironkeel").to_owned()
    }

    pub(crate) fn pressure(&self) -> Pressure {
        *self.pressure.read()
    }

    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        if std::mem::replace(&mut *self.pressure.write(), pressure) != pressure {
            self.changed.notify_one();
        }
    }

    fn set_health(&self, health: RuntimeHealth) -> bool {
        let changed = *self.health.read() != health;
        if changed {
            *self.health.write() = health;
            self.changed.notify_one();
        }
        changed
    }
}

fn milli_text(name: &str, milli: i128) -> String {
    match name {
        "cpu" if milli % 1000 != 0 => format!("{milli}m"),
        "memory" | "ephemeral-storage" => format!("{}Ki", milli / 1000 / 1024),
        _ => (milli / 1000).to_string(),
    }
}

/// Watches the runtime's readiness and wakes whoever waits for it.
pub(crate) async fn watch_runtime(kubelet: Arc<Kubelet>) {
    let mut version = String::new();
    loop {
        if version.is_empty()
            && let Ok(answer) = kubelet.runtime.version().await
        {
            version = format!("{}://{}", answer.runtime_name, answer.runtime_version);
        }
        let health = match kubelet.runtime.status().await {
            Ok(answer) => {
                let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
                let why_not = |kind: &str| match conditions.iter().find(|condition| condition.r#type == kind) {
                    Some(condition) if condition.status => None,
                    Some(condition) => Some(format!("{kind} is false: {} {}", condition.reason, condition.message)),
                    None => Some(format!("the runtime does not report {kind}")),
                };
                RuntimeHealth {
                    runtime: why_not("RuntimeReady"),
                    network: why_not("NetworkReady"),
                    version: version.clone(),
                }
            }
            Err(error) => RuntimeHealth {
                runtime: Some(format!("container runtime is down: {error}")),
                network: Some(format!("container runtime is down: {error}")),
                version: version.clone(),
            },
        };
        let well = health.runtime.is_none() && health.network.is_none();
        if kubelet.node.set_health(health) {
            kubelet.wake_all();
        }
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(if well { POLL_READY } else { POLL_UNREADY }) => {}
        }
    }
}

/// Registers the node and keeps its status true, until shutdown.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let mut retry = RETRY_FIRST;
    let mut written: Option<NodeStatus> = None;
    loop {
        let wait = match report(&kubelet, &mut written).await {
            Ok(()) => {
                retry = RETRY_FIRST;
                REPORT_PERIOD
            }
            Err(error) => {
                tracing::warn!(%error, "node status not written, will try again");
                written = None;
                retry = (retry * 2).min(RETRY_MAX);
                retry
            }
        };
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = kubelet.node.changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn report(kubelet: &Kubelet, written: &mut Option<NodeStatus>) -> Result<(), Error> {
    let api: Api<Node> = Api::all(kubelet.client.clone());
    let name = &kubelet.config.node_name;
    let known = kubelet.node.object.read().clone();
    let node = match known {
        Some(node) => node,
        None => register(kubelet, &api).await?,
    };
    let images =
        if kubelet.node.runtime_ready() { kubelet.runtime.images().await.unwrap_or_default() } else { Vec::new() };
    let old = written.as_ref().or(node.status.as_ref());
    let status = status::generate(kubelet, old, &images);
    let patch = json!({"status": status});
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(node) => {
            let pod_cidr = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
            let previous = kubelet.node.object.read().as_ref().and_then(|node| node.spec.clone()?.pod_cidr);
            if let Some(pod_cidr) = pod_cidr
                && previous.as_ref() != Some(&pod_cidr)
                && let Err(error) = kubelet.runtime.set_pod_cidr(&pod_cidr).await
            {
                tracing::debug!(%error, "the runtime was not told the pod CIDR");
            }
            *kubelet.node.object.write() = Some(node);
            *written = Some(status);
            Ok(())
        }
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            // Somebody deleted the node: it is registered again.
            *kubelet.node.object.write() = None;
            *written = None;
            kubelet.node.changed.notify_one();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates the node, or takes over the one that is there; without registration somebody else makes it.
async fn register(kubelet: &Kubelet, api: &Api<Node>) -> Result<Node, Error> {
    let config = &kubelet.config;
    let mut labels = config.labels.clone();
    let own: BTreeMap<&str, &str> = BTreeMap::from([
        ("kubernetes.io/hostname", config.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine::architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine::architecture()),
    ]);
    labels.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    let node = Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels.clone()),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".into(),
                "true".into(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.register_with_taints.is_empty()).then(|| config.register_with_taints.clone()),
            provider_id: config.provider_id.clone(),
            ..NodeSpec::default()
        }),
        status: Some(status::generate(kubelet, None, &[])),
    };
    let made = if config.register_node {
        api.create(&PostParams::default(), &node).await
    } else {
        api.get(&config.node_name).await
    };
    let node = match made {
        Ok(node) => node,
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let existing = api.get(&config.node_name).await?;
            let current = existing.metadata.labels.clone().unwrap_or_default();
            if labels.iter().all(|(key, value)| current.get(key) == Some(value)) {
                existing
            } else {
                let patch = json!({"metadata": {"labels": labels}});
                api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?
            }
        }
        Err(error) => return Err(error.into()),
    };
    tracing::info!(node = config.node_name, "node registered");
    let pod_cidr = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
    if let Some(pod_cidr) = pod_cidr
        && let Err(error) = kubelet.runtime.set_pod_cidr(&pod_cidr).await
    {
        tracing::debug!(%error, "the runtime was not told the pod CIDR");
    }
    *kubelet.node.object.write() = Some(node.clone());
    Ok(node)
}
