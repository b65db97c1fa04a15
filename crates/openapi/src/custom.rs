//! Schemas of custom resources as they are published: with what every object has, and without what a
//! dialect cannot say.

use serde_json::{Map, Value, json};

use crate::descriptions;

pub(crate) fn api_version() -> Value {
    json!({ "type": "string", "description": descriptions::API_VERSION })
}

pub(crate) fn kind() -> Value {
    json!({ "type": "string", "description": descriptions::KIND })
}

/// The fields by which clients may select, said of an object's schema and of its list's.
pub(crate) const SELECTABLE: &str = "x-kubernetes-selectable-fields";

fn flag(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The schema of a version; `v2` for `swagger: "2.0"`. `metadata` refers to ObjectMeta.
pub(crate) fn published(schema: &Value, v2: bool, metadata: &Value) -> Value {
    let Some(root) = schema.as_object() else { return json!({ "type": "object" }) };
    if v2 && flag(root, "x-kubernetes-preserve-unknown-fields") {
        // kubectl would complain about whatever is not named.
        let mut out = json!({ "type": "object" });
        if let Some(fields) = root.get(SELECTABLE) {
            out[SELECTABLE] = fields.clone();
        }
        return out;
    }
    let mut out = schema.clone();
    if v2 {
        reduce(&mut out);
    }
    embed(&mut out, v2, metadata);
    if let Some(object) = out.as_object_mut() {
        object.entry("type").or_insert_with(|| "object".into());
        add_common(object, metadata);
    }
    out
}

fn add_common(object: &mut Map<String, Value>, metadata: &Value) {
    if let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.insert("apiVersion".into(), api_version());
        properties.insert("kind".into(), kind());
        properties.insert("metadata".into(), metadata.clone());
    }
}

/// Embedded resources have what every object has.
fn embed(schema: &mut Value, v2: bool, metadata: &Value) {
    let Some(object) = schema.as_object_mut() else { return };
    each_below(object, |below| embed(below, v2, metadata));
    let hidden = v2 && flag(object, "x-kubernetes-preserve-unknown-fields");
    if flag(object, "x-kubernetes-embedded-resource") && !hidden {
        add_common(object, metadata);
        let required = object.entry("required").or_insert_with(|| json!([]));
        for name in ["kind", "apiVersion"] {
            if let Some(required) = required.as_array_mut()
                && !required.iter().any(|r| r == name)
            {
                required.push(name.into());
            }
        }
    }
}

fn each_below(object: &mut Map<String, Value>, mut visit: impl FnMut(&mut Value)) {
    for name in ["items", "additionalProperties"] {
        if let Some(below) = object.get_mut(name).filter(|b| b.is_object()) {
            visit(below);
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(visit);
    }
}

/// Takes out what OpenAPI v2 has no words for, as upstream does.
fn reduce(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for name in ["allOf", "anyOf", "oneOf", "not"] {
        object.remove(name);
    }
    let preserve = flag(object, "x-kubernetes-preserve-unknown-fields");
    if flag(object, "nullable") {
        for name in ["nullable", "type", "items", "properties"] {
            object.remove(name);
        }
    }
    if preserve {
        object.remove("items");
        object.remove("properties");
    }
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if (kind == "array" && !object.contains_key("items")) || (kind == "object" && preserve) {
        object.remove("type");
    }
    let nullable: Vec<String> = object
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, p)| p.get("nullable") == Some(&Value::Bool(true)))
        .map(|(name, _)| name.clone())
        .collect();
    if object.get("additionalProperties").is_some_and(|p| p.get("nullable") == Some(&Value::Bool(true))) {
        object.remove("required");
    }
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|r| !nullable.iter().any(|n| r == n));
        if required.is_empty() {
            object.remove("required");
        }
    }
    each_below(object, reduce);
}
