//! What makes a schema structural: every field and list is specified outside of alternatives, with a
//! type, and alternatives only restrict values.

use ironkeel_object::{Map, Value, object};

use crate::Path;
use crate::custom::compile_pattern;
use crate::error::Errors;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

fn flag(s: &Value, field: &str) -> bool {
    s.get(field).and_then(Value::as_bool) == Some(true)
}

fn text<'v>(s: &'v Value, field: &str) -> &'v str {
    s.str_at(&[field]).unwrap_or_default()
}

fn members<'v>(s: &'v Value, field: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    s.get(field).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()).map(|(k, v)| (k.as_ref(), v))
}

fn object_at<'v>(s: &'v Value, field: &str) -> Option<&'v Value> {
    s.get(field).filter(|v| v.as_object().is_some())
}

/// Checks a root schema; findings in upstream's order (by text).
pub(super) fn validate(s: &Value, at: &Path, e: &mut Errors) {
    let mut found = Errors::default();
    invariants(s, Level::Root, at, &mut found);
    completeness(s, s, at, at, &mut found);
    let mut found = found.into_vec();
    found.sort_by_key(ToString::to_string);
    e.extend(found);
}

fn invariants(s: &Value, level: Level, at: &Path, e: &mut Errors) {
    let kind = text(s, "type");
    let embedded = flag(s, "x-kubernetes-embedded-resource");
    let preserve = flag(s, "x-kubernetes-preserve-unknown-fields");
    let either = flag(s, "x-kubernetes-int-or-string");
    match object_at(s, "items") {
        Some(items) => invariants(items, Level::Item, &at.child("items"), e),
        None if kind == "array" => e.required(&at.child("items"), "must be specified"),
        None => {}
    }
    for (name, p) in members(s, "properties") {
        invariants(p, Level::Field, &at.child("properties").key(name), e);
    }
    if let Some(additional) = s.get("additionalProperties").filter(|a| !a.is_null()) {
        if level == Level::Root {
            e.forbidden(&at.child("additionalProperties"), "must not be used at the root");
        }
        if additional.as_object().is_some() {
            invariants(additional, Level::Field, &at.child("additionalProperties"), e);
        }
        if embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            e.forbidden(&at.child("additionalProperties"), detail);
        }
    }
    if either && preserve {
        let detail = "must be false if x-kubernetes-int-or-string is true";
        e.invalid(&at.child("x-kubernetes-preserve-unknown-fields"), true, detail);
    }
    if either && embedded {
        let detail = "must be false if x-kubernetes-int-or-string is true";
        e.invalid(&at.child("x-kubernetes-embedded-resource"), true, detail);
    }
    let first = s.items_at(&["allOf"]).first();
    values(s, is_either(s), first.is_some_and(is_either), level, at, e);
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() {
            e.required(&at.child("type"), detail);
        } else {
            e.invalid(&at.child("type"), kind, detail);
        }
    } else if kind.is_empty() && !either && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        e.required(&at.child("type"), detail);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        e.invalid(&at.child("type"), kind, "must be object at the root");
    }
    metadata(s, level, embedded, at, e);
    if embedded && !preserve && members(s, "properties").next().is_none() {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        e.required(&at.child("properties"), detail);
    }
}

/// `kind`, `apiVersion` and `metadata` of a resource can only be named, and the name restricted.
fn metadata(s: &Value, level: Level, embedded: bool, at: &Path, e: &mut Errors) {
    let resource = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(p) = s.at(&["properties", name]).filter(|p| resource && text(p, "type") != "string") {
            e.invalid(&at.child("properties").key(name).child("type"), text(p, "type"), "must be string");
        }
    }
    let Some(meta) = s.at(&["properties", "metadata"]) else { return };
    let place = at.child("properties").key("metadata");
    if resource && text(meta, "type") != "object" {
        e.invalid(&place.child("type"), text(meta, "type"), "must be object");
    }
    if level != Level::Root {
        return;
    }
    let only_names = members(meta, "properties").all(|(k, _)| matches!(k, "name" | "generateName"));
    let nothing_else =
        meta.as_object().is_none_or(|m| m.keys().all(|k| matches!(k.as_ref(), "type" | "properties" | "default")));
    if !only_names || !nothing_else {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        e.forbidden(&place, detail);
    }
}

/// `anyOf: [{type: integer}, {type: string}]`.
fn is_either(s: &Value) -> bool {
    let wanted = [object!({ "type": "integer" }), object!({ "type": "string" })];
    s.items_at(&["anyOf"]) == wanted
}

fn values(s: &Value, skip_any: bool, skip_first: bool, level: Level, at: &Path, e: &mut Errors) {
    if !skip_any {
        for (i, n) in s.items_at(&["anyOf"]).iter().enumerate() {
            nested(n, false, level, &at.child("anyOf").index(i), e);
        }
    }
    for (i, n) in s.items_at(&["allOf"]).iter().enumerate() {
        nested(n, skip_first && i == 0, level, &at.child("allOf").index(i), e);
    }
    for (i, n) in s.items_at(&["oneOf"]).iter().enumerate() {
        nested(n, false, level, &at.child("oneOf").index(i), e);
    }
    if let Some(n) = object_at(s, "not") {
        nested(n, false, level, &at.child("not"), e);
    }
    let pattern = text(s, "pattern");
    if let Some(Err(error)) = (!pattern.is_empty()).then(|| compile_pattern(pattern)) {
        let why = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {why}");
        e.invalid(&at.child("pattern"), pattern, &detail);
    }
}

fn nested(n: &Value, skip_any: bool, level: Level, at: &Path, e: &mut Errors) {
    values(n, skip_any, false, level, at, e);
    if let Some(items) = object_at(n, "items") {
        nested(items, false, level, &at.child("items"), e);
    }
    for (name, p) in members(n, "properties") {
        nested(p, false, Level::Field, &at.child("properties").key(name), e);
    }
    static EMPTY: Map = Map::new();
    let m = n.as_object().unwrap_or(&EMPTY);
    for (field, must) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let set = m.get(field).is_some_and(|v| match v {
            Value::Null => false,
            Value::Bool(b) => *b || field == "additionalProperties" || field == "default",
            Value::String(s) => !s.is_empty() || field == "default",
            Value::Array(a) => !a.is_empty() || field == "default",
            _ => true,
        });
        if set {
            e.forbidden(&at.child(field), must);
        }
    }
    if n.at(&["properties", "metadata"]).is_some() {
        e.forbidden(&at.child("properties").key("metadata"), "must not be specified in a nested context");
    }
}

/// What alternatives name must be specified outside of them.
fn completeness(v: &Value, s: &Value, s_at: &Path, v_at: &Path, e: &mut Errors) {
    for list in ["allOf", "anyOf", "oneOf"] {
        for (i, n) in v.items_at(&[list]).iter().enumerate() {
            nested_completeness(n, s, s_at, &v_at.child(list).index(i), e);
        }
    }
    if let Some(n) = object_at(v, "not") {
        nested_completeness(n, s, s_at, &v_at.child("not"), e);
    }
}

fn nested_completeness(n: &Value, s: &Value, s_at: &Path, v_at: &Path, e: &mut Errors) {
    completeness(n, s, s_at, v_at, e);
    if let Some(items) = object_at(n, "items") {
        let (s_at, v_at) = (s_at.child("items"), v_at.child("items"));
        match object_at(s, "items") {
            Some(own) => nested_completeness(items, own, &s_at, &v_at, e),
            None => e.required(&s_at, &format!("because it is defined in {v_at}")),
        }
    }
    for (name, p) in members(n, "properties") {
        let (s_at, v_at) = (s_at.child("properties").key(name), v_at.child("properties").key(name));
        match s.at(&["properties", name]) {
            Some(own) => nested_completeness(p, own, &s_at, &v_at, e),
            None => e.required(&s_at, &format!("because it is defined in {v_at}")),
        }
    }
}
