//! ReplicationController: ReplicaSet's elder, with a plain map as selector.

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, Scale, TableContext, apps::replica_set, pod_template, print, rules, selector, strategy};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        if let Some(spec) = strategy::spec(o) {
            if spec.get("replicas").is_none_or(Value::is_null) {
                spec.insert("replicas", 1_i64);
            }
            if spec.get("template").is_some_and(|t| !t.is_null()) {
                pod_template::default_template(spec);
            }
        }
        let Some(labels) = pod_template::template_labels(o).cloned().filter(|l| !l.is_empty()) else { return };
        if o.at(&["spec", "selector"]).is_none_or(Value::is_empty) {
            *o.slot(&["spec", "selector"]) = labels.clone();
        }
        if o.at(&["metadata", "labels"]).is_none_or(Value::is_empty) {
            o.meta_mut().insert("labels", labels);
        }
    }
    fn name_rule(&self) -> crate::names::NameRule {
        crate::names::NameRule::Declared
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "replicas"]) = 0_i64.into();
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        for f in ["minReadySeconds", "replicas"] {
            e.non_negative(&at.child(f), o.i64_at(&["spec", f]));
        }
        let chosen = o.at(&["spec", "selector"]).and_then(Value::as_object).filter(|m| !m.is_empty());
        match chosen {
            None => e.required(&at.child("selector"), ""),
            Some(s) => {
                let labels = pod_template::template_labels(o);
                let template = o.at(&["spec", "template"]).is_some_and(|t| !t.is_null());
                if template && !s.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)) {
                    let at = at.child("template").child("metadata").child("labels");
                    let shown = labels.cloned().unwrap_or_default();
                    e.invalid(&at, shown, "`selector` does not match template `labels`");
                }
            }
        }
        pod_template::validate_template(o.at(&["spec", "template"]), &at.child("template"), e);
        pod_template::validate_always_restarts(o, "ReplicationController", e);
    }
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            replica_set::validate_status(o, e);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "replicationController"
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
            selector::map_text(o.at(&["spec", "selector"])).into(),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "status.replicas").then(|| print::number(o, &["status", "replicas"]).to_string())
    }
    fn scale(&self, o: &Value) -> Option<Scale> {
        Some(Scale {
            replicas: print::number(o, &["spec", "replicas"]),
            status_replicas: print::number(o, &["status", "replicas"]),
            selector: selector::map_text(o.at(&["spec", "selector"])),
        })
    }
}
