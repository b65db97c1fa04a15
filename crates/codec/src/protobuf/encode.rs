//! From a tree to a protobuf message, by the table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{Map, Timestamp, Value, parse_go_duration};
use ironkeel_schema::{ProtoContent, ProtoField, Shape, Type, TypeId};

use super::wire::{FIXED64, put_bytes, put_int, put_message, put_tag};
use crate::encode_json;

/// Appends the message of an object, without the envelope. Members that the type does not have,
/// or that are of another type than it says, are left out: [`crate::conform`] speaks of those.
pub fn encode_protobuf_message(value: &Value, type_id: TypeId, out: &mut Vec<u8>) {
    static EMPTY: Map = Map::new();
    message(value.as_object().unwrap_or(&EMPTY), type_id, out);
}

fn message(map: &Map, type_id: TypeId, out: &mut Vec<u8>) {
    let row = type_id.get();
    for proto in row.proto {
        match proto.content {
            ProtoContent::Field(i) => {
                let field = &row.fields[usize::from(i)];
                let value = map.get(field.name).filter(|v| !v.is_null());
                put_field(proto, &field.shape, value, out);
            }
            ProtoContent::Inline(inline) => {
                if !proto.pointer || has_any(map, inline.get()) {
                    put_message(proto.number, out, |out| message(map, inline, out));
                }
            }
        }
    }
}

fn has_any(map: &Map, row: &Type) -> bool {
    row.fields.iter().any(|f| map.contains_key(f.name))
}

fn put_field(proto: &ProtoField, shape: &Shape, value: Option<&Value>, out: &mut Vec<u8>) {
    let number = proto.number;
    match (shape, value) {
        (Shape::List(inner), value) => {
            for element in value.and_then(Value::as_array).into_iter().flatten() {
                put_value(number, inner, Some(element), out);
            }
        }
        (Shape::Map(inner), value) => {
            for (name, member) in value.and_then(Value::as_object).into_iter().flat_map(Map::iter) {
                put_message(number, out, |out| {
                    put_bytes(1, name.as_bytes(), out);
                    put_map_value(inner, member, out);
                });
            }
        }
        // Nil slices of bytes and of named string types are not written.
        (Shape::Bytes | Shape::StringItems | Shape::Any, None) => {}
        (_, None) if proto.pointer => {}
        (shape, value) => put_value(number, shape, value, out),
    }
}

/// A map's value is written even when empty; a nil slice of bytes is not.
fn put_map_value(shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::Bytes, Value::Null) => {}
        (Shape::List(inner), Value::Array(elements)) => {
            for element in elements {
                put_value(2, inner, Some(element), out);
            }
        }
        (shape, value) => put_value(2, shape, Some(value), out),
    }
}

/// One occurrence of a field; an absent value is Go's zero value.
fn put_value(number: u32, shape: &Shape, value: Option<&Value>, out: &mut Vec<u8>) {
    let text = || value.and_then(Value::as_str).unwrap_or_default();
    match shape {
        Shape::Bool => put_int(number, i64::from(value.and_then(Value::as_bool).unwrap_or(false)), out),
        Shape::Int32 | Shape::Int64 => put_int(number, value.and_then(Value::as_i64).unwrap_or(0), out),
        Shape::Float64 => {
            put_tag(number, FIXED64, out);
            let f = value.and_then(Value::as_f64).unwrap_or(0.0);
            out.extend_from_slice(&f.to_bits().to_le_bytes());
        }
        Shape::String | Shape::Enum(_) => put_bytes(number, text().as_bytes(), out),
        Shape::Bytes => put_bytes(number, &STANDARD.decode(text()).unwrap_or_default(), out),
        Shape::Struct(id) => put_message(number, out, |out| {
            if let Some(map) = value.and_then(Value::as_object) {
                message(map, *id, out);
            } else {
                message(&Map::new(), *id, out);
            }
        }),
        Shape::Quantity => put_message(number, out, |out| {
            put_bytes(1, if text().is_empty() { b"0" } else { text().as_bytes() }, out);
        }),
        Shape::IntOrString => put_message(number, out, |out| {
            let is_text = matches!(value, Some(Value::String(_)));
            put_int(1, i64::from(is_text), out);
            put_int(2, value.and_then(Value::as_i64).unwrap_or(0), out);
            put_bytes(3, text().as_bytes(), out);
        }),
        Shape::Time | Shape::MicroTime => put_message(number, out, |out| {
            if let Some(stamp) = Timestamp::parse(text()) {
                put_int(1, stamp.seconds, out);
                put_int(2, if matches!(shape, Shape::Time) { 0 } else { i64::from(stamp.nanos) }, out);
            }
        }),
        Shape::Duration => {
            put_message(number, out, |out| put_int(1, parse_go_duration(text()).unwrap_or(0), out));
        }
        Shape::FieldsV1 | Shape::RawExtension | Shape::Json => put_message(number, out, |out| {
            if let Some(value) = value {
                put_message(1, out, |out| encode_json(value, out));
            }
        }),
        Shape::StringItems => put_message(number, out, |out| {
            for item in value.and_then(Value::as_array).into_iter().flatten() {
                put_bytes(1, item.as_str().unwrap_or_default().as_bytes(), out);
            }
        }),
        Shape::SchemaOrArray(id) => put_message(number, out, |out| match value {
            Some(Value::Array(schemas)) => {
                schemas.iter().for_each(|s| put_value(2, &Shape::Struct(*id), Some(s), out));
            }
            Some(schema) => put_value(1, &Shape::Struct(*id), Some(schema), out),
            None => {}
        }),
        Shape::SchemaOrBool(id) => put_message(number, out, |out| match value {
            Some(schema @ Value::Object(_)) => {
                put_int(1, 1, out);
                put_value(2, &Shape::Struct(*id), Some(schema), out);
            }
            other => put_int(1, i64::from(other.and_then(Value::as_bool).unwrap_or(false)), out),
        }),
        Shape::SchemaOrStringArray(id) => put_message(number, out, |out| match value {
            Some(Value::Array(names)) => {
                names.iter().for_each(|n| put_bytes(2, n.as_str().unwrap_or_default().as_bytes(), out));
            }
            Some(schema) => put_value(1, &Shape::Struct(*id), Some(schema), out),
            None => {}
        }),
        // A list in a list, or a map in a list, has no protobuf form; no type has one.
        Shape::List(_) | Shape::Map(_) | Shape::Any => {}
    }
}
