//! A tree that JSON has put together, brought to a type as upstream's `DefaultUnstructuredConverter` does it after a
//! strategic merge or an apply: whole floats become integers, and what is of another type is refused in its words.
//! Texts with a form of their own (times, quantities) are left to the codec.

use ironkeel_object::{Number, Value};
use ironkeel_schema::{Shape, TypeId};

/// Whole floats stand for integers up to here: beyond, a float no longer tells one from the next.
const WHOLE_LIMIT: f64 = (1_u64 << 53) as f64;

/// Brings `value` to its type; answers why that cannot be. On an error the value is left half changed.
pub fn from_unstructured(value: &mut Value, type_id: TypeId) -> Result<(), String> {
    convert(value, &Shape::Struct(type_id))
}

fn convert(value: &mut Value, shape: &Shape) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    match (shape, &mut *value) {
        (Shape::Bool, Value::Bool(_))
        | (Shape::String | Shape::Enum(_), Value::String(_))
        | (Shape::Float64, Value::Number(_))
        | (Shape::Bytes, Value::String(_) | Value::Array(_))
        | (Shape::Int32 | Shape::Int64, Value::Number(Number::Int(_))) => Ok(()),
        (Shape::Int32 | Shape::Int64, Value::Number(Number::Float(f))) => {
            if f.trunc() != *f || f.abs() > WHOLE_LIMIT {
                return Err(format!("cannot convert float64 to {}", name(shape)));
            }
            *value = (*f as i64).into();
            Ok(())
        }
        (Shape::String | Shape::Enum(_), Value::Number(Number::Int(_))) => {
            Err(format!("cannot convert int64 to {}", name(shape)))
        }
        (Shape::Bool | Shape::String | Shape::Enum(_) | Shape::Float64 | Shape::Int32 | Shape::Int64, _) => {
            let kind = if matches!(shape, Shape::Enum(_)) { "string".to_owned() } else { name(shape) };
            Err(format!("unrecognized type: {kind}"))
        }
        (Shape::Struct(id), Value::Object(members)) => {
            let row = id.get();
            for (member, value) in members.iter_mut() {
                let Some(field) = row.field(member) else { continue };
                // The one text of a type of its own that the table does not name.
                if field.name == "uid" && matches!(value, Value::Number(Number::Int(_))) {
                    return Err("cannot convert int64 to types.UID".to_owned());
                }
                convert(value, &field.shape)?;
            }
            Ok(())
        }
        (Shape::Struct(_), other) => Err(format!("cannot restore struct from: {}", kind_of(other))),
        (Shape::List(inner), Value::Array(elements)) => elements.iter_mut().try_for_each(|e| convert(e, inner)),
        (Shape::StringItems, Value::Array(elements)) => {
            elements.iter_mut().try_for_each(|e| convert(e, &Shape::String))
        }
        (Shape::List(_) | Shape::StringItems | Shape::Bytes, other) => {
            Err(format!("cannot restore slice from {}", kind_of(other)))
        }
        (Shape::Map(inner), Value::Object(members)) => members.iter_mut().try_for_each(|(_, v)| convert(v, inner)),
        (Shape::Map(_), other) => Err(format!("cannot restore map from {}", kind_of(other))),
        _ => Ok(()),
    }
}

/// Go's name of a simple type.
fn name(shape: &Shape) -> String {
    match shape {
        Shape::Bool => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Float64 => "float64".to_owned(),
        Shape::Enum(e) => e.name.rsplit('/').next().unwrap_or(e.name).to_owned(),
        _ => "string".to_owned(),
    }
}

/// What Go makes of a JSON value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(Number::Int(_)) => "int64",
        Value::Number(Number::Float(_)) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}
