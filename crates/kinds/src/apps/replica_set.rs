//! ReplicaSet.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, Scale, TableContext, pod_template, print, rules, selector, strategy};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        if let Some(spec) = strategy::spec(o) {
            if spec.get("replicas").is_none_or(Value::is_null) {
                spec.insert("replicas", 1_i64);
            }
            pod_template::default_template(spec);
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "replicas"]) = 0_i64.into();
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let spec = Path::new("spec");
        e.non_negative(&spec.child("replicas"), o.i64_at(&["spec", "replicas"]));
        e.non_negative(&spec.child("minReadySeconds"), o.i64_at(&["spec", "minReadySeconds"]));
        if pod_template::validate_selector(o, "deployment", e) {
            pod_template::validate_labels(o, e);
            pod_template::validate_template(o.at(&["spec", "template"]), &spec.child("template"), e);
            pod_template::validate_always_restarts(o, "ReplicaSet", e);
        } else {
            pod_template::unusable_selector(o, "invalid label selector", e);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        match subresource {
            Some("status") => validate_status(o, e),
            _ => pod_template::immutable_selector(o, old, e),
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "replicaSet"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let (containers, images) = print::containers_and_images(o.at(&["spec", "template", "spec"]));
        vec![
            print::number(o, &["spec", "replicas"]).into(),
            print::number(o, &["status", "replicas"]).into(),
            print::number(o, &["status", "readyReplicas"]).into(),
            print::age(o, c),
            containers,
            images,
            selector::text(o.at(&["spec", "selector"])).into(),
        ]
    }
    fn scale(&self, o: &Value) -> Option<Scale> {
        Some(scale(o))
    }
}

/// `scale` of a workload with a label selector.
pub(crate) fn scale(o: &Value) -> Scale {
    Scale {
        replicas: print::number(o, &["spec", "replicas"]),
        status_replicas: print::number(o, &["status", "replicas"]),
        selector: selector::text(o.at(&["spec", "selector"])),
    }
}

pub(crate) fn validate_status(o: &Value, e: &mut Errors) {
    let status = Path::new("status");
    let count = |f: &str| print::number(o, &["status", f]);
    let counts = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    for f in counts {
        e.non_negative(&status.child(f), Some(count(f)));
    }
    for f in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if count(f) > count("replicas") {
            e.invalid(&status.child(f), count(f), "cannot be greater than status.replicas");
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        e.invalid(
            &status.child("availableReplicas"),
            count("availableReplicas"),
            "cannot be greater than readyReplicas",
        );
    }
}
