//! Between autoscaling/v1 and v2. The older version has one target, of CPU; the rest of the newer
//! one travels in annotations: other metrics, observed metrics and conditions in v1's form of them,
//! behaviour in the words of upstream's internal type. What a text does not parse is forgotten.

use ironkeel_object::{Map, Number, ObjectMeta, Quantity, Value};

use super::cpu;
use crate::pod_spec::present;
use crate::print;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const TOLERANCES: [&str; 2] =
    ["autoscaling.alpha.kubernetes.io/scale-down-tolerance", "autoscaling.alpha.kubernetes.io/scale-up-tolerance"];
/// The target of an autoscaler that names none, in percent.
pub(super) const DEFAULT_UTILIZATION_PERCENT: i64 = 80;
/// Sources of metrics, as members and as `type`.
const SOURCES: &[&str] = &["object", "pods", "resource", "containerResource", "external"];

/// Drops the annotations that only this conversion writes.
pub(super) fn forget_annotations(o: &mut Value) {
    let Some(all) = o.get_mut("metadata").and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut) else {
        return;
    };
    all.retain(|k, _| ![METRICS, CURRENT, CONDITIONS, BEHAVIOR].contains(&k) && !TOLERANCES.contains(&k));
    if all.is_empty() {
        o.meta_mut().remove("annotations");
    }
}

fn annotation(o: &Value, name: &str) -> Option<Value> {
    let text = o.at(&["metadata", "annotations", name])?.as_str()?;
    serde_json::from_str::<serde_json::Value>(text).ok().map(tree)
}

fn tree(v: serde_json::Value) -> Value {
    match v {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => b.into(),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(i) => i.into(),
            None => Value::Number(Number::Float(n.as_f64().unwrap_or_default())),
        },
        serde_json::Value::String(s) => s.into(),
        serde_json::Value::Array(a) => a.into_iter().map(tree).collect::<Vec<_>>().into(),
        serde_json::Value::Object(m) => {
            let mut map = Map::new();
            for (k, v) in m {
                map.insert(k, tree(v));
            }
            map.into()
        }
    }
}

/// A list of objects in an annotation; nothing where it holds something else.
fn listed(o: &Value, name: &str) -> Option<Vec<Value>> {
    let list = annotation(o, name)?;
    let items = list.as_array()?;
    items.iter().all(|i| matches!(i, Value::Object(_))).then(|| items.to_vec())
}

pub(super) fn is_cpu_utilization(m: &Value, part: &str) -> bool {
    m.str_at(&["type"]) == Some("Resource")
        && m.str_at(&["resource", "name"]) == Some("cpu")
        && m.at(&["resource", part, "averageUtilization"]).is_some_and(|v| !v.is_null())
}

/// From v1 to v2.
pub(super) fn to_v2(o: &mut Value) {
    let metrics = listed(o, METRICS);
    let current = listed(o, CURRENT);
    let conditions = listed(o, CONDITIONS);
    let behavior = annotation(o, BEHAVIOR).map(|b| behavior_of(&b)).filter(|b| !b.is_empty());
    forget_annotations(o);
    if let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = metrics.into_iter().flatten().map(|m| metric_to_v2(&m)).collect();
        all.extend(spec.remove("targetCPUUtilizationPercentage").and_then(|v| v.as_i64()).map(cpu));
        if all.is_empty() {
            all.push(cpu(DEFAULT_UTILIZATION_PERCENT));
        }
        spec.insert("metrics", all);
        if let Some(b) = behavior {
            spec.insert("behavior", b);
        }
    }
    if current.is_some() || conditions.is_some() {
        let status = o.slot(&["status"]);
        if status.is_null() {
            *status = Value::object();
        }
    }
    let Some(status) = o.get_mut("status").and_then(Value::as_object_mut) else { return };
    if status.get("currentReplicas").and_then(Value::as_i64) == Some(0) {
        status.remove("currentReplicas");
    }
    let utilization = status.remove("currentCPUUtilizationPercentage");
    if let Some(list) = current {
        status.insert("currentMetrics", list.iter().map(status_to_v2).collect::<Vec<_>>());
    } else if let Some(u) = utilization {
        let mut m = Value::object();
        *m.slot(&["type"]) = "Resource".into();
        *m.slot(&["resource", "name"]) = "cpu".into();
        *m.slot(&["resource", "current", "averageUtilization"]) = u;
        status.insert("currentMetrics", vec![m]);
    }
    if let Some(list) = conditions {
        status.insert("conditions", list);
    }
}

/// From v2 to v1.
pub(super) fn to_v1(o: &mut Value) {
    forget_annotations(o);
    let mut notes: Vec<(&str, String)> = Vec::new();
    if let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let list = metrics.as_array().unwrap_or_default();
        if let Some(m) = list.iter().find(|m| is_cpu_utilization(m, "target")) {
            let target = m.at(&["resource", "target", "averageUtilization"]).cloned().unwrap_or_default();
            spec.insert("targetCPUUtilizationPercentage", target);
        }
        let others: Vec<String> =
            list.iter().filter(|m| !is_cpu_utilization(m, "target")).map(|m| metric_text(m, "target")).collect();
        if !others.is_empty() {
            notes.push((METRICS, array(others)));
        }
        if let Some(b) = spec.remove("behavior").filter(|b| !b.is_null()) {
            notes.push((BEHAVIOR, behavior_text(&b)));
        }
    }
    if let Some(status) = o.get_mut("status").and_then(Value::as_object_mut) {
        if status.get("currentReplicas").is_none_or(Value::is_null) {
            status.insert("currentReplicas", 0_i64);
        }
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let list = metrics.as_array().unwrap_or_default();
        if let Some(m) = list.iter().rfind(|m| is_cpu_utilization(m, "current")) {
            let observed = m.at(&["resource", "current", "averageUtilization"]).cloned().unwrap_or_default();
            status.insert("currentCPUUtilizationPercentage", observed);
        }
        if !list.is_empty() {
            notes.push((CURRENT, array(list.iter().map(|m| metric_text(m, "current")).collect())));
        }
        let conditions = status.remove("conditions").unwrap_or_default();
        let list = conditions.as_array().unwrap_or_default();
        if !list.is_empty() {
            notes.push((CONDITIONS, array(list.iter().map(condition_text).collect())));
        }
    }
    for (name, text) in notes {
        o.meta_mut().object("annotations").insert(name, text);
    }
}

/// A member by upstream's rule for reading texts: case does not count.
fn member<'a>(v: &'a Value, name: &str) -> Option<&'a Value> {
    let map = v.as_object()?;
    map.get(name).or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}

fn put(to: &mut Map, name: &'static str, value: Option<&Value>) {
    if let Some(v) = value.filter(|v| !v.is_null()) {
        to.insert(name, v.clone());
    }
}

/// `behavior` of the internal type's words.
fn behavior_of(b: &Value) -> Map {
    let mut out = Map::new();
    for side in ["scaleUp", "scaleDown"] {
        let Some(rules) = member(b, side).filter(|r| !r.is_null()) else { continue };
        let mut to = Map::new();
        for f in ["stabilizationWindowSeconds", "selectPolicy", "tolerance"] {
            put(&mut to, f, member(rules, f));
        }
        let policies = member(rules, "policies").and_then(Value::as_array).unwrap_or_default().iter().map(|p| {
            let mut to = Map::new();
            for f in ["type", "value", "periodSeconds"] {
                put(&mut to, f, member(p, f));
            }
            Value::from(to)
        });
        let policies: Vec<Value> = policies.collect();
        if !policies.is_empty() {
            to.insert("policies", policies);
        }
        out.insert(side, to);
    }
    out
}

/// Which source a metric has in v1, and its members there and in v2.
fn identified(source: &Value, name: &str, selector: &str) -> Value {
    let mut to = Map::new();
    to.insert("name", source.str_at(&[name]).unwrap_or_default());
    put(&mut to, "selector", source.get(selector));
    to.into()
}

fn amount(v: Option<&Value>) -> Value {
    v.filter(|v| !v.is_null()).cloned().unwrap_or_else(|| "0".into())
}

fn described(source: &Value) -> Value {
    let mut to = Map::new();
    for f in ["kind", "name", "apiVersion"] {
        put(&mut to, f, source.at(&["target", f]));
    }
    to.into()
}

fn metric_to_v2(m: &Value) -> Value {
    let mut out = Map::new();
    out.insert("type", m.str_at(&["type"]).unwrap_or_default());
    for kind in SOURCES {
        let Some(s) = present(m, kind) else { continue };
        let mut target = Map::new();
        let mut to = Map::new();
        match *kind {
            "resource" | "containerResource" => {
                let utilization = s.get("targetAverageUtilization").filter(|v| !v.is_null());
                target.insert("type", if utilization.is_some() { "Utilization" } else { "AverageValue" });
                put(&mut target, "averageUtilization", utilization);
                put(&mut target, "averageValue", s.get("targetAverageValue"));
                to.insert("name", s.str_at(&["name"]).unwrap_or_default());
                if *kind == "containerResource" {
                    to.insert("container", s.str_at(&["container"]).unwrap_or_default());
                }
            }
            "pods" => {
                target.insert("type", "AverageValue");
                target.insert("averageValue", amount(s.get("targetAverageValue")));
                to.insert("metric", identified(s, "metricName", "selector"));
            }
            "external" => {
                let value = s.get("targetValue").filter(|v| !v.is_null());
                target.insert("type", if value.is_some() { "Value" } else { "AverageValue" });
                put(&mut target, "value", value);
                put(&mut target, "averageValue", s.get("targetAverageValue"));
                to.insert("metric", identified(s, "metricName", "metricSelector"));
            }
            _ => {
                let value = amount(s.get("targetValue"));
                let average = s.get("averageValue").filter(|v| !v.is_null());
                let zero = Quantity::parse(&print::scalar(Some(&value))).is_ok_and(|q| q.is_zero());
                target.insert("type", if average.is_some() { "AverageValue" } else { "Value" });
                if average.is_none() || !zero {
                    target.insert("value", value);
                }
                put(&mut target, "averageValue", average);
                to.insert("describedObject", described(s));
                to.insert("metric", identified(s, "metricName", "selector"));
            }
        }
        to.insert("target", target);
        out.insert(*kind, to);
    }
    out.into()
}

fn status_to_v2(m: &Value) -> Value {
    let mut out = Map::new();
    out.insert("type", m.str_at(&["type"]).unwrap_or_default());
    for kind in SOURCES {
        let Some(s) = present(m, kind) else { continue };
        let mut current = Map::new();
        let mut to = Map::new();
        match *kind {
            "resource" | "containerResource" => {
                put(&mut current, "averageUtilization", s.get("currentAverageUtilization"));
                current.insert("averageValue", amount(s.get("currentAverageValue")));
                to.insert("name", s.str_at(&["name"]).unwrap_or_default());
                if *kind == "containerResource" {
                    to.insert("container", s.str_at(&["container"]).unwrap_or_default());
                }
            }
            "pods" => {
                current.insert("averageValue", amount(s.get("currentAverageValue")));
                to.insert("metric", identified(s, "metricName", "selector"));
            }
            "external" => {
                current.insert("value", amount(s.get("currentValue")));
                put(&mut current, "averageValue", s.get("currentAverageValue"));
                to.insert("metric", identified(s, "metricName", "metricSelector"));
            }
            _ => {
                current.insert("value", amount(s.get("currentValue")));
                put(&mut current, "averageValue", s.get("averageValue"));
                to.insert("describedObject", described(s));
                to.insert("metric", identified(s, "metricName", "selector"));
            }
        }
        to.insert("current", current);
        out.insert(*kind, to);
    }
    out.into()
}

/// JSON as Go writes a struct: members in their order.
struct Text(String);

impl Text {
    fn new() -> Self {
        Text(String::new())
    }
    fn raw(mut self, name: &str, json: String) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(&json);
        self
    }
    fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, quoted(value))
    }
    fn optional(self, name: &str, json: Option<String>) -> Self {
        match json {
            Some(j) => self.raw(name, j),
            None => self,
        }
    }
    fn end(self) -> String {
        if self.0.is_empty() { "{}".into() } else { self.0 + "}" }
    }
}

fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn array(items: Vec<String>) -> String {
    format!("[{}]", items.join(","))
}

fn quantity(v: Option<&Value>) -> Option<String> {
    let text = print::scalar(v.filter(|v| !v.is_null())?.into());
    Some(quoted(&Quantity::parse(&text).map_or(text, |q| q.to_string())))
}

fn quantity_or_zero(v: Option<&Value>) -> String {
    quantity(v).unwrap_or_else(|| quoted("0"))
}

fn integer(v: Option<&Value>) -> Option<String> {
    v.and_then(Value::as_i64).map(|i| i.to_string())
}

fn texts(v: &Value, field: &str) -> String {
    array(v.items_at(&[field]).iter().map(|s| quoted(s.as_str().unwrap_or_default())).collect())
}

fn selector_text(v: Option<&Value>) -> Option<String> {
    let s = v.filter(|v| !v.is_null())?;
    let labels = s
        .get("matchLabels")
        .and_then(Value::as_object)
        .filter(|m| !m.is_empty())
        .map(|m| m.iter().fold(Text::new(), |t, (k, v)| t.text(k, v.as_str().unwrap_or_default())).end());
    let expressions = s.items_at(&["matchExpressions"]).iter().map(|x| {
        let text = |f: &str| x.str_at(&[f]).unwrap_or_default();
        let values = (!x.items_at(&["values"]).is_empty()).then(|| texts(x, "values"));
        Text::new().text("key", text("key")).text("operator", text("operator")).optional("values", values).end()
    });
    let expressions: Vec<String> = expressions.collect();
    let expressions = (!expressions.is_empty()).then(|| array(expressions));
    Some(Text::new().optional("matchLabels", labels).optional("matchExpressions", expressions).end())
}

fn described_text(s: &Value) -> String {
    let text = |f: &str| s.str_at(&["describedObject", f]).unwrap_or_default();
    let version = Some(text("apiVersion")).filter(|v| !v.is_empty()).map(quoted);
    Text::new().text("kind", text("kind")).text("name", text("name")).optional("apiVersion", version).end()
}

/// A metric (`target`) or what was observed of one (`current`), in v1's form.
fn metric_text(m: &Value, part: &str) -> String {
    let spec = part == "target";
    let mut out = Text::new().text("type", m.str_at(&["type"]).unwrap_or_default());
    for kind in SOURCES {
        let Some(s) = present(m, kind) else { continue };
        let value = |f: &str| s.at(&[part, f]);
        let name = s.str_at(&["metric", "name"]).unwrap_or_default();
        let selector = selector_text(s.at(&["metric", "selector"]));
        let text = match *kind {
            "resource" | "containerResource" => {
                let own = Text::new()
                    .text("name", s.str_at(&["name"]).unwrap_or_default())
                    .optional(&format!("{part}AverageUtilization"), integer(value("averageUtilization")));
                let average = value("averageValue");
                let own = if spec {
                    own.optional("targetAverageValue", quantity(average))
                } else {
                    own.raw("currentAverageValue", quantity_or_zero(average))
                };
                if *kind == "containerResource" {
                    own.text("container", s.str_at(&["container"]).unwrap_or_default())
                } else {
                    own
                }
            }
            "pods" => Text::new()
                .text("metricName", name)
                .raw(&format!("{part}AverageValue"), quantity_or_zero(value("averageValue")))
                .optional("selector", selector),
            "external" => {
                let own = Text::new().text("metricName", name).optional("metricSelector", selector);
                let own = if spec {
                    own.optional("targetValue", quantity(value("value")))
                } else {
                    own.raw("currentValue", quantity_or_zero(value("value")))
                };
                own.optional(&format!("{part}AverageValue"), quantity(value("averageValue")))
            }
            _ => Text::new()
                .raw("target", described_text(s))
                .text("metricName", name)
                .raw(&format!("{part}Value"), quantity_or_zero(value("value")))
                .optional("selector", selector)
                .optional("averageValue", quantity(value("averageValue"))),
        };
        out = out.raw(kind, text.end());
    }
    out.end()
}

fn condition_text(c: &Value) -> String {
    let text = |f: &str| c.str_at(&[f]).unwrap_or_default();
    let optional = |f: &str| Some(text(f)).filter(|t| !t.is_empty()).map(quoted);
    Text::new()
        .text("type", text("type"))
        .text("status", text("status"))
        .raw("lastTransitionTime", optional("lastTransitionTime").unwrap_or_else(|| "null".into()))
        .optional("reason", optional("reason"))
        .optional("message", optional("message"))
        .end()
}

fn behavior_text(b: &Value) -> String {
    let none = || "null".to_owned();
    let side = |name: &str| {
        let Some(r) = present(b, name) else { return none() };
        let policies = present(r, "policies").map(|_| {
            let all = r.items_at(&["policies"]).iter().map(|p| {
                Text::new()
                    .text("Type", p.str_at(&["type"]).unwrap_or_default())
                    .raw("Value", print::number(p, &["value"]).to_string())
                    .raw("PeriodSeconds", print::number(p, &["periodSeconds"]).to_string())
                    .end()
            });
            array(all.collect())
        });
        Text::new()
            .raw("StabilizationWindowSeconds", integer(r.get("stabilizationWindowSeconds")).unwrap_or_else(none))
            .raw("SelectPolicy", r.str_at(&["selectPolicy"]).map_or_else(none, quoted))
            .raw("Policies", policies.unwrap_or_else(none))
            .raw("Tolerance", quantity(r.get("tolerance")).unwrap_or_else(none))
            .end()
    };
    Text::new().raw("ScaleUp", side("scaleUp")).raw("ScaleDown", side("scaleDown")).end()
}
