//! `storage.k8s.io` and `node.k8s.io`'s RuntimeClass: classes, drivers, attachments.

use std::collections::HashMap;

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::pod_spec::storage_sources;
use crate::repeats::{identity, repeated, repeated_by, repeated_text, repeated_whole};
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, pod_spec, print, resources, rules, strategy};

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
            let p = p.to_lowercase();
            e.invalid_each(&Path::new("provisioner"), &p, names::qualified(&p));
        } else {
            e.required(&Path::new("provisioner"), "");
        }
        parameters(o, true, e);
        let policy = o.str_at(&["reclaimPolicy"]).unwrap_or_default();
        if !matches!(policy, "" | "Delete" | "Retain") {
            e.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let mode = o.str_at(&["volumeBindingMode"]).unwrap_or_default();
        if !matches!(mode, "Immediate" | "WaitForFirstConsumer") {
            e.not_supported(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
        }
        topologies(o.items_at(&["allowedTopologies"]), &Path::new("allowedTopologies"), e);
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        immutable(o, old, &["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"], e);
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
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
            expand.unwrap_or(false).into(),
            print::age(o, c),
        ]
    }
}

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;

/// Parameters of a class for its driver.
fn parameters(o: &Value, may_be_empty: bool, e: &mut Errors) {
    let at = Path::new("parameters");
    let list = o.get("parameters").and_then(Value::as_object);
    let count = list.map_or(0, |l| l.len());
    if count > PARAMETERS_MAX {
        e.too_long(&at, PARAMETERS_MAX);
        return;
    }
    let mut bytes = 0;
    for (k, v) in list.into_iter().flat_map(|m| m.iter()) {
        if k.is_empty() {
            e.invalid(&at, "", "field can not be empty.");
        }
        bytes += k.len() + v.as_str().map_or(0, str::len);
    }
    if bytes > PARAMETERS_MAX_BYTES {
        e.too_long(&at, PARAMETERS_MAX_BYTES);
    }
    if count == 0 && !may_be_empty {
        e.required(&at, "must contain at least one key/value pair");
    }
}

fn topologies(list: &[Value], path: &Path, e: &mut Errors) {
    let repeated_terms = repeated_by(list, |t| identity(&t["matchLabelExpressions"]));
    for (i, t) in list.iter().enumerate() {
        let at = path.index(i).child("matchLabelExpressions");
        let all = t.items_at(&["matchLabelExpressions"]);
        let twice = repeated(all, "key");
        for (j, x) in all.iter().enumerate() {
            let at = at.index(j);
            let key = x.str_at(&["key"]).unwrap_or_default();
            if twice[j] {
                e.duplicate(&at.child("key"), key);
            }
            e.invalid_each(&at.child("key"), key, names::qualified(key));
            let values = x.items_at(&["values"]);
            if values.is_empty() {
                e.required(&at.child("values"), "");
            }
            let twice = repeated_whole(values);
            for (k, v) in values.iter().enumerate().filter(|(k, _)| twice[*k]) {
                e.duplicate(&at.child("values").index(k), v.clone());
            }
        }
        if all.is_empty() || repeated_terms[i] {
            e.duplicate(&at, "");
        }
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
    fn validate(&self, o: &Value, e: &mut Errors) {
        let driver = o.str_at(&["driverName"]).unwrap_or_default();
        if driver.is_empty() {
            e.required(&Path::new("driverName"), "");
        } else {
            let driver = driver.to_lowercase();
            e.invalid_each(&Path::new("driverName"), &driver, names::qualified(&driver));
        }
        parameters(o, false, e);
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        for f in ["driverName", "parameters"] {
            if !crate::equality::same(o.get(f), old.get(f)) {
                e.forbidden(&Path::new(f), &format!("updates to {f} are forbidden."));
            }
        }
    }
    fn tells_changes_first(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
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
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = &o["spec"];
        let text = |f: &str| spec.str_at(&[f]).unwrap_or_default();
        storage_sources::csi_driver_name(text("attacher"), &at.child("attacher"), e);
        e.invalid_each(&at.child("nodeName"), text("nodeName"), names::subdomain(text("nodeName")));
        let source = at.child("source");
        let inline = spec.at(&["source", "inlineVolumeSpec"]).is_some_and(|i| !i.is_null());
        let only_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (spec.str_at(&["source", "persistentVolumeName"]), inline) {
            (None, false) => e.required(&source, only_one),
            (Some(_), true) => e.forbidden(&source, only_one),
            (Some(""), false) => {
                e.required(&source.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
            _ => {}
        }
        if let Some(n) = spec.str_at(&["source", "persistentVolumeName"]) {
            e.invalid_each(&source.child("persistentVolumeName"), n, names::subdomain(n));
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() && !equality::equal_as("storage/v1.VolumeAttachmentSpec", &o["spec"], &old["spec"]) {
            e.invalid(&Path::new("spec"), o["spec"].clone(), "field is immutable");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
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
    fn generation(&self) -> rules::Generation {
        rules::Generation::Changes(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        forget_scheduling(o, None);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, _subresource: Option<&str>) {
        forget_scheduling(o, Some(old));
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = &o["spec"];
        if let Some(p) = spec.str_at(&["fsGroupPolicy"])
            && !matches!(p, "File" | "None" | "ReadWriteOnceWithFSType")
        {
            e.not_supported(&at.child("fsGroupPolicy"), p, &["File", "None", "ReadWriteOnceWithFSType"]);
        }
        let list = spec.items_at(&["tokenRequests"]);
        let twice = repeated_text(list, "audience");
        for (i, t) in list.iter().enumerate() {
            let at = at.child("tokenRequests").index(i);
            let audience = |v: &Value| v.str_at(&["audience"]).unwrap_or_default().to_owned();
            if twice[i] {
                e.duplicate(&at.child("audience"), audience(t));
                continue;
            }
            let Some(s) = t.i64_at(&["expirationSeconds"]) else { continue };
            let at = at.child("expirationSeconds");
            if s < 600 {
                e.invalid(&at, s, "may not specify a duration less than 10 minutes");
            }
            if s > 1 << 32 {
                e.invalid(&at, s, "may not specify a duration larger than 2^32 seconds");
            }
        }
        for m in spec.items_at(&["volumeLifecycleModes"]).iter().filter_map(Value::as_str) {
            if !matches!(m, "Persistent" | "Ephemeral") {
                e.not_supported(&at.child("volumeLifecycleModes"), m, &["Persistent", "Ephemeral"]);
            }
        }
        if let Some(s) = spec.i64_at(&["nodeAllocatableUpdatePeriodSeconds"]).filter(|s| *s < 10) {
            let text = "must be greater than or equal to 10 seconds";
            e.invalid(&at.child("nodeAllocatableUpdatePeriodSeconds"), s, text);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        let at = Path::new("spec");
        for (f, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
            e.immutable(&at.child(shown), o.at(&["spec", f]), old.at(&["spec", f]));
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "csiDriver"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let spec = &o["spec"];
        let flag = |f: &str, or: bool| Value::from(spec.get(f).and_then(Value::as_bool).unwrap_or(or));
        let modes: Vec<&str> = spec.items_at(&["volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        let requests = spec.items_at(&["tokenRequests"]);
        let audiences: Vec<&str> = requests.iter().map(|t| t.str_at(&["audience"]).unwrap_or_default()).collect();
        let audiences = if requests.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
        vec![
            flag("attachRequired", true),
            flag("podInfoOnMount", false),
            flag("storageCapacity", false),
            audiences.into(),
            flag("requiresRepublish", false),
            print::non_empty(modes.join(","), "<none>"),
            print::age(o, c),
        ]
    }
}

/// Characters of a node's name at its driver.
const NODE_ID_MAX: usize = 256;

/// CSINode.
pub(crate) struct Node;
impl rules::Rules for Node {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let path = Path::new("spec").child("drivers");
        let list = o.items_at(&["spec", "drivers"]);
        let twice = repeated_text(list, "name");
        for (i, d) in list.iter().enumerate() {
            let at = path.index(i);
            let name = d.str_at(&["name"]).unwrap_or_default();
            storage_sources::csi_driver_name(name, &at.child("name"), e);
            match d.str_at(&["nodeID"]).unwrap_or_default() {
                "" => e.required(&at.child("nodeID"), ""),
                id if id.len() > NODE_ID_MAX => {
                    e.invalid(&at.child("nodeID"), id, &format!("must be {NODE_ID_MAX} characters or less"));
                }
                _ => {}
            }
            e.non_negative(&at.child("allocatable").child("count"), d.i64_at(&["allocatable", "count"]));
            if twice[i] {
                e.duplicate(&at.child("name"), name);
            }
            let keys = d.items_at(&["topologyKeys"]);
            let twice = repeated_whole(keys);
            for (j, k) in keys.iter().enumerate() {
                let key = k.as_str().unwrap_or_default();
                if key.is_empty() {
                    e.required(&at, "");
                }
                if twice[j] {
                    e.duplicate(&at, key);
                }
                e.invalid_each(&at, key, names::qualified(key));
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        let path = Path::new("spec").child("drivers");
        let fixed = |d: &Value| {
            let mut d = d.clone();
            if let Some(m) = d.as_object_mut() {
                m.remove("allocatable");
            }
            d
        };
        let mut before: HashMap<&str, &Value> = HashMap::new();
        for d in old.items_at(&["spec", "drivers"]) {
            before.entry(d.str_at(&["name"]).unwrap_or_default()).or_insert(d);
        }
        for n in o.items_at(&["spec", "drivers"]) {
            let Some(d) = before.get(n.str_at(&["name"]).unwrap_or_default()) else { continue };
            if !crate::equality::equal(&fixed(n), &fixed(d)) {
                e.invalid(&path, fixed(n), "field is immutable");
            }
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
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
    fn validate(&self, o: &Value, e: &mut Errors) {
        crate::selector::label_selector(o.get("nodeTopology"), &Path::new("nodeTopology"), e);
        let class = o.str_at(&["storageClassName"]).unwrap_or_default();
        e.invalid_each(&Path::new("storageClassName"), class, names::subdomain(class));
        if resources::quantity(o.get("capacity")).is_some_and(|q| q.signum() < 0) {
            let shown = print::scalar(o.get("capacity"));
            e.invalid(&Path::new("capacity"), shown, "must be greater than or equal to 0");
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        immutable(o, old, &["nodeTopology", "storageClassName"], e);
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn unconditional_update(&self) -> bool {
        false
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
        let twice = repeated_whole(list);
        for (i, t) in list.iter().enumerate().filter(|(i, _)| twice[*i]) {
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

/// Forgets a member of a feature that is off by default, unless it was there before.
fn forget_scheduling(o: &mut Value, old: Option<&Value>) {
    const FIELD: &str = "preventPodSchedulingIfMissing";
    if old.is_none_or(|old| old.at(&["spec", FIELD]).is_none_or(Value::is_null))
        && let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove(FIELD);
    }
}
