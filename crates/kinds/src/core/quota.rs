//! ResourceQuota and LimitRange.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, resources, rules};

/// ResourceQuota.
pub(crate) struct Quota;

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn members<'a>(o: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a Value)> {
    o.at(path).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()).map(|(k, v)| (k.as_ref(), v))
}

impl rules::Rules for Quota {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        for (name, q) in members(o, &["spec", "hard"]) {
            let key = at.child("hard").key(name);
            let messages = names::qualified(name);
            e.invalid_each(&key, name, messages);
            resources::validate_quantity(name, Some(q), &key, e);
        }
        let scopes = o.items_at(&["spec", "scopes"]);
        for s in scopes.iter().filter_map(Value::as_str).filter(|s| !SCOPES.contains(s)) {
            e.invalid(&at.child("scopes"), s, "unsupported scope");
        }
        for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
            let has = |x: &str| scopes.iter().any(|s| s.as_str() == Some(x));
            if has(a) && has(b) {
                e.invalid(&at.child("scopes"), scopes.to_vec(), "conflicting scopes");
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() && !equality::same(o.at(&["spec", "scopes"]), old.at(&["spec", "scopes"])) {
            let new = o.at(&["spec", "scopes"]).cloned().unwrap_or_default();
            e.invalid(&Path::new("spec").child("scopes"), new, "field is immutable");
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status"]) = Value::object();
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "resourceQuota"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in members(o, &["status", "hard"]) {
            let used = print::scalar(o.at(&["status", "used", name]));
            let text = format!("{name}: {}/{}", if used.is_empty() { "0" } else { &used }, print::scalar(Some(hard)));
            if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
        }
        vec![requests.join(", ").into(), limits.join(", ").into(), print::age(o, c)]
    }
}

/// LimitRange.
pub(crate) struct Range;

impl rules::Rules for Range {
    fn default(&self, o: &mut Value) {
        let items = o.get_mut("spec").and_then(|s| s.get_mut("limits")).and_then(Value::as_array_mut);
        for i in items.into_iter().flatten().filter(|i| i.str_at(&["type"]) == Some("Container")) {
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                let source = i.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
                let Some(map) = i.as_object_mut().filter(|_| !source.is_empty()) else { continue };
                let target = map.object(to);
                for (k, v) in source {
                    if !target.contains_key(&k) {
                        target.insert(k, v);
                    }
                }
            }
        }
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let path = Path::new("spec").child("limits");
        let items = o.items_at(&["spec", "limits"]);
        for (i, l) in items.iter().enumerate() {
            let at = path.index(i);
            let kind = l.str_at(&["type"]).unwrap_or_default();
            if items[..i].iter().any(|x| x["type"] == l["type"]) {
                e.duplicate(&at.child("type"), kind);
            }
            if kind == "Pod" {
                for f in ["default", "defaultRequest"] {
                    if l.get(f).is_some_and(|d| !d.is_empty()) {
                        e.forbidden(&at.child(f), "may not be specified when `type` is 'Pod'");
                    }
                }
            }
            let min_max = l.at(&["min", "storage"]).is_none() && l.at(&["max", "storage"]).is_none();
            if kind == "PersistentVolumeClaim" && min_max {
                e.required(
                    &at.child("limits"),
                    "either minimum or maximum storage value is required, but neither was provided",
                );
            }
            let ordered = [
                ("min", "max"),
                ("min", "defaultRequest"),
                ("defaultRequest", "max"),
                ("default", "max"),
                ("defaultRequest", "default"),
                ("min", "default"),
            ];
            for (low, high) in ordered {
                for (name, q) in members(l, &[low]) {
                    let (Some(a), Some(b)) = (resources::quantity(Some(q)), resources::quantity(l.at(&[high, name])))
                    else {
                        continue;
                    };
                    if a > b {
                        let (x, y) = (print::scalar(Some(q)), print::scalar(l.at(&[high, name])));
                        let text = match (low, high) {
                            ("min", "max") => format!("min value {x} is greater than max value {y}"),
                            ("min", "defaultRequest") => {
                                format!("min value {x} is greater than default request value {y}")
                            }
                            ("defaultRequest", "max") => {
                                format!("default request value {x} is greater than max value {y}")
                            }
                            ("default", "max") => format!("default value {x} is greater than max value {y}"),
                            ("min", _) => format!("min value {x} is greater than default value {y}"),
                            _ => format!("default request value {x} is greater than default limit value {y}"),
                        };
                        e.invalid(&at.child(low).key(name), x, &text);
                    }
                }
            }
            for (name, q) in members(l, &["maxLimitRequestRatio"]) {
                if resources::quantity(Some(q)).is_some_and(|q| q.milli_value() < 1000) {
                    let text = format!("ratio {} is less than 1", print::scalar(Some(q)));
                    e.invalid(&at.child("maxLimitRequestRatio").key(name), print::scalar(Some(q)), &text);
                }
            }
        }
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
}
