//! What every controller is given: shared caches, a client of its own identity, events, the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use ironkeel_informer::{Delta, EventRecorder, Informer, InformerFactory, LeaderElectorConfig, controller_of};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

use crate::storage_version_migration::StorageVersionMigrator;

/// Makes the client of a controller, from its name as in `system:serviceaccount:kube-system:<name>`.
pub type ClientFactory = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// How nodes get their pods' ranges.
#[derive(Clone, Debug)]
pub struct NodeIpam {
    /// All pods' addresses.
    pub cluster_cidr: Ipv4Net,
    /// Prefix length of a node's range.
    pub node_mask_size: u8,
    /// Ranges that are kept for the nodes of these names.
    pub kept: BTreeMap<String, Ipv4Net>,
}

/// How the controllers run. The default is one process of one cluster, without leader election.
#[derive(Clone)]
pub struct Config {
    /// The identity of each controller; absent: all write with the client given to [`crate::run`].
    pub client_for: Option<ClientFactory>,
    /// The certificate authority of the API server, PEM, published in every namespace; absent: nothing is published.
    pub root_ca: Option<String>,
    /// The lease to lead by; absent: lead at once.
    pub leader_election: Option<LeaderElectorConfig>,
    /// How nodes get their pods' ranges; absent: somebody else gives them.
    pub node_ipam: Option<NodeIpam>,
    /// A node whose lease is older than this is Unknown.
    pub node_monitor_grace_period: Duration,
    /// A node that has never reported is Unknown after this.
    pub node_startup_grace_period: Duration,
    /// How often nodes' leases are looked at.
    pub node_monitor_period: Duration,
    /// Finished pods beyond this many are deleted, the oldest first; zero keeps all.
    pub terminated_pod_threshold: usize,
    /// How often pods that nobody cleans up are looked for.
    pub pod_gc_period: Duration,
    /// How long a node must be gone before its pods are deleted.
    pub pod_gc_node_grace_period: Duration,
    /// How storage versions are migrated; absent: nobody does it here.
    pub storage_version_migrator: Option<StorageVersionMigrator>,
    /// Workers a controller.
    pub workers: usize,
}

impl Default for Config {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            client_for: None,
            root_ca: None,
            leader_election: None,
            node_ipam: None,
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_monitor_period: Duration::from_secs(5),
            terminated_pod_threshold: 12_500,
            pod_gc_period: Duration::from_secs(20),
            pod_gc_node_grace_period: Duration::from_secs(40),
            storage_version_migrator: None,
            workers: 5,
        }
    }
}

/// Shared by all controllers of a process.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) factory: InformerFactory,
    pub(crate) shutdown: CancellationToken,
    client: Client,
}

/// Index of pods by the uid of their controller, or by [`orphan_key`].
pub(crate) const BY_CONTROLLER: &str = "controller";
/// Index of pods by node.
pub(crate) const BY_NODE: &str = "node";

impl Context {
    pub(crate) fn new(config: Config, client: Client, shutdown: CancellationToken) -> Self {
        let shutdown = shutdown.child_token();
        let factory = InformerFactory::new(client.clone(), shutdown.clone());
        Self { config: Arc::new(config), factory, shutdown, client }
    }

    /// The client of the controller `name`.
    pub(crate) fn client(&self, name: &str) -> Client {
        self.config.client_for.as_ref().map_or_else(|| self.client.clone(), |make| make(name))
    }

    pub(crate) fn recorder(&self, client: &Client, component: &str) -> EventRecorder {
        EventRecorder::new(client.clone(), component, "", self.shutdown.clone())
    }

    /// All pods, with their indexes.
    pub(crate) fn pods(&self) -> Informer<Pod> {
        let pods = self.factory.informer::<Pod>();
        pods.add_index(BY_CONTROLLER, |pod| vec![controller_key(&pod.metadata)]);
        pods.add_index(BY_NODE, |pod| vec![ironkeel_semantics::pods::node_name(pod).unwrap_or_default().to_owned()]);
        pods
    }

    /// Calls `handle` with every change of `informer`, in order, until the end.
    pub(crate) fn feed<K>(&self, informer: &Informer<K>, mut handle: impl FnMut(Delta<K>) + Send + 'static)
    where
        K: Resource + Send + Sync + 'static,
    {
        let mut deltas = informer.subscribe();
        tokio::spawn(async move {
            while let Some(delta) = deltas.recv().await {
                handle(delta);
            }
        });
    }
}

/// The key of an object: `namespace/name`.
pub(crate) fn key_of<K: Resource>(object: &K) -> String {
    key(object.meta())
}

pub(crate) fn key(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Namespace and name of a key.
pub(crate) fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// The index key of objects of a namespace without a controller.
pub(crate) fn orphan_key(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

/// The key by which objects are filed under their controller.
pub(crate) fn controller_key(meta: &ObjectMeta) -> String {
    controller_of(meta)
        .map_or_else(|| orphan_key(meta.namespace.as_deref().unwrap_or_default()), |owner| owner.uid.clone())
}

/// Now, as the API writes times.
pub(crate) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Time from `then` to now; zero when `then` is ahead.
pub(crate) fn since(then: &Time) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(then.0)).unwrap_or_default()
}

/// The delay until `seconds` after `then`; zero when that is past.
pub(crate) fn until_after(then: &Time, seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).saturating_sub(since(then))
}
