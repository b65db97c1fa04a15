//! StatefulSet.

use std::collections::HashSet;

use ironkeel_object::Value;

use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{
    Path, Scale, TableContext, apps::replica_set, core::claim, equality, names, pod_template, print, rules, strategy,
};

pub(crate) struct Rules;

/// What may change of the spec.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "revisionHistoryLimit",
];

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        if spec.str("podManagementPolicy").unwrap_or_default().is_empty() {
            spec.insert("podManagementPolicy", "OrderedReady");
        }
        let update = spec.object("updateStrategy");
        if update.str("type").unwrap_or_default().is_empty() {
            update.insert("type", "RollingUpdate");
            update.object("rollingUpdate");
        }
        if update.str("type") == Some("RollingUpdate")
            && let Some(rolling) = update.get_mut("rollingUpdate").and_then(Value::as_object_mut)
            && rolling.get("partition").is_none_or(Value::is_null)
        {
            rolling.insert("partition", 0_i64);
        }
        let retention = spec.object("persistentVolumeClaimRetentionPolicy");
        for f in ["whenDeleted", "whenScaled"] {
            if retention.str(f).unwrap_or_default().is_empty() {
                retention.insert(f, "Retain");
            }
        }
        for (f, v) in [("replicas", 1_i64), ("revisionHistoryLimit", 10)] {
            if spec.get(f).is_none_or(Value::is_null) {
                spec.insert(f, v);
            }
        }
        for t in spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(m) = t.as_object_mut() {
                m.insert("apiVersion", "v1");
                m.insert("kind", "PersistentVolumeClaim");
            }
            if t.at(&["spec", "volumeMode"]).is_none_or(Value::is_null) {
                *t.slot(&["spec", "volumeMode"]) = "Filesystem".into();
            }
            if t.at(&["status", "phase"]).is_none_or(Value::is_null) {
                *t.slot(&["status", "phase"]) = "Pending".into();
            }
        }
        pod_template::default_template(spec);
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "replicas"]) = 0_i64.into();
        *o.slot(&["status", "availableReplicas"]) = 0_i64.into();
        drop_unavailable(o);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        let had = old.at(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]).is_some_and(|v| !v.is_null());
        if subresource.is_none() && !had {
            drop_unavailable(o);
        }
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::Label
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let spec = Path::new("spec");
        let policy = o.str_at(&["spec", "podManagementPolicy"]).unwrap_or_default();
        match policy {
            "" => e.required(&spec.child("podManagementPolicy"), ""),
            "OrderedReady" | "Parallel" => {}
            p => e.invalid(&spec.child("podManagementPolicy"), p, "must be 'OrderedReady' or 'Parallel'"),
        }
        let at = spec.child("updateStrategy");
        let update = o.at(&["spec", "updateStrategy"]).unwrap_or(&Value::Null);
        match update.str_at(&["type"]).unwrap_or_default() {
            "" => e.required(&at, ""),
            "OnDelete" => {
                if update.get("rollingUpdate").is_some_and(|r| !r.is_null()) {
                    let text = "only allowed for updateStrategy 'RollingUpdate'";
                    e.invalid(&at.child("rollingUpdate"), update["rollingUpdate"].clone(), text);
                }
            }
            "RollingUpdate" => {
                let at = at.child("rollingUpdate");
                e.non_negative(&at.child("partition"), update.i64_at(&["rollingUpdate", "partition"]));
            }
            _ => e.invalid(&at, update.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
        }
        let at = spec.child("persistentVolumeClaimRetentionPolicy");
        for f in ["whenDeleted", "whenScaled"] {
            let p = o.str_at(&["spec", "persistentVolumeClaimRetentionPolicy", f]).unwrap_or_default();
            if !matches!(p, "Retain" | "Delete") {
                e.not_supported(&at.child(f), p, &["Retain", "Delete"]);
            }
        }
        for f in ["replicas", "minReadySeconds"] {
            e.non_negative(&spec.child(f), o.i64_at(&["spec", f]));
        }
        e.non_negative(&spec.child("ordinals").child("start"), o.i64_at(&["spec", "ordinals", "start"]));
        if pod_template::validate_selector(o, "statefulset", e) {
            pod_template::validate_labels(o, e);
        } else {
            pod_template::unusable_selector(o, "", e);
        }
        validate_template(o, e);
    }
    fn validate_create(&self, o: &Value, e: &mut Errors) {
        let spec = Path::new("spec");
        if let Some(n) = o.str_at(&["spec", "serviceName"]).filter(|n| !n.is_empty()) {
            e.invalid_each(&spec.child("serviceName"), n, names::label(n));
        }
        for (i, t) in o.items_at(&["spec", "volumeClaimTemplates"]).iter().enumerate() {
            let at = spec.child("volumeClaimTemplates").index(i).child("spec");
            claim::validate_spec(t.get("spec").unwrap_or(&Value::Null), &at, e);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            let status = Path::new("status");
            let count = |f: &str| print::number(o, &["status", f]);
            for f in ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
                e.non_negative(&status.child(f), Some(count(f)));
                if count(f) > count("replicas") {
                    e.invalid(&status.child(f), count(f), "cannot be greater than status.replicas");
                }
            }
            for f in ["observedGeneration", "collisionCount"] {
                e.non_negative(&status.child(f), Some(count(f)));
            }
            if count("availableReplicas") > count("readyReplicas") {
                let at = status.child("availableReplicas");
                e.invalid(&at, count("availableReplicas"), "cannot be greater than status.readyReplicas");
            }
            if old.i64_at(&["status", "collisionCount"]).is_some_and(|had| count("collisionCount") < had) {
                e.invalid(&status.child("collisionCount"), count("collisionCount"), "cannot be decremented");
            }
            return;
        }
        let mut new = o.get("spec").cloned().unwrap_or_default();
        let before = old.get("spec").cloned().unwrap_or_default();
        for m in MUTABLE {
            strategy::keep(&mut new, &before, m);
        }
        if !equality::equal_as("apps/v1.StatefulSetSpec", &new, &before) {
            e.forbidden(&Path::new("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "statefulSet"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let (containers, images) = print::containers_and_images(o.at(&["spec", "template", "spec"]));
        let ready = print::number(o, &["status", "readyReplicas"]);
        let desired = print::number(o, &["spec", "replicas"]);
        vec![format!("{ready}/{desired}").into(), print::age(o, c), containers, images]
    }
    fn scale(&self, o: &Value) -> Option<Scale> {
        Some(replica_set::scale(o))
    }
}

/// Behind a gate that is off: dropped, not refused.
fn drop_unavailable(o: &mut Value) {
    let update = o.get_mut("spec").and_then(|s| s.get_mut("updateStrategy"));
    if let Some(rolling) = update.and_then(|u| u.get_mut("rollingUpdate")).and_then(Value::as_object_mut) {
        rolling.remove("maxUnavailable");
    }
}

/// The template's own rules; claims of the set count as volumes of its pods, before others and instead of those of
/// their names, and what its pods are called is the set's to say.
fn validate_template(o: &Value, e: &mut Errors) {
    let at = Path::new("spec").child("template");
    let mut template = o.at(&["spec", "template"]).cloned();
    let claims = o.items_at(&["spec", "volumeClaimTemplates"]);
    if let Some(spec) = template.as_mut().and_then(|t| t.get_mut("spec")).and_then(Value::as_object_mut) {
        spec.remove("hostname");
        spec.remove("subdomain");
    }
    if let Some(t) = template.as_mut().filter(|_| !claims.is_empty()) {
        let mut taken: HashSet<&str> = HashSet::new();
        let mut all: Vec<Value> = Vec::new();
        for name in claims.iter().map(|c| c.str_at(&["metadata", "name"]).unwrap_or_default()) {
            if taken.insert(name) {
                let mut v = Value::object();
                *v.slot(&["name"]) = name.into();
                *v.slot(&["persistentVolumeClaim", "claimName"]) = name.into();
                all.push(v);
            }
        }
        let own = o.items_at(&["spec", "template", "spec", "volumes"]).iter();
        all.extend(own.filter(|v| !taken.contains(v.str_at(&["name"]).unwrap_or_default())).cloned());
        *t.slot(&["spec", "volumes"]) = Value::Array(all);
    }
    pod_template::validate_template(template.as_ref(), &at, e);
    let pod = o.at(&["spec", "template", "spec"]).unwrap_or(&Value::Null);
    let at = at.child("spec");
    if let Some(p) = pod.str_at(&["restartPolicy"]).filter(|p| !p.is_empty() && *p != "Always") {
        e.not_supported(&at.child("restartPolicy"), p, &["Always"]);
    }
    if pod.i64_at(&["activeDeadlineSeconds"]).is_some() {
        e.forbidden(&at.child("activeDeadlineSeconds"), "activeDeadlineSeconds in StatefulSet is not Supported");
    }
}
