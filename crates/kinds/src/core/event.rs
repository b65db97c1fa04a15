//! Event, of core and of events.k8s.io: one object in two forms, stored in core's.

use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, rules};

pub(crate) struct Rules;

/// Names of members that differ: events.k8s.io/v1, then core/v1.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(map: &mut Map, from: &str, to: &'static str) {
    if let Some(v) = map.remove(from) {
        map.insert(to, v);
    }
}

fn part<'a>(o: &'a Value, core: &'static str) -> &'a Value {
    let other = RENAMED.iter().find(|(_, c)| *c == core).map_or(core, |(n, _)| n);
    o.get(core).unwrap_or(&o[other])
}

fn is_newer(o: &Value) -> bool {
    o.str_at(&["apiVersion"]) == Some("events.k8s.io/v1")
}

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// What an event with a time says of who saw it.
fn texts(o: &Value, newer: bool, e: &mut Errors) {
    let at = Path::new(if newer { "reportingController" } else { "reportingComponent" });
    let controller = part(o, "reportingComponent").as_str().unwrap_or_default();
    if controller.is_empty() {
        e.required(&at, "");
    }
    e.invalid_each(&at, controller, names::qualified(controller));
    for f in ["reportingInstance", "action", "reason"] {
        let value = o.str_at(&[f]).unwrap_or_default();
        if value.is_empty() {
            e.required(&Path::new(f), "");
        } else if value.len() > TEXT_MAX {
            e.invalid(&Path::new(f), "", &format!("can have at most {TEXT_MAX} characters"));
        }
    }
    if part(o, "message").as_str().unwrap_or_default().len() > NOTE_MAX {
        e.invalid(&Path::new("message"), "", &format!("can have at most {NOTE_MAX} characters"));
    }
}

fn series(o: &Value, e: &mut Errors) {
    let Some(s) = o.get("series").filter(|s| !s.is_null()) else { return };
    if s.i64_at(&["count"]).unwrap_or(0) < 2 {
        e.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if s.get("lastObservedTime").is_none_or(Value::is_null) {
        e.required(&Path::new("series.lastObservedTime"), "");
    }
}

impl rules::Rules for Rules {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let newer = is_newer(o);
        let involved = part(o, "involvedObject");
        let namespace = involved.str_at(&["namespace"]).unwrap_or_default();
        let timed = o.get("eventTime").is_some_and(|t| !t.is_null());
        let matches = match (timed, namespace.is_empty()) {
            (false, true) => matches!(o.namespace(), "" | "default"),
            (false, false) => namespace == o.namespace(),
            (true, true) => matches!(o.namespace(), "default" | "kube-system"),
            (true, false) => true,
        };
        if !matches {
            let at = Path::new("involvedObject").child("namespace");
            e.invalid(&at, namespace, "does not match event.namespace");
        }
        if timed {
            texts(o, newer, e);
        }
        e.invalid_each(&Path::new("namespace"), o.namespace(), names::subdomain(o.namespace()));
    }
    fn validate_create(&self, o: &Value, e: &mut Errors) {
        if !is_newer(o) {
            return;
        }
        e.invalid_each(&Path::new("metadata").child("name"), o.name(), names::subdomain(o.name()));
        series(o, e);
        if o.get("eventTime").is_none_or(Value::is_null) {
            e.required(&Path::new("eventTime"), "");
        }
        let kind = o.str_at(&["type"]).unwrap_or_default();
        if !matches!(kind, "Normal" | "Warning") {
            e.invalid(&Path::new("type"), "", &format!("has invalid value: {kind}"));
        }
        for f in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            let v = part(o, f);
            let set = match v {
                Value::Object(m) => m.values().any(|v| !v.is_empty()),
                Value::Number(_) => v.as_i64() != Some(0),
                v => !v.is_null(),
            };
            if set {
                e.invalid(&Path::new(f), "", "needs to be unset");
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        if !is_newer(o) {
            return;
        }
        if !equality::same(o.get("series"), old.get("series")) {
            series(o, e);
        }
        let id = ironkeel_schema::type_by_name("events/v1.Event");
        const FIXED: &[&str] = &[
            "involvedObject",
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "eventTime",
            "action",
            "related",
            "reportingController",
            "reportingInstance",
        ];
        for f in FIXED {
            let own = RENAMED.iter().find(|(_, core)| core == f).map_or(*f, |(newer, _)| newer);
            let same = match id {
                Some(id) => equality::same_member(id, own, o, old),
                None => equality::same(o.get(own), old.get(own)),
            };
            if !same {
                let missing = if matches!(*f, "eventTime" | "related") { Value::Null } else { "".into() };
                e.invalid(&Path::new(f), o.get(own).cloned().unwrap_or(missing), "field is immutable");
            }
        }
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::PathSegment
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("", "v1"))
    }
    fn to_stored(&self, resource: &Resource, o: &mut Value) {
        let Some(m) = o.as_object_mut().filter(|_| !resource.group.is_empty()) else { return };
        RENAMED.iter().for_each(|(newer, core)| rename(m, newer, core));
    }
    fn from_stored(&self, resource: &Resource, o: &mut Value) {
        let Some(m) = o.as_object_mut().filter(|_| !resource.group.is_empty()) else { return };
        RENAMED.iter().for_each(|(newer, core)| rename(m, core, newer));
    }
    fn columns(&self) -> &'static str {
        "event"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        let time = text(&o["eventTime"]);
        let first = text(part(o, "firstTimestamp")).or_else(|| time.clone());
        let last = text(part(o, "lastTimestamp"));
        let series = o.str_at(&["series", "lastObservedTime"]).map(str::to_owned);
        let last = series.or(last).or_else(|| first.clone());
        let involved = part(o, "involvedObject");
        let mut target = involved.str_at(&["kind"]).unwrap_or_default().to_lowercase();
        if let Some(n) = involved.str_at(&["name"]).filter(|n| !n.is_empty()) {
            target = format!("{target}/{n}");
        }
        let source = part(o, "source");
        let component = source.str_at(&["component"]).filter(|s| !s.is_empty());
        let component = component.or_else(|| part(o, "reportingComponent").as_str()).unwrap_or_default();
        let host = source.str_at(&["host"]).filter(|s| !s.is_empty()).or_else(|| o.str_at(&["reportingInstance"]));
        let source = match host.filter(|h| !h.is_empty()) {
            Some(h) => format!("{component}, {h}"),
            None => component.to_owned(),
        };
        let count =
            o.i64_at(&["series", "count"]).or_else(|| part(o, "count").as_i64()).filter(|c| *c != 0).unwrap_or(1);
        vec![
            print::since(last.as_deref(), c).into(),
            print::text(o, &["type"], ""),
            print::text(o, &["reason"], ""),
            target.into(),
            print::text(involved, &["fieldPath"], ""),
            source.into(),
            part(o, "message").as_str().unwrap_or_default().trim().into(),
            print::since(first.as_deref(), c).into(),
            count.into(),
            o.name().into(),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        let text = |v: &Value| Some(v.as_str().unwrap_or_default().to_owned());
        let involved = part(o, "involvedObject");
        if let Some(f) = path.strip_prefix("involvedObject.").or_else(|| path.strip_prefix("regarding.")) {
            let known = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
            return known.contains(&f).then(|| text(&involved[f])).flatten();
        }
        match path {
            "reason" | "type" => text(&o[path]),
            "reportingComponent" | "reportingController" => text(part(o, "reportingComponent")),
            "source" => {
                let component = part(o, "source").str_at(&["component"]).filter(|s| !s.is_empty());
                Some(component.or_else(|| part(o, "reportingComponent").as_str()).unwrap_or_default().to_owned())
            }
            _ => None,
        }
    }
}
