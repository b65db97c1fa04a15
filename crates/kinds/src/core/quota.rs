//! ResourceQuota and LimitRange.

use std::collections::BTreeSet;

use ironkeel_object::{ObjectMeta, Value};

use crate::error::{Errors, shown};
use crate::repeats::repeated;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, resources, rules};

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

const QUOTA_NAMES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_quota_name(name: &str) -> bool {
    QUOTA_NAMES.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// Names and amounts of a quota.
fn amounts(o: &Value, path: &[&str], at: &Path, e: &mut Errors) {
    for (name, q) in members(o, path) {
        let key = at.key(name);
        let before = e.len();
        e.invalid_each(&key, name, names::qualified(name));
        if e.len() == before {
            resources::validate_resource_name(name, &key, e);
        }
        if !name.contains('/') && !is_quota_name(name) {
            e.invalid(&key, name, "must be a standard resource for quota");
        }
        resources::validate_quantity(name, Some(q), &key, e);
    }
}

/// Whether a scope can narrow the count of a resource.
fn scope_covers(scope: &str, name: &str) -> bool {
    if !is_quota_name(name) {
        return true;
    }
    match scope {
        "BestEffort" => name == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            const OF_PODS: &[&str] = &[
                "pods",
                "cpu",
                "memory",
                "ephemeral-storage",
                "requests.cpu",
                "requests.memory",
                "requests.ephemeral-storage",
                "limits.cpu",
                "limits.memory",
                "limits.ephemeral-storage",
            ];
            OF_PODS.contains(&name) || name.contains("hugepages-")
        }
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn conflicts(has: impl Fn(&str) -> bool, path: &Path, scopes: &[Value], e: &mut Errors) {
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(a) && has(b) {
            e.invalid(path, scopes.to_vec(), "conflicting scopes");
        }
    }
}

/// `scopeSelector`; upstream's paths leave out the indexes.
fn selectors(o: &Value, path: &Path, e: &mut Errors) {
    let list = o.items_at(&["spec", "scopeSelector", "matchExpressions"]);
    let whole = shown(&o["spec"]["scopeSelector"]);
    for r in list {
        let (scope, operator) =
            (r.str_at(&["scopeName"]).unwrap_or_default(), r.str_at(&["operator"]).unwrap_or_default());
        if !SCOPES.contains(&scope) {
            e.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in members(o, &["spec", "hard"]).filter(|(n, _)| !scope_covers(scope, n)) {
            e.invalid_as(path, &whole, "unsupported scope applied to resource");
        }
        let plain = !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&scope);
        if plain && operator != "Exists" {
            let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            e.invalid(&path.child("operator"), operator, text);
        }
        let values = r.items_at(&["values"]);
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                e.required(&path.child("values"), text);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                e.invalid(&path.child("values"), values.to_vec(), text);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            o => e.invalid(&path.child("operator"), o, "not a valid selector operator"),
        }
    }
    let has = |x: &str| list.iter().any(|r| r.str_at(&["scopeName"]) == Some(x));
    conflicts(has, path, o.items_at(&["spec", "scopes"]), e);
}

impl rules::Rules for Quota {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        amounts(o, &["spec", "hard"], &at.child("hard"), e);
        let scopes = o.items_at(&["spec", "scopes"]);
        let all = shown(&Value::from(scopes.to_vec()));
        let path = at.child("scopes");
        for s in scopes.iter().filter_map(Value::as_str) {
            if !SCOPES.contains(&s) {
                e.invalid_as(&path, &all, "unsupported scope");
            }
            for _ in members(o, &["spec", "hard"]).filter(|(n, _)| !scope_covers(s, n)) {
                e.invalid_as(&path, &all, "unsupported scope applied to resource");
            }
        }
        conflicts(|x| scopes.iter().any(|s| s.as_str() == Some(x)), &path, scopes, e);
        selectors(o, &at.child("scopeSelector").child("matchExpressions"), e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            for f in ["hard", "used"] {
                amounts(o, &["status", f], &Path::new("status").child(f), e);
            }
        }
        let scopes = |v: &Value| -> BTreeSet<String> {
            v.items_at(&["spec", "scopes"]).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        if subresource.is_none() && scopes(o) != scopes(old) {
            let new = o.at(&["spec", "scopes"]).cloned().unwrap_or_default();
            e.invalid(&Path::new("spec").child("scopes"), new, "field is immutable");
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status"]) = Value::object();
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
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

/// Bounds of one limit against each other.
fn bounds(l: &Value, at: &Path, e: &mut Errors) {
    let text = |f: &str, name: &str| print::scalar(l.at(&[f, name]));
    // Lower, higher, where it is said and what is shown there, and in which words.
    const ORDER: &[(&str, &str, &str, &str, &str, &str)] = &[
        ("min", "max", "min", "min", "min", "max"),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min", "default request"),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request", "max"),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request", "default limit"),
        ("min", "default", "default", "min", "min", "default"),
        ("default", "max", "default", "max", "default", "max"),
    ];
    for (low, high, place, value, low_name, high_name) in ORDER {
        for (name, q) in members(l, &[low]) {
            let (Some(a), Some(b)) = (resources::quantity(Some(q)), resources::quantity(l.at(&[high, name]))) else {
                continue;
            };
            if a > b {
                let detail = format!(
                    "{low_name} value {} is greater than {high_name} value {}",
                    text(low, name),
                    text(high, name)
                );
                e.invalid(&at.child(place).key(name), text(value, name), &detail);
            }
        }
    }
    for (name, q) in members(l, &["maxLimitRequestRatio"]) {
        let Some(ratio) = resources::quantity(Some(q)) else { continue };
        let at = at.child("maxLimitRequestRatio").key(name);
        if ratio.milli_value() < 1000 {
            e.invalid(&at, print::scalar(Some(q)), &format!("ratio {} is less than 1", print::scalar(Some(q))));
        }
        let quantity = |f: &str| resources::quantity(l.at(&[f, name]));
        if let (Some(min), Some(max)) = (quantity("min"), quantity("max")) {
            let limit = max.as_f64() / min.as_f64();
            if ratio.as_f64() > limit {
                let detail = format!("ratio {} is greater than max/min = {limit:.6}", print::scalar(Some(q)));
                e.invalid(&at, print::scalar(Some(q)), &detail);
            }
        }
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
    fn prepare_create(&self, o: &mut Value) {
        // Alone of all kinds, it may come without a name.
        if o.name().is_empty() && o.meta_str("generateName").is_empty() {
            let name = o.uid().to_owned();
            o.meta_mut().insert("name", name);
        }
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let path = Path::new("spec").child("limits");
        let items = o.items_at(&["spec", "limits"]);
        let twice = repeated(items, "type");
        for (i, l) in items.iter().enumerate() {
            let at = path.index(i);
            let kind = l.str_at(&["type"]).unwrap_or_default();
            let messages = names::qualified(kind);
            if messages.is_empty()
                && !kind.contains('/')
                && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim")
            {
                e.invalid(&at.child("type"), kind, "must be a standard limit type or fully qualified");
            }
            e.invalid_each(&at.child("type"), kind, messages);
            for f in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                if kind == "Pod" && matches!(f, "default" | "defaultRequest") {
                    continue;
                }
                for (name, _) in members(l, &[f]) {
                    let at = at.child(f).key(name);
                    if matches!(kind, "Pod" | "Container") {
                        resources::validate_container_resource(name, &at, e);
                    } else {
                        resources::validate_resource_name(name, &at, e);
                    }
                }
            }
            if twice[i] {
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
            bounds(l, &at, e);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
}
