//! Checking a tree against its type, the way Go's decoder would read it into a struct and write it
//! again: wrong types are errors, unknown members are dropped and reported, nulls are absent, zero
//! values of optional fields are absent, special scalars stand in their canonical text.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ironkeel_object::{Number, Quantity, Timestamp, Value, format_go_duration, parse_go_duration};
use ironkeel_schema::{Field, Shape, TypeId};

use crate::error::note;
use crate::path::Path;
use crate::{DecodeError, Problem, ProblemKind};

/// Go's decoder takes set trailing bits, and wants padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Checks and canonicalizes `value` as an object of `type_id`, in place. On an error the value is
/// left half changed.
pub fn conform(value: &mut Value, type_id: TypeId, problems: &mut Vec<Problem>) -> Result<(), DecodeError> {
    let mut check = Check { problems, owner: None, names: Vec::new() };
    check.shape(value, &Shape::Struct(type_id), &Path::ROOT)
}

struct Check<'p> {
    problems: &'p mut Vec<Problem>,
    /// The innermost struct, and the names of the fields down to here: what Go tells in its errors.
    owner: Option<TypeId>,
    names: Vec<&'static str>,
}

impl Check<'_> {
    fn object(&mut self, value: &mut Value, type_id: TypeId, path: &Path<'_>) -> Result<(), DecodeError> {
        let Value::Object(map) = value else {
            return Err(self.wrong(value, &Shape::Struct(type_id)));
        };
        let row = type_id.get();
        let outer = self.owner.replace(type_id);
        let mut result = Ok(());
        map.retain(|name, member| {
            if result.is_err() {
                return true;
            }
            let Some(field) = row.field(name) else {
                note(self.problems, || Problem { path: path.member(name).text(), kind: ProblemKind::UnknownField });
                return false;
            };
            if member.is_null() {
                return false;
            }
            self.names.push(field.name);
            result = self.shape(member, &field.shape, &path.member(field.name));
            self.names.pop();
            !is_omitted_zero(field, member)
        });
        self.owner = outer;
        result
    }

    fn shape(&mut self, value: &mut Value, shape: &Shape, path: &Path<'_>) -> Result<(), DecodeError> {
        match shape {
            Shape::Bool => match value {
                Value::Bool(_) => Ok(()),
                _ => Err(self.wrong(value, shape)),
            },
            Shape::Int32 => match value {
                Value::Number(Number::Int(i)) if i32::try_from(*i).is_ok() => Ok(()),
                _ => Err(self.wrong(value, shape)),
            },
            Shape::Int64 => match value {
                Value::Number(Number::Int(_)) => Ok(()),
                _ => Err(self.wrong(value, shape)),
            },
            Shape::Float64 => match value {
                Value::Number(_) => Ok(()),
                _ => Err(self.wrong(value, shape)),
            },
            Shape::String | Shape::Enum(_) => match value {
                Value::String(_) => Ok(()),
                _ => Err(self.wrong(value, shape)),
            },
            Shape::Struct(id) => self.object(value, *id, path),
            Shape::List(inner) => self.list(value, inner, shape, path),
            Shape::StringItems => self.list(value, &Shape::String, shape, path),
            Shape::Map(inner) => self.map(value, inner, shape, path),
            Shape::Bytes => self.bytes(value),
            Shape::Quantity => quantity(value),
            Shape::IntOrString => match value {
                Value::String(_) => Ok(()),
                Value::Number(Number::Int(i)) if i32::try_from(*i).is_ok() => Ok(()),
                _ => Err(without_field(value, "int32")),
            },
            Shape::Time => time(value, false),
            Shape::MicroTime => time(value, true),
            Shape::Duration => duration(value),
            Shape::SchemaOrBool(id) => match value {
                Value::Bool(_) => Ok(()),
                _ => self.object(value, *id, path),
            },
            Shape::SchemaOrArray(id) => match value {
                Value::Array(_) => self.list(value, &Shape::Struct(*id), shape, path),
                _ => self.object(value, *id, path),
            },
            Shape::SchemaOrStringArray(id) => match value {
                Value::Array(_) => self.list(value, &Shape::String, shape, path),
                _ => self.object(value, *id, path),
            },
            Shape::FieldsV1 | Shape::RawExtension | Shape::Json | Shape::Any => Ok(()),
        }
    }

    fn list(&mut self, value: &mut Value, inner: &Shape, shape: &Shape, path: &Path<'_>) -> Result<(), DecodeError> {
        let Value::Array(elements) = value else {
            return Err(self.wrong(value, shape));
        };
        for (i, element) in elements.iter_mut().enumerate() {
            if element.is_null() {
                *element = zero(inner);
            } else {
                self.shape(element, inner, &path.element(i))?;
            }
        }
        Ok(())
    }

    fn map(&mut self, value: &mut Value, inner: &Shape, shape: &Shape, path: &Path<'_>) -> Result<(), DecodeError> {
        let Value::Object(members) = value else {
            return Err(self.wrong(value, shape));
        };
        for (name, member) in members.iter_mut() {
            if member.is_null() {
                *member = zero(inner);
            } else if !matches!((inner, &*member), (Shape::String, Value::String(_))) {
                self.shape(member, inner, &path.member(name))?;
            }
        }
        Ok(())
    }

    fn bytes(&mut self, value: &mut Value) -> Result<(), DecodeError> {
        let Value::String(text) = value else {
            return Err(self.wrong(value, &Shape::Bytes));
        };
        if text.contains(['\r', '\n']) {
            text.retain(|c| !matches!(c, '\r' | '\n'));
        }
        match BASE64.decode(text.as_bytes()) {
            Ok(_) => Ok(()),
            Err(base64::DecodeError::InvalidByte(offset, _) | base64::DecodeError::InvalidLastSymbol(offset, _)) => {
                Err(DecodeError::Base64 { offset })
            }
            Err(_) => Err(DecodeError::Base64 { offset: text.len() }),
        }
    }

    /// A value of the wrong JSON type, told as Go does.
    fn wrong(&self, value: &Value, shape: &Shape) -> DecodeError {
        let target = match self.owner {
            Some(owner) if !self.names.is_empty() => {
                format!("struct field {}.{}", owner.get().short_name(), self.names.join("."))
            }
            _ => "value".to_owned(),
        };
        let numeric = matches!(shape, Shape::Int32 | Shape::Int64);
        let uid = matches!(shape, Shape::String) && self.names.last() == Some(&"uid");
        let expected = if uid { "types.UID".to_owned() } else { go_type(shape) };
        DecodeError::Type { found: found(value, numeric), target, expected }
    }
}

/// A list's or map's element that is null: Go's zero value.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Float64 | Shape::IntOrString => 0.into(),
        Shape::String | Shape::Enum(_) => "".into(),
        Shape::Quantity => "0".into(),
        Shape::Duration => "0s".into(),
        Shape::Struct(_) => Value::object(),
        _ => Value::Null,
    }
}

/// What Go's `omitempty` leaves out when it writes the struct again.
fn is_omitted_zero(field: &Field, value: &Value) -> bool {
    // An empty list of managed fields asks to forget them: the one list where empty is not absent.
    if field.pointer || !field.omit_empty || field.name == "managedFields" {
        return false;
    }
    match field.shape {
        Shape::Bool
        | Shape::Int32
        | Shape::Int64
        | Shape::Float64
        | Shape::String
        | Shape::Enum(_)
        | Shape::Bytes
        | Shape::List(_)
        | Shape::StringItems
        | Shape::Map(_) => value.is_empty(),
        _ => false,
    }
}

fn found(value: &Value, with_literal: bool) -> String {
    match value {
        Value::Number(Number::Int(i)) if with_literal => format!("number {i}"),
        Value::Number(Number::Float(f)) if with_literal => format!("number {f:?}"),
        other => other.type_name().to_owned(),
    }
}

fn without_field(value: &Value, expected: &str) -> DecodeError {
    DecodeError::Type { found: found(value, true), target: "value".into(), expected: expected.into() }
}

/// Go's name of a type: `[]v1.Container`, `map[string]string`.
fn go_type(shape: &Shape) -> String {
    let named = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    match shape {
        Shape::Bool => "bool".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Float64 => "float64".into(),
        Shape::String => "string".into(),
        Shape::Enum(e) => named(e.name),
        Shape::Bytes => "[]uint8".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Duration => "v1.Duration".into(),
        Shape::FieldsV1 => "v1.FieldsV1".into(),
        Shape::RawExtension => "runtime.RawExtension".into(),
        Shape::Json => "v1.JSON".into(),
        Shape::Any => "interface {}".into(),
        Shape::SchemaOrArray(_) => "v1.JSONSchemaPropsOrArray".into(),
        Shape::SchemaOrBool(_) => "v1.JSONSchemaPropsOrBool".into(),
        Shape::SchemaOrStringArray(_) => "v1.JSONSchemaPropsOrStringArray".into(),
        Shape::Struct(id) => named(id.get().name),
        Shape::List(inner) => format!("[]{}", go_type(inner)),
        Shape::StringItems => "v1.Verbs".into(),
        Shape::Map(inner) => format!("map[string]{}", go_type(inner)),
    }
}

fn quantity(value: &mut Value) -> Result<(), DecodeError> {
    match value {
        Value::String(text) => {
            // Plain small numbers are canonical already.
            let plain = text.len() <= 3 && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
            if !plain || text.is_empty() {
                let canonical = Quantity::parse(text.trim())?.to_string();
                if canonical != *text {
                    *text = canonical;
                }
            }
            Ok(())
        }
        Value::Number(Number::Int(i)) => {
            *value = Quantity::from_value(*i).to_string().into();
            Ok(())
        }
        Value::Number(Number::Float(_)) => {
            let mut text = Vec::new();
            crate::encode_json(value, &mut text);
            let text = String::from_utf8(text).unwrap_or_default();
            *value = Quantity::parse(&text)?.to_string().into();
            Ok(())
        }
        _ => Err(ironkeel_object::QuantityError::Format.into()),
    }
}

fn time(value: &mut Value, micro: bool) -> Result<(), DecodeError> {
    let Value::String(text) = value else {
        return Err(without_field(value, "string"));
    };
    let canonical = if micro { Timestamp::is_canonical_micro_time(text) } else { Timestamp::is_canonical_time(text) };
    if !canonical {
        let Some(stamp) = Timestamp::parse(text) else {
            let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
            return Err(DecodeError::Time { text: text.clone(), layout });
        };
        *text = if micro { stamp.to_rfc3339_micro() } else { stamp.to_rfc3339() };
    }
    Ok(())
}

fn duration(value: &mut Value) -> Result<(), DecodeError> {
    let Value::String(text) = value else {
        return Err(without_field(value, "string"));
    };
    let Some(nanos) = parse_go_duration(text) else {
        return Err(DecodeError::Duration { text: text.clone() });
    };
    *text = format_go_duration(nanos);
    Ok(())
}
