//! PersistentVolume.

use ironkeel_object::{ObjectMeta, Value};

use crate::core::claim::{access_modes, validate_modes};
use crate::error::Errors;
use crate::pod_spec::{node_selector, string};
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, resources, rules};

pub(crate) struct Rules;

/// Members of the spec that are no volume source.
const PLAIN: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = crate::strategy::spec(o) else { return };
        for (f, v) in [("persistentVolumeReclaimPolicy", "Retain"), ("volumeMode", "Filesystem")] {
            if spec.str(f).unwrap_or_default().is_empty() {
                spec.insert(f, v);
            }
        }
        if let Some(h) = spec.get_mut("hostPath").and_then(Value::as_object_mut)
            && h.get("type").is_none_or(Value::is_null)
        {
            h.insert("type", "");
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "phase"]) = "Pending".into();
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        validate_modes(spec, &at, e);
        let capacity = spec.get("capacity").and_then(Value::as_object);
        if capacity.is_none_or(|c| c.is_empty()) {
            e.required(&at.child("capacity"), "");
        } else if !capacity.is_some_and(|c| c.contains_key("storage") && c.len() == 1) {
            e.not_supported(&at.child("capacity"), spec["capacity"].clone(), &["storage"]);
        } else if resources::quantity(spec.at(&["capacity", "storage"])).is_none_or(|q| q.signum() <= 0) {
            let shown = print::scalar(spec.at(&["capacity", "storage"]));
            e.invalid(&at.child("capacity").key("storage"), shown, "must be greater than zero");
        }
        let policy = string(spec, "persistentVolumeReclaimPolicy").unwrap_or_default();
        if !matches!(policy, "" | "Delete" | "Recycle" | "Retain") {
            e.not_supported(&at.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
        }
        if let Some(c) = string(spec, "storageClassName") {
            e.invalid_each(&at.child("storageClassName"), c, names::subdomain(c));
        }
        let sources: Vec<&str> = spec
            .as_object()
            .into_iter()
            .flat_map(|m| m.iter())
            .filter(|(k, v)| !v.is_null() && !PLAIN.contains(&k.as_ref()))
            .map(|(k, _)| k.as_ref())
            .collect();
        match sources[..] {
            [] => e.required(&at, "must specify a volume type"),
            [_] => {}
            [_, second, ..] => e.forbidden(&at.child(second), "may not specify more than 1 volume type"),
        }
        if spec.get("local").is_some_and(|l| !l.is_null()) {
            if string(&spec["local"], "path").is_none() {
                e.required(&at.child("local").child("path"), "");
            }
            if spec.at(&["nodeAffinity", "required"]).is_none() {
                e.required(&at.child("nodeAffinity"), "Local volume requires node affinity");
            }
        }
        if let Some(r) = spec.at(&["nodeAffinity", "required"]) {
            node_selector(r, &at.child("nodeAffinity").child("required"), e);
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            return;
        }
        self.validate(o, e);
        let source = |v: &Value| {
            let mut s = v.get("spec").cloned().unwrap_or_default();
            if let Some(m) = s.as_object_mut() {
                m.retain(|k, _| !PLAIN.contains(&k));
            }
            s
        };
        if !equality::equal(&source(o), &source(old)) {
            e.forbidden(
                &Path::new("spec").child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        e.immutable(&Path::new("volumeMode"), o.at(&["spec", "volumeMode"]), old.at(&["spec", "volumeMode"]));
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "persistentVolume"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let claim = match o.str_at(&["spec", "claimRef", "name"]) {
            Some(n) => format!("{}/{n}", o.str_at(&["spec", "claimRef", "namespace"]).unwrap_or_default()),
            None => String::new(),
        };
        let phase = if o.deletion_timestamp().is_some() {
            "Terminating".into()
        } else {
            print::text(o, &["status", "phase"], "")
        };
        vec![
            print::scalar(o.at(&["spec", "capacity", "storage"])).into(),
            access_modes(o.items_at(&["spec", "accessModes"])).into(),
            print::text(o, &["spec", "persistentVolumeReclaimPolicy"], ""),
            phase,
            claim.into(),
            print::text(o, &["spec", "storageClassName"], ""),
            print::text(o, &["spec", "volumeAttributesClassName"], "<unset>"),
            print::text(o, &["status", "reason"], ""),
            print::age(o, c),
            print::text(o, &["spec", "volumeMode"], "<unset>"),
        ]
    }
}
