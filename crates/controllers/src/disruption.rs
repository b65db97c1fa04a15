//! PodDisruptionBudgets: how many pods of each may be evicted now. The eviction itself, and its bookkeeping in
//! `disruptedPods`, is the API server's.
//!
//! Answers to upstream's disruption controller. Pods of controllers that are not built in do not count towards a budget
//! that is a percentage or a maximum of unavailable pods: their scale is not read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{EventRecorder, Informer, WorkQueue, controller_of, run_workers};
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};

use crate::context::{Context, key_of, now, since, split, until_after};
use crate::error::{Error, is_conflict, unless_gone};
use crate::revision::int_or_percent;

/// How long an evicted pod may take to be deleted before it counts as healthy again.
const DELETION_SECONDS: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

pub(crate) async fn run(context: Context) {
    let client = context.client("disruption-controller");
    let recorder = context.recorder(&client, "controllermanager");
    let controller = Arc::new(Controller {
        budgets: context.factory.informer::<PodDisruptionBudget>(),
        pods: context.pods(),
        scales: Scales {
            deployments: context.factory.informer::<Deployment>(),
            sets: context.factory.informer::<ReplicaSet>(),
            controllers: context.factory.informer::<ReplicationController>(),
            stateful: context.factory.informer::<StatefulSet>(),
        },
        client,
        recorder,
    });
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&controller.budgets, move |delta| {
        if let Some(budget) = delta.object() {
            own.add(key_of(budget.as_ref()));
        }
    });
    let (by_pod, budgets) = (queue.clone(), controller.budgets.clone());
    context.feed(&controller.pods, move |delta| {
        let Some(pod) = delta.object() else { return };
        for budget in budgets.list_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if selects(&budget, pod) {
                by_pod.add(key_of(budget.as_ref()));
            }
        }
    });
    macro_rules! all_of_namespace {
        ($($informer:ident),*) => {$({
            let (queue, budgets) = (queue.clone(), controller.budgets.clone());
            context.feed(&controller.scales.$informer, move |delta| {
                // A status says nothing of the scale.
                if let ironkeel_informer::Delta::Updated { old, new } = &delta
                    && old.metadata.generation == new.metadata.generation
                {
                    return;
                }
                let Some(object) = delta.object() else { return };
                for budget in budgets.list_namespace(object.metadata.namespace.as_deref().unwrap_or_default()) {
                    queue.add(key_of(budget.as_ref()));
                }
            });
            controller.scales.$informer.synced().await;
        })*};
    }
    all_of_namespace!(deployments, sets, controllers, stateful);
    controller.budgets.synced().await;
    controller.pods.synced().await;
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let controller = controller.clone();
        async move {
            match controller.sync(&key).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other,
            }
        }
    })
    .await;
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector
        .is_some_and(|selector| selectors::matches(selector, pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())))
}

/// The controllers whose replicas a budget may be a share of.
struct Scales {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    controllers: Informer<ReplicationController>,
    stateful: Informer<StatefulSet>,
}

impl Scales {
    /// The uid and the replicas of the controller at the top of `owner`.
    fn of(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let is = |uid: Option<String>| uid.filter(|uid| *uid == owner.uid);
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = self.sets.get(namespace, &owner.name)?;
                let uid = is(set.uid())?;
                match controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                    Some(above) => self.of(namespace, above),
                    None => Some((uid, set.spec.as_ref()?.replicas.unwrap_or(1))),
                }
            }
            "Deployment" => {
                let found = self.deployments.get(namespace, &owner.name)?;
                Some((is(found.uid())?, found.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "ReplicationController" => {
                let found = self.controllers.get(namespace, &owner.name)?;
                Some((is(found.uid())?, found.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let found = self.stateful.get(namespace, &owner.name)?;
                Some((is(found.uid())?, found.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

struct Controller {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    client: Client,
    recorder: EventRecorder,
}

/// How many pods there should be, and how many of them healthy.
struct Expected {
    pods: i32,
    healthy: i32,
}

impl Controller {
    async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(budget) = self.budgets.get(namespace, name) else { return Ok(None) };
        let Some(spec) = &budget.spec else { return Ok(None) };
        let mut selected = self.pods.list_namespace(namespace);
        selected.retain(|pod| selects(&budget, pod));
        if selected.is_empty() {
            self.recorder.normal(budget.as_ref(), "NoPods", "No matching pods found");
        }
        let before = budget.status.clone().unwrap_or_default();
        let disrupted = still_disrupted(&before, &selected);
        let soonest = disrupted.values().map(|at| until_after(at, DELETION_SECONDS)).min();
        let healthy = selected
            .iter()
            .filter(|pod| !pods::is_terminating(pod) && pods::is_ready(pod) && !disrupted.contains_key(&pod.name_any()))
            .count();
        let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
        let mut after = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            observed_generation: budget.metadata.generation,
            conditions: before.conditions.clone(),
            ..before.clone()
        };
        let generation = budget.metadata.generation;
        match self.expect(namespace, spec, &selected) {
            Ok(expected) => {
                let allowed = if expected.pods > 0 { (healthy - expected.healthy).max(0) } else { 0 };
                after.expected_pods = Some(expected.pods);
                after.desired_healthy = Some(expected.healthy);
                after.disruptions_allowed = Some(allowed);
                let (status, reason) =
                    if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
                tell(&mut after, generation, status, reason, String::new());
            }
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.warning(budget.as_ref(), "CalculateExpectedPodCountFailed", message);
                after.disruptions_allowed = Some(0);
                after.expected_pods.get_or_insert_default();
                after.desired_healthy.get_or_insert_default();
                tell(&mut after, generation, "False", "SyncFailed", error.to_string());
            }
        }
        if after != before {
            let mut changed = budget.as_ref().clone();
            changed.status = Some(after);
            let api = Api::<PodDisruptionBudget>::namespaced(self.client.clone(), namespace);
            unless_gone(api.replace_status(name, &PostParams::default(), &changed).await)?;
        }
        Ok(soonest)
    }

    fn expect(
        &self,
        namespace: &str,
        spec: &PodDisruptionBudgetSpec,
        selected: &[Arc<Pod>],
    ) -> Result<Expected, Error> {
        if let Some(most) = &spec.max_unavailable {
            let pods = self.scale(namespace, selected)?;
            let unavailable = int_or_percent(most, pods, true)?;
            return Ok(Expected { pods, healthy: (pods - unavailable).max(0) });
        }
        match &spec.min_available {
            Some(IntOrString::Int(least)) => {
                Ok(Expected { pods: i32::try_from(selected.len()).unwrap_or(i32::MAX), healthy: *least })
            }
            Some(share) => {
                let pods = self.scale(namespace, selected)?;
                Ok(Expected { pods, healthy: int_or_percent(share, pods, true)? })
            }
            None => Ok(Expected { pods: i32::try_from(selected.len()).unwrap_or(i32::MAX), healthy: 0 }),
        }
    }

    /// The replicas that the controllers of the pods want, each controller once.
    fn scale(&self, namespace: &str, selected: &[Arc<Pod>]) -> Result<i32, Error> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in selected {
            // A pod without a controller has no scale, and is left out.
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            let Some((uid, replicas)) = self.scales.of(namespace, owner) else {
                let value = format!("{} {}", owner.kind, owner.name);
                return Err(Error::Invalid { what: "controller", value });
            };
            scales.insert(uid, replicas);
        }
        Ok(scales.values().sum())
    }
}

/// The evicted pods that are still there, and not for too long.
fn still_disrupted(before: &PodDisruptionBudgetStatus, selected: &[Arc<Pod>]) -> BTreeMap<String, Time> {
    let entries = before.disrupted_pods.iter().flatten();
    let open = entries.filter(|(name, at)| {
        let there = selected.iter().any(|pod| pod.name_any() == **name && !pods::is_terminating(pod));
        there && since(at).as_secs() < DELETION_SECONDS.unsigned_abs()
    });
    open.map(|(name, at)| (name.clone(), at.clone())).collect()
}

fn tell(status: &mut PodDisruptionBudgetStatus, generation: Option<i64>, value: &str, reason: &str, message: String) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == ALLOWED);
    let since =
        known.filter(|known| known.status == value).map_or_else(now, |known| known.last_transition_time.clone());
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: generation,
    };
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(condition);
}
