//! One sync of one StatefulSet: revisions, pods in order, the update from the highest ordinal down.
//!
//! Answers to upstream's `statefulset/stateful_set_control.go`, without the MaxUnavailableStatefulSet gate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{ControllerRefManager, EventRecorder, Informer};
use ironkeel_semantics::well_known::CONTROLLER_REVISION_HASH_LABEL;
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt as _};

use super::identity::{identify, ordinal, pod_name, pod_of};
use crate::context::{BY_CONTROLLER, orphan_key, split};
use crate::error::{Error, already_exists, code, namespace_terminating, unless_gone};
use crate::replicas::words;
use crate::revision;

/// Label of a revision: the hash of its template.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Revisions kept when the StatefulSet does not say.
const HISTORY_LIMIT: i32 = 10;

pub(super) struct Sync {
    pub(super) sets: Informer<StatefulSet>,
    pub(super) pods: Informer<Pod>,
    pub(super) claims: Informer<PersistentVolumeClaim>,
    pub(super) revisions: Informer<ControllerRevision>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
}

/// The revisions that pods may be of, with the templates that they store.
pub(super) struct Revisions {
    pub(super) current: String,
    pub(super) update: String,
    current_template: PodTemplateSpec,
    pub(super) collisions: i32,
}

/// The claimed pods by ordinal.
pub(super) type ByOrdinal = BTreeMap<i32, Arc<Pod>>;

/// Whether the pods after this one must wait.
#[derive(PartialEq)]
enum Next {
    Goes,
    Waits,
}

pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CONTROLLER_REVISION_HASH_LABEL))
        .map_or("", String::as_str)
}

fn partition(spec: &StatefulSetSpec) -> i32 {
    let strategy = spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0)
}

pub(super) fn rolls(spec: &StatefulSetSpec) -> bool {
    spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// The first ordinal, and the one after the last.
pub(super) fn range(spec: &StatefulSetSpec) -> (i32, i32) {
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    (start, start.saturating_add(spec.replicas.unwrap_or(1)))
}

impl Sync {
    pub(super) async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(set) = self.sets.get(namespace, name) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        if selectors::is_empty(&spec.selector) {
            return Ok(None);
        }
        let mut history = self.revisions.by_index(BY_CONTROLLER, &set.uid().unwrap_or_default());
        revision::sort(&mut history);
        let claimed = self.claim(&set, spec).await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let revisions = self.revisions(&set, spec, &history).await?;
        let outcome = self.advance(&set, spec, &revisions, &claimed).await;
        let again = self.write_status(&set, spec, &revisions, &claimed).await?;
        outcome?;
        let used = |found: &ControllerRevision| {
            let name = found.name_any();
            name == revisions.current
                || name == revisions.update
                || claimed.values().any(|pod| revision_of(pod) == name)
        };
        let limit = spec.revision_history_limit.unwrap_or(HISTORY_LIMIT);
        revision::truncate(&self.client, namespace, &history, used, limit).await?;
        Ok(again)
    }

    async fn claim(&self, set: &StatefulSet, spec: &StatefulSetSpec) -> Result<ByOrdinal, Error> {
        let namespace = set.namespace().unwrap_or_default();
        let name = set.name_any();
        let mut candidates = self.pods.by_index(BY_CONTROLLER, &set.uid().unwrap_or_default());
        candidates.extend(self.pods.by_index(BY_CONTROLLER, &orphan_key(&namespace)));
        candidates.retain(|pod| ordinal(&name, &pod.name_any()).is_some());
        let api = Api::<StatefulSet>::namespaced(self.client.clone(), &namespace);
        let claimed = ControllerRefManager::new(self.client.clone(), set)
            .claim(
                candidates,
                |labels| selectors::matches(&spec.selector, labels),
                || async { Ok(api.get_opt(&name).await?.map(|set| set.metadata)) },
            )
            .await?;
        Ok(claimed.into_iter().filter_map(|pod| Some((ordinal(&name, &pod.name_any())?, pod))).collect())
    }

    async fn revisions(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        history: &[Arc<ControllerRevision>],
    ) -> Result<Revisions, Error> {
        let status = set.status.as_ref();
        let mut collisions = status.and_then(|status| status.collision_count).unwrap_or(0);
        let update = revision::current(&self.client, set, &spec.template, HASH_LABEL, history, &mut collisions).await?;
        let named = status.and_then(|status| status.current_revision.as_deref());
        let current = history.iter().find(|found| Some(found.name_any().as_str()) == named).unwrap_or(&update);
        // By way of text: code that reads a template from a tree would be made for this one place.
        let stored = current.data.as_ref().map(|data| data.0["spec"]["template"].to_string());
        let current_template = stored.and_then(|stored| serde_json::from_str(&stored).ok());
        Ok(Revisions {
            current: current.name_any(),
            update: update.name_any(),
            current_template: current_template.unwrap_or_else(|| spec.template.clone()),
            collisions,
        })
    }

    /// Does what can be done now.
    async fn advance(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        revisions: &Revisions,
        claimed: &ByOrdinal,
    ) -> Result<(), Error> {
        let (start, end) = range(spec);
        let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
        for at in start..end {
            if self.bring_up(set, spec, revisions, claimed.get(&at), at, ordered).await? == Next::Waits {
                return Ok(());
            }
        }
        let condemned: Vec<(&i32, &Arc<Pod>)> =
            claimed.iter().rev().filter(|(at, _)| !(start..end).contains(at)).collect();
        let in_range = claimed.range(start..end).map(|(_, pod)| pod);
        let lowest_first = in_range.chain(condemned.iter().rev().map(|(_, pod)| *pod));
        let first_unhealthy = lowest_first.into_iter().find(|pod| !is_healthy(spec, pod)).map(|pod| pod.name_any());
        for (_, pod) in condemned {
            let may_stay = is_healthy(spec, pod) || first_unhealthy.as_ref() == Some(&pod.name_any());
            if pods::is_terminating(pod) || (ordered && !may_stay) {
                if ordered {
                    return Ok(());
                }
                continue;
            }
            self.own_claims(set, spec, pod, true).await?;
            self.stop(set, pod).await?;
            if ordered {
                return Ok(());
            }
        }
        if !rolls(spec) {
            return Ok(());
        }
        for at in (start.saturating_add(partition(spec))..end).rev() {
            let Some(pod) = claimed.get(&at) else { return Ok(()) };
            if revision_of(pod) != revisions.update && !pods::is_terminating(pod) {
                return self.stop(set, pod).await;
            }
            if !is_healthy(spec, pod) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One ordinal that is wanted: made, made again, or mended.
    async fn bring_up(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        revisions: &Revisions,
        pod: Option<&Arc<Pod>>,
        at: i32,
        ordered: bool,
    ) -> Result<Next, Error> {
        let after = |pod_is_done: bool| if ordered && !pod_is_done { Next::Waits } else { Next::Goes };
        let Some(pod) = pod else {
            self.make(set, spec, revisions, at).await?;
            return Ok(after(false));
        };
        if pods::is_terminal(pod) {
            if !pods::is_terminating(pod) {
                let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
                let message = format!("StatefulSet {namespace}/{name} is recreating failed Pod {}", pod.name_any());
                self.recorder.warning(set, "RecreatingFailedPod", message);
                self.stop(set, pod).await?;
            }
            return Ok(after(false));
        }
        if pods::is_terminating(pod) {
            return Ok(after(false));
        }
        if pods::phase(pod) == "Pending" {
            self.make_claims(set, spec, at).await?;
        }
        if !is_healthy(spec, pod) && ordered {
            return Ok(Next::Waits);
        }
        self.own_claims(set, spec, pod, false).await?;
        let mut mended = pod.as_ref().clone();
        if identify(set, spec, &mut mended, at) {
            let api = Api::<Pod>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            unless_gone(api.replace(&pod.name_any(), &PostParams::default(), &mended).await)?;
        }
        Ok(Next::Goes)
    }

    async fn make(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        revisions: &Revisions,
        at: i32,
    ) -> Result<(), Error> {
        self.make_claims(set, spec, at).await?;
        let keeps = rolls(spec) && at < range(spec).0.saturating_add(partition(spec));
        let (template, revision) =
            if keeps { (&revisions.current_template, &revisions.current) } else { (&spec.template, &revisions.update) };
        let pod = pod_of(set, spec, template, revision, at);
        let (pod_name, name) = (pod_name(set, at), set.name_any());
        let api = Api::<Pod>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), &pod).await {
            Ok(_) => {
                let message = format!("create Pod {pod_name} in StatefulSet {name} successful");
                self.recorder.normal(set, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if already_exists(&error) => {
                // Ours, and not in the cache yet; or another's, and then it is to be known.
                let found = api.get_opt(&pod_name).await?;
                let owner = found.as_ref().and_then(|found| ironkeel_informer::controller_of(&found.metadata));
                if owner.is_none_or(|owner| Some(&owner.uid) == set.metadata.uid.as_ref()) {
                    return Ok(());
                }
                Err(Error::NameTaken { kind: "Pod", name: pod_name })
            }
            Err(error) if namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("create Pod {pod_name} in StatefulSet {name} failed error: {}", words(&error));
                self.recorder.warning(set, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    async fn stop(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        match api.delete(&pod.name_any(), &DeleteParams::default().preconditions(same)).await {
            Ok(_) => {
                let message = format!("delete Pod {} in StatefulSet {} successful", pod.name_any(), set.name_any());
                self.recorder.normal(set, "SuccessfulDelete", message);
                Ok(())
            }
            // Gone, or another by that name: its event is on the way.
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the pod runs, and has been ready for long enough.
pub(super) fn is_healthy(spec: &StatefulSetSpec, pod: &Pod) -> bool {
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    pods::phase(pod) == "Running" && !pods::is_terminating(pod) && pods::is_available(pod, min_ready, Timestamp::now())
}
