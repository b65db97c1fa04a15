//! Deployments: ReplicaSets of old and new templates, exchanged at the pace that the strategy allows.
//!
//! Here: what is watched, and the order of a sync. `template` finds and makes the ReplicaSet of the current template,
//! `rolling` moves replicas, `status` tells how far it is.

mod rolling;
mod status;
mod template;

use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{ControllerRefManager, Delta, EventRecorder, Informer, WorkQueue, controller_of, run_workers};
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::context::{BY_CONTROLLER, Context, controller_key, key_of, orphan_key, split};
use crate::error::{Error, is_conflict, unless_gone};
use crate::replicas::SIBLINGS;

const NAME: &str = "deployment-controller";
/// Annotation of a ReplicaSet: the replicas that its Deployment wanted when it was last scaled.
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a ReplicaSet: the replicas that its Deployment allowed then, with the surge.
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

pub(crate) async fn run(context: Context) {
    let deployments = context.factory.informer::<Deployment>();
    let sets = context.factory.informer::<ReplicaSet>();
    let pods = context.pods();
    sets.add_index(SIBLINGS, |set| vec![controller_key(&set.metadata)]);
    let client = context.client(NAME);
    let recorder = context.recorder(&client, NAME);
    let queue: WorkQueue<String> = WorkQueue::new();

    let own = queue.clone();
    context.feed(&deployments, move |delta| {
        if let Some(deployment) = delta.object() {
            own.add(key_of(deployment.as_ref()));
        }
    });
    let (by_set, known) = (queue.clone(), deployments.clone());
    context.feed(&sets, move |delta| {
        if let Delta::Updated { old, .. } = &delta
            && let Some(owner) = owner_of(&known, &old.metadata)
        {
            by_set.add(owner);
        }
        let Some(set) = delta.object() else { return };
        if let Some(owner) = owner_of(&known, &set.metadata) {
            by_set.add(owner);
        } else if controller_of(&set.metadata).is_none() {
            for deployment in known.list_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
                if selects(&deployment, &set.metadata) {
                    by_set.add(key_of(deployment.as_ref()));
                }
            }
        }
    });
    // A Recreate rollout waits for the last old pod.
    let (by_pod, known, known_sets) = (queue.clone(), deployments.clone(), sets.clone());
    context.feed(&pods, move |delta| {
        let gone = match &delta {
            Delta::Deleted(pod) => Some(pod),
            Delta::Updated { old, new } if pods::is_terminal(new) && !pods::is_terminal(old) => Some(new),
            _ => None,
        };
        let Some(pod) = gone else { return };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else { return };
        let Some(set) = known_sets.get(namespace, &owner.name) else { return };
        if let Some(key) = owner_of(&known, &set.metadata) {
            let recreate = known.get(namespace, split(&key).1).is_some_and(|deployment| is_recreate(&deployment));
            if recreate {
                by_pod.add(key);
            }
        }
    });

    deployments.synced().await;
    sets.synced().await;
    pods.synced().await;
    let controller = Arc::new(Controller { deployments, sets, pods, client, recorder });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
    .await;
}

fn owner_of(deployments: &Informer<Deployment>, meta: &ObjectMeta) -> Option<String> {
    let owner = controller_of(meta).filter(|owner| owner.kind == "Deployment")?;
    let found = deployments.get(meta.namespace.as_deref().unwrap_or_default(), &owner.name)?;
    (found.metadata.uid.as_deref() == Some(&owner.uid)).then(|| key_of(found.as_ref()))
}

fn selects(deployment: &Deployment, meta: &ObjectMeta) -> bool {
    let selector =
        deployment.spec.as_ref().map(|spec| &spec.selector).filter(|selector| !selectors::is_empty(selector));
    selectors::matches_optional(selector, meta.labels.as_ref())
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// The replicas that the Deployment wants.
fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().map_or(1, |spec| spec.replicas.unwrap_or(1))
}

/// The replicas that the ReplicaSet is set to.
fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().map_or(1, |spec| spec.replicas.unwrap_or(1))
}

fn total_size<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.into_iter().map(|set| size(set)).sum()
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
}

struct Controller {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    client: Client,
    recorder: EventRecorder,
}

/// The ReplicaSets of a Deployment, the old ones with the oldest first.
struct Sets {
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> + Clone {
        self.old.iter().chain(&self.new)
    }
}

impl Controller {
    async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        match self.try_sync(key).await {
            Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
            other => other,
        }
    }

    async fn try_sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(deployment) = self.deployments.get(namespace, name) else { return Ok(None) };
        let mut deployment = deployment.as_ref().clone();
        let Some(spec) = &deployment.spec else { return Ok(None) };
        if selectors::is_empty(&spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&deployment, "SelectingAll", message);
            return Ok(None);
        }
        let claimed = self.claim(&deployment).await?;
        if deployment.metadata.deletion_timestamp.is_some() {
            let sets = self.sort_out(&mut deployment, claimed, false).await?;
            return self.write_status(&deployment, &sets).await;
        }
        self.note_pause(&mut deployment).await?;
        let scaling = claimed.iter().any(|set| {
            size(set) > 0
                && template::annotation_number(set, DESIRED_REPLICAS) != Some(wanted(&deployment))
                && template::annotation_number(set, DESIRED_REPLICAS).is_some()
        });
        if is_paused(&deployment) || scaling {
            let mut sets = self.sort_out(&mut deployment, claimed, false).await?;
            self.scale_all(&deployment, &mut sets).await?;
            if is_paused(&deployment) {
                self.clean_up(&deployment, &sets).await?;
            }
            return self.write_status(&deployment, &sets).await;
        }
        if is_recreate(&deployment) {
            self.recreate(&mut deployment, claimed).await
        } else {
            self.roll(&mut deployment, claimed).await
        }
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let namespace = deployment.namespace().unwrap_or_default();
        let mut candidates = self.sets.by_index(SIBLINGS, &deployment.uid().unwrap_or_default());
        candidates.extend(self.sets.by_index(SIBLINGS, &orphan_key(&namespace)));
        let api = Api::<Deployment>::namespaced(self.client.clone(), &namespace);
        let name = deployment.name_any();
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        Ok(ControllerRefManager::new(self.client.clone(), deployment)
            .claim(
                candidates,
                |labels| selectors::matches_optional(selector, Some(labels)),
                || async { Ok(api.get_opt(&name).await?.map(|live| live.metadata)) },
            )
            .await?)
    }

    async fn roll(
        &self,
        deployment: &mut Deployment,
        claimed: Vec<Arc<ReplicaSet>>,
    ) -> Result<Option<Duration>, Error> {
        let mut sets = self.sort_out(deployment, claimed, true).await?;
        if !self.grow_new(deployment, &mut sets).await? {
            self.shrink_old(deployment, &mut sets).await?;
        }
        if status::is_complete(deployment, &status::counts(deployment, &sets)) {
            self.clean_up(deployment, &sets).await?;
        }
        self.write_rollout_status(deployment, &sets).await
    }

    async fn recreate(
        &self,
        deployment: &mut Deployment,
        claimed: Vec<Arc<ReplicaSet>>,
    ) -> Result<Option<Duration>, Error> {
        let mut sets = self.sort_out(deployment, claimed.clone(), false).await?;
        let mut scaled = false;
        for set in &mut sets.old {
            if size(set) > 0 {
                *set = self.scale(deployment, set, 0).await?;
                scaled = true;
            }
        }
        if scaled || self.old_pods_run(&sets) {
            return self.write_rollout_status(deployment, &sets).await;
        }
        if sets.new.is_none() {
            sets = self.sort_out(deployment, claimed, true).await?;
        }
        if let Some(new) = sets.new.as_mut()
            && size(new) != wanted(deployment)
        {
            *new = self.scale(deployment, new, wanted(deployment)).await?;
        }
        if status::is_complete(deployment, &status::counts(deployment, &sets)) {
            self.clean_up(deployment, &sets).await?;
        }
        self.write_rollout_status(deployment, &sets).await
    }

    fn old_pods_run(&self, sets: &Sets) -> bool {
        let pods_of = |set: &Arc<ReplicaSet>| self.pods.by_index(BY_CONTROLLER, &set.uid().unwrap_or_default());
        sets.old.iter().flat_map(pods_of).any(|pod| !pods::is_terminal(&pod))
    }

    /// Sets `set` to `replicas` and tells about it; the answer is the ReplicaSet after that.
    async fn scale(
        &self,
        deployment: &Deployment,
        set: &Arc<ReplicaSet>,
        replicas: i32,
    ) -> Result<Arc<ReplicaSet>, Error> {
        let before = size(set);
        let desired = wanted(deployment);
        let most = desired + rolling::max_surge(deployment)?;
        let same_notes = template::annotation_number(set, DESIRED_REPLICAS) == Some(desired)
            && template::annotation_number(set, MAX_REPLICAS) == Some(most);
        if before == replicas && same_notes {
            return Ok(set.clone());
        }
        let patch = json!({
            "metadata": {
                "resourceVersion": set.resource_version(),
                "annotations": {DESIRED_REPLICAS: desired.to_string(), MAX_REPLICAS: most.to_string()},
            },
            "spec": {"replicas": replicas},
        });
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let after = api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        if before != replicas {
            let direction = if replicas > before { "up" } else { "down" };
            let name = set.name_any();
            let message = format!("Scaled {direction} replica set {name} from {before} to {replicas}");
            self.recorder.normal(deployment, "ScalingReplicaSet", message);
        }
        Ok(Arc::new(after))
    }

    /// Deletes old ReplicaSets beyond the history limit, the oldest first.
    async fn clean_up(&self, deployment: &Deployment, sets: &Sets) -> Result<(), Error> {
        let Some(limit) = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit) else {
            return Ok(());
        };
        let mut history: Vec<_> = sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        let surplus = history.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        history.sort_by_key(|set| (template::revision(set), set.metadata.creation_timestamp.clone()));
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
        for set in history.into_iter().take(surplus) {
            let running = set.status.as_ref().is_some_and(|status| status.replicas != 0);
            let unseen = set.status.as_ref().and_then(|status| status.observed_generation) < set.metadata.generation;
            if running || size(set) != 0 || unseen {
                continue;
            }
            unless_gone(api.delete(&set.name_any(), &DeleteParams::background()).await)?;
        }
        Ok(())
    }

    /// Writes the Deployment's status; the API is asked only when something changed.
    async fn put_status(&self, deployment: &Deployment, changed: Deployment) -> Result<Deployment, Error> {
        if deployment.status == changed.status {
            return Ok(changed);
        }
        let api = Api::<Deployment>::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
        Ok(api.replace_status(&deployment.name_any(), &PostParams::default(), &changed).await?)
    }
}
