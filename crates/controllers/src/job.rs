//! Jobs: pods until enough of them succeeded, or too many failed.
//!
//! Every pod carries a finalizer until its outcome is in the Job's status, so that none is counted twice or never.
//! `sync` counts and decides, `policy` reads the Job's own rules about failures and success, `indexes` sets of indexes.

mod indexes;
mod pod;
mod policy;
mod sync;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, Expectations, Informer, WorkQueue, controller_of, run_workers};
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use crate::context::{BY_CONTROLLER, Context, key, key_of, orphan_key};
use crate::error::{Error, is_conflict};

const NAME: &str = "job-controller";

pub(crate) async fn run(context: Context) {
    let jobs = context.factory.informer::<Job>();
    let pods = context.pods();
    let client = context.client(NAME);
    let recorder = context.recorder(&client, NAME);
    let expectations = Arc::new(Expectations::new());
    let queue: WorkQueue<String> = WorkQueue::new();
    let freeing: WorkQueue<String> = WorkQueue::new();
    let (own, expected, left, known) = (queue.clone(), expectations.clone(), freeing.clone(), pods.clone());
    context.feed(&jobs, move |delta| {
        if let Delta::Deleted(job) = &delta {
            expected.forget(&key_of(job.as_ref()));
            let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
            let owned = known.by_index(BY_CONTROLLER, job.metadata.uid.as_deref().unwrap_or_default());
            let orphans = known.by_index(BY_CONTROLLER, &orphan_key(namespace));
            for pod in owned.iter().chain(&orphans).filter(|pod| sync::tracked(pod)) {
                left.add(key_of(pod.as_ref()));
            }
        }
        if let Some(job) = delta.object() {
            own.add(key_of(job.as_ref()));
        }
    });
    let freed = Arc::new(Mutex::new(HashSet::new()));
    let watch = PodWatch {
        jobs: jobs.clone(),
        expectations: expectations.clone(),
        queue: queue.clone(),
        freed: freed.clone(),
        freeing: freeing.clone(),
    };
    context.feed(&pods, move |delta| watch.handle(delta));
    jobs.synced().await;
    pods.synced().await;
    let sync = Arc::new(sync::Sync { jobs, pods, client, recorder, expectations, failures: Mutex::default(), freed });
    let free = sync.clone();
    let freeing = run_workers(freeing, 1, context.shutdown.clone(), move |key: String| {
        let sync = free.clone();
        async move { sync.free(&key).await }
    });
    let syncing = run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let sync = sync.clone();
        async move {
            match sync.sync(&key).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other,
            }
        }
    });
    tokio::join!(freeing, syncing);
}

struct PodWatch {
    jobs: Informer<Job>,
    expectations: Arc<Expectations>,
    queue: WorkQueue<String>,
    freed: Freed,
    /// Pods that have our finalizer and no Job.
    freeing: WorkQueue<String>,
}

/// Uids of pods whose finalizer was taken, until the cache shows it: the cache of Jobs may be ahead of the cache of pods,
/// and a pod that is in the status already would be counted again.
type Freed = Arc<Mutex<HashSet<String>>>;

impl PodWatch {
    fn handle(&self, delta: Delta<Pod>) {
        match &delta {
            Delta::Updated { new, .. } if !sync::tracked(new) => self.seen_free(&new.metadata),
            Delta::Deleted(pod) => self.seen_free(&pod.metadata),
            _ => {}
        }
        match &delta {
            Delta::Added(pod) => {
                if let Some(owner) = self.owner(&pod.metadata) {
                    self.expectations.creation_observed(&owner);
                }
            }
            Delta::Updated { old, new } if pods::is_terminating(new) && !pods::is_terminating(old) => {
                self.gone(&new.metadata);
            }
            Delta::Deleted(pod) => self.gone(&pod.metadata),
            _ => {}
        }
        let Some(pod) = delta.object() else { return };
        let owner = self.owner(&pod.metadata);
        if owner.is_none() && sync::tracked(pod) && !matches!(delta, Delta::Deleted(_)) {
            self.freeing.add(key_of(pod.as_ref()));
        }
        if let Some(owner) = owner {
            self.queue.add(owner);
        } else if controller_of(&pod.metadata).is_none() {
            let none = BTreeMap::new();
            let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
            for job in self.jobs.list_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                if selectors::matches_optional(selector, Some(labels)) {
                    self.queue.add(key_of(job.as_ref()));
                }
            }
        }
    }

    fn seen_free(&self, meta: &ObjectMeta) {
        if let Some(uid) = &meta.uid {
            self.freed.lock().remove(uid);
        }
    }

    fn gone(&self, meta: &ObjectMeta) {
        if let Some(owner) = self.owner(meta) {
            self.expectations.deletion_observed(&owner, &key(meta));
        }
    }

    fn owner(&self, meta: &ObjectMeta) -> Option<String> {
        let owner = controller_of(meta).filter(|owner| owner.kind == "Job")?;
        let found = self.jobs.get(meta.namespace.as_deref().unwrap_or_default(), &owner.name)?;
        (found.metadata.uid.as_deref() == Some(&owner.uid)).then(|| key_of(found.as_ref()))
    }
}
