//! `storage.k8s.io` and `node.k8s.io`'s RuntimeClass: classes, drivers, attachments.

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::{Path, TableContext, names, pod_spec, print, resources, rules, strategy};

fn immutable(o: &Value, old: &Value, fields: &[&str], e: &mut Errors) {
    for f in fields {
        e.immutable(&Path::new(f), o.get(f), old.get(f));
    }
}

/// StorageClass.
pub(crate) struct Class;
impl rules::Rules for Class {
    fn default(&self, o: &mut Value) {
        for (f, v) in [("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")] {
            if o.get(f).is_none_or(Value::is_null) {
                *o.slot(&[f]) = v.into();
            }
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let p = o.str_at(&["provisioner"]).unwrap_or_default();
        if !p.is_empty() {
            e.invalid_each(&Path::new("provisioner"), p, names::qualified(&p.to_lowercase()));
        }
        let policy = o.str_at(&["reclaimPolicy"]).unwrap_or_default();
        if !matches!(policy, "" | "Delete" | "Retain") {
            e.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        for f in ["parameters", "provisioner"] {
            if !crate::equality::same(o.get(f), old.get(f)) {
                e.forbidden(&Path::new(f), &format!("updates to {f} are forbidden."));
            }
        }
        if !crate::equality::same(o.get("reclaimPolicy"), old.get("reclaimPolicy")) {
            e.forbidden(&Path::new("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
        }
        immutable(o, old, &["volumeBindingMode"], e);
    }
    fn columns(&self) -> &'static str {
        "storageClass"
    }
    fn shown_name(&self, o: &Value) -> Option<String> {
        Some(class_name(o))
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let expand = o.get("allowVolumeExpansion").and_then(Value::as_bool);
        vec![
            print::text(o, &["provisioner"], ""),
            print::text(o, &["reclaimPolicy"], "Delete"),
            print::text(o, &["volumeBindingMode"], "Immediate"),
            expand.map_or("<unset>".to_owned(), |b| b.to_string()).into(),
            print::age(o, c),
        ]
    }
}

/// The name, with a mark for the default class, as kubectl shows it.
fn class_name(o: &Value) -> String {
    let keys = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let is_default = keys.iter().any(|k| o.annotation(k) == Some("true"));
    if is_default { format!("{} (default)", o.name()) } else { o.name().to_owned() }
}

/// VolumeAttributesClass.
pub(crate) struct Attributes;
impl rules::Rules for Attributes {
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        for f in ["driverName", "parameters"] {
            if !crate::equality::same(o.get(f), old.get(f)) {
                e.forbidden(&Path::new(f), &format!("updates to {f} are forbidden."));
            }
        }
    }
    fn columns(&self) -> &'static str {
        "volumeAttributesClass"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["driverName"], ""), print::age(o, c)]
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("storage.k8s.io", "v1"))
    }
}

/// VolumeAttachment.
pub(crate) struct Attachment;
impl rules::Rules for Attachment {
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "attached"]) = false.into();
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() {
            immutable(o, old, &["spec"], e);
        }
    }
    fn columns(&self) -> &'static str {
        "volumeAttachment"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let attached = o.at(&["status", "attached"]).and_then(Value::as_bool).unwrap_or(false);
        vec![
            print::text(o, &["spec", "attacher"], ""),
            print::text(o, &["spec", "source", "persistentVolumeName"], ""),
            print::text(o, &["spec", "nodeName"], ""),
            attached.into(),
            print::age(o, c),
        ]
    }
}

/// CSIDriver.
pub(crate) struct Driver;
impl rules::Rules for Driver {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        for (f, v) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            if spec.get(f).is_none_or(Value::is_null) {
                spec.insert(f, v);
            }
        }
        if spec.get("fsGroupPolicy").is_none_or(Value::is_null) {
            spec.insert("fsGroupPolicy", "ReadWriteOnceWithFSType");
        }
        if spec.get("volumeLifecycleModes").is_none_or(Value::is_empty) {
            spec.insert("volumeLifecycleModes", vec!["Persistent"]);
        }
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static str {
        "csiDriver"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        let flag = |f: &str| Value::from(o.at(&["spec", f]).and_then(Value::as_bool).unwrap_or(false));
        vec![flag("attachRequired"), flag("podInfoOnMount"), flag("storageCapacity")]
    }
}

/// CSINode.
pub(crate) struct Node;
impl rules::Rules for Node {
    fn unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static str {
        "csiNode"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![(o.items_at(&["spec", "drivers"]).len() as i64).into(), print::age(o, c)]
    }
}

/// CSIStorageCapacity.
pub(crate) struct Capacity;
impl rules::Rules for Capacity {
    fn unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static str {
        "csiStorageCapacity"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["storageClassName"], ""), print::scalar(o.get("capacity")).into()]
    }
}

/// RuntimeClass.
pub(crate) struct Runtime;
impl rules::Rules for Runtime {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let h = o.str_at(&["handler"]).unwrap_or_default();
        if !h.is_empty() {
            e.invalid_each(&Path::new("handler"), h, names::label(h));
        }
        let at = Path::new("scheduling").child("tolerations");
        let list = o.items_at(&["scheduling", "tolerations"]);
        pod_spec::tolerations(list, &at, e);
        for (i, t) in list.iter().enumerate().filter(|(i, t)| list[..*i].contains(t)) {
            e.duplicate(&at.index(i), t.clone());
        }
        if let Some(p) = o.at(&["overhead", "podFixed"]).and_then(Value::as_object) {
            resources::validate_overhead(p, &Path::new("overhead").child("limits"), e);
        }
        let labels = o.at(&["scheduling", "nodeSelector"]);
        crate::selector::labels(labels, &Path::new("scheduling").child("nodeSelector"), e);
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        immutable(o, old, &["handler"], e);
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static str {
        "runtimeClass"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["handler"], ""), print::age(o, c)]
    }
}
