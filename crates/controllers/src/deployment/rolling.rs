//! How many replicas each ReplicaSet may have: surge, unavailability, and proportional scaling.
//!
//! Answers to upstream's `deployment/rolling.go` and `sync.go`'s scale.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Controller, MAX_REPLICAS, Sets, is_recreate, size, status, template, total_size, wanted};
use crate::error::Error;
use crate::revision::int_or_percent;

fn parameters(deployment: &Deployment) -> RollingUpdateDeployment {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default()
}

/// Surge and unavailability as numbers; never both zero, or nothing could ever move.
fn fenceposts(deployment: &Deployment) -> Result<(i32, i32), Error> {
    let quarter = || IntOrString::String("25%".to_owned());
    let parameters = parameters(deployment);
    let replicas = wanted(deployment);
    let surge = int_or_percent(&parameters.max_surge.unwrap_or_else(quarter), replicas, true)?;
    let unavailable = int_or_percent(&parameters.max_unavailable.unwrap_or_else(quarter), replicas, false)?;
    Ok(if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) })
}

/// Replicas beyond the wanted ones that a rollout may have.
pub(super) fn max_surge(deployment: &Deployment) -> Result<i32, Error> {
    if is_recreate(deployment) { Ok(0) } else { Ok(fenceposts(deployment)?.0) }
}

/// Wanted replicas that a rollout may miss.
pub(super) fn max_unavailable(deployment: &Deployment) -> Result<i32, Error> {
    if is_recreate(deployment) || wanted(deployment) == 0 {
        return Ok(0);
    }
    Ok(fenceposts(deployment)?.1.min(wanted(deployment)))
}

/// The size of the current ReplicaSet, which is `now` big: as much as fits beside the others.
pub(super) fn new_set_size(deployment: &Deployment, sets: &Sets, now: i32) -> Result<i32, Error> {
    let wanted = wanted(deployment);
    if is_recreate(deployment) {
        return Ok(wanted);
    }
    let total = total_size(&sets.old) + now;
    let most = wanted + max_surge(deployment)?;
    if total >= most {
        return Ok(now);
    }
    Ok(now + (most - total).min(wanted - now))
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

impl Controller {
    /// Brings the current ReplicaSet to its size; whether it was scaled.
    pub(super) async fn grow_new(&self, deployment: &Deployment, sets: &mut Sets) -> Result<bool, Error> {
        let Some(new) = sets.new.clone() else { return Ok(false) };
        let target = if size(&new) > wanted(deployment) {
            wanted(deployment)
        } else {
            new_set_size(deployment, sets, size(&new))?
        };
        if target == size(&new) {
            return Ok(false);
        }
        sets.new = Some(self.scale(deployment, &new, target).await?);
        Ok(true)
    }

    /// Takes replicas from the old ReplicaSets: unhealthy ones first, then as many as the new ones make up for.
    pub(super) async fn shrink_old(&self, deployment: &Deployment, sets: &mut Sets) -> Result<bool, Error> {
        if total_size(&sets.old) == 0 {
            return Ok(false);
        }
        let total = total_size(sets.all());
        let least = wanted(deployment) - max_unavailable(deployment)?;
        let new_missing = sets.new.as_ref().map_or(0, |new| size(new) - available(new));
        let mut budget = total - least - new_missing;
        if budget <= 0 {
            return Ok(false);
        }
        let mut scaled = false;
        for set in &mut sets.old {
            let unhealthy = (size(set) - available(set)).min(budget);
            if budget <= 0 || size(set) == 0 || unhealthy <= 0 {
                continue;
            }
            *set = self.scale(deployment, set, size(set) - unhealthy).await?;
            budget -= unhealthy;
            scaled = true;
        }
        let mut surplus = sets.all().map(|set| available(set)).sum::<i32>() - least;
        for set in &mut sets.old {
            if surplus <= 0 {
                break;
            }
            let share = size(set).min(surplus);
            if share == 0 {
                continue;
            }
            *set = self.scale(deployment, set, size(set) - share).await?;
            surplus -= share;
            scaled = true;
        }
        Ok(scaled)
    }

    /// After a change of `replicas`: the one active ReplicaSet gets all; in the middle of a rollout each active one
    /// gets its share.
    pub(super) async fn scale_all(&self, deployment: &Deployment, sets: &mut Sets) -> Result<(), Error> {
        let mut active: Vec<Arc<ReplicaSet>> = sets.all().filter(|set| size(set) > 0).cloned().collect();
        let only = match active.len() {
            0 => sets.new.clone().or_else(|| sets.old.last().cloned()),
            1 => active.pop(),
            _ => None,
        };
        if let Some(only) = only {
            if size(&only) != wanted(deployment) {
                self.exchange(sets, &only, self.scale(deployment, &only, wanted(deployment)).await?);
            } else {
                // Also notes the size that was wanted.
                self.exchange(sets, &only, self.scale(deployment, &only, size(&only)).await?);
            }
            return Ok(());
        }
        if let Some(new) = &sets.new
            && status::is_saturated(deployment, new)
        {
            for set in sets.old.clone().iter().filter(|set| size(set) > 0) {
                self.exchange(sets, set, self.scale(deployment, set, 0).await?);
            }
            return Ok(());
        }
        if is_recreate(deployment) {
            return Ok(());
        }
        let total: i32 = active.iter().map(|set| size(set)).sum();
        let allowed = if wanted(deployment) > 0 { wanted(deployment) + max_surge(deployment)? } else { 0 };
        let to_add = allowed - total;
        // The larger first; of equal ones, when growing, the newer first, or else the older first.
        active.sort_by(|a, b| {
            let age = a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp);
            size(b).cmp(&size(a)).then(if to_add > 0 { age.reverse() } else { age })
        });
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
        for set in &active {
            let share = if to_add == 0 { 0 } else { proportion(set, deployment, allowed, to_add, added) };
            sizes.push(size(set) + share);
            added += share;
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (set, target) in active.iter().zip(sizes) {
            self.exchange(sets, set, self.scale(deployment, set, target).await?);
        }
        Ok(())
    }

    fn exchange(&self, sets: &mut Sets, before: &Arc<ReplicaSet>, after: Arc<ReplicaSet>) {
        let places = sets.old.iter_mut().chain(&mut sets.new);
        for place in places.filter(|place| place.metadata.uid == before.metadata.uid) {
            *place = after.clone();
        }
    }
}

/// The share of `to_add` that falls to `set`, of which `added` is given away already.
fn proportion(set: &ReplicaSet, deployment: &Deployment, allowed: i32, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if size(set) == 0 || left == 0 {
        return 0;
    }
    let was_allowed = template::annotation_number(set, MAX_REPLICAS).filter(|most| *most > 0);
    let was_allowed = was_allowed.unwrap_or_else(|| deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(1));
    let share = f64::from(size(set)) * f64::from(allowed) / f64::from(was_allowed.max(1));
    // Within the range of i32: sizes are, and the ratio is of two of them.
    let share = share.round() as i32 - size(set);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}
