//! What the pod of an ordinal is: its name, labels, host name and volumes.

use ironkeel_informer::controller_reference;
use ironkeel_semantics::pods;
use ironkeel_semantics::well_known::CONTROLLER_REVISION_HASH_LABEL;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use kube::ResourceExt as _;

/// Label of a pod: its name.
pub(super) const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label of a pod: its ordinal.
pub(super) const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in the name of a pod, if it is a name that the StatefulSet `set` gives.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number: i32 = digits.parse().ok()?;
    // "+1" and "01" parse too, and are no names that we give.
    (number >= 0 && number.to_string() == digits).then_some(number)
}

/// The name of the pod of an ordinal.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The pod of an ordinal, made from `template`, which is that of `revision`.
pub(super) fn pod_of(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let mut pod = pods::from_template(template);
    pod.metadata.owner_references = Some(vec![controller_reference(set)]);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(CONTROLLER_REVISION_HASH_LABEL.to_owned(), revision.to_owned());
    let name = pod_name(set, ordinal);
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    pod.metadata.namespace = set.namespace();
    pod.metadata.name = Some(name);
    identify(set, spec, &mut pod, ordinal);
    pod
}

/// Sets what a pod may not lose: its labels, and its storage. Whether something changed.
pub(super) fn identify(set: &StatefulSet, spec: &StatefulSetSpec, pod: &mut Pod, ordinal: i32) -> bool {
    let before = pod.clone();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), pod_name(set, ordinal));
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let volume = Volume {
            name: claim.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, claim, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        };
        match volumes.iter_mut().find(|known| known.name == volume.name) {
            Some(known)
                if known
                    .persistent_volume_claim
                    .as_ref()
                    .is_some_and(|source| source.claim_name == claim_name(set, claim, ordinal)) => {}
            Some(known) => *known = volume,
            None => volumes.push(volume),
        }
    }
    if volumes.is_empty() {
        pod.spec.get_or_insert_default().volumes = before.spec.as_ref().and_then(|spec| spec.volumes.clone());
    }
    *pod != before
}

/// The name of the claim that a template makes for an ordinal.
pub(super) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

/// The claims of an ordinal.
pub(super) fn claims_of(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = spec.volume_claim_templates.iter().flatten();
    let made = templates.map(|template| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = set.namespace();
        let selected = spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        claim.status = None;
        claim
    });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_have_an_ordinal() {
        assert_eq!(ordinal("web", "web-0"), Some(0));
        assert_eq!(ordinal("web", "web-12"), Some(12));
        for other in ["web", "web-", "web-01", "web-+1", "web--1", "webs-1", "web-a-1"] {
            assert_eq!(ordinal("web", other), None, "{other}");
        }
    }
}
