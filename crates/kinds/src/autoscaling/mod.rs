//! `autoscaling`: HorizontalPodAutoscaler v1 and v2; v2 is stored.

mod metrics;

use ironkeel_object::{Map, Value};
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, print, rules, strategy};

pub(crate) struct Autoscaler;

fn cpu(target: i64) -> Value {
    let mut m = Value::object();
    *m.slot(&["type"]) = "Resource".into();
    *m.slot(&["resource", "name"]) = "cpu".into();
    *m.slot(&["resource", "target", "type"]) = "Utilization".into();
    *m.slot(&["resource", "target", "averageUtilization"]) = target.into();
    m
}

fn is_cpu(m: &Value, part: &str) -> bool {
    m.str_at(&["type"]) == Some("Resource")
        && m.str_at(&["resource", "name"]) == Some("cpu")
        && m.at(&["resource", part, "averageUtilization"]).is_some_and(|v| !v.is_null())
}

impl rules::Rules for Autoscaler {
    fn default(&self, o: &mut Value) {
        let v1 = o.str_at(&["apiVersion"]) == Some("autoscaling/v1");
        let Some(spec) = strategy::spec(o) else { return };
        if spec.get("minReplicas").is_none_or(Value::is_null) {
            spec.insert("minReplicas", 1_i64);
        }
        if v1 {
            return;
        }
        if spec.get("metrics").is_none_or(Value::is_empty) {
            spec.insert("metrics", vec![cpu(80)]);
        }
        if let Some(b) = spec.get_mut("behavior").and_then(Value::as_object_mut) {
            scaling(b.object("scaleUp"), &[("Pods", 4), ("Percent", 100)], Some(0));
            scaling(b.object("scaleDown"), &[("Percent", 100)], None);
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "desiredReplicas"]) = 0_i64.into();
        // The newer version leaves out what is zero.
        if o.str_at(&["apiVersion"]) == Some("autoscaling/v1") {
            *o.slot(&["status", "currentReplicas"]) = 0_i64.into();
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let min = o.i64_at(&["spec", "minReplicas"]);
        let max = o.i64_at(&["spec", "maxReplicas"]).unwrap_or(0);
        if let Some(m) = min.filter(|m| *m < 1) {
            e.invalid(&at.child("minReplicas"), m, "must be greater than or equal to 1");
        }
        if max == 0 {
            e.required(&at.child("maxReplicas"), "must be set and greater than 0");
        } else if max < 0 {
            e.invalid(&at.child("maxReplicas"), max, "must be greater than or equal to 1");
        }
        if min.is_some_and(|m| max < m) {
            e.invalid(&at.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
        }
        let spec = o.get("spec").unwrap_or(&Value::Null);
        let target = spec.get("scaleTargetRef").unwrap_or(&Value::Null);
        let path = at.child("scaleTargetRef");
        metrics::reference(target, &path, e);
        let version = target.str_at(&["apiVersion"]).unwrap_or_default();
        if !version.contains('/') && target.str_at(&["kind"]) != Some("ReplicationController") {
            e.invalid(&path.child("apiVersion"), version, "apiVersion must specify API group");
        }
        metrics::validate(spec, &at.child("metrics"), e);
        for f in ["scaleUp", "scaleDown"] {
            if let Some(r) = spec.at(&["behavior", f]).filter(|r| !r.is_null()) {
                metrics::scaling(r, &at.child("behavior").child(f), e);
            }
        }
    }
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            for f in ["currentReplicas", "desiredReplicas"] {
                e.non_negative(&Path::new("status").child(f), o.i64_at(&["status", f]));
            }
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("autoscaling", "v2"))
    }
    fn to_stored(&self, r: &Resource, o: &mut Value) {
        if r.version != "v1" {
            return;
        }
        let mut metrics = Vec::new();
        if let Some(spec) = strategy::spec(o) {
            if let Some(t) = spec.remove("targetCPUUtilizationPercentage").and_then(|v| v.as_i64()) {
                metrics.push(cpu(t));
            }
            if !metrics.is_empty() {
                spec.insert("metrics", metrics);
            }
        }
        if let Some(s) = o.get_mut("status").and_then(Value::as_object_mut)
            && s.get("currentReplicas").and_then(Value::as_i64) == Some(0)
        {
            s.remove("currentReplicas");
        }
        if let Some(s) = o.get_mut("status").and_then(Value::as_object_mut)
            && let Some(c) = s.remove("currentCPUUtilizationPercentage")
        {
            let mut m = Value::object();
            *m.slot(&["type"]) = "Resource".into();
            *m.slot(&["resource", "name"]) = "cpu".into();
            *m.slot(&["resource", "current", "averageUtilization"]) = c;
            s.insert("currentMetrics", vec![m]);
        }
    }
    fn from_stored(&self, r: &Resource, o: &mut Value) {
        if r.version != "v1" {
            return;
        }
        if let Some(spec) = strategy::spec(o) {
            let metrics = spec.remove("metrics").unwrap_or_default();
            spec.remove("behavior");
            let target = metrics.as_array().into_iter().flatten().find(|m| is_cpu(m, "target"));
            if let Some(t) = target.and_then(|m| m.at(&["resource", "target", "averageUtilization"])) {
                spec.insert("targetCPUUtilizationPercentage", t.clone());
            }
        }
        if let Some(s) = o.get_mut("status").and_then(Value::as_object_mut) {
            if s.get("currentReplicas").is_none_or(Value::is_null) {
                s.insert("currentReplicas", 0_i64);
            }
            s.remove("conditions");
            let metrics = s.remove("currentMetrics").unwrap_or_default();
            let current = metrics.as_array().into_iter().flatten().find(|m| is_cpu(m, "current"));
            if let Some(c) = current.and_then(|m| m.at(&["resource", "current", "averageUtilization"])) {
                s.insert("currentCPUUtilizationPercentage", c.clone());
            }
        }
    }
    fn columns(&self) -> &'static str {
        "horizontalPodAutoscaler"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let target = |f: &str| o.str_at(&["spec", "scaleTargetRef", f]).unwrap_or_default();
        let min = o.i64_at(&["spec", "minReplicas"]).map_or("<unset>".to_owned(), |m| m.to_string());
        vec![
            format!("{}/{}", target("kind"), target("name")).into(),
            targets(o).into(),
            min.into(),
            print::number(o, &["spec", "maxReplicas"]).into(),
            print::number(o, &["status", "currentReplicas"]).into(),
            print::age(o, c),
        ]
    }
}

fn scaling(rules: &mut Map, policies: &[(&str, i64)], window: Option<i64>) {
    if rules.str("selectPolicy").unwrap_or_default().is_empty() {
        rules.insert("selectPolicy", "Max");
    }
    if let Some(w) = window.filter(|_| rules.get("stabilizationWindowSeconds").is_none_or(Value::is_null)) {
        rules.insert("stabilizationWindowSeconds", w);
    }
    if rules.get("policies").is_none_or(Value::is_null) {
        let list = policies.iter().map(|(kind, value)| {
            let mut p = Map::new();
            p.insert("type", *kind);
            p.insert("value", *value);
            p.insert("periodSeconds", 15_i64);
            Value::Object(p)
        });
        rules.insert("policies", Value::Array(list.collect()));
    }
}

/// `cpu: 12%/80%`, a metric each.
fn targets(o: &Value) -> String {
    let current = |name: &str| {
        let all = o.items_at(&["status", "currentMetrics"]);
        all.iter().find(|m| m.str_at(&["resource", "name"]) == Some(name)).and_then(|m| m.at(&["resource", "current"]))
    };
    let mut parts: Vec<String> = Vec::new();
    if let Some(t) = o.i64_at(&["spec", "targetCPUUtilizationPercentage"]) {
        let now = o.i64_at(&["status", "currentCPUUtilizationPercentage"]);
        parts.push(format!("cpu: {}/{t}%", now.map_or("<unknown>".into(), |n| format!("{n}%"))));
    }
    for m in o.items_at(&["spec", "metrics"]) {
        if m.str_at(&["type"]) != Some("Resource") {
            parts.push("<unknown>".into());
            continue;
        }
        let name = m.str_at(&["resource", "name"]).unwrap_or_default();
        let now = current(name);
        if let Some(t) = m.i64_at(&["resource", "target", "averageUtilization"]) {
            let n = now.and_then(|c| c.i64_at(&["averageUtilization"]));
            parts.push(format!("{name}: {}/{t}%", n.map_or("<unknown>".into(), |n| format!("{n}%"))));
        } else {
            let t = print::scalar(m.at(&["resource", "target", "averageValue"]));
            let n = print::scalar(now.and_then(|c| c.get("averageValue")));
            parts.push(format!("{name}: {}/{t}", if n.is_empty() { "<unknown>" } else { &n }));
        }
    }
    match parts.len() {
        0 => "<none>".into(),
        n if n > 2 => format!("{} + {} more...", parts[..2].join(", "), n - 2),
        _ => parts.join(", "),
    }
}
