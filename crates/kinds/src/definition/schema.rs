//! Rules of an OpenAPI v3 schema in a definition: what may stand at the root, what is forbidden, and how
//! the `x-kubernetes-…` extensions go together.

use ironkeel_object::Value;

use super::tolerance::Tolerance;
use super::{defaults, structural};
use crate::Path;
use crate::custom::Schema;
use crate::error::Errors;
use crate::repeats::{self, identity, repeated_whole};

/// The types of OpenAPI v3.
pub(super) const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Keywords at the root of a schema whose status is a subresource, as upstream names them.
const AT_ROOT: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

fn flag(s: &Value, field: &str) -> bool {
    s.get(field).and_then(Value::as_bool) == Some(true)
}

fn text<'v>(s: &'v Value, field: &str) -> &'v str {
    s.str_at(&[field]).unwrap_or_default()
}

fn object_at<'v>(s: &'v Value, field: &str) -> Option<&'v Value> {
    s.get(field).filter(|v| v.as_object().is_some())
}

fn members<'v>(s: &'v Value, field: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    s.get(field).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()).map(|(k, v)| (k.as_ref(), v))
}

/// Checks the schema of a version. `before` is the schema that it replaces, and `tolerance` says what the
/// older definition broke already.
pub(super) fn validate(
    s: &Value,
    before: Option<&Value>,
    tolerance: &Tolerance,
    status: bool,
    at: &Path,
    e: &mut Errors,
) {
    let place = at.child("openAPIV3Schema");
    if status {
        for (name, v) in s.as_object().into_iter().flat_map(|m| m.iter()).filter(|(_, v)| !v.is_empty()) {
            if name == "type" {
                if v.as_str() != Some("object") {
                    let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                    e.invalid(&place.child("type"), v.clone(), detail);
                    break;
                }
            } else if !AT_ROOT.iter().any(|(n, _)| n == name) {
                let names: Vec<&str> = AT_ROOT.iter().map(|(_, n)| *n).collect();
                let detail = format!(
                    "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                    names.join(" ")
                );
                e.invalid(&place, s.clone(), &detail);
                break;
            }
        }
    }
    if flag(s, "nullable") {
        e.forbidden(&at.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root");
    }
    let count = e.len();
    if !tolerance.loose {
        structural::validate(s, &place, e);
        if e.len() == count {
            defaults::validate(s, &Schema::read(s), !tolerance.unpruned, &place, e);
        }
    }
    let sound = e.len() == count && !tolerance.loose;
    node(s, &Context { root: true, inside_meta: false, no_defaults: None, tolerance }, &place, e);
    if sound && e.len() == count {
        crate::custom::rules::validate(s, before, &place, e);
    }
}

#[derive(Clone, Copy)]
struct Context<'c> {
    root: bool,
    /// Below `metadata`, `kind` or `apiVersion` of a resource.
    inside_meta: bool,
    /// Why defaults are forbidden here.
    no_defaults: Option<&'c str>,
    tolerance: &'c Tolerance,
}

fn node(s: &Value, c: &Context<'_>, at: &Path, e: &mut Errors) {
    plain(s, c, at, e);
    if flag(s, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        e.forbidden(&at.child("uniqueItems"), detail);
    }
    let inner = Context { root: false, ..*c };
    if let Some(additional) = s.get("additionalProperties").filter(|a| !a.is_null()) {
        let has_properties = members(s, "properties").next().is_some();
        if has_properties && additional.as_bool() != Some(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            e.forbidden(&at.child("additionalProperties"), detail);
        }
        if additional.as_object().is_some() {
            let mut below = inner;
            if c.inside_meta {
                below.no_defaults = Some("inside additionalProperties applying to object metadata");
            }
            node(additional, &below, &at.child("additionalProperties"), e);
        }
    }
    let resource = c.root || flag(s, "x-kubernetes-embedded-resource");
    for (name, p) in members(s, "properties") {
        let mut below = inner;
        let why = format!("in top-level {name}");
        if resource && matches!(name, "metadata" | "kind" | "apiVersion") {
            below.inside_meta = true;
            if c.root {
                below.no_defaults = Some(&why);
            }
        }
        node(p, &below, &at.child("properties").key(name), e);
    }
    if let Some(n) = object_at(s, "not") {
        node(n, &inner, &at.child("not"), e);
    }
    for list in ["allOf", "oneOf", "anyOf"] {
        for (i, n) in s.items_at(&[list]).iter().enumerate() {
            node(n, &inner, &at.child(list).index(i), e);
        }
    }
    for (name, d) in members(s, "definitions") {
        node(d, &inner, &at.child("definitions").key(name), e);
    }
    match s.get("items") {
        Some(items @ Value::Object(_)) => node(items, &inner, &at.child("items"), e),
        Some(Value::Array(list)) => {
            for (i, items) in list.iter().enumerate() {
                node(items, &inner, &at.child("items").index(i), e);
            }
        }
        _ => {}
    }
    extensions(s, c.tolerance, at, e);
    rules(s, at, e);
}

/// What OpenAPI allows and definitions do not.
fn plain(s: &Value, c: &Context<'_>, at: &Path, e: &mut Errors) {
    let kind = text(s, "type");
    if !c.tolerance.types && !kind.is_empty() && !TYPES.contains(&kind) {
        e.not_supported(&at.child("type"), kind, TYPES);
    }
    if s.get("default").is_some_and(|d| !d.is_null())
        && let Some(why) = c.no_defaults
    {
        e.forbidden(&at.child("default"), &format!("must not be set {why}"));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let anything = field == "additionalItems";
        if s.get(field).is_some_and(|v| !v.is_null() && (anything || v.as_bool().is_some() || !v.is_empty())) {
            e.forbidden(&at.child(field), &format!("{field} is not supported"));
        }
    }
    if kind == "null" {
        e.forbidden(&at.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if matches!(s.get("items"), Some(Value::Array(a)) if !a.is_empty()) {
        e.forbidden(&at.child("items"), "items must be a schema object and not an array");
    }
    if c.inside_meta && flag(s, "x-kubernetes-embedded-resource") {
        e.forbidden(&at.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
}

fn extensions(s: &Value, tolerance: &Tolerance, at: &Path, e: &mut Errors) {
    let kind = text(s, "type");
    let place = |name: &str| at.child(name);
    if s.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool) == Some(false) {
        e.invalid(&place("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    for (extension, wanted, values) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"]),
    ] {
        let Some(value) = s.str_at(&[extension]) else { continue };
        if kind != wanted {
            let detail = format!("must be {wanted} if {extension} is specified");
            if kind.is_empty() {
                e.required(&place("type"), &detail);
            } else {
                e.invalid(&place("type"), kind, &detail);
            }
        }
        if !values.contains(&value) {
            e.not_supported(&place(extension), value, values);
        }
    }
    let list = s.str_at(&["x-kubernetes-list-type"]);
    let items = object_at(s, "items");
    if let (Some("set"), "array", Some(items), false) = (list, kind, items, tolerance.open_sets) {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let inner = items.str_at(&["x-kubernetes-list-type"]);
        match text(items, "type") {
            "array" if inner.is_some_and(|t| t != "atomic") => {
                e.invalid(&place("items").child("x-kubernetes-list-type"), inner.unwrap_or_default(), detail);
            }
            "object" if items.str_at(&["x-kubernetes-map-type"]) != Some("atomic") => {
                let shown = inner.map_or(Value::Null, Value::from);
                e.invalid(&place("items").child("x-kubernetes-map-type"), shown, detail);
            }
            _ => {}
        }
    }
    let keys = s.items_at(&["x-kubernetes-list-map-keys"]);
    if !keys.is_empty() && list != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list {
            None => e.required(&place("x-kubernetes-list-type"), detail),
            Some(other) => e.invalid(&place("x-kubernetes-list-type"), other, detail),
        }
    }
    if list == Some("map") {
        map_list(s, keys, items, at, e);
    }
    if !tolerance.open_keys {
        nullable_keys(s, at, e);
    }
}

/// Elements of sets and maps cannot be null, and keys neither null nor absent.
fn nullable_keys(s: &Value, at: &Path, e: &mut Errors) {
    let (Some(list @ ("set" | "map")), Some(items)) = (s.str_at(&["x-kubernetes-list-type"]), object_at(s, "items"))
    else {
        return;
    };
    if flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        e.forbidden(&at.child("items").child("nullable"), &detail);
    }
    let required = repeats::members(items.items_at(&["required"]));
    for key in s.items_at(&["x-kubernetes-list-map-keys"]).iter().filter(|_| list == "map") {
        let name = key.as_str().unwrap_or_default();
        let Some(p) = items.at(&["properties", name]) else { continue };
        let property = at.child("items").child("properties").key(name);
        if !required.contains(&identity(key)) && p.get("default").is_none_or(Value::is_null) {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            e.required(&property.child("default"), detail);
        }
        if flag(p, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            e.forbidden(&property.child("nullable"), detail);
        }
    }
}

/// Whether [`nullable_keys`] finds anything here.
pub(super) fn has_nullable_keys(s: &Value) -> bool {
    let mut e = Errors::default();
    nullable_keys(s, &Path::default(), &mut e);
    e.len() > 0
}

/// Whether this is a set whose elements can be merged.
pub(super) fn is_open_set(s: &Value) -> bool {
    let Some(items) = object_at(s, "items") else { return false };
    s.str_at(&["x-kubernetes-list-type"]) == Some("set")
        && match text(items, "type") {
            "array" => items.str_at(&["x-kubernetes-list-type"]).is_some_and(|t| t != "atomic"),
            "object" => items.str_at(&["x-kubernetes-map-type"]) != Some("atomic"),
            _ => false,
        }
}

fn map_list(s: &Value, keys: &[Value], items: Option<&Value>, at: &Path, e: &mut Errors) {
    let place = at.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        e.required(&place, "must not be empty if x-kubernetes-list-type is map");
    }
    let Some(items) = items else {
        if s.get("items").is_none_or(Value::is_null) {
            e.required(&at.child("items"), "must have a schema if x-kubernetes-list-type is map");
        }
        return;
    };
    let kind = text(items, "type");
    if kind != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        e.invalid(&at.child("items").child("type"), kind, detail);
        return;
    }
    let twice = repeated_whole(keys);
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = at.child("items").child("properties").key(name);
        match items.at(&["properties", name]) {
            None => e.invalid(&place, keys.to_vec(), "entries must all be names of item properties"),
            Some(p) => {
                if matches!(text(p, "type"), "array" | "object") {
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    e.invalid(&property.child("type"), kind, detail);
                }
            }
        }
        if twice[i] {
            e.invalid(&place, keys.to_vec(), "must not contain duplicate entries");
        }
    }
}

/// The parts of CEL rules that need no compiler.
fn rules(s: &Value, at: &Path, e: &mut Errors) {
    let lines = |t: &str| t.contains(['\n', '\r']);
    for (i, r) in s.items_at(&["x-kubernetes-validations"]).iter().enumerate() {
        let place = at.child("x-kubernetes-validations").index(i);
        let (rule, message) = (text(r, "rule").trim(), text(r, "message"));
        if rule.is_empty() {
            e.required(&place.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            e.invalid(&place.child("message"), message, "must be non-empty if specified");
        } else if lines(message.trim()) {
            e.invalid(&place.child("message"), message, "must not contain line breaks");
        } else if lines(rule) && message.trim().is_empty() {
            e.required(&place.child("message"), "message must be specified if rule contains line breaks");
        }
        let expression = text(r, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            e.required(&place.child("messageExpression"), "messageExpression must be non-empty if specified");
        }
        if let Some(reason) = r.str_at(&["reason"]).filter(|x| !REASONS.contains(x)) {
            e.not_supported(&place.child("reason"), reason, REASONS);
        }
        let path = text(r, "fieldPath");
        if !path.is_empty() && path.trim().is_empty() {
            e.invalid(&place.child("fieldPath"), path, "must be non-empty if specified");
        }
        if lines(path) {
            e.invalid(&place.child("fieldPath"), path, "must not contain line breaks");
        }
        if !path.is_empty() && !path_exists(s, path) {
            e.invalid(&place.child("fieldPath"), path, "must be a valid path");
        }
    }
}

/// Whether `.a.b['c']` leads through properties and maps.
fn path_exists(schema: &Value, path: &str) -> bool {
    let mut here = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let Some(end) = after.find("']") else { return false };
            name = &after[..end];
            rest = &after[end + 2..];
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            name = &after[..end];
            rest = &after[end..];
        } else {
            return false;
        }
        let property = here.at(&["properties", name]);
        match property.or_else(|| object_at(here, "additionalProperties")) {
            Some(next) if !name.is_empty() => here = next,
            _ => return false,
        }
    }
    true
}
