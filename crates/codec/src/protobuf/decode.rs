//! From a protobuf message to a tree, by the table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{Key, Map, Number, Quantity, Timestamp, Value, format_go_duration};
use ironkeel_schema::{Field, ProtoContent, Shape, Type, TypeId};

use super::PROTOBUF_MAGIC;
use super::envelope::Unknown;
use super::wire::{Content, Message};
use crate::{DecodeError, MAX_NESTING, parse_json};

/// Finds the type of an `apiVersion` and `kind`.
type Resolve<'r> = &'r dyn Fn(&str, &str) -> Option<TypeId>;

/// Reads an object in its envelope. `resolve` names the type of an `apiVersion` and `kind`, which
/// are set on the object. Unknown field numbers are skipped, as upstream does.
pub fn decode_protobuf(bytes: &[u8], resolve: Resolve<'_>) -> Result<Value, DecodeError> {
    Decoder { resolve, depth: 0 }.enveloped(bytes)
}

struct Decoder<'r> {
    resolve: Resolve<'r>,
    depth: usize,
}

/// The members of an object while its message is read.
#[derive(Default)]
struct Members {
    done: Vec<(Key, Value)>,
    maps: Vec<(&'static str, Vec<(Key, Value)>)>,
}

impl Members {
    fn list(&mut self, name: &'static str) -> &mut Vec<Value> {
        let at = self.done.iter().rposition(|(k, _)| k == name).unwrap_or_else(|| {
            self.done.push((Key::Borrowed(name), Value::Array(Vec::new())));
            self.done.len() - 1
        });
        if !matches!(self.done[at].1, Value::Array(_)) {
            self.done[at].1 = Value::Array(Vec::new());
        }
        match &mut self.done[at].1 {
            Value::Array(elements) => elements,
            _ => unreachable!("just made an array"),
        }
    }

    fn map(&mut self, name: &'static str) -> &mut Vec<(Key, Value)> {
        let at = self.maps.iter().position(|(k, _)| *k == name).unwrap_or_else(|| {
            self.maps.push((name, Vec::new()));
            self.maps.len() - 1
        });
        &mut self.maps[at].1
    }
}

impl Decoder<'_> {
    fn enveloped(&mut self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let body = bytes
            .strip_prefix(PROTOBUF_MAGIC)
            .ok_or(DecodeError::Protobuf("provided data does not appear to be a protobuf message, expected prefix"))?;
        let unknown = Unknown::read(body)?;
        if !unknown.content_encoding.is_empty() {
            return Err(DecodeError::Protobuf("unsupported content encoding"));
        }
        if unknown.content_type == "application/json" {
            return parse_json(unknown.raw);
        }
        let Some(type_id) = (self.resolve)(unknown.api_version, unknown.kind) else {
            return Err(DecodeError::UnknownKind {
                api_version: unknown.api_version.to_owned(),
                kind: unknown.kind.to_owned(),
            });
        };
        let mut value = self.object(unknown.raw, type_id)?;
        if let Value::Object(map) = &mut value {
            if !unknown.api_version.is_empty() {
                map.insert("apiVersion", unknown.api_version);
            }
            if !unknown.kind.is_empty() {
                map.insert("kind", unknown.kind);
            }
        }
        Ok(value)
    }

    fn object(&mut self, bytes: &[u8], type_id: TypeId) -> Result<Value, DecodeError> {
        let mut members = Members::default();
        self.message(bytes, type_id, &mut members)?;
        for (name, entries) in members.maps {
            members.done.push((Key::Borrowed(name), Value::Object(Map::from_unsorted(entries).0)));
        }
        let mut map = Map::from_unsorted(members.done).0;
        for field in type_id.get().fields {
            if !field.omit_empty && !field.pointer && !map.contains_key(field.name) && !is_type_meta(field.name) {
                let zero = match field.shape {
                    Shape::Bool => Value::from(false),
                    Shape::Int32 | Shape::Int64 => Value::from(0),
                    Shape::String | Shape::Enum(_) => Value::from(""),
                    _ => continue,
                };
                map.insert(field.name, zero);
            }
        }
        Ok(Value::Object(map))
    }

    fn message(&mut self, bytes: &[u8], type_id: TypeId, members: &mut Members) -> Result<(), DecodeError> {
        if self.depth == MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        self.depth += 1;
        let row = type_id.get();
        let mut message = Message::new(bytes);
        while let Some((number, content)) = message.next_field()? {
            let Some(proto) = proto_field(row, number) else { continue };
            match proto {
                ProtoContent::Inline(inline) => self.message(content.bytes()?, *inline, members)?,
                ProtoContent::Field(i) => self.field(&row.fields[usize::from(*i)], content, members)?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(&mut self, field: &'static Field, content: Content<'_>, members: &mut Members) -> Result<(), DecodeError> {
        match &field.shape {
            Shape::List(inner) => {
                let element = self.value(inner, content)?;
                members.list(field.name).push(element);
            }
            Shape::Map(inner) => {
                let entry = self.entry(content.bytes()?, inner)?;
                members.map(field.name).push(entry);
            }
            shape => {
                let value = self.value(shape, content)?;
                let absent = value.is_null() || (field.omit_empty && !field.pointer && is_zero_scalar(shape, &value));
                if !absent {
                    members.done.push((Key::Borrowed(field.name), value));
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, bytes: &[u8], inner: &Shape) -> Result<(Key, Value), DecodeError> {
        let mut name = String::new();
        let mut value = None;
        let mut message = Message::new(bytes);
        while let Some((number, content)) = message.next_field()? {
            match (number, inner) {
                (1, _) => name = content.text()?.to_owned(),
                (2, Shape::List(element)) => {
                    let element = self.value(element, content)?;
                    match &mut value {
                        Some(Value::Array(elements)) => elements.push(element),
                        _ => value = Some(Value::Array(vec![element])),
                    }
                }
                (2, _) => value = Some(self.value(inner, content)?),
                _ => {}
            }
        }
        let value = value.unwrap_or_else(|| match inner {
            Shape::String | Shape::Enum(_) | Shape::Bytes => "".into(),
            Shape::Int32 | Shape::Int64 => 0.into(),
            Shape::Bool => false.into(),
            Shape::Quantity => "0".into(),
            Shape::Struct(_) => Value::object(),
            _ => Value::Null,
        });
        Ok((Key::Owned(name), value))
    }

    fn value(&mut self, shape: &Shape, content: Content<'_>) -> Result<Value, DecodeError> {
        Ok(match shape {
            Shape::Bool => Value::Bool(content.int()? != 0),
            Shape::Int32 => Value::from(content.int()? as i32),
            Shape::Int64 => Value::from(content.int()?),
            Shape::Float64 => float(content)?,
            Shape::String | Shape::Enum(_) => content.text()?.into(),
            Shape::Bytes => STANDARD.encode(content.bytes()?).into(),
            Shape::Struct(id) => self.object(content.bytes()?, *id)?,
            Shape::Quantity => {
                let text = first_text(content.bytes()?)?;
                if text.is_empty() { "0".into() } else { Quantity::parse(text)?.to_string().into() }
            }
            Shape::IntOrString => int_or_string(content.bytes()?)?,
            Shape::Time => timestamp(content.bytes()?, Timestamp::to_rfc3339)?,
            Shape::MicroTime => timestamp(content.bytes()?, Timestamp::to_rfc3339_micro)?,
            Shape::Duration => format_go_duration(first_int(content.bytes()?)?).into(),
            Shape::FieldsV1 | Shape::RawExtension | Shape::Json => self.raw(content.bytes()?)?,
            Shape::StringItems => {
                let mut items = Vec::new();
                let mut message = Message::new(content.bytes()?);
                while let Some((number, content)) = message.next_field()? {
                    if number == 1 {
                        items.push(content.text()?.into());
                    }
                }
                Value::Array(items)
            }
            Shape::SchemaOrArray(id) | Shape::SchemaOrBool(id) | Shape::SchemaOrStringArray(id) => {
                self.schema_or(shape, *id, content.bytes()?)?
            }
            Shape::List(_) | Shape::Map(_) | Shape::Any => Value::Null,
        })
    }

    fn schema_or(&mut self, shape: &Shape, id: TypeId, bytes: &[u8]) -> Result<Value, DecodeError> {
        let mut schema = None;
        let mut list = None::<Vec<Value>>;
        let mut allows = false;
        let mut message = Message::new(bytes);
        while let Some((number, content)) = message.next_field()? {
            match (shape, number) {
                (Shape::SchemaOrBool(_), 1) => allows = content.int()? != 0,
                (Shape::SchemaOrBool(_), 2) | (_, 1) => schema = Some(self.object(content.bytes()?, id)?),
                (Shape::SchemaOrArray(_), 2) => {
                    let element = self.object(content.bytes()?, id)?;
                    list.get_or_insert_default().push(element);
                }
                (Shape::SchemaOrStringArray(_), 2) => list.get_or_insert_default().push(content.text()?.into()),
                _ => {}
            }
        }
        Ok(match (shape, schema, list) {
            (_, Some(schema), _) => schema,
            (Shape::SchemaOrBool(_), None, _) => Value::Bool(allows),
            (_, None, Some(list)) => Value::Array(list),
            (_, None, None) => Value::Null,
        })
    }

    /// A message with raw bytes: JSON, or an enveloped protobuf object.
    fn raw(&mut self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let raw = first_bytes(bytes)?;
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if !raw.starts_with(PROTOBUF_MAGIC) {
            return parse_json(raw);
        }
        if self.depth == MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        self.depth += 1;
        let value = self.enveloped(raw);
        self.depth -= 1;
        value
    }
}

/// Field numbers are dense and in order, so the first guess is almost always right.
fn proto_field(row: &Type, number: u32) -> Option<&'static ProtoContent> {
    let row: &'static [_] = row.proto;
    let guess = row.get(number as usize - 1).filter(|p| p.number == number);
    guess.or_else(|| row.binary_search_by_key(&number, |p| p.number).ok().map(|i| &row[i])).map(|p| &p.content)
}

fn is_type_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind")
}

fn is_zero_scalar(shape: &Shape, value: &Value) -> bool {
    matches!(
        shape,
        Shape::Bool
            | Shape::Int32
            | Shape::Int64
            | Shape::Float64
            | Shape::String
            | Shape::Enum(_)
            | Shape::Bytes
            | Shape::StringItems
    ) && value.is_empty()
}

fn float(content: Content<'_>) -> Result<Value, DecodeError> {
    match content {
        Content::Fixed64(bits) => {
            let f = f64::from_bits(bits);
            if !f.is_finite() {
                return Err(DecodeError::Protobuf("unsupported float value"));
            }
            // JSON has one kind of number: a whole one reads back as an integer.
            if f.fract() == 0.0 && f.abs() < 9e15 {
                return Ok(Value::from(f as i64));
            }
            Ok(Value::Number(Number::Float(f)))
        }
        _ => Err(DecodeError::Protobuf("wrong wireType")),
    }
}

fn first_bytes(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut found: &[u8] = &[];
    let mut message = Message::new(bytes);
    while let Some((number, content)) = message.next_field()? {
        if number == 1 {
            found = content.bytes()?;
        }
    }
    Ok(found)
}

fn first_text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(first_bytes(bytes)?).map_err(|e| DecodeError::Utf8 { offset: e.valid_up_to() })
}

fn first_int(bytes: &[u8]) -> Result<i64, DecodeError> {
    let mut found = 0;
    let mut message = Message::new(bytes);
    while let Some((number, content)) = message.next_field()? {
        if number == 1 {
            found = content.int()?;
        }
    }
    Ok(found)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut int, mut text) = (false, 0, "");
    let mut message = Message::new(bytes);
    while let Some((number, content)) = message.next_field()? {
        match number {
            1 => is_text = content.int()? == 1,
            2 => int = content.int()? as i32,
            3 => text = content.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { int.into() })
}

/// The zero time is an empty message, and absent in the tree.
fn timestamp(bytes: &[u8], write: fn(Timestamp) -> String) -> Result<Value, DecodeError> {
    // Years that RFC 3339 can write: 0000 to 9999.
    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;
    let (mut seconds, mut nanos) = (0, 0);
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let mut message = Message::new(bytes);
    while let Some((number, content)) = message.next_field()? {
        match number {
            1 => seconds = content.int()?,
            2 => nanos = content.int()?,
            _ => {}
        }
    }
    if !(FIRST..=LAST).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return Err(DecodeError::Protobuf("time out of range"));
    }
    Ok(write(Timestamp { seconds, nanos: nanos as u32 }).into())
}
