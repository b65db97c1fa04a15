//! StatefulSets: pods with a name, a place and storage of their own, made, updated and stopped in order.
//!
//! Here: what is watched. `identity` says what the pod of an ordinal is, `sync` what happens next, `status` what became of
//! it. Pods have fixed names, so nothing has to be expected: making one twice fails.

mod claims;
mod identity;
mod status;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Informer, WorkQueue, controller_of, run_workers};
use ironkeel_semantics::selectors;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{BY_CONTROLLER, Context, controller_key, key_of};
use crate::error::{Error, is_conflict};

const NAME: &str = "statefulset-controller";

pub(crate) async fn run(context: Context) {
    let sets = context.factory.informer::<StatefulSet>();
    let claims = context.factory.informer::<PersistentVolumeClaim>();
    let revisions = context.factory.informer::<ControllerRevision>();
    let pods = context.pods();
    revisions.add_index(BY_CONTROLLER, |revision| vec![controller_key(&revision.metadata)]);
    let client = context.client(NAME);
    let recorder = context.recorder(&client, NAME);
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&sets, move |delta| {
        if let Some(set) = delta.object() {
            own.add(key_of(set.as_ref()));
        }
    });
    let (by_pod, known) = (queue.clone(), sets.clone());
    context.feed(&pods, move |delta| {
        let Some(pod) = delta.object() else { return };
        for key in owners(&known, pod) {
            by_pod.add(key);
        }
    });
    sets.synced().await;
    claims.synced().await;
    revisions.synced().await;
    pods.synced().await;
    let sync = Arc::new(sync::Sync { sets, pods, claims, revisions, client, recorder });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let sync = sync.clone();
        async move {
            match sync.sync(&key).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other,
            }
        }
    })
    .await;
}

/// The StatefulSets that a pod matters to: its own, or those that may adopt it.
fn owners(sets: &Informer<StatefulSet>, pod: &Pod) -> Vec<String> {
    let meta: &ObjectMeta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(meta) {
        let found = sets.get(namespace, &owner.name).filter(|_| owner.kind == "StatefulSet");
        return found
            .filter(|set| set.metadata.uid.as_deref() == Some(&owner.uid))
            .iter()
            .map(|set| key_of(set.as_ref()))
            .collect();
    }
    let none = BTreeMap::new();
    let labels = meta.labels.as_ref().unwrap_or(&none);
    let selects =
        |set: &Arc<StatefulSet>| set.spec.as_ref().is_some_and(|spec| selectors::matches(&spec.selector, labels));
    sets.list_namespace(namespace).iter().filter(|set| selects(set)).map(|set| key_of(set.as_ref())).collect()
}
