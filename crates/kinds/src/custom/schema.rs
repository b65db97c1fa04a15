//! The schema of a custom resource's version, read once out of the definition.
//!
//! What stands here has been validated at admission (`definition`), so reading is lenient: what is
//! not understood constrains nothing.

use std::collections::BTreeMap;

use ironkeel_object::{Map, Value};
use regex::Regex;

/// How list elements relate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// `additionalProperties`.
#[derive(Debug)]
pub(crate) enum Additional {
    /// Not specified.
    None,
    /// `true` or `false`.
    Allowed(bool),
    Each(Box<Schema>),
}

/// One node.
#[derive(Debug)]
pub(crate) struct Schema {
    /// `type`, or empty.
    pub(crate) kind: String,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) list: ListKind,
    pub(crate) format: String,
    /// Bounds and whether they are exclusive.
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<i64>,
    pub(crate) min_length: Option<i64>,
    pub(crate) pattern: Option<(String, Option<Regex>)>,
    pub(crate) max_items: Option<i64>,
    pub(crate) min_items: Option<i64>,
    pub(crate) unique_items: bool,
    pub(crate) max_properties: Option<i64>,
    pub(crate) min_properties: Option<i64>,
    pub(crate) required: Vec<String>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// `apiVersion`, `kind` and `metadata`: every resource has them, whatever its schema says.
pub(crate) fn is_type_or_metadata(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// A simple pattern of RE2; Rust's engine reads the same syntax.
pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(pattern)
}

impl Schema {
    /// Reads an `openAPIV3Schema` or a node of one.
    pub(crate) fn read(value: &Value) -> Schema {
        static EMPTY: Map = Map::new();
        let m = value.as_object().unwrap_or(&EMPTY);
        let flag = |k: &str| m.get(k).and_then(Value::as_bool).unwrap_or(false);
        let text = |k: &str| m.str(k).unwrap_or_default().to_owned();
        let number = |k: &str| m.get(k).and_then(Value::as_f64);
        let count = |k: &str| m.get(k).and_then(Value::as_i64);
        let strings = |k: &str| -> Vec<String> {
            let list = m.get(k).and_then(Value::as_array).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let many = |k: &str| m.get(k).and_then(Value::as_array).unwrap_or_default().iter().map(Schema::read).collect();
        let one = |k: &str| m.get(k).filter(|v| v.as_object().is_some()).map(|v| Box::new(Schema::read(v)));
        let pattern = m.str("pattern").filter(|p| !p.is_empty());
        let properties = m.get("properties").and_then(Value::as_object).unwrap_or(&EMPTY);
        Schema {
            kind: text("type"),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: m.get("default").filter(|v| !v.is_null()).cloned(),
            properties: properties.iter().map(|(k, v)| (k.to_string(), Schema::read(v))).collect(),
            additional: match m.get("additionalProperties") {
                Some(Value::Bool(b)) => Additional::Allowed(*b),
                Some(each @ Value::Object(_)) => Additional::Each(Box::new(Schema::read(each))),
                _ => Additional::None,
            },
            items: one("items"),
            list: match m.str("x-kubernetes-list-type") {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map(strings("x-kubernetes-list-map-keys")),
                _ => ListKind::Atomic,
            },
            format: text("format"),
            maximum: number("maximum").map(|n| (n, flag("exclusiveMaximum"))),
            minimum: number("minimum").map(|n| (n, flag("exclusiveMinimum"))),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: pattern.map(|p| (p.to_owned(), compile_pattern(p).ok())),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag("uniqueItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: strings("required"),
            allowed: m.get("enum").and_then(Value::as_array).unwrap_or_default().to_vec(),
            all_of: many("allOf"),
            any_of: many("anyOf"),
            one_of: many("oneOf"),
            not: one("not"),
        }
    }

    /// The schema of a member, where there is one; `true` as the second says that the member is
    /// allowed without a schema.
    pub(crate) fn member(&self, name: &str) -> (Option<&Schema>, bool) {
        match (self.properties.get(name), &self.additional) {
            (Some(s), _) => (Some(s), true),
            (None, Additional::Each(s)) => (Some(s), true),
            (None, Additional::Allowed(true)) => (None, true),
            _ => (None, false),
        }
    }

    /// The node at a simple path (`.spec.size`).
    pub(crate) fn at(&self, path: &str) -> Option<&Schema> {
        path.split('.').filter(|p| !p.is_empty()).try_fold(self, |s, name| s.member(name).0)
    }
}
