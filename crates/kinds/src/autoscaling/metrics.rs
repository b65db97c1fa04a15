//! Metrics and behaviour of an autoscaler: exactly one source a metric, a target of the right sort.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::{Path, names, print, resources};

const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
const SOURCES: &[&str] = &["object", "external", "pods", "resource", "containerResource"];
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;

/// The object whose scale is changed, or which a metric describes.
pub(super) fn reference(r: &Value, at: &Path, e: &mut Errors) {
    for f in ["kind", "name"] {
        match string(r, f) {
            None => e.required(&at.child(f), ""),
            Some(s) => e.invalid_each(&at.child(f), s, names::path_segment(s, false)),
        }
    }
}

/// `metrics`.
pub(super) fn validate(spec: &Value, at: &Path, e: &mut Errors) {
    let list = spec.items_at(&["metrics"]);
    for (i, m) in list.iter().enumerate() {
        metric(m, &at.index(i), e);
    }
    if spec.i64_at(&["minReplicas"]) == Some(0)
        && !list.iter().any(|m| matches!(m.str_at(&["type"]), Some("Object" | "External")))
    {
        let text = "must specify at least one Object or External metric to support scaling to zero replicas";
        e.forbidden(at, text);
    }
}

fn metric(m: &Value, at: &Path, e: &mut Errors) {
    let kind = m.str_at(&["type"]).unwrap_or_default();
    if kind.is_empty() {
        e.required(&at.child("type"), "must specify a metric source type");
    }
    let known = TYPES.contains(&kind);
    if !known {
        e.not_supported(&at.child("type"), kind, TYPES);
    }
    let mut found = SOURCES.iter().filter(|s| present(m, s).is_some());
    let count = found.clone().count();
    if let Some(first) = found.next() {
        source(first, &m[*first], &at.child(first), e);
    }
    let wanted = if known { format!("{}{}", kind[..1].to_lowercase(), &kind[1..]) } else { String::new() };
    if known && present(m, &wanted).is_none() {
        e.required(&at.child(&wanted), "must populate information for the given metric source");
    }
    if count != 1 {
        for s in SOURCES.iter().filter(|s| present(m, s).is_some() && **s != wanted) {
            e.forbidden(&at.child(s), "must populate the given metric source only");
        }
    }
}

fn source(kind: &str, s: &Value, at: &Path, e: &mut Errors) {
    let goal = s.get("target").unwrap_or(&Value::Null);
    let path = at.child("target");
    let has = |f: &str| present(goal, f).is_some();
    if matches!(kind, "object" | "external" | "pods") {
        if kind == "object" {
            reference(s.get("describedObject").unwrap_or(&Value::Null), &at.child("describedObject"), e);
        }
        let name = at.child("metric").child("name");
        match s.str_at(&["metric", "name"]).unwrap_or_default() {
            "" => e.required(&name, "must specify a metric name"),
            n => e.invalid_each(&name, n, names::path_segment(n, false)),
        }
        target(goal, &path, e);
        let text = match kind {
            "object" => "must set either a target value or averageValue",
            "external" => "must set either a target value for metric or a per-pod target",
            _ => "must specify a positive target averageValue",
        };
        if !has("averageValue") && (kind == "pods" || !has("value")) {
            e.required(&path.child("averageValue"), text);
        }
        if kind == "external" && has("value") && has("averageValue") {
            e.forbidden(&path.child("value"), "may not set both a target value for metric and a per-pod target");
        }
        return;
    }
    match string(s, "name") {
        None => e.required(&at.child("name"), "must specify a resource name"),
        Some(n) if kind == "containerResource" => resources::validate_container_resource(n, &at.child("name"), e),
        Some(_) => {}
    }
    if kind == "containerResource" {
        match string(s, "container") {
            None => e.required(&at.child("container"), "must specify a container"),
            Some(c) => e.invalid_each(&at.child("container"), c, names::label(c)),
        }
    }
    target(goal, &path, e);
    match (has("averageUtilization"), has("averageValue")) {
        (false, false) => {
            e.required(&path.child("averageUtilization"), "must set either a target raw value or a target utilization");
        }
        (true, true) => {
            e.forbidden(&path.child("averageValue"), "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn target(t: &Value, at: &Path, e: &mut Errors) {
    let kind = t.str_at(&["type"]).unwrap_or_default();
    if kind.is_empty() {
        e.required(&at.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        e.invalid(&at.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for f in ["value", "averageValue"] {
        if resources::quantity(present(t, f)).is_some_and(|q| q.signum() <= 0) {
            e.invalid(&at.child(f), print::scalar(t.get(f)), "must be positive");
        }
    }
    if let Some(u) = t.i64_at(&["averageUtilization"]).filter(|u| *u < 1) {
        e.invalid(&at.child("averageUtilization"), u, "must be greater than 0");
    }
}

/// `behavior.scaleUp` and `behavior.scaleDown`.
pub(super) fn scaling(r: &Value, at: &Path, e: &mut Errors) {
    let path = at.child("stabilizationWindowSeconds");
    match r.i64_at(&["stabilizationWindowSeconds"]) {
        Some(s) if s < 0 => e.invalid(&path, s, "must be greater than or equal to zero"),
        Some(s) if s > WINDOW_MAX_SECONDS => {
            e.invalid(&path, s, &format!("must be less than or equal to {WINDOW_MAX_SECONDS}"));
        }
        _ => {}
    }
    if let Some(p) = r.str_at(&["selectPolicy"]).filter(|p| !matches!(*p, "Disabled" | "Max" | "Min")) {
        e.not_supported(&at.child("selectPolicy"), p, &["Disabled", "Max", "Min"]);
    }
    let policies = r.items_at(&["policies"]);
    if policies.is_empty() {
        e.required(&at.child("policies"), "must specify at least one Policy");
    }
    for (i, p) in policies.iter().enumerate() {
        let at = at.child("policies").index(i);
        let kind = p.str_at(&["type"]).unwrap_or_default();
        if !matches!(kind, "Pods" | "Percent") {
            e.not_supported(&at.child("type"), kind, &["Percent", "Pods"]);
        }
        for f in ["value", "periodSeconds"] {
            let n = print::number(p, &[f]);
            if n <= 0 {
                e.invalid(&at.child(f), n, "must be greater than zero");
            } else if f == "periodSeconds" && n > PERIOD_MAX_SECONDS {
                e.invalid(&at.child(f), n, &format!("must be less than or equal to {PERIOD_MAX_SECONDS}"));
            }
        }
    }
    if resources::quantity(present(r, "tolerance")).is_some_and(|q| q.signum() < 0) {
        e.invalid(&at.child("tolerance"), print::scalar(r.get("tolerance")), "must be greater than or equal to 0");
    }
}
