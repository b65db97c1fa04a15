//! One sync of one DaemonSet: pods where they belong, the update at its pace, the status.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ironkeel_informer::{ControllerRefManager, EventRecorder, Expectations, Informer, slow_start_batch};
use ironkeel_semantics::well_known::CONTROLLER_REVISION_HASH_LABEL;
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};

use super::placement::{placement, pod_for};
use crate::context::{BY_CONTROLLER, key_of, orphan_key, split};
use crate::error::{Error, namespace_terminating, unless_gone};
use crate::replicas::words;
use crate::revision;

/// Pods created or deleted in one sync.
const BURST_PODS: usize = 250;
/// Revisions kept when the DaemonSet does not say.
const HISTORY_LIMIT: i32 = 10;

pub(super) struct Sync {
    pub(super) sets: Informer<DaemonSet>,
    pub(super) nodes: Informer<Node>,
    pub(super) pods: Informer<Pod>,
    pub(super) revisions: Informer<ControllerRevision>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) expectations: Arc<Expectations>,
}

/// The claimed pods by node.
type ByNode = HashMap<String, Vec<Arc<Pod>>>;

fn hash_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(CONTROLLER_REVISION_HASH_LABEL)).map_or("", String::as_str)
}

/// The node that a pod is on or pinned to.
fn target(pod: &Pod) -> Option<String> {
    if let Some(node) = pods::node_name(pod) {
        return Some(node.to_owned());
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.first()?.match_fields.as_ref()?.iter().find(|field| field.key == "metadata.name")?;
    field.values.as_ref()?.first().cloned()
}

impl Sync {
    pub(super) async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(set) = self.sets.get(namespace, name) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let Some(spec) = &set.spec else { return Ok(None) };
        if selectors::is_empty(&spec.selector) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(set.as_ref(), "SelectingAll", message);
            return Ok(None);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let mut history = self.revisions.by_index(BY_CONTROLLER, &set.uid().unwrap_or_default());
        revision::sort(&mut history);
        let current = revision::current(
            &self.client,
            set.as_ref(),
            &spec.template,
            CONTROLLER_REVISION_HASH_LABEL,
            &history,
            &mut collisions,
        )
        .await?;
        let hash = current.labels().get(CONTROLLER_REVISION_HASH_LABEL).cloned().unwrap_or_default();
        let by_node = self.claim(&set, spec).await?;
        let nodes = self.nodes.list();
        if self.expectations.satisfied(key) {
            self.place(&set, spec, key, &nodes, &by_node, &hash).await?;
            let rolls =
                spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
            if rolls && self.expectations.satisfied(key) {
                self.roll(&set, spec, key, &nodes, &by_node, &hash).await?;
            }
            let limit = spec.revision_history_limit.unwrap_or(HISTORY_LIMIT);
            let used = |revision: &ControllerRevision| {
                let label = revision.labels().get(CONTROLLER_REVISION_HASH_LABEL);
                revision.name_any() == current.name_any()
                    || by_node.values().flatten().any(|pod| Some(hash_of(pod)) == label.map(String::as_str))
            };
            revision::truncate(&self.client, namespace, &history, used, limit).await?;
        }
        self.write_status(&set, spec, &nodes, &by_node, &hash, collisions).await
    }

    async fn claim(&self, set: &DaemonSet, spec: &DaemonSetSpec) -> Result<ByNode, Error> {
        let namespace = set.namespace().unwrap_or_default();
        let mut candidates = self.pods.by_index(BY_CONTROLLER, &set.uid().unwrap_or_default());
        candidates.extend(self.pods.by_index(BY_CONTROLLER, &orphan_key(&namespace)));
        let api = Api::<DaemonSet>::namespaced(self.client.clone(), &namespace);
        let name = set.name_any();
        let claimed = ControllerRefManager::new(self.client.clone(), set)
            .claim(
                candidates,
                |labels| selectors::matches(&spec.selector, labels),
                || async { Ok(api.get_opt(&name).await?.map(|set| set.metadata)) },
            )
            .await?;
        let mut by_node = ByNode::new();
        for pod in claimed {
            if let Some(node) = target(&pod) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        Ok(by_node)
    }

    /// Makes pods where one is missing; deletes failed ones, and those where none may be or too many are.
    async fn place(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        key: &str,
        nodes: &[Arc<Node>],
        by_node: &ByNode,
        hash: &str,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut doomed = Vec::new();
        let surges = self.surge(spec, nodes.len())? > 0;
        for node in nodes {
            let name = node.name_any();
            let placement = placement(set, spec, node);
            let here = by_node.get(&name).map(Vec::as_slice).unwrap_or_default();
            if !placement.keep {
                doomed.extend(here.iter().filter(|pod| !pods::is_terminating(pod)).cloned());
                continue;
            }
            let mut alive: Vec<Arc<Pod>> = Vec::new();
            for pod in here.iter().filter(|pod| !pods::is_terminating(pod)) {
                if pods::is_terminal(pod) {
                    let message =
                        format!("Found failed daemon pod {} on node {name}, will try to kill it", key_of(pod.as_ref()));
                    self.recorder.warning(set, "FailedDaemonPod", message);
                    doomed.push(pod.clone());
                } else {
                    alive.push(pod.clone());
                }
            }
            if here.is_empty() && placement.run {
                missing.push(name);
            } else if alive.len() > 1 {
                // The oldest stays; while surging, so does the newest of the current revision until it is available.
                alive.sort_by_key(|pod| (!pods::is_ready(pod), pod.metadata.creation_timestamp.clone()));
                let surging = surges && alive.len() == 2 && alive.iter().any(|pod| hash_of(pod) != hash);
                if !surging {
                    doomed.extend(alive.drain(1..));
                }
            }
        }
        let known: std::collections::HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        let lost = by_node.iter().filter(|(node, _)| !known.contains(*node)).flat_map(|(_, pods)| pods);
        doomed.extend(lost.filter(|pod| !pods::is_terminating(pod) && pods::node_name(pod).is_none()).cloned());
        self.apply(set, spec, key, missing, doomed, hash).await
    }

    async fn apply(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        key: &str,
        mut missing: Vec<String>,
        mut doomed: Vec<Arc<Pod>>,
        hash: &str,
    ) -> Result<(), Error> {
        missing.truncate(BURST_PODS);
        doomed.truncate(BURST_PODS);
        let api = Api::<Pod>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        self.expectations.expect_creations(key, missing.len());
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| key_of(pod.as_ref())));
        let (_, skipped, failed) = slow_start_batch(missing.len(), |at| {
            let pod = pod_for(set, spec, &missing[at], hash);
            let api = &api;
            async move {
                match api.create(&PostParams::default(), &pod).await {
                    Ok(made) => {
                        let message = format!("Created pod: {}", made.name_any());
                        self.recorder.normal(set, "SuccessfulCreate", message);
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.creation_observed(key);
                        let message = format!("Error creating: {}", words(&error));
                        self.recorder.warning(set, "FailedCreate", message);
                        Err(error)
                    }
                }
            }
        })
        .await;
        for _ in 0..skipped {
            self.expectations.creation_observed(key);
        }
        let results = join_all(doomed.iter().map(|pod| async {
            let name = pod.name_any();
            let result = unless_gone(api.delete(&name, &DeleteParams::default()).await);
            match &result {
                Ok(Some(_)) => self.recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {name}")),
                _ => self.expectations.deletion_observed(key, &key_of(pod.as_ref())),
            }
            result.map(drop)
        }))
        .await;
        match failed {
            Some(error) if !namespace_terminating(&error) => Err(error.into()),
            _ => Ok(results.into_iter().collect::<Result<(), _>>()?),
        }
    }

    fn surge(&self, spec: &DaemonSetSpec, desired: usize) -> Result<i32, Error> {
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let desired = i32::try_from(desired).unwrap_or(i32::MAX);
        rolling
            .and_then(|rolling| rolling.max_surge.as_ref())
            .map_or(Ok(0), |surge| revision::int_or_percent(surge, desired, true))
    }

    /// Replaces pods of older revisions, as many at once as may be unavailable, or by a second pod when surging.
    async fn roll(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        key: &str,
        nodes: &[Arc<Node>],
        by_node: &ByNode,
        hash: &str,
    ) -> Result<(), Error> {
        let desired: Vec<String> =
            nodes.iter().filter(|node| placement(set, spec, node).run).map(|node| node.name_any()).collect();
        let surge = self.surge(spec, desired.len())?;
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
        let count = i32::try_from(desired.len()).unwrap_or(i32::MAX);
        let mut budget = revision::int_or_percent(&unavailable, count, true)?;
        if budget == 0 && surge == 0 {
            budget = 1;
        }
        let at = Timestamp::now();
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let (mut old_available, mut old_broken, mut second, mut done) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut surging = 0;
        for name in &desired {
            let here = by_node.get(name).map(Vec::as_slice).unwrap_or_default();
            let alive: Vec<_> = here.iter().filter(|pod| !pods::is_terminating(pod)).collect();
            let new = alive.iter().find(|pod| hash_of(pod) == hash);
            let old = alive.iter().find(|pod| hash_of(pod) != hash);
            match (old, new) {
                (Some(old), Some(new)) => {
                    if pods::is_available(new, min_ready, at) || !pods::is_ready(old) {
                        done.push(Arc::clone(old));
                    } else {
                        surging += 1;
                    }
                }
                (Some(old), None) if !pods::is_available(old, min_ready, at) => old_broken.push(Arc::clone(old)),
                (Some(old), None) => {
                    old_available.push(Arc::clone(old));
                    second.push(name.clone());
                }
                (None, Some(new)) if pods::is_available(new, min_ready, at) => {}
                (None, _) => budget -= 1,
            }
        }
        let mut doomed = old_broken.clone();
        if surge > 0 {
            second.truncate(usize::try_from(surge - surging).unwrap_or(0));
            doomed.extend(done);
        } else {
            second.clear();
            budget -= i32::try_from(old_broken.len()).unwrap_or(i32::MAX);
            doomed.extend(old_available.into_iter().take(usize::try_from(budget).unwrap_or(0)));
        }
        self.apply(set, spec, key, second, doomed, hash).await
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        nodes: &[Arc<Node>],
        by_node: &ByNode,
        hash: &str,
        collisions: i32,
    ) -> Result<Option<Duration>, Error> {
        let at = Timestamp::now();
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let before = set.status.clone().unwrap_or_default();
        let (mut ready, mut available, mut updated) = (0, 0, 0);
        let mut after = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: before
                .collision_count
                .or((collisions > 0).then_some(collisions))
                .map(|n| n.max(collisions)),
            conditions: before.conditions.clone(),
            ..DaemonSetStatus::default()
        };
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        let mut again = None;
        for node in nodes {
            let here = by_node.get(&node.name_any()).map(Vec::as_slice).unwrap_or_default();
            if !placement(set, spec, node).run {
                *counts.entry("misscheduled").or_default() += i32::from(!here.is_empty());
                continue;
            }
            *counts.entry("desired").or_default() += 1;
            let mut here = here.to_vec();
            here.sort_by_key(|pod| (!pods::is_ready(pod), pod.metadata.creation_timestamp.clone()));
            let Some(pod) = here.first() else { continue };
            *counts.entry("current").or_default() += 1;
            again = [again, pods::available_in(pod, min_ready, at)].into_iter().flatten().min();
            ready += i32::from(pods::is_ready(pod));
            available += i32::from(pods::is_available(pod, min_ready, at));
            updated += i32::from(hash_of(pod) == hash);
        }
        let number = |name: &str| counts.get(name).copied().unwrap_or(0);
        let some = |number: i32| (number != 0).then_some(number);
        after.desired_number_scheduled = number("desired");
        after.current_number_scheduled = number("current");
        after.number_misscheduled = number("misscheduled");
        after.number_ready = ready;
        after.number_available = some(available);
        after.updated_number_scheduled = some(updated);
        after.number_unavailable = some(number("desired") - available);
        if after != before {
            let mut changed = set.clone();
            changed.status = Some(after);
            let api = Api::<DaemonSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            unless_gone(api.replace_status(&set.name_any(), &PostParams::default(), &changed).await)?;
        }
        Ok(again)
    }
}
