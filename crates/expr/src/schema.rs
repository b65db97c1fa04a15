//! Types and size bounds from JSON schemas, as CRD rules see their data.
//!
//! Follows apiserver's `SchemaDeclType`: unknown fields are not exposed, `x-kubernetes-int-or-string`
//! is dynamic, sizes that the schema does not bound are bound by the largest request.

use std::collections::BTreeMap;

use ironkeel_object::{Number, Value};

use crate::escaping;
use crate::types::{ListKind, ObjectType, Type};

/// Largest request, in bytes: bounds what a schema leaves unbounded.
const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// Longest JSON text of a duration or a date-time.
const MAX_TIME_BYTES: u64 = 32;
/// JSON text of a date, and the shortest ones of other scalars.
const DATE_BYTES: u64 = 12;
const MIN_DATE_TIME_BYTES: u64 = 21;
const MIN_DURATION_BYTES: u64 = 3;
const MIN_STRING_BYTES: u64 = 2;
const MIN_BOOL_BYTES: u64 = 4;
const MIN_NUMBER_BYTES: u64 = 1;
/// Deepest schema that is followed.
const MAX_DEPTH: usize = 100;

/// A declared type with the bounds of its size.
#[derive(Clone, Debug)]
pub struct DeclType {
    ty: Type,
    shape: Shape,
    max_elements: Option<u64>,
    min_serialized_size: u64,
}

#[derive(Clone, Debug)]
enum Shape {
    Scalar,
    /// Of any type, read by whatever name stands after its map.
    Any,
    List(Box<DeclType>),
    Map(Box<DeclType>),
    /// By the name that expressions write.
    Object(BTreeMap<String, DeclType>),
}

impl DeclType {
    /// Reads a structural schema (the tree of `openAPIV3Schema`); `None` where it exposes nothing.
    /// A resource's root, and an embedded resource, have `apiVersion`, `kind` and a name at least.
    pub fn from_structural(schema: &Value, is_resource_root: bool) -> Option<DeclType> {
        declare(schema, is_resource_root, "object", 0)
    }

    /// A value of a known type and at most this size.
    pub fn sized(ty: Type, max_elements: u64) -> DeclType {
        scalar(ty, Some(max_elements), 0)
    }

    /// A value whose type is not known before the expression runs, of at most this size.
    pub fn any(max_elements: u64) -> DeclType {
        DeclType { shape: Shape::Any, ..scalar(Type::Dyn, Some(max_elements), 0) }
    }

    /// A map from texts, with at most this many entries.
    pub fn map(values: DeclType, max_elements: u64) -> DeclType {
        let ty = Type::map(Type::String, values.ty.clone());
        DeclType { ty, shape: Shape::Map(Box::new(values)), max_elements: Some(max_elements), min_serialized_size: 0 }
    }

    /// An object with these fields, by the names that expressions write.
    pub fn object(name: &str, fields: Vec<(&str, DeclType)>) -> DeclType {
        let ty = fields.iter().fold(ObjectType::new(name), |t, (field, d)| t.field(field, d.ty.clone()));
        let fields = fields.into_iter().map(|(field, d)| (field.to_owned(), d)).collect();
        DeclType { ty: Type::object(ty), shape: Shape::Object(fields), max_elements: None, min_serialized_size: 0 }
    }

    /// The type for [`crate::Environment::variable`].
    pub fn cel_type(&self) -> Type {
        self.ty.clone()
    }

    /// Most characters, octets, elements or entries; `None` for what has no size.
    pub fn max_elements(&self) -> Option<u64> {
        self.max_elements
    }

    /// How many values of this type one request can hold at most: what upstream multiplies a rule's
    /// cost with where no list or map on the way is bounded.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST_BYTES / (self.min_serialized_size + 1)
    }

    /// A property, by its JSON name.
    pub fn property(&self, json_name: &str) -> Option<&DeclType> {
        self.field(&escaping::escape(json_name)?)
    }

    /// The elements of a list.
    pub fn items(&self) -> Option<&DeclType> {
        match &self.shape {
            Shape::List(items) => Some(items),
            _ => None,
        }
    }

    /// The values of a map.
    pub fn values(&self) -> Option<&DeclType> {
        match &self.shape {
            Shape::Map(values) => Some(values),
            _ => None,
        }
    }

    fn field(&self, escaped: &str) -> Option<&DeclType> {
        match &self.shape {
            Shape::Object(fields) => fields.get(escaped),
            _ => None,
        }
    }

    /// The bound at a path of field names, `@items`, `@values` and `@keys`. Scalars count 0.
    pub(crate) fn max_at(&self, path: &[String]) -> Option<u64> {
        let mut here = self;
        for (i, step) in path.iter().enumerate() {
            here = match step.as_str() {
                "@items" => here.items()?,
                "@values" => here.values()?,
                // A key is a text of its own, without a bound in the schema.
                "@keys" => return (i + 1 == path.len() && here.values().is_some()).then_some(0),
                field => match here.field(field) {
                    Some(declared) => declared,
                    None => here.values().filter(|v| matches!(v.shape, Shape::Any))?,
                },
            };
        }
        Some(here.max_elements.unwrap_or(0))
    }
}

fn scalar(ty: Type, max_elements: Option<u64>, min_serialized_size: u64) -> DeclType {
    DeclType { ty, shape: Shape::Scalar, max_elements, min_serialized_size }
}

fn bound(schema: &Value, key: &str) -> Option<u64> {
    match schema.get(key)? {
        Value::Number(Number::Int(i)) => Some(u64::try_from(*i).unwrap_or(0)),
        Value::Number(Number::Float(f)) => Some(f.max(0.0) as u64),
        _ => None,
    }
}

fn is_set(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn declare(schema: &Value, root: bool, name: &str, depth: usize) -> Option<DeclType> {
    if depth > MAX_DEPTH {
        return None;
    }
    if is_set(schema, "x-kubernetes-int-or-string") {
        let max = bound(schema, "maxLength").map_or(MAX_REQUEST_BYTES - 2, |max| max.saturating_mul(4));
        return Some(scalar(Type::Dyn, Some(max), 1));
    }
    let inner = |part: &Value, step: &str| {
        let embedded = is_set(part, "x-kubernetes-embedded-resource");
        declare(part, embedded, &format!("{name}.{step}"), depth + 1)
    };
    let ty = if root { "object" } else { schema.str_at(&["type"]).unwrap_or_default() };
    match ty {
        "array" => {
            let items = inner(schema.get("items")?, "@items")?;
            let max =
                bound(schema, "maxItems").unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (items.min_serialized_size + 1));
            let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
                Some("set") => ListKind::Set,
                Some("map") => {
                    let keys = schema.items_at(&["x-kubernetes-list-map-keys"]).iter();
                    ListKind::Map(keys.filter_map(|k| k.as_str().map(str::to_owned)).collect())
                }
                _ => ListKind::Atomic,
            };
            let ty = Type::list_of_kind(items.ty.clone(), kind);
            let shape = Shape::List(Box::new(items));
            Some(DeclType { ty, shape, max_elements: Some(max), min_serialized_size: 2 })
        }
        "object" => match schema.get("additionalProperties").filter(|p| matches!(p, Value::Object(_))) {
            Some(values) if !root => {
                let values = inner(values, "@values")?;
                let max = bound(schema, "maxProperties")
                    .unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (values.min_serialized_size + 6));
                let ty = Type::map(Type::String, values.ty.clone());
                let shape = Shape::Map(Box::new(values));
                Some(DeclType { ty, shape, max_elements: Some(max), min_serialized_size: 2 })
            }
            _ => Some(object(schema, root, name, &inner)),
        },
        "string" => Some(string(schema)),
        "boolean" => Some(scalar(Type::Bool, None, MIN_BOOL_BYTES)),
        "number" => Some(scalar(Type::Double, None, MIN_NUMBER_BYTES)),
        "integer" => Some(scalar(Type::Int, None, MIN_NUMBER_BYTES)),
        _ => None,
    }
}

fn object(schema: &Value, root: bool, name: &str, inner: &dyn Fn(&Value, &str) -> Option<DeclType>) -> DeclType {
    let mut object = ObjectType::new(name);
    let mut fields = BTreeMap::new();
    let mut min_serialized_size = 2;
    let required = schema.items_at(&["required"]);
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flat_map(|p| p.iter()) {
        let Some(mut declared) = inner(property, key) else { continue };
        if root && key == "metadata" {
            declared = metadata(name);
        }
        if required.iter().any(|r| r.as_str() == Some(key)) && property.get("default").is_none() {
            min_serialized_size += key.len() as u64 + declared.min_serialized_size + 4;
        }
        if let Some(escaped) = escaping::escape(key) {
            object.add_field(key, declared.ty.clone());
            fields.insert(escaped.into_owned(), declared);
        }
    }
    if root {
        for (key, declared) in [("apiVersion", plain_string()), ("kind", plain_string()), ("metadata", metadata(name))]
        {
            if !fields.contains_key(key) {
                object.add_field(key, declared.ty.clone());
                fields.insert(key.to_owned(), declared);
            }
        }
    }
    let (ty, shape) = (Type::object(object), Shape::Object(fields));
    DeclType { ty, shape, max_elements: None, min_serialized_size }
}

fn plain_string() -> DeclType {
    scalar(Type::String, Some(MAX_REQUEST_BYTES - 2), MIN_STRING_BYTES)
}

/// What rules see of an object's metadata, whatever the schema says of it.
fn metadata(parent: &str) -> DeclType {
    let ty = ObjectType::new(format!("{parent}.metadata")).field("name", Type::String);
    let fields = [("name", plain_string()), ("generateName", plain_string())];
    DeclType {
        ty: Type::object(ty.field("generateName", Type::String)),
        shape: Shape::Object(fields.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect()),
        max_elements: None,
        min_serialized_size: 2,
    }
}

fn string(schema: &Value) -> DeclType {
    let unbounded = MAX_REQUEST_BYTES - 2;
    match schema.str_at(&["format"]).unwrap_or_default() {
        "byte" => {
            let max = bound(schema, "maxLength").unwrap_or(unbounded);
            scalar(Type::Bytes, Some(max), MIN_STRING_BYTES)
        }
        "duration" => scalar(Type::Duration, Some(MAX_TIME_BYTES), MIN_DURATION_BYTES),
        "date" => scalar(Type::Timestamp, Some(DATE_BYTES), DATE_BYTES),
        "date-time" => scalar(Type::Timestamp, Some(MAX_TIME_BYTES), MIN_DATE_TIME_BYTES),
        _ => {
            let values = schema.items_at(&["enum"]);
            let max = match bound(schema, "maxLength") {
                // A character may be four octets.
                Some(max) => max.saturating_mul(4),
                None if values.is_empty() => unbounded,
                None => values.iter().filter_map(Value::as_str).map(|s| s.len() as u64).max().unwrap_or(0),
            };
            scalar(Type::String, Some(max), MIN_STRING_BYTES)
        }
    }
}
