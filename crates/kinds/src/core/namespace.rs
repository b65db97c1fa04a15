//! Namespace: its finalizer, its name label, its phase.

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::names::NameRule;
use crate::structural::Depth;
use crate::{Path, TableContext, print, rules, strategy};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let name = o.name().to_owned();
        if !name.is_empty() {
            o.meta_mut().object("labels").insert("kubernetes.io/metadata.name", name);
        }
        strategy::default_phase(o, "Active");
    }

    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "phase"]) = "Active".into();
        let finalizers = o.slot(&["spec", "finalizers"]);
        match finalizers.as_array_mut() {
            Some(list) if list.iter().any(|f| f.as_str() == Some("kubernetes")) => {}
            Some(list) => list.push("kubernetes".into()),
            None => *finalizers = vec!["kubernetes"].into(),
        }
    }

    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource == Some("finalize") {
            strategy::keep(o, old, "status");
        } else {
            let before = old.at(&["spec", "finalizers"]).cloned();
            if let Some(spec) = o.slot(&["spec"]).as_object_mut() {
                spec.remove("finalizers");
            }
            if let Some(f) = before {
                *o.slot(&["spec", "finalizers"]) = f;
            }
        }
    }

    fn validate(&self, o: &Value, e: &mut Errors) {
        finalizers(o, false, e);
    }

    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("finalize") {
            finalizers(o, true, e);
        }
        if subresource == Some("status") {
            let phase = o.str_at(&["status", "phase"]).unwrap_or("Active");
            let at = Path::new("status").child("Phase");
            match (o.deletion_timestamp().or(old.deletion_timestamp()).is_some(), phase) {
                (false, "Active") | (true, "Terminating") => {}
                (false, _) => e.invalid(&at, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
                (true, _) => {
                    e.invalid(&at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
                }
            }
        }
    }

    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }
    fn columns(&self) -> &'static str {
        "namespace"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["status", "phase"], ""), print::age(o, c)]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "status.phase").then(|| o.str_at(&["status", "phase"]).unwrap_or_default().to_owned())
    }
}

/// Finalizers have names with a domain, ours excepted; upstream says which one is wrong when they are written alone.
fn finalizers(o: &Value, each: bool, e: &mut Errors) {
    let list = Path::new("spec").child("finalizers");
    for (i, f) in o.items_at(&["spec", "finalizers"]).iter().enumerate() {
        let f = f.as_str().unwrap_or_default();
        let at = if each { list.index(i) } else { list.clone() };
        let messages = crate::names::qualified(f);
        if !f.contains('/') && f != "kubernetes" {
            e.invalid(&at, f, "name is neither a standard finalizer name nor is it fully qualified");
        }
        e.invalid_each(&at, f, messages);
    }
}
