//! Pruning, nulls and defaults: what a structural schema makes of an object before anybody looks at it.

use ironkeel_object::Value;

use super::schema::{Additional, Schema, is_type_or_metadata};

/// Paths that are told of one object.
const MAX_UNKNOWN: usize = 100;

/// Takes out what the schema does not name; answers the paths that were taken out. The root counts
/// as a resource.
pub(crate) fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    below(object, Some(schema), true, "", &mut unknown);
    unknown
}

/// Takes out what the schema of a value inside an object does not name.
pub(crate) fn prune_below(value: &mut Value, schema: &Schema) {
    below(value, Some(schema), false, "", &mut Vec::new());
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn below(value: &mut Value, schema: Option<&Schema>, resource: bool, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let preserve = schema.is_some_and(|s| s.preserve);
            let resource = resource || schema.is_some_and(|s| s.embedded);
            members.retain(|name, member| {
                if resource && is_type_or_metadata(name) {
                    return true;
                }
                let (inner, allowed) = schema.map_or((None, false), |s| s.member(name));
                if inner.is_some() {
                    below(member, inner, false, &child(path, name), unknown);
                    return true;
                }
                if allowed && !preserve {
                    below(member, None, false, &child(path, name), unknown);
                }
                if !allowed && !preserve {
                    // So many are told at most, as of built-in kinds.
                    if unknown.len() < MAX_UNKNOWN {
                        unknown.push(child(path, name));
                    }
                }
                allowed || preserve
            });
        }
        Value::Array(items) => {
            let inner = schema.and_then(|s| s.items.as_deref());
            // A list that is preserved without a schema of its elements is left alone.
            if inner.is_none() && schema.is_some_and(|s| s.preserve) {
                return;
            }
            for (i, item) in items.iter_mut().enumerate() {
                below(item, inner, false, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Takes out nulls where null is not allowed and no default would replace them.
pub(crate) fn drop_nulls(value: &mut Value, schema: &Schema) {
    let gone = |v: &Value, s: &Schema| v.is_null() && !s.nullable && s.default.is_none();
    match value {
        Value::Object(members) => members.retain(|name, member| match schema.member(name).0 {
            Some(s) if gone(member, s) => false,
            Some(s) => {
                drop_nulls(member, s);
                true
            }
            None => true,
        }),
        Value::Array(items) => {
            if let Some(s) = &schema.items {
                items.iter_mut().for_each(|item| drop_nulls(item, s));
            }
        }
        _ => {}
    }
}

/// Fills in defaults.
pub(crate) fn default(value: &mut Value, schema: &Schema) {
    let replaced = |v: &Value, s: &Schema| v.is_null() && !s.nullable;
    match value {
        Value::Object(members) => {
            for (name, s) in &schema.properties {
                let Some(d) = &s.default else { continue };
                if members.get(name).is_none_or(|v| replaced(v, s)) {
                    members.insert(name.clone(), d.clone());
                }
            }
            for (name, member) in members.iter_mut() {
                let Some(s) = schema.member(name).0 else { continue };
                if let (true, Some(d)) = (replaced(member, s), &s.default) {
                    *member = d.clone();
                }
                default(member, s);
            }
        }
        Value::Array(items) => {
            let Some(s) = &schema.items else { return };
            for item in items {
                if let (true, Some(d)) = (replaced(item, s), &s.default) {
                    *item = d.clone();
                }
                default(item, s);
            }
        }
        _ => {}
    }
}

/// Whether anything below declares a default.
pub(crate) fn has_defaults(s: &Schema) -> bool {
    s.default.is_some()
        || s.properties.values().any(has_defaults)
        || s.items.as_deref().is_some_and(has_defaults)
        || matches!(&s.additional, Additional::Each(s) if has_defaults(s))
}
