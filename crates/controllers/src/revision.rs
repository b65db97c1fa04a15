//! Hashes of templates and the ControllerRevisions of DaemonSets and StatefulSets.
//!
//! Answers to `pkg/controller`'s ComputeHash and `pkg/controller/history`. The hash is FNV-1a over the template's JSON;
//! upstream hashes a Go dump of it, so the two differ in value but not in use: equal templates are found by comparison,
//! never by hash.

use std::sync::Arc;

use ironkeel_informer::controller_reference;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::json;

use crate::error::{Error, already_exists, unless_gone};

/// Letters and digits that cannot form words.
const SAFE_CHARACTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short hash of a template, another one for every collision count.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> Result<String, Error> {
    hash(&serde_json::to_vec(template)?, collisions)
}

fn hash(bytes: &[u8], collisions: Option<i32>) -> Result<String, Error> {
    let mut hash: u32 = 0x811c_9dc5;
    let salt = collisions.map(i32::to_le_bytes);
    for byte in bytes.iter().chain(salt.iter().flatten()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    Ok(safe_encode(&hash.to_string()))
}

fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(SAFE_CHARACTERS[usize::from(byte) % SAFE_CHARACTERS.len()])).collect()
}

/// The patch of the owner that a revision stores: its pod template, replaced as a whole on a rollback.
pub(crate) fn revision_data(template: &PodTemplateSpec) -> Result<serde_json::Value, Error> {
    let mut template: serde_json::Value = serde_json::from_slice(&serde_json::to_vec(template)?)?;
    template["$patch"] = json!("replace");
    Ok(json!({"spec": {"template": template}}))
}

/// The newest revision that stores `data`, oldest first in `revisions`.
fn find(revisions: &[Arc<ControllerRevision>], data: &serde_json::Value) -> Option<Arc<ControllerRevision>> {
    revisions.iter().rev().find(|revision| revision.data.as_ref().is_some_and(|found| found.0 == *data)).cloned()
}

/// Sorts revisions, the oldest first.
pub(crate) fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| {
        (a.revision, &a.metadata.creation_timestamp, &a.metadata.name).cmp(&(
            b.revision,
            &b.metadata.creation_timestamp,
            &b.metadata.name,
        ))
    });
}

/// The revision of the owner's template now: an equal one raised to the newest number, or a new one.
///
/// `label` is set to the hash on a new revision; `collisions` is raised when a name is taken by other data.
pub(crate) async fn current<O>(
    client: &Client,
    owner: &O,
    template: &PodTemplateSpec,
    label: &str,
    revisions: &[Arc<ControllerRevision>],
    collisions: &mut i32,
) -> Result<Arc<ControllerRevision>, Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let api = Api::<ControllerRevision>::namespaced(client.clone(), &owner.namespace().unwrap_or_default());
    let data = revision_data(template)?;
    let newest = revisions.last().map_or(0, |revision| revision.revision);
    if let Some(equal) = find(revisions, &data) {
        if equal.revision == newest {
            return Ok(equal);
        }
        let patch = json!({"revision": newest + 1});
        let raised = api.patch(&equal.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        return Ok(Arc::new(raised));
    }
    loop {
        let hash = template_hash(template, Some(*collisions))?;
        let name = format!("{}-{hash}", owner.name_any());
        let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(label.to_owned(), hash);
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: owner.meta().annotations.clone().map(|mut annotations| {
                    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                    annotations
                }),
                owner_references: Some(vec![controller_reference(owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data.clone())),
            revision: newest + 1,
        };
        match api.create(&PostParams::default(), &revision).await {
            Ok(made) => return Ok(Arc::new(made)),
            Err(error) if already_exists(&error) => {
                let found = api.get(&name).await?;
                if found.data.as_ref().is_some_and(|found| found.0 == data) {
                    return Ok(Arc::new(found));
                }
                *collisions += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deletes the oldest revisions beyond `limit` that `live` does not name.
pub(crate) async fn truncate(
    client: &Client,
    namespace: &str,
    revisions: &[Arc<ControllerRevision>],
    live: impl Fn(&ControllerRevision) -> bool,
    limit: i32,
) -> Result<(), Error> {
    let history: Vec<_> = revisions.iter().filter(|revision| !live(revision)).collect();
    let surplus = history.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let api = Api::<ControllerRevision>::namespaced(client.clone(), namespace);
    for revision in history.into_iter().take(surplus) {
        unless_gone(api.delete(&revision.name_any(), &DeleteParams::default()).await)?;
    }
    Ok(())
}

/// The number that an int-or-percent stands for; percentages are rounded as told.
pub(crate) fn int_or_percent(
    value: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString,
    of: i32,
    round_up: bool,
) -> Result<i32, Error> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let invalid = || Error::Invalid { what: "percentage", value: text.clone() };
            let percent: i64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).ok_or_else(invalid)?;
            let product = percent * i64::from(of);
            let share = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(share).map_err(|_| invalid())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    #[test]
    fn a_collision_changes_the_hash_and_the_alphabet_is_safe() {
        let template = PodTemplateSpec::default();
        let (first, second) = (template_hash(&template, None).unwrap(), template_hash(&template, Some(1)).unwrap());
        assert_ne!(first, second);
        assert!(first.bytes().all(|byte| SAFE_CHARACTERS.contains(&byte)), "{first}");
    }

    #[test]
    fn percentages_round_as_told() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(int_or_percent(&quarter, 10, true).unwrap(), 3);
        assert_eq!(int_or_percent(&quarter, 10, false).unwrap(), 2);
        assert_eq!(int_or_percent(&IntOrString::Int(4), 10, true).unwrap(), 4);
        assert!(int_or_percent(&IntOrString::String("x".into()), 10, true).is_err());
    }
}
