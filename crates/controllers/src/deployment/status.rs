//! How far a rollout is: counts, conditions, the progress deadline.
//!
//! Answers to upstream's `deployment/progress.go` and `sync.go`'s calculateStatus.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use kube::ResourceExt as _;

use super::{Controller, Sets, is_paused, rolling, size, total_size, wanted};
use crate::context::{now, since};
use crate::error::Error;
use crate::replicas::REPLICA_FAILURE;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
/// Upstream's "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
    seconds.filter(|seconds| *seconds != NO_DEADLINE)
}

pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

pub(super) fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == type_)
}

pub(super) fn new_condition(type_: &str, status: &str, reason: &str, message: &str) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now()),
        last_transition_time: Some(now()),
    }
}

/// Sets a condition, unless one of its status and reason is there; the time of transition is that of the status.
pub(super) fn set_condition(deployment: &mut Deployment, condition: DeploymentCondition) {
    let status = deployment.status.get_or_insert_default();
    put(status.conditions.get_or_insert_default(), condition);
}

fn put(conditions: &mut Vec<DeploymentCondition>, mut condition: DeploymentCondition) {
    if let Some(known) = conditions.iter().find(|known| known.type_ == condition.type_) {
        if known.status == condition.status && known.reason == condition.reason {
            return;
        }
        if known.status == condition.status {
            condition.last_transition_time = known.last_transition_time.clone();
        }
    }
    conditions.retain(|known| known.type_ != condition.type_);
    conditions.push(condition);
}

/// The status that the ReplicaSets add up to, with the conditions that the Deployment has, and Available.
pub(super) fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let sum = |field: fn(&ReplicaSet) -> Option<i32>| sets.all().filter_map(|set| field(set)).sum::<i32>();
    let replicas = sum(|set| set.status.as_ref().map(|status| status.replicas));
    let available = sum(|set| set.status.as_ref()?.available_replicas);
    let updated = sets.new.as_ref().and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas);
    let before = deployment.status.clone().unwrap_or_default();
    let some = |number: i32| (number != 0).then_some(number);
    let mut conditions = before.conditions.unwrap_or_default();
    let least = wanted(deployment) - rolling::max_unavailable(deployment).unwrap_or(0);
    put(
        &mut conditions,
        if available >= least {
            new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            let message = "Deployment does not have minimum availability.";
            new_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
        },
    );
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(replicas),
        updated_replicas: some(updated),
        ready_replicas: some(sum(|set| set.status.as_ref()?.ready_replicas)),
        available_replicas: some(available),
        unavailable_replicas: some((total_size(sets.all()) - available).max(0)),
        terminating_replicas: Some(sum(|set| set.status.as_ref()?.terminating_replicas)),
        collision_count: before.collision_count,
        conditions: Some(conditions),
    }
}

/// Whether every wanted replica is of the current template and available, and no old one is left.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let number = |field: Option<i32>| field.unwrap_or(0);
    let wanted = wanted(deployment);
    number(status.updated_replicas) == wanted
        && number(status.replicas) == wanted
        && number(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether the current ReplicaSet has all replicas, and they are available.
pub(super) fn is_saturated(deployment: &Deployment, set: &Arc<ReplicaSet>) -> bool {
    let wanted = wanted(deployment);
    super::template::annotation_number(set, super::DESIRED_REPLICAS) == Some(wanted)
        && size(set) == wanted
        && set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0) == wanted
}

/// Whether something moved since the status was written.
fn is_progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let number = |field: Option<i32>| field.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(after.updated_replicas) > number(before.updated_replicas)
        || old(after) < old(before)
        || number(after.ready_replicas) > number(before.ready_replicas)
        || number(after.available_replicas) > number(before.available_replicas)
}

impl Controller {
    /// Tells a pause and its end as conditions, so that the deadline does not run meanwhile.
    pub(super) async fn note_pause(&self, deployment: &mut Deployment) -> Result<(), Error> {
        if !has_deadline(deployment) {
            return Ok(());
        }
        let reason = condition(deployment, PROGRESSING).and_then(|condition| condition.reason.clone());
        if reason.as_deref() == Some(TIMED_OUT) {
            return Ok(());
        }
        let was_paused = reason.as_deref() == Some("DeploymentPaused");
        let (reason, message) = match (is_paused(deployment), was_paused) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return Ok(()),
        };
        let mut changed = deployment.clone();
        set_condition(&mut changed, new_condition(PROGRESSING, "Unknown", reason, message));
        *deployment = self.put_status(deployment, changed).await?;
        Ok(())
    }

    /// Writes the counts.
    pub(super) async fn write_status(&self, deployment: &Deployment, sets: &Sets) -> Result<Option<Duration>, Error> {
        let mut changed = deployment.clone();
        changed.status = Some(counts(deployment, sets));
        self.put_if_new(deployment, changed).await?;
        Ok(None)
    }

    /// Writes the counts and the progress of a rollout; returns when the deadline must be looked at again.
    pub(super) async fn write_rollout_status(
        &self,
        deployment: &Deployment,
        sets: &Sets,
    ) -> Result<Option<Duration>, Error> {
        let before = deployment.status.clone().unwrap_or_default();
        let mut after = counts(deployment, sets);
        let conditions = after.conditions.get_or_insert_default();
        if !has_deadline(deployment) {
            conditions.retain(|condition| condition.type_ != PROGRESSING);
        }
        let current = condition(deployment, PROGRESSING).cloned();
        let told_complete = current.as_ref().and_then(|known| known.reason.as_deref()) == Some(NEW_SET_AVAILABLE);
        // A finished rollout that only lost pods stays finished.
        let finished = before.replicas == before.updated_replicas && told_complete;
        if let Some(seconds) = deadline(deployment)
            && !finished
        {
            let name = sets.new.as_ref().map(|set| set.name_any());
            let what = name.map_or_else(
                || format!("Deployment \"{}\"", deployment.name_any()),
                |name| format!("ReplicaSet \"{name}\""),
            );
            if is_complete(deployment, &with_generation(&after, deployment)) {
                let message = format!("{what} has successfully progressed.");
                put(conditions_of(&mut after), new_condition(PROGRESSING, "True", NEW_SET_AVAILABLE, &message));
            } else if is_progressing(&before, &after) {
                let message = format!("{what} is progressing.");
                let mut condition = new_condition(PROGRESSING, "True", "ReplicaSetUpdated", &message);
                if let Some(known) = current.as_ref().filter(|known| known.status == "True") {
                    condition.last_transition_time = known.last_transition_time.clone();
                }
                // The time of the last progress is what the deadline counts from.
                conditions_of(&mut after).retain(|known| known.type_ != PROGRESSING);
                conditions_of(&mut after).push(condition);
            } else if current.as_ref().is_some_and(|known| has_timed_out(known, seconds)) {
                let message = format!("{what} has timed out progressing.");
                put(conditions_of(&mut after), new_condition(PROGRESSING, "False", TIMED_OUT, &message));
            }
        }
        note_failure(conditions_of(&mut after), sets);
        let waits = deadline(deployment).and_then(|seconds| {
            let known = after.conditions.as_ref()?.iter().find(|condition| condition.type_ == PROGRESSING)?;
            let open = !matches!(known.reason.as_deref(), Some(TIMED_OUT | NEW_SET_AVAILABLE));
            let left = crate::context::until_after(known.last_update_time.as_ref()?, i64::from(seconds));
            open.then_some(left + Duration::from_secs(1))
        });
        let mut changed = deployment.clone();
        changed.status = Some(after);
        self.put_if_new(deployment, changed).await?;
        Ok(waits)
    }

    async fn put_if_new(&self, deployment: &Deployment, changed: Deployment) -> Result<(), Error> {
        let cached = self.deployments.get(&deployment.namespace().unwrap_or_default(), &deployment.name_any());
        // Conditions may have been added to our copy without being written: what counts is what the API has.
        if cached.is_some_and(|cached| cached.status == changed.status) {
            return Ok(());
        }
        let mut base = deployment.clone();
        base.status = None;
        self.put_status(&base, changed).await?;
        Ok(())
    }
}

fn conditions_of(status: &mut DeploymentStatus) -> &mut Vec<DeploymentCondition> {
    status.conditions.get_or_insert_default()
}

fn with_generation(status: &DeploymentStatus, deployment: &Deployment) -> DeploymentStatus {
    DeploymentStatus { observed_generation: deployment.metadata.generation, ..status.clone() }
}

fn has_timed_out(known: &DeploymentCondition, seconds: i32) -> bool {
    match known.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => known
            .last_update_time
            .as_ref()
            .is_some_and(|time| since(time) > Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
    }
}

/// Copies the ReplicaSets' failure to create or delete pods, the current one's first.
fn note_failure(conditions: &mut Vec<DeploymentCondition>, sets: &Sets) {
    let failure = sets.new.iter().chain(&sets.old).find_map(|set| {
        let found = set.status.as_ref()?.conditions.as_ref()?.iter().find(|found| found.type_ == REPLICA_FAILURE)?;
        Some(new_condition(
            REPLICA_FAILURE,
            &found.status,
            found.reason.as_deref().unwrap_or_default(),
            found.message.as_deref().unwrap_or_default(),
        ))
    });
    match failure {
        Some(failure) => put(conditions, failure),
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
}
