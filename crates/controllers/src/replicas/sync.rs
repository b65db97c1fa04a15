//! One sync of one owner: claim its pods, create or delete, write the status.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ironkeel_informer::{
    ControllerRefManager, EventRecorder, Expectations, Informer, controller_of, controller_reference, slow_start_batch,
};
use ironkeel_semantics::pods;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};

use super::rank::sort_for_deletion;
use super::{Counts, Failure, Replicated, SIBLINGS};
use crate::context::{BY_CONTROLLER, key_of, now, orphan_key, split};
use crate::error::{Error, is_conflict, namespace_terminating, unless_gone};

/// Pods created or deleted in one sync.
const BURST_REPLICAS: usize = 500;

pub(super) struct Sync<O: Replicated> {
    pub(super) owners: Informer<O>,
    pub(super) pods: Informer<Pod>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) expectations: Arc<Expectations>,
}

impl<O: Replicated> Sync<O> {
    pub(super) async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(owner) = self.owners.get(namespace, name) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let needs_sync = self.expectations.satisfied(key);
        let uid = owner.uid().unwrap_or_default();
        let mut candidates = self.pods.by_index(BY_CONTROLLER, &uid);
        let terminating = candidates.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod)).count();
        candidates.extend(self.pods.by_index(BY_CONTROLLER, &orphan_key(namespace)));
        candidates.retain(|pod| pods::is_active(pod));
        let api = Api::<O>::namespaced(self.client.clone(), namespace);
        let claimed = ControllerRefManager::new(self.client.clone(), owner.as_ref())
            .claim(
                candidates,
                |labels| owner.selects(labels),
                || async { Ok(api.get_opt(name).await?.map(|owner| owner.meta().clone())) },
            )
            .await?;
        let outcome = if needs_sync && owner.meta().deletion_timestamp.is_none() {
            self.manage(&owner, key, &claimed).await
        } else {
            Ok(())
        };
        let soonest = self.write_status(&api, &owner, &claimed, terminating, outcome.as_ref().err()).await?;
        outcome.map(|()| soonest)
    }

    async fn manage(&self, owner: &Arc<O>, key: &str, claimed: &[Arc<Pod>]) -> Result<(), Error> {
        let wanted = owner.replicas();
        if claimed.len() < wanted {
            self.create(owner, key, (wanted - claimed.len()).min(BURST_REPLICAS)).await
        } else if claimed.len() > wanted {
            self.delete(owner, key, claimed, (claimed.len() - wanted).min(BURST_REPLICAS)).await
        } else {
            Ok(())
        }
    }

    async fn create(&self, owner: &Arc<O>, key: &str, count: usize) -> Result<(), Error> {
        let Some(template) = owner.template() else { return Ok(()) };
        let mut pod = pods::from_template(template);
        pod.metadata.generate_name = Some(format!("{}-", owner.name_any()));
        pod.metadata.owner_references = Some(vec![controller_reference(owner.as_ref())]);
        let api = Api::<Pod>::namespaced(self.client.clone(), &owner.namespace().unwrap_or_default());
        let post = PostParams::default();
        self.expectations.expect_creations(key, count);
        let (_, skipped, failed) = slow_start_batch(count, |_| async {
            match api.create(&post, &pod).await {
                Ok(made) => {
                    let message = format!("Created pod: {}", made.name_any());
                    self.recorder.normal(owner.as_ref(), "SuccessfulCreate", message);
                    Ok(())
                }
                Err(error) => {
                    self.expectations.creation_observed(key);
                    if !namespace_terminating(&error) {
                        let message = format!("Error creating: {}", words(&error));
                        self.recorder.warning(owner.as_ref(), "FailedCreate", message);
                    }
                    Err(error)
                }
            }
        })
        .await;
        for _ in 0..skipped {
            self.expectations.creation_observed(key);
        }
        match failed {
            Some(error) if !namespace_terminating(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn delete(&self, owner: &Arc<O>, key: &str, claimed: &[Arc<Pod>], count: usize) -> Result<(), Error> {
        let mut doomed = claimed.to_vec();
        sort_for_deletion(&mut doomed, &self.related(owner, claimed), Timestamp::now());
        doomed.truncate(count);
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| key_of(pod.as_ref())));
        let api = Api::<Pod>::namespaced(self.client.clone(), &owner.namespace().unwrap_or_default());
        let delete = DeleteParams::default();
        let results = join_all(doomed.iter().map(|pod| async {
            let name = pod.name_any();
            let result = unless_gone(api.delete(&name, &delete).await);
            match &result {
                Ok(Some(_)) => {
                    self.recorder.normal(owner.as_ref(), "SuccessfulDelete", format!("Deleted pod: {name}"));
                }
                Ok(None) => self.expectations.deletion_observed(key, &key_of(pod.as_ref())),
                Err(error) => {
                    self.expectations.deletion_observed(key, &key_of(pod.as_ref()));
                    let message = format!("Error deleting: {}", words(error));
                    self.recorder.warning(owner.as_ref(), "FailedDelete", message);
                }
            }
            result
        }))
        .await;
        results.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Active pods of the owners that share our controller: the other ReplicaSets of the Deployment.
    fn related(&self, owner: &O, claimed: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(controller) = controller_of(owner.meta()) else { return claimed.to_vec() };
        let siblings = self.owners.by_index(SIBLINGS, &controller.uid);
        let pods =
            siblings.iter().flat_map(|sibling| self.pods.by_index(BY_CONTROLLER, &sibling.uid().unwrap_or_default()));
        pods.filter(|pod| pods::is_active(pod)).collect()
    }

    /// Writes the status if it changed; returns when a ready pod becomes available.
    async fn write_status(
        &self,
        api: &Api<O>,
        owner: &Arc<O>,
        claimed: &[Arc<Pod>],
        terminating: usize,
        failed: Option<&Error>,
    ) -> Result<Option<Duration>, Error> {
        let at = Timestamp::now();
        let min_ready = owner.min_ready_seconds();
        let template_labels =
            owner.template().and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
        let count = |filter: &dyn Fn(&Pod) -> bool| {
            i32::try_from(claimed.iter().filter(|pod| filter(pod)).count()).unwrap_or(i32::MAX)
        };
        let before = owner.counts();
        let failure = failed.map(|error| Failure {
            since: before.failure.as_ref().and_then(|failure| failure.since.clone()).or_else(|| Some(now())),
            reason: if claimed.len() < owner.replicas() { "FailedCreate" } else { "FailedDelete" }.to_owned(),
            message: error.to_string(),
        });
        let after = Counts {
            replicas: count(&|_| true),
            fully_labeled: count(&|pod| {
                ironkeel_semantics::selectors::contains(&template_labels, pod.metadata.labels.as_ref())
            }),
            ready: count(&pods::is_ready),
            available: count(&|pod| pods::is_available(pod, min_ready, at)),
            terminating: before.terminating.map(|_| i32::try_from(terminating).unwrap_or(i32::MAX)),
            observed_generation: owner.meta().generation,
            failure,
        };
        if after != before {
            let mut written = owner.as_ref().clone();
            written.set_counts(after);
            match unless_gone(api.replace_status(&owner.name_any(), &PostParams::default(), &written).await) {
                Ok(_) => {}
                // The newer state is on its way to the cache, and the queue brings us back with it.
                Err(error) if is_conflict(&error) => return Ok(Some(Duration::from_millis(5))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(claimed.iter().filter_map(|pod| pods::available_in(pod, min_ready, at)).min())
    }
}

/// The API's own words about an error.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
