//! The status of a StatefulSet, and when an update is complete.

use std::time::Duration;

use ironkeel_semantics::pods;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::sync::{ByOrdinal, Revisions, Sync, revision_of, rolls};
use crate::error::{Error, unless_gone};

impl Sync {
    /// Writes the status if it changed; returns when a ready pod becomes available.
    pub(super) async fn write_status(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        revisions: &Revisions,
        claimed: &ByOrdinal,
    ) -> Result<Option<Duration>, Error> {
        let at = Timestamp::now();
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let runs = |pod: &Pod| pods::phase(pod) == "Running" && pods::is_ready(pod);
        let count = |filter: &dyn Fn(&Pod) -> bool| {
            i32::try_from(claimed.values().filter(|pod| filter(pod)).count()).unwrap_or(i32::MAX)
        };
        let some = |number: i32| (number != 0).then_some(number);
        let alive = |pod: &Pod| !pods::is_terminating(pod);
        let (ready, updated) = (count(&runs), count(&|pod| alive(pod) && revision_of(pod) == revisions.update));
        let replicas = count(&|_| true);
        let wanted = spec.replicas.unwrap_or(1);
        let complete = rolls(spec)
            && revisions.current != revisions.update
            && updated == wanted
            && replicas == wanted
            && ready == wanted;
        let current = if complete { &revisions.update } else { &revisions.current };
        let before = set.status.clone().unwrap_or_default();
        let after = StatefulSetStatus {
            observed_generation: set.metadata.generation,
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(count(&|pod| runs(pod) && pods::is_available(pod, min_ready, at))),
            current_replicas: some(count(&|pod| alive(pod) && revision_of(pod) == *current)),
            updated_replicas: some(updated),
            current_revision: Some(current.clone()),
            update_revision: Some(revisions.update.clone()),
            collision_count: Some(revisions.collisions.max(before.collision_count.unwrap_or(0))),
            conditions: before.conditions.clone(),
        };
        if after != before {
            let mut changed = set.clone();
            changed.status = Some(after);
            let api = Api::<StatefulSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            unless_gone(api.replace_status(&set.name_any(), &PostParams::default(), &changed).await)?;
        }
        Ok(claimed.values().filter_map(|pod| pods::available_in(pod, min_ready, at)).min())
    }
}
