//! `scheduling.k8s.io`: PriorityClass, Workload, PodGroup.

mod groups;

pub(crate) use groups::{PodGroup, Workload};

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::rules::Generation;
use crate::{Path, TableContext, print, rules};

const HIGHEST_FOR_USERS: i64 = 1_000_000_000;

pub(crate) struct Class;
impl rules::Rules for Class {
    fn default(&self, o: &mut Value) {
        if o.get("preemptionPolicy").is_none_or(Value::is_null) {
            *o.slot(&["preemptionPolicy"]) = "PreemptLowerPriority".into();
        }
        // Not a pointer and always written.
        if o.get("value").is_none_or(Value::is_null) {
            *o.slot(&["value"]) = 0_i64.into();
        }
    }
    fn generation(&self) -> Generation {
        Generation::Constant
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let known = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
        let value = print::number(o, &["value"]);
        match o.str_at(&["preemptionPolicy"]).unwrap_or_default() {
            "" => e.required(&Path::new("preemptionPolicy"), ""),
            "PreemptLowerPriority" | "Never" => {}
            p => e.not_supported(&Path::new("preemptionPolicy"), p, &["PreemptLowerPriority", "Never"]),
        }
        match known.iter().find(|(n, _)| *n == o.name()) {
            Some((n, v)) if *v != value => {
                e.forbidden(&Path::new("metadata").child("name"), &format!("priority class names with 'system-' prefix are reserved for system use only. error: value of {n} PriorityClass must be {v}"));
            }
            Some(_) => {}
            None if o.name().starts_with("system-") => {
                let text = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {} is not a known system priority class",
                    o.name()
                );
                e.forbidden(&Path::new("metadata").child("name"), &text);
            }
            None if value > HIGHEST_FOR_USERS => {
                e.forbidden(
                    &Path::new("value"),
                    &format!("maximum allowed value of a user defined priority is {HIGHEST_FOR_USERS}"),
                );
            }
            None => {}
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        if print::number(o, &["value"]) != print::number(old, &["value"]) {
            e.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        e.immutable(&Path::new("preemptionPolicy"), o.get("preemptionPolicy"), old.get("preemptionPolicy"));
    }
    fn depth(&self) -> crate::structural::Depth {
        crate::structural::Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "priorityClass"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let global = o.get("globalDefault").and_then(Value::as_bool).unwrap_or(false);
        vec![
            print::number(o, &["value"]).into(),
            global.into(),
            print::age(o, c),
            print::text(o, &["preemptionPolicy"], ""),
        ]
    }
}
