//! Affinity, tolerations and topology spread.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::repeats::{identity, members, repeated_by, texts};
use crate::{Path, names, selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `affinity` of a pod.
pub(crate) fn validate_affinity(affinity: Option<&Value>, path: &Path, e: &mut Errors) {
    let Some(a) = affinity else { return };
    if let Some(n) = present(a, "nodeAffinity") {
        let at = path.child("nodeAffinity");
        if let Some(r) = present(n, REQUIRED) {
            node_selector(r, &at.child(REQUIRED), e);
        }
        for (i, t) in n.items_at(&[PREFERRED]).iter().enumerate() {
            let at = at.child(PREFERRED).index(i);
            weight(t, &at, e);
            node_term(&t["preference"], false, &at.child("preference"), e);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(p) = present(a, kind) else { continue };
        let at = path.child(kind);
        for (i, t) in p.items_at(&[REQUIRED]).iter().enumerate() {
            pod_term(t, &at.child(REQUIRED).index(i), e);
        }
        for (i, t) in p.items_at(&[PREFERRED]).iter().enumerate() {
            let at = at.child(PREFERRED).index(i);
            weight(t, &at, e);
            pod_term(&t["podAffinityTerm"], &at.child("podAffinityTerm"), e);
        }
    }
}

fn weight(t: &Value, at: &Path, e: &mut Errors) {
    let w = t.i64_at(&["weight"]).unwrap_or(0);
    if !(1..=100).contains(&w) {
        e.invalid(&at.child("weight"), w, "must be in the range 1-100");
    }
}

/// `NodeSelector`: at least one term.
pub(crate) fn node_selector(s: &Value, at: &Path, e: &mut Errors) {
    let terms = s.items_at(&["nodeSelectorTerms"]);
    let at = at.child("nodeSelectorTerms");
    if terms.is_empty() {
        e.required(&at, "must have at least one node selector term");
    }
    for (i, t) in terms.iter().enumerate() {
        node_term(t, true, &at.index(i), e);
    }
}

/// A term; the values of preferred ones may be anything.
fn node_term(t: &Value, strict_values: bool, path: &Path, e: &mut Errors) {
    for (i, r) in t.items_at(&["matchExpressions"]).iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = r.items_at(&["values"]);
        match r.str_at(&["operator"]).unwrap_or_default() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    e.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    e.forbidden(&at.child("values"), text);
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    e.required(&at.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
            }
            other => e.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = r.str_at(&["key"]).unwrap_or_default();
        e.invalid_each(&at.child("key"), key, names::qualified(key));
        for (j, v) in values.iter().enumerate().filter(|_| strict_values) {
            let v = v.as_str().unwrap_or_default();
            e.invalid_each(&at.child("values").index(j), v, names::label_value(v));
        }
    }
    for (i, r) in t.items_at(&["matchFields"]).iter().enumerate() {
        let at = path.child("matchFields").index(i);
        match r.str_at(&["operator"]).unwrap_or_default() {
            "In" | "NotIn" => {
                if r.items_at(&["values"]).len() != 1 {
                    let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    e.required(&at.child("values"), text);
                }
            }
            other => e.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = r.str_at(&["key"]).unwrap_or_default();
        if key == "metadata.name" {
            for (j, v) in r.items_at(&["values"]).iter().enumerate() {
                let v = v.as_str().unwrap_or_default();
                e.invalid_each(&at.child("values").index(j), v, names::subdomain(v));
            }
        } else {
            e.invalid(&at.child("key"), key, "not a valid field selector key");
        }
    }
}

fn pod_term(t: &Value, at: &Path, e: &mut Errors) {
    selector::label_selector(t.get("labelSelector"), &at.child("labelSelector"), e);
    selector::label_selector(t.get("namespaceSelector"), &at.child("namespaceSelector"), e);
    for n in t.items_at(&["namespaces"]).iter().filter_map(Value::as_str) {
        e.invalid_each(&at.child("namespace"), n, names::label(n));
    }
    let key = t.str_at(&["topologyKey"]).unwrap_or_default();
    if key.is_empty() {
        e.required(&at.child("topologyKey"), "can not be empty");
    }
    e.invalid_each(&at.child("topologyKey"), key, names::qualified(key));
    let (same, other) = (t.items_at(&["matchLabelKeys"]), t.items_at(&["mismatchLabelKeys"]));
    let others = members(other);
    for (i, k) in same.iter().enumerate().filter(|(_, k)| others.contains(&identity(k))) {
        let text = "exists in both matchLabelKeys and mismatchLabelKeys";
        e.invalid(&at.child("matchLabelKeys").index(i), k.clone(), text);
    }
    label_keys(t, "mismatchLabelKeys", at, e);
    label_keys(t, "matchLabelKeys", at, e);
}

/// Keys that stand for labels of the pod itself.
fn label_keys(t: &Value, field: &str, at: &Path, e: &mut Errors) {
    let keys = t.items_at(&[field]);
    if keys.is_empty() {
        return;
    }
    let s = present(t, "labelSelector");
    let at = at.child(field);
    if s.is_none() {
        e.forbidden(&at, "must not be specified when labelSelector is not set");
    }
    let expressions = texts(s.map(|s| s.items_at(&["matchExpressions"])).unwrap_or_default(), "key");
    for (i, k) in keys.iter().enumerate() {
        let k = k.as_str().unwrap_or_default();
        e.invalid_each(&at.index(i), k, names::qualified(k));
        let selected =
            s.is_some_and(|s| s.get("matchLabels").is_some_and(|m| m.get(k).is_some()) || expressions.contains(k));
        if field == "matchLabelKeys" && at.as_str().contains("topologySpread") && selected {
            e.invalid(&at.index(i), k, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

/// Effect of a taint.
pub(crate) fn taint_effect(v: &Value, may_be_empty: bool, at: &Path, e: &mut Errors) {
    match string(v, "effect") {
        None if may_be_empty => {}
        None => e.required(&at.child("effect"), ""),
        Some("NoSchedule" | "PreferNoSchedule" | "NoExecute") => {}
        Some(x) => e.not_supported(&at.child("effect"), x, &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    }
}

/// Tolerations of a pod or a runtime class.
pub(crate) fn tolerations(list: &[Value], path: &Path, e: &mut Errors) {
    for (i, t) in list.iter().enumerate() {
        let at = path.index(i);
        let text = |f: &str| t.str_at(&[f]).unwrap_or_default();
        let (key, operator, value) = (text("key"), text("operator"), text("value"));
        if !key.is_empty() {
            e.invalid_each(&at.child("key"), key, names::qualified(key));
        } else if operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            e.invalid(&at.child("operator"), operator, text);
        }
        if t.i64_at(&["tolerationSeconds"]).is_some() && text("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            e.invalid(&at.child("effect"), text("effect"), detail);
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    e.invalid(&at.child("operator"), value, &messages.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    e.invalid(&at.child("operator"), value, "value must be empty when `operator` is 'Exists'");
                }
            }
            other => e.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        taint_effect(t, true, &at, e);
    }
}

/// `topologySpreadConstraints`.
pub(crate) fn spread(list: &[Value], path: &Path, e: &mut Errors) {
    let pair = |c: &Value| (identity(&c["topologyKey"]), identity(&c["whenUnsatisfiable"]));
    let mut repeats_later = repeated_by(list.iter().rev(), pair);
    repeats_later.reverse();
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        let skew = c.i64_at(&["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            e.invalid(&at.child("maxSkew"), skew, "must be greater than zero");
        }
        if string(c, "topologyKey").is_none() {
            e.required(&at.child("topologyKey"), "can not be empty");
        }
        let unsatisfied = c.str_at(&["whenUnsatisfiable"]).unwrap_or_default();
        if !matches!(unsatisfied, "DoNotSchedule" | "ScheduleAnyway") {
            e.not_supported(&at.child("whenUnsatisfiable"), unsatisfied, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if repeats_later[i] {
            let text = |f: &str| c.str_at(&[f]).unwrap_or_default();
            let pair = format!("{{{}, {}}}", text("topologyKey"), text("whenUnsatisfiable"));
            e.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), pair);
        }
        label_keys(c, "matchLabelKeys", &at, e);
        if let Some(m) = c.i64_at(&["minDomains"]) {
            if m <= 0 {
                e.invalid(&at.child("minDomains"), m, "must be greater than zero");
            }
            if unsatisfied != "DoNotSchedule" {
                let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {unsatisfied}");
                e.invalid(&at.child("minDomains"), m, &text);
            }
        }
        for f in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(p) = c.str_at(&[f]).filter(|p| !matches!(*p, "Ignore" | "Honor")) {
                e.not_supported(&at.child(f), p, &["Honor", "Ignore"]);
            }
        }
        selector::label_selector(c.get("labelSelector"), &at.child("labelSelector"), e);
    }
}
