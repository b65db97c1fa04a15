//! Deployment.

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, Scale, TableContext, apps::replica_set, names, pod_template, print, rules, selector, strategy};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        for (field, value) in [("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)] {
            if spec.get(field).is_none_or(Value::is_null) {
                spec.insert(field, value);
            }
        }
        let strategy = spec.object("strategy");
        if strategy.str("type").unwrap_or_default().is_empty() {
            strategy.insert("type", "RollingUpdate");
        }
        if strategy.str("type") == Some("RollingUpdate") {
            let rolling = strategy.object("rollingUpdate");
            for field in ["maxSurge", "maxUnavailable"] {
                if rolling.get(field).is_none_or(Value::is_null) {
                    rolling.insert(field, "25%");
                }
            }
        }
        pod_template::default_template(spec);
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        // Upstream raises the generation for a change of annotations too: the controller copies them.
        let annotations = |v: &Value| v.at(&["metadata", "annotations"]).cloned();
        let (new, before) = (annotations(o), annotations(old));
        if subresource == Some("status") {
            strategy::keep_metadata(o, old, &["labels"]);
        }
        if subresource.is_none() && !crate::equality::same(new.as_ref(), before.as_ref()) {
            o.meta_mut().insert("generation", old.generation() + 1);
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let spec = Path::new("spec");
        for f in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            e.non_negative(&spec.child(f), o.i64_at(&["spec", f]));
        }
        if pod_template::validate_selector(o, "deployment", e) {
            pod_template::validate_labels(o, e);
            pod_template::validate_template(o.at(&["spec", "template"]), &spec.child("template"), e);
            pod_template::validate_always_restarts(o, "ReplicaSet", e);
        } else {
            pod_template::unusable_selector(o, "invalid label selector", e);
        }
        validate_strategy(o, e);
        let deadline = o.i64_at(&["spec", "progressDeadlineSeconds"]);
        if let Some(d) = deadline.filter(|d| *d <= print::number(o, &["spec", "minReadySeconds"])) {
            e.invalid(&spec.child("progressDeadlineSeconds"), d, "must be greater than minReadySeconds");
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        match subresource {
            Some("status") => {
                let status = Path::new("status");
                let count = |f: &str| print::number(o, &["status", f]);
                let fields = [
                    "observedGeneration",
                    "replicas",
                    "updatedReplicas",
                    "readyReplicas",
                    "availableReplicas",
                    "unavailableReplicas",
                    "terminatingReplicas",
                    "collisionCount",
                ];
                for f in fields {
                    e.non_negative(&status.child(f), Some(count(f)));
                }
                for f in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
                    if count(f) > count("replicas") {
                        e.invalid(&status.child(f), count(f), "cannot be greater than status.replicas");
                    }
                }
                if count("availableReplicas") > count("readyReplicas") {
                    let at = status.child("availableReplicas");
                    e.invalid(&at, count("availableReplicas"), "cannot be greater than readyReplicas");
                }
            }
            _ => pod_template::immutable_selector(o, old, e),
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "deployment"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let (containers, images) = print::containers_and_images(o.at(&["spec", "template", "spec"]));
        let ready = print::number(o, &["status", "readyReplicas"]);
        vec![
            format!("{ready}/{}", print::number(o, &["spec", "replicas"])).into(),
            print::number(o, &["status", "updatedReplicas"]).into(),
            print::number(o, &["status", "availableReplicas"]).into(),
            print::age(o, c),
            containers,
            images,
            selector::text(o.at(&["spec", "selector"])).into(),
        ]
    }
    fn scale(&self, o: &Value) -> Option<Scale> {
        Some(replica_set::scale(o))
    }
}

fn validate_strategy(o: &Value, e: &mut Errors) {
    let at = Path::new("spec").child("strategy");
    let s = o.at(&["spec", "strategy"]).unwrap_or(&Value::Null);
    let rolling = s.get("rollingUpdate").filter(|r| !r.is_null());
    match s.str_at(&["type"]).unwrap_or_default() {
        "Recreate" => {
            if rolling.is_some() {
                let text = "may not be specified when strategy `type` is 'Recreate'";
                e.forbidden(&at.child("rollingUpdate"), text);
            }
        }
        "RollingUpdate" => match rolling {
            None => e.required(&at.child("rollingUpdate"), "this should be defaulted and never be nil"),
            Some(r) => validate_rolling(r, &at.child("rollingUpdate"), e),
        },
        _ => e.not_supported(&at, s.clone(), &["Recreate", "RollingUpdate"]),
    }
}

/// `maxUnavailable` and `maxSurge` of a rolling update.
pub(crate) fn validate_rolling(r: &Value, at: &Path, e: &mut Errors) {
    for f in ["maxUnavailable", "maxSurge"] {
        int_or_percent(r.get(f), &at.child(f), e);
    }
    if is_zero(r.get("maxUnavailable")) && is_zero(r.get("maxSurge")) {
        let value = r.get("maxUnavailable").cloned().unwrap_or_default();
        e.invalid(&at.child("maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
    }
    percent_at_most_100(r.get("maxUnavailable"), &at.child("maxUnavailable"), e);
}

/// A count or a percentage, neither below zero.
pub(crate) fn int_or_percent(value: Option<&Value>, at: &Path, e: &mut Errors) {
    match value {
        Some(Value::String(s)) => e.invalid_each(at, s, names::percent(s)),
        Some(v) => e.non_negative(at, v.as_i64()),
        None => {}
    }
}

pub(crate) fn percent_at_most_100(value: Option<&Value>, at: &Path, e: &mut Errors) {
    let Some(s) = value.and_then(Value::as_str) else { return };
    if s.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 100) {
        e.invalid(at, s, "must not be greater than 100%");
    }
}

pub(crate) fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(s)) => s.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).unwrap_or(0) == 0,
        Some(v) => v.as_i64() == Some(0),
        None => true,
    }
}
