//! Rules, match resources and match conditions, which webhooks and policies share.

use std::collections::BTreeSet;

use ironkeel_expr::Environment;
use ironkeel_object::Value;

use super::expressions;
use crate::error::Errors;
use crate::pod_spec::present;
use crate::repeats::{repeated, repeated_by};
use crate::{Path, names, selector};

/// Conditions that one webhook or policy may have.
const MATCH_CONDITIONS_MAX: usize = 64;
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];

fn texts<'a>(v: &'a Value, key: &str) -> Vec<&'a str> {
    v.items_at(&[key]).iter().map(|i| i.as_str().unwrap_or_default()).collect()
}

fn list(v: &Value, key: &str) -> Value {
    Value::Array(v.items_at(&[key]).to_vec())
}

/// A rule with operations.
pub(super) fn rule(rule: &Value, at: &Path, e: &mut Errors) {
    let operations = texts(rule, "operations");
    let path = at.child("operations");
    if operations.is_empty() {
        e.required(&path, "");
    }
    if operations.len() > 1 && operations.contains(&"*") {
        e.invalid(&path, list(rule, "operations"), "if '*' is present, must not specify other operations");
    }
    for (i, operation) in operations.iter().enumerate().filter(|(_, o)| !OPERATIONS.contains(o)) {
        e.not_supported(&path.index(i), *operation, OPERATIONS);
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let all = texts(rule, field);
        if all.is_empty() {
            e.required(&at.child(field), "");
        }
        if all.len() > 1 && all.contains(&"*") {
            let detail = format!("if '*' is present, must not specify other {what}");
            e.invalid(&at.child(field), list(rule, field), &detail);
        }
    }
    for (i, _) in texts(rule, "apiVersions").iter().enumerate().filter(|(_, v)| v.is_empty()) {
        e.required(&at.child("apiVersions").index(i), "");
    }
    resources(rule, &at.child("resources"), e);
    if let Some(scope) = rule.str_at(&["scope"]).filter(|s| !SCOPES.contains(s)) {
        e.not_supported(&at.child("scope"), scope, SCOPES);
    }
}

fn resources(rule: &Value, at: &Path, e: &mut Errors) {
    let all = texts(rule, "resources");
    if all.is_empty() {
        e.required(at, "");
    }
    let (mut any_sub_of, mut sub_of_any) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, text) in all.iter().enumerate() {
        if text.is_empty() {
            e.required(&at.index(i), "");
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            plain = *text != "*";
            continue;
        };
        if any_sub_of.contains(resource) {
            e.invalid(&at.index(i), *text, &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if sub_of_any.contains(sub) {
            e.invalid(&at.index(i), *text, &format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            any_sub_of.insert(resource);
        }
        if resource == "*" {
            sub_of_any.insert(sub);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        e.invalid(at, list(rule, "resources"), "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        e.invalid(at, list(rule, "resources"), detail);
    }
}

/// `matchConditions`.
pub(super) fn match_conditions(holder: &Value, env: &Environment, at: &Path, e: &mut Errors) {
    let all = holder.items_at(&["matchConditions"]);
    if all.len() > MATCH_CONDITIONS_MAX {
        e.too_many(at, all.len(), MATCH_CONDITIONS_MAX);
    }
    let twice = repeated(all, "name");
    for (i, condition) in all.iter().enumerate() {
        let at = at.index(i);
        let expression = condition.str_at(&["expression"]).unwrap_or_default().trim();
        if expression.is_empty() {
            e.required(&at.child("expression"), "");
        } else {
            expressions::condition(env, expression, &at.child("expression"), e);
        }
        let name = condition.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            e.required(&at.child("name"), "");
            continue;
        }
        e.invalid_each(&at.child("name"), name, names::qualified(name));
        if twice[i] {
            e.duplicate(&at.child("name"), name);
        }
    }
}

/// `matchConstraints` and `matchResources`.
pub(super) fn match_resources(m: &Value, at: &Path, e: &mut Errors) {
    match m.str_at(&["matchPolicy"]) {
        None => e.required(&at.child("matchPolicy"), ""),
        Some("Equivalent" | "Exact") => {}
        Some(other) => e.not_supported(&at.child("matchPolicy"), other, &["Equivalent", "Exact"]),
    }
    for field in ["namespaceSelector", "objectSelector"] {
        match present(m, field) {
            None => e.required(&at.child(field), ""),
            given => selector::label_selector(given, &at.child(field), e),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, named) in m.items_at(&[field]).iter().enumerate() {
            let at = at.child(field).index(i);
            let resource_names = texts(named, "resourceNames");
            let twice = repeated_by(&resource_names, |name| *name);
            for (j, name) in resource_names.iter().enumerate() {
                let at = at.child("resourceNames").index(j);
                e.invalid_each(&at, name, names::path_segment(name, false));
                if twice[j] {
                    e.duplicate(&at, *name);
                }
            }
            rule(named, &at, e);
        }
    }
}

/// Defaults of `matchConstraints` and `matchResources`.
pub(super) fn default_match_resources(m: &mut Value) {
    if m.get("matchPolicy").is_none_or(Value::is_null) {
        *m.slot(&["matchPolicy"]) = "Equivalent".into();
    }
    for f in ["namespaceSelector", "objectSelector"] {
        if m.get(f).is_none_or(Value::is_null) {
            *m.slot(&[f]) = Value::object();
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for r in m.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if r.get("scope").is_none_or(Value::is_null) {
                *r.slot(&["scope"]) = "*".into();
            }
        }
    }
}
