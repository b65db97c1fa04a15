//! `autoscaling`: HorizontalPodAutoscaler v1 and v2; v2 is stored.

mod metrics;
mod versions;

use std::borrow::Cow;

use ironkeel_object::{Map, Quantity, Value};
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, pod_spec, print, rules, strategy};

pub(crate) struct Autoscaler;

fn cpu(target: i64) -> Value {
    let mut m = Value::object();
    *m.slot(&["type"]) = "Resource".into();
    *m.slot(&["resource", "name"]) = "cpu".into();
    *m.slot(&["resource", "target", "type"]) = "Utilization".into();
    *m.slot(&["resource", "target", "averageUtilization"]) = target.into();
    m
}

fn is_v1(o: &Value) -> bool {
    o.str_at(&["apiVersion"]) == Some("autoscaling/v1")
}

/// The object in the newer version's form, which rules and columns speak of.
fn newest(o: &Value) -> Cow<'_, Value> {
    if !is_v1(o) {
        return Cow::Borrowed(o);
    }
    let mut newest = o.clone();
    versions::to_v2(&mut newest);
    Cow::Owned(newest)
}

/// Makes an older object the one that is stored, with what the newer version defaults.
fn stored(o: &mut Value) {
    versions::to_v2(o);
    if let Some(spec) = strategy::spec(o) {
        default_newest(spec);
    }
}

fn default_newest(spec: &mut Map) {
    if spec.get("metrics").is_none_or(Value::is_empty) {
        spec.insert("metrics", vec![cpu(versions::DEFAULT_UTILIZATION_PERCENT)]);
    }
    if let Some(b) = spec.get_mut("behavior").and_then(Value::as_object_mut) {
        scaling(b.object("scaleUp"), &[("Pods", 4), ("Percent", 100)], Some(0));
        scaling(b.object("scaleDown"), &[("Percent", 100)], None);
    }
}

impl rules::Rules for Autoscaler {
    fn default(&self, o: &mut Value) {
        let v1 = is_v1(o);
        let Some(spec) = strategy::spec(o) else { return };
        if spec.get("minReplicas").is_none_or(Value::is_null) {
            spec.insert("minReplicas", 1_i64);
        }
        if !v1 {
            default_newest(spec);
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        // What annotations say of the status is forgotten with it.
        let v1 = is_v1(o);
        if v1 {
            stored(o);
        } else {
            versions::forget_annotations(o);
        }
        if let Some(map) = o.as_object_mut() {
            map.remove("status");
        }
        *o.slot(&["status", "desiredReplicas"]) = 0_i64.into();
        if v1 {
            versions::to_v1(o);
        }
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if !is_v1(o) {
            versions::forget_annotations(o);
            return;
        }
        let old = newest(old);
        stored(o);
        strategy::keep(o, &old, if subresource.is_some() { "spec" } else { "status" });
        versions::to_v1(o);
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let o = &*newest(o);
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
        if r.version == "v1" {
            stored(o);
        }
    }
    fn from_stored(&self, r: &Resource, o: &mut Value) {
        if r.version == "v1" {
            versions::to_v1(o);
        }
    }
    fn columns(&self) -> &'static str {
        "horizontalPodAutoscaler"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let o = &*newest(o);
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
    if rules.get("selectPolicy").is_none_or(Value::is_null) {
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

/// `cpu: 12%/80%`, a metric each; what was observed stands in the same place.
fn targets(o: &Value) -> String {
    const UNKNOWN: &str = "<unknown>";
    let observed = o.items_at(&["status", "currentMetrics"]);
    let mut parts: Vec<String> = Vec::new();
    for (i, m) in o.items_at(&["spec", "metrics"]).iter().enumerate() {
        let kind = m.str_at(&["type"]).unwrap_or_default();
        let source = match kind {
            "External" => "external",
            "Pods" => "pods",
            "Object" => "object",
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            _ => {
                parts.push("<unknown type>".into());
                continue;
            }
        };
        let target = |f: &str| m.at(&[source, "target", f]).filter(|v| !v.is_null());
        let now = observed.get(i).and_then(|s| pod_spec::present(s, source)).map(|s| &s["current"]);
        let current = |f: &str| now.and_then(|c| c.get(f)).filter(|v| !v.is_null());
        let amount = |v: Option<&Value>| {
            let text = print::scalar(v);
            Quantity::parse(&text).map_or(text, |q| q.to_string())
        };
        // An amount that was observed, but not of this sort, reads as none.
        let seen = |f: &str| if now.is_some() { or_zero(amount(current(f))) } else { UNKNOWN.into() };
        let name = m.str_at(&[source, "name"]).unwrap_or_default();
        parts.push(match (source, target("averageValue")) {
            ("external" | "object", Some(t)) => {
                let c = current("averageValue").map_or(UNKNOWN.into(), |c| amount(Some(c)));
                format!("{c}/{} (avg)", amount(Some(t)))
            }
            ("external" | "object", None) => format!("{}/{}", seen("value"), or_zero(amount(target("value")))),
            ("pods", t) => format!("{}/{}", seen("averageValue"), or_zero(amount(t))),
            (_, Some(t)) => format!("{name}: {}/{}", seen("averageValue"), amount(Some(t))),
            (_, None) => {
                let percent =
                    |v: Option<&Value>, or: &str| v.and_then(Value::as_i64).map_or(or.to_owned(), |p| format!("{p}%"));
                let (c, t) = (current("averageUtilization"), target("averageUtilization"));
                format!("{name}: {}/{}", percent(c, UNKNOWN), percent(t, "<auto>"))
            }
        });
    }
    match parts.len() {
        0 => "<none>".into(),
        n if n > 2 => format!("{} + {} more...", parts[..2].join(", "), n - 2),
        _ => parts.join(", "),
    }
}

fn or_zero(text: String) -> String {
    if text.is_empty() { "0".into() } else { text }
}
