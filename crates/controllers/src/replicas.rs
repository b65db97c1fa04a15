//! ReplicaSets and ReplicationControllers: as many pods as asked for.
//!
//! One algorithm for both kinds, as upstream has it: claim, create in growing batches, delete by rank, count.

mod rank;
mod sync;
pub(crate) use sync::words;

use std::collections::BTreeMap;
use std::sync::Arc;

use ironkeel_informer::{Delta, Expectations, Informer, WorkQueue, controller_of, run_workers};
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::context::{Context, key, key_of};

/// What the algorithm needs to know of a kind.
pub(crate) trait Replicated:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + serde::Serialize
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// How many pods are wanted.
    fn replicas(&self) -> usize;
    fn min_ready_seconds(&self) -> i32;
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn counts(&self) -> Counts;
    fn set_counts(&mut self, counts: Counts);
}

/// The status of either kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    /// Only ReplicaSets tell it.
    pub(crate) terminating: Option<i32>,
    pub(crate) observed_generation: Option<i64>,
    /// The condition ReplicaFailure, when the last sync failed.
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) since: Option<Time>,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl PartialEq for Failure {
    /// The same failure again is no news.
    fn eq(&self, other: &Self) -> bool {
        self.reason == other.reason
    }
}

/// Counts of nothing are absent, as upstream writes them.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

impl Replicated for ReplicaSet {
    fn replicas(&self) -> usize {
        let wanted = self.spec.as_ref().map_or(1, |spec| spec.replicas.unwrap_or(1));
        usize::try_from(wanted).unwrap_or(0)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.spec
            .as_ref()
            .is_some_and(|spec| !selectors::is_empty(&spec.selector) && selectors::matches(&spec.selector, labels))
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.into_iter().flatten().find(|condition| condition.type_ == REPLICA_FAILURE);
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: Some(status.terminating_replicas.unwrap_or(0)),
            observed_generation: status.observed_generation,
            failure: failure.map(|condition| Failure {
                since: condition.last_transition_time,
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
            }),
        }
    }
    fn set_counts(&mut self, counts: Counts) {
        let status = self.status.get_or_insert_with(ReplicaSetStatus::default);
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = nonzero(counts.fully_labeled);
        status.ready_replicas = nonzero(counts.ready);
        status.available_replicas = nonzero(counts.available);
        status.terminating_replicas = counts.terminating;
        status.observed_generation = counts.observed_generation;
        let mut conditions = status.conditions.take().unwrap_or_default();
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        conditions.extend(counts.failure.map(|failure| ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            last_transition_time: failure.since,
            reason: Some(failure.reason),
            message: Some(failure.message),
        }));
        status.conditions = (!conditions.is_empty()).then_some(conditions);
    }
}

impl Replicated for ReplicationController {
    fn replicas(&self) -> usize {
        let wanted = self.spec.as_ref().map_or(1, |spec| spec.replicas.unwrap_or(1));
        usize::try_from(wanted).unwrap_or(0)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref())
            .is_some_and(|wanted| !wanted.is_empty() && selectors::contains(wanted, Some(labels)))
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.into_iter().flatten().find(|condition| condition.type_ == REPLICA_FAILURE);
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation,
            failure: failure.map(|condition| Failure {
                since: condition.last_transition_time,
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
            }),
        }
    }
    fn set_counts(&mut self, counts: Counts) {
        let status = self.status.get_or_insert_with(ReplicationControllerStatus::default);
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = nonzero(counts.fully_labeled);
        status.ready_replicas = nonzero(counts.ready);
        status.available_replicas = nonzero(counts.available);
        status.observed_generation = counts.observed_generation;
        let mut conditions = status.conditions.take().unwrap_or_default();
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        conditions.extend(counts.failure.map(|failure| ReplicationControllerCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            last_transition_time: failure.since,
            reason: Some(failure.reason),
            message: Some(failure.message),
        }));
        status.conditions = (!conditions.is_empty()).then_some(conditions);
    }
}

pub(crate) async fn run_replica_sets(context: Context) {
    run::<ReplicaSet>(context, "replicaset-controller").await;
}

pub(crate) async fn run_replication_controllers(context: Context) {
    run::<ReplicationController>(context, "replication-controller").await;
}

async fn run<O: Replicated>(context: Context, name: &str) {
    let owners = context.factory.informer::<O>();
    let pods = context.pods();
    owners.add_index(SIBLINGS, |owner| vec![crate::context::controller_key(owner.meta())]);
    let client = context.client(name);
    let recorder = context.recorder(&client, name);
    let expectations = Arc::new(Expectations::new());
    let queue: WorkQueue<String> = WorkQueue::new();

    let (own, expected) = (queue.clone(), expectations.clone());
    context.feed(&owners, move |delta| {
        if let Delta::Deleted(owner) = &delta {
            expected.forget(&key_of(owner.as_ref()));
        }
        if let Some(owner) = delta.object() {
            own.add(key_of(owner.as_ref()));
        }
    });
    let watch = PodWatch { owners: owners.clone(), expectations: expectations.clone(), queue: queue.clone() };
    context.feed(&pods, move |delta| watch.handle(delta));

    owners.synced().await;
    pods.synced().await;
    let sync = Arc::new(sync::Sync { owners, pods, client, recorder, expectations });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let sync = sync.clone();
        async move { sync.sync(&key).await }
    })
    .await;
}

/// Index of owners by what controls them: the ReplicaSets of one Deployment.
pub(crate) const SIBLINGS: &str = "siblings";

/// Turns changes of pods into work for their owners.
struct PodWatch<O: Replicated> {
    owners: Informer<O>,
    expectations: Arc<Expectations>,
    queue: WorkQueue<String>,
}

impl<O: Replicated> PodWatch<O> {
    fn handle(&self, delta: Delta<Pod>) {
        match delta {
            Delta::Added(pod) if pods::is_terminating(&pod) => self.deleted(&pod),
            Delta::Added(pod) => match self.owner(&pod.metadata) {
                Some(owner) => {
                    self.expectations.creation_observed(&owner);
                    self.queue.add(owner);
                }
                None => self.offer(&pod),
            },
            Delta::Updated { old, new } => {
                if pods::is_terminating(&new) && !pods::is_terminating(&old) {
                    self.deleted(&new);
                }
                let (before, after) = (self.owner(&old.metadata), self.owner(&new.metadata));
                if before != after
                    && let Some(before) = before
                {
                    self.queue.add(before);
                }
                match after {
                    Some(owner) => self.queue.add(owner),
                    None => self.offer(&new),
                }
            }
            Delta::Deleted(pod) => self.deleted(&pod),
            Delta::Synced => {}
        }
    }

    fn deleted(&self, pod: &Pod) {
        if let Some(owner) = self.owner(&pod.metadata) {
            self.expectations.deletion_observed(&owner, &key(&pod.metadata));
            self.queue.add(owner);
        }
    }

    /// The key of the owner that controls the object, if it is of our kind and the one in the cache.
    fn owner(&self, meta: &ObjectMeta) -> Option<String> {
        let owner = controller_of(meta)?;
        if owner.kind != O::kind(&()) || owner.api_version != O::api_version(&()) {
            return None;
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let found = self.owners.get(namespace, &owner.name)?;
        (found.meta().uid.as_deref() == Some(&owner.uid)).then(|| key_of(found.as_ref()))
    }

    /// An orphan: whoever selects it may adopt it.
    fn offer(&self, pod: &Pod) {
        if controller_of(&pod.metadata).is_some() {
            return;
        }
        let none = BTreeMap::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        for owner in self.owners.list_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if owner.selects(labels) {
                self.queue.add(key_of(owner.as_ref()));
            }
        }
    }
}
