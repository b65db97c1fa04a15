//! `cargo xtask codegen`, the part of RBAC: the default roles and bindings as one Rust table.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

fn strings<'v>(value: &'v Value, key: &str) -> Vec<&'v str> {
    value[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// Keys of a label map; every value is `true`.
fn true_labels(labels: &Value) -> Vec<&str> {
    labels
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, v)| v.as_str() == Some("true"))
        .map(|(k, _)| k.as_str())
        .collect()
}

/// The table of rbac-bootstrap.json, without the file's header.
pub(crate) fn table(json: &str) -> Result<String> {
    let facts: Value = serde_json::from_str(json).context("rbac-bootstrap.json")?;
    let rows = |names: &[&str]| -> Vec<Value> {
        names.iter().flat_map(|n| facts[*n].as_array().into_iter().flatten().cloned()).collect()
    };
    let mut s = String::from("use super::{Binding, Role, Rule};\n\npub(crate) static ROLES: &[Role] = &[\n");
    for role in rows(&["cluster-roles", "controller-roles", "namespace-roles"]) {
        let aggregates: Vec<&str> = role["aggregationRule"]["clusterRoleSelectors"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|selector| true_labels(&selector["matchLabels"]))
            .collect();
        writeln!(
            s,
            "    Role {{ name: {:?}, namespace: {:?}, labels: &{:?}, aggregates: &{aggregates:?}, rules: &[",
            text(&role, "name"),
            text(&role, "namespace"),
            true_labels(&role["labels"]),
        )?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            writeln!(
                s,
                "        Rule {{ groups: &{:?}, resources: &{:?}, names: &{:?}, verbs: &{:?}, urls: &{:?} }},",
                strings(rule, "apiGroups"),
                strings(rule, "resources"),
                strings(rule, "resourceNames"),
                strings(rule, "verbs"),
                strings(rule, "nonResourceURLs"),
            )?;
        }
        s.push_str("    ] },\n");
    }
    s.push_str("];\n\npub(crate) static BINDINGS: &[Binding] = &[\n");
    for binding in rows(&["cluster-role-bindings", "controller-role-bindings", "namespace-role-bindings"]) {
        let subjects: Vec<(&str, &str, &str)> = binding["subjects"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|subject| (text(subject, "kind"), text(subject, "namespace"), text(subject, "name")))
            .collect();
        writeln!(
            s,
            "    Binding {{ name: {:?}, namespace: {:?}, role_kind: {:?}, role: {:?}, subjects: &{subjects:?} }},",
            text(&binding, "name"),
            text(&binding, "namespace"),
            text(&binding["roleRef"], "kind"),
            text(&binding["roleRef"], "name"),
        )?;
    }
    s.push_str("];\n");
    Ok(s)
}
