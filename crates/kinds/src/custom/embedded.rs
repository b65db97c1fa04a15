//! Objects inside an object (`x-kubernetes-embedded-resource`): they say of what kind they are, and
//! their metadata are held to the rules of all metadata.

use ironkeel_object::Value;

use super::schema::Schema;
use crate::error::Errors;
use crate::{Path, metadata, names};

/// Visits every embedded object, outer ones first.
pub(super) fn visit<E>(
    value: &mut Value,
    s: &Schema,
    path: &Path,
    each: &mut dyn FnMut(&mut Value, &Path) -> Result<(), E>,
) -> Result<(), E> {
    if s.embedded && value.as_object().is_some() {
        each(value, path)?;
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let Some(inner) = s.member(name).0 else { continue };
                let at = if s.properties.contains_key(name.as_ref()) { path.child(name) } else { path.key(name) };
                visit(member, inner, &at, each)?;
            }
        }
        Value::Array(items) => {
            let Some(inner) = &s.items else { return Ok(()) };
            for (i, item) in items.iter_mut().enumerate() {
                visit(item, inner, &path.index(i), each)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether anything below is an embedded object.
pub(super) fn any(s: &Schema) -> bool {
    use super::schema::Additional;
    s.embedded
        || s.properties.values().any(any)
        || s.items.as_deref().is_some_and(any)
        || matches!(&s.additional, Additional::Each(s) if any(s))
}

/// Checks every embedded object.
pub(crate) fn validate(value: &Value, s: &Schema, path: &Path, e: &mut Errors) {
    match value {
        Value::Object(members) => {
            if s.embedded {
                resource(value, path, e);
            }
            for (name, member) in members.iter() {
                let Some(inner) = s.member(name).0 else { continue };
                let at = if s.properties.contains_key(name.as_ref()) { path.child(name) } else { path.key(name) };
                validate(member, inner, &at, e);
            }
        }
        Value::Array(items) => {
            let Some(inner) = &s.items else { return };
            for (i, v) in items.iter().enumerate() {
                validate(v, inner, &path.index(i), e);
            }
        }
        _ => {}
    }
}

/// Type and metadata of one object; `apiVersion` and `kind` are needed, metadata are not.
pub(crate) fn resource(value: &Value, path: &Path, e: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        let at = path.child(name);
        match value.get(name) {
            None => e.required(&at, ""),
            Some(Value::String(text)) if text.is_empty() => e.invalid(&at, "", "must not be empty"),
            Some(Value::String(text)) if name == "kind" => {
                let wrong = names::label_1035(&text.to_lowercase());
                if !wrong.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    e.invalid(&at, text.as_str(), &detail);
                }
            }
            Some(Value::String(text)) => {
                if text.matches('/').count() > 1 {
                    e.invalid(&at, text.as_str(), &format!("unexpected GroupVersion string: {text}"));
                }
            }
            Some(other) => e.invalid(&at, other.clone(), "must be a string"),
        }
    }
    match value.get("metadata") {
        None => {}
        Some(Value::Object(_)) => metadata::validate_embedded(value, &path.child("metadata"), e),
        Some(other) => e.invalid(&path.child("metadata"), other.clone(), "must be an object"),
    }
}
