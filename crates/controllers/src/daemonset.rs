//! DaemonSets: one pod on every node that takes it, pinned by node affinity.

mod placement;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, Expectations, Informer, WorkQueue, controller_of, run_workers};
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{BY_CONTROLLER, Context, controller_key, key, key_of};
use crate::error::{Error, is_conflict};

const NAME: &str = "daemon-set-controller";

pub(crate) async fn run(context: Context) {
    let sets = context.factory.informer::<DaemonSet>();
    let nodes = context.factory.informer::<Node>();
    let revisions = context.factory.informer::<ControllerRevision>();
    let pods = context.pods();
    revisions.add_index(BY_CONTROLLER, |revision| vec![controller_key(&revision.metadata)]);
    let client = context.client(NAME);
    let recorder = context.recorder(&client, "daemonset-controller");
    let expectations = Arc::new(Expectations::new());
    let queue: WorkQueue<String> = WorkQueue::new();
    let (own, expected) = (queue.clone(), expectations.clone());
    context.feed(&sets, move |delta| {
        if let Delta::Deleted(set) = &delta {
            expected.forget(&key_of(set.as_ref()));
        }
        if let Some(set) = delta.object() {
            own.add(key_of(set.as_ref()));
        }
    });
    let (by_node, known) = (queue.clone(), sets.clone());
    context.feed(&nodes, move |delta| {
        // Only what placement looks at: a heartbeat is no reason to look at every DaemonSet.
        let matters = match &delta {
            Delta::Updated { old, new } => placement::differs(old, new),
            Delta::Added(_) | Delta::Deleted(_) => true,
            Delta::Synced => false,
        };
        if matters {
            known.list().iter().for_each(|set| by_node.add(key_of(set.as_ref())));
        }
    });
    let watch = PodWatch { sets: sets.clone(), expectations: expectations.clone(), queue: queue.clone() };
    context.feed(&pods, move |delta| watch.handle(&delta));
    sets.synced().await;
    nodes.synced().await;
    revisions.synced().await;
    pods.synced().await;
    let sync = Arc::new(sync::Sync { sets, nodes, pods, revisions, client, recorder, expectations });
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

struct PodWatch {
    sets: Informer<DaemonSet>,
    expectations: Arc<Expectations>,
    queue: WorkQueue<String>,
}

impl PodWatch {
    fn handle(&self, delta: &Delta<Pod>) {
        let Some(pod) = delta.object() else { return };
        if let Some(owner) = self.owner(&pod.metadata) {
            match delta {
                Delta::Added(pod) if !pods::is_terminating(pod) => self.expectations.creation_observed(&owner),
                Delta::Updated { old, new } if pods::is_terminating(new) && !pods::is_terminating(old) => {
                    self.expectations.deletion_observed(&owner, &key(&new.metadata));
                }
                Delta::Deleted(pod) => self.expectations.deletion_observed(&owner, &key(&pod.metadata)),
                _ => {}
            }
            self.queue.add(owner);
        } else if controller_of(&pod.metadata).is_none() {
            let none = BTreeMap::new();
            let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
            for set in self.sets.list_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                if set.spec.as_ref().is_some_and(|spec| selectors::matches(&spec.selector, labels)) {
                    self.queue.add(key_of(set.as_ref()));
                }
            }
        }
    }

    fn owner(&self, meta: &ObjectMeta) -> Option<String> {
        let owner = controller_of(meta).filter(|owner| owner.kind == "DaemonSet")?;
        let found = self.sets.get(meta.namespace.as_deref().unwrap_or_default(), &owner.name)?;
        (found.metadata.uid.as_deref() == Some(&owner.uid)).then(|| key_of(found.as_ref()))
    }
}
