//! The claims of a StatefulSet's pods: made before the pod, kept or deleted as the retention policy says.
//!
//! Deletion is by ownership: the garbage collector takes a claim that the StatefulSet, or the pod that is scaled away,
//! owns.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt as _};

use super::identity::{claims_of, ordinal};
use super::sync::Sync;
use crate::error::{Error, already_exists, unless_gone};
use crate::replicas::words;

fn deletes(
    spec: &StatefulSetSpec,
    when: fn(&k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy) -> Option<&String>,
) -> bool {
    spec.persistent_volume_claim_retention_policy.as_ref().and_then(when).is_some_and(|policy| policy == "Delete")
}

fn reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference { block_owner_deletion: Some(true), ..ironkeel_informer::controller_reference(owner) }
}

impl Sync {
    /// Makes the claims of an ordinal that are missing.
    pub(super) async fn make_claims(&self, set: &StatefulSet, spec: &StatefulSetSpec, at: i32) -> Result<(), Error> {
        let namespace = set.namespace().unwrap_or_default();
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
        for mut claim in claims_of(set, spec, at) {
            let name = claim.name_any();
            if self.claims.get(&namespace, &name).is_some() {
                continue;
            }
            if deletes(spec, |policy| policy.when_deleted.as_ref()) {
                claim.metadata.owner_references = Some(vec![reference(set)]);
            }
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let message = format!(
                        "create Claim {name} Pod {}-{at} in StatefulSet {} success",
                        set.name_any(),
                        set.name_any()
                    );
                    self.recorder.normal(set, "SuccessfulCreate", message);
                }
                Err(error) if already_exists(&error) => {}
                Err(error) => {
                    let message = format!(
                        "create Claim {name} for Pod {}-{at} in StatefulSet {} failed error: {}",
                        set.name_any(),
                        set.name_any(),
                        words(&error)
                    );
                    self.recorder.warning(set, "FailedCreate", message);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Brings the owners of a pod's claims to the retention policy; `condemned` when the pod is beyond the replicas.
    pub(super) async fn own_claims(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        pod: &Pod,
        condemned: bool,
    ) -> Result<(), Error> {
        let Some(at) = ordinal(&set.name_any(), &pod.name_any()) else { return Ok(()) };
        let by_pod = condemned && deletes(spec, |policy| policy.when_scaled.as_ref());
        let by_set = deletes(spec, |policy| policy.when_deleted.as_ref()) && !by_pod;
        let namespace = set.namespace().unwrap_or_default();
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
        for claim in claims_of(set, spec, at) {
            let Some(found) = self.claims.get(&namespace, &claim.name_any()) else { continue };
            let before = found.metadata.owner_references.clone().unwrap_or_default();
            let ours = |owner: &OwnerReference| {
                (owner.kind == "StatefulSet" && owner.name == set.name_any())
                    || (owner.kind == "Pod" && owner.name == pod.name_any())
            };
            let mut after: Vec<_> = before.iter().filter(|owner| !ours(owner)).cloned().collect();
            after.extend(by_set.then(|| reference(set)));
            after.extend(by_pod.then(|| reference(pod)));
            let same = before.len() == after.len()
                && after.iter().all(|owner| before.iter().any(|known| known.uid == owner.uid));
            if same || found.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let mut changed = found.as_ref().clone();
            changed.metadata.owner_references = Some(after);
            unless_gone(api.replace(&claim.name_any(), &PostParams::default(), &changed).await)?;
        }
        Ok(())
    }
}
