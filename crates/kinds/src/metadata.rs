//! `metadata`, for every kind: what may stand there, and what may change.

use std::collections::HashSet;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_schema::Scope;

use crate::error::{Errors, shown};
use crate::{FieldError, Kind, Path, equality, names, selector};

/// Bytes of all annotations' keys and values together.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// Rules for the metadata of a new object, or of one that is about to replace another.
pub fn validate_metadata(object: &Value, kind: &Kind) -> Vec<FieldError> {
    let mut e = Errors::default();
    let path = Path::new("metadata");
    let generate = object.meta_str("generateName");
    if !generate.is_empty() {
        e.invalid_each(&path.child("generateName"), generate, kind.hooks.validate_name(generate, true));
    }
    let name = object.name();
    if name.is_empty() {
        e.required(&path.child("name"), "name or generateName is required");
    } else {
        e.invalid_each(&path.child("name"), name, kind.hooks.validate_name(name, false));
    }
    let namespace = object.namespace();
    match kind.resource.scope {
        Scope::Namespaced if namespace.is_empty() => e.required(&path.child("namespace"), ""),
        Scope::Namespaced => e.invalid_each(&path.child("namespace"), namespace, names::label(namespace)),
        Scope::Cluster if !namespace.is_empty() => e.forbidden(&path.child("namespace"), "not allowed on this type"),
        Scope::Cluster => {}
    }
    free_metadata(object, &path, &mut e);
    if kind.custom.is_none() && !FREE_FINALIZERS.contains(&kind.resource.group) {
        for (i, f) in object.finalizers().iter().enumerate().filter(|(_, f)| !f.contains('/')) {
            if !STANDARD_FINALIZERS.contains(f) {
                let text = "name is neither a standard finalizer name nor is it fully qualified";
                e.invalid(&path.child("finalizers").index(i), *f, text);
            }
        }
    }
    e.into_vec()
}

/// The metadata of an object inside another one, which may lack a name.
pub(crate) fn validate_embedded(object: &Value, path: &Path, e: &mut Errors) {
    let generate = object.meta_str("generateName");
    if !generate.is_empty() {
        e.invalid_each(&path.child("generateName"), generate, names::path_segment(generate, true));
    }
    if !object.name().is_empty() {
        e.invalid_each(&path.child("name"), object.name(), names::path_segment(object.name(), false));
    }
    if !object.namespace().is_empty() {
        e.invalid_each(&path.child("namespace"), object.namespace(), names::label(object.namespace()));
    }
    free_metadata(object, path, e);
}

/// Finalizers without a domain.
const STANDARD_FINALIZERS: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];
/// Groups whose finalizers may have any name.
const FREE_FINALIZERS: &[&str] =
    &["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"];

/// The rules that hold in a pod template's metadata too.
pub(crate) fn free_metadata(object: &Value, path: &Path, e: &mut Errors) {
    e.non_negative(&path.child("generation"), Some(object.generation()));
    selector::labels(object.at(&["metadata", "labels"]), &path.child("labels"), e);
    annotations(object.at(&["metadata", "annotations"]), &path.child("annotations"), e);
    owner_references(object, &path.child("ownerReferences"), e);
    let at = path.child("finalizers");
    let finalizers = object.finalizers();
    for f in &finalizers {
        e.invalid_each(&at, f, names::qualified(f));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let list: Vec<Value> = finalizers.iter().map(|f| Value::from(*f)).collect();
        e.invalid(&at, list, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Annotations: keys as label keys of any case, sizes together.
pub(crate) fn annotations(value: Option<&Value>, path: &Path, e: &mut Errors) {
    let mut size = 0;
    for (k, v) in value.and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        e.invalid_each(path, k, names::qualified(&k.to_lowercase()));
        size += k.len() + v.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX_BYTES {
        e.too_long(path, ANNOTATIONS_MAX_BYTES);
    }
}

/// A reference in the order of upstream's members.
fn shown_owner(owner: &Value) -> String {
    let mut members: Vec<String> = Vec::new();
    for name in ["apiVersion", "kind", "name", "uid"] {
        members.push(format!("\"{name}\":{}", shown(&owner.str_at(&[name]).unwrap_or_default().into())));
    }
    for name in ["controller", "blockOwnerDeletion"] {
        members.extend(owner.get(name).filter(|v| !v.is_null()).map(|v| format!("\"{name}\":{}", shown(v))));
    }
    format!("{{{}}}", members.join(","))
}

fn owner_references(object: &Value, path: &Path, e: &mut Errors) {
    let (mut controller, mut whole): (Option<String>, Option<String>) = (None, None);
    let all = object.items_at(&["metadata", "ownerReferences"]);
    for (i, o) in object.owner_references().into_iter().enumerate() {
        let parts: Vec<&str> = o.api_version.split('/').collect();
        if parts.len() > 2 || parts.last().is_none_or(|version| version.is_empty()) {
            e.invalid(&path.child("apiVersion"), o.api_version.as_str(), "version must not be empty");
        }
        for (field, value) in [("kind", &o.kind), ("name", &o.name), ("uid", &o.uid)] {
            if value.is_empty() {
                e.invalid(&path.child(field), value.as_str(), "must not be empty");
            }
        }
        if o.api_version == "v1" && o.kind == "Event" {
            e.invalid_as(path, &shown_owner(&all[i]), "/v1, Kind=Event is disallowed from being an owner");
        }
        if o.controller {
            let this = format!("{}/{}", o.kind, o.name);
            match &controller {
                Some(first) => {
                    let list = whole.get_or_insert_with(|| all.iter().map(shown_owner).collect::<Vec<_>>().join(","));
                    let text = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    e.invalid_as(path, &format!("[{list}]"), &text);
                }
                None => controller = Some(this),
            }
        }
    }
}

/// Rules for the metadata's change; [`validate_metadata`] is checked besides.
pub fn validate_metadata_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut e = Errors::default();
    let path = Path::new("metadata");
    if old.deletion_timestamp().is_some() {
        let before: HashSet<&str> = old.finalizers().into_iter().collect();
        let mut extra: Vec<&str> = new.finalizers().into_iter().filter(|f| !before.contains(f)).collect();
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let list: Vec<String> = extra.iter().map(|f| shown(&Value::from(*f))).collect();
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            e.forbidden(&path.child("finalizers"), &text);
        }
    }
    if new.generation() < old.generation() {
        e.invalid(&path.child("generation"), new.generation(), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (n, o) = (new.at(&["metadata", field]), old.at(&["metadata", field]));
        if !equality::same(n, o) {
            e.invalid(&path.child(field), n.cloned().unwrap_or_default(), "field is immutable");
        }
    }
    e.into_vec()
}
