//! Semantic equality, as upstream compares typed objects: an absent member, null, an empty list
//! and an empty map are the same. Zero scalars of pointer fields differ from absent ones.

use ironkeel_object::Value;

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
