//! Semantic equality, as upstream compares typed objects: an absent member, null, an empty list
//! and an empty map are the same. Zero scalars of pointer fields differ from absent ones.

use ironkeel_object::{Map, Value};
use ironkeel_schema::{Field, Shape, TypeId};

fn nothing(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(m) => m.values().all(nothing),
        Value::String(s) => s.is_empty(),
        _ => false,
    }
}

/// Whether two values mean the same.
pub(crate) fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(v), None) | (None, Some(v)) => nothing(v),
        (Some(a), Some(b)) => equal(a, b),
    }
}

/// [`same`] for two present values.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(Some(v), y.get(k))) && y.iter().all(|(k, v)| x.contains_key(k) || nothing(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(p, q)| equal(p, q)),
        _ => a == b || (nothing(a) && nothing(b)),
    }
}

/// Whether a member of two objects of one type means the same. Knows from the schema what a
/// pointer is: `{}` behind one differs from its absence, zero without one does not.
pub(crate) fn same_member(id: TypeId, member: &str, a: &Value, b: &Value) -> bool {
    match id.get().field(member) {
        Some(f) => same_field(f, a.get(member), b.get(member)),
        None => same(a.get(member), b.get(member)),
    }
}

/// [`same_member`] of a type's name (`core/v1.PodSpec`) for whole objects.
pub(crate) fn equal_as(type_name: &str, a: &Value, b: &Value) -> bool {
    match ironkeel_schema::type_by_name(type_name) {
        Some(id) => same_shape(&Shape::Struct(id), Some(a), Some(b)),
        None => equal(a, b),
    }
}

fn same_field(f: &Field, a: Option<&Value>, b: Option<&Value>) -> bool {
    let present = |v: Option<&Value>| v.is_some_and(|v| !v.is_null());
    if f.pointer && present(a) != present(b) {
        return false;
    }
    same_shape(&f.shape, a, b)
}

fn same_shape(shape: &Shape, a: Option<&Value>, b: Option<&Value>) -> bool {
    let (a, b) = (a.filter(|v| !v.is_null()), b.filter(|v| !v.is_null()));
    match (shape, a, b) {
        (_, None, None) => true,
        (Shape::Struct(id), _, _) => {
            let empty = Map::new();
            let x = a.and_then(Value::as_object).unwrap_or(&empty);
            let y = b.and_then(Value::as_object).unwrap_or(&empty);
            if x.is_empty() && y.is_empty() {
                return true;
            }
            id.get().fields.iter().all(|f| same_field(f, x.get(f.name), y.get(f.name)))
        }
        (Shape::List(item), Some(Value::Array(x)), Some(Value::Array(y))) => {
            x.len() == y.len() && x.iter().zip(y).all(|(p, q)| same_shape(item, Some(p), Some(q)))
        }
        (Shape::Map(item), Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same_shape(item, Some(v), Some(w))))
        }
        (_, Some(x), Some(y)) => x == y,
        (_, Some(v), None) | (_, None, Some(v)) => match v {
            Value::Bool(b) => !b,
            Value::Number(_) => v.as_i64() == Some(0),
            _ => v.is_empty(),
        },
    }
}
