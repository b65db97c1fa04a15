//! OpenAPI v2 as protobuf: gnostic's `openapi.v2.Document`, which client-go asks for
//! (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`).
//!
//! Messages are told by tables: JSON name, field number, form. Vendor extensions (`x-…`) are
//! collected under a number of their own, as YAML text.

use serde_json::Value;

/// What stands under a field number.
enum Form {
    Text,
    Bool,
    Int,
    Double,
    Texts,
    Message(&'static Message),
    Messages(&'static Message),
    /// YAML text of anything.
    Any,
    Anys,
    /// A message that holds `repeated Named… additional_properties = 1`.
    Map(&'static Message),
    /// One schema, or several, in a message of their own.
    Items,
    /// One type, or several, in a message of their own.
    Types,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema as one of several sorts.
    SchemaItem,
    Parameters,
    Responses,
    Paths,
}

struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// Where extensions go; 0 for nowhere.
    extensions: u32,
}

static INFO: Message = Message {
    fields: &[("title", 1, Form::Text), ("version", 2, Form::Text), ("description", 3, Form::Text)],
    extensions: 7,
};

static EXTERNAL_DOCS: Message =
    Message { fields: &[("description", 1, Form::Text), ("url", 2, Form::Text)], extensions: 3 };

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("multipleOf", 6, Form::Double),
        ("maximum", 7, Form::Double),
        ("exclusiveMaximum", 8, Form::Bool),
        ("minimum", 9, Form::Double),
        ("exclusiveMinimum", 10, Form::Bool),
        ("maxLength", 11, Form::Int),
        ("minLength", 12, Form::Int),
        ("pattern", 13, Form::Text),
        ("maxItems", 14, Form::Int),
        ("minItems", 15, Form::Int),
        ("uniqueItems", 16, Form::Bool),
        ("maxProperties", 17, Form::Int),
        ("minProperties", 18, Form::Int),
        ("required", 19, Form::Texts),
        ("enum", 20, Form::Anys),
        ("additionalProperties", 21, Form::SchemaOrBool),
        ("type", 22, Form::Types),
        ("items", 23, Form::Items),
        ("allOf", 24, Form::Messages(&SCHEMA)),
        ("properties", 25, Form::Map(&SCHEMA)),
        ("discriminator", 26, Form::Text),
        ("readOnly", 27, Form::Bool),
        ("externalDocs", 29, Form::Message(&EXTERNAL_DOCS)),
        ("example", 30, Form::Any),
    ],
    extensions: 31,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Bool),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Bool),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("format", 7, Form::Text),
        ("uniqueItems", 20, Form::Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Bool),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("format", 6, Form::Text),
        ("uniqueItems", 19, Form::Bool),
    ],
    extensions: 22,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Form::Text), ("schema", 2, Form::SchemaItem)], extensions: 5 };

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Texts),
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::Responses),
        ("schemes", 10, Form::Texts),
        ("deprecated", 11, Form::Bool),
    ],
    extensions: 13,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("options", 6, Form::Message(&OPERATION)),
        ("head", 7, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    extensions: 10,
};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("host", 3, Form::Text),
        ("basePath", 4, Form::Text),
        ("schemes", 5, Form::Texts),
        ("consumes", 6, Form::Texts),
        ("produces", 7, Form::Texts),
        ("paths", 8, Form::Paths),
        ("definitions", 9, Form::Map(&SCHEMA)),
    ],
    extensions: 16,
};

/// The protobuf form of an OpenAPI v2 document.
pub fn openapi_v2_protobuf(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    message(document, &DOCUMENT, &mut out);
    out
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// A sub-message, made by `write`.
fn nested(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(number, &inner, out);
}

fn message(value: &Value, of: &Message, out: &mut Vec<u8>) {
    let Some(object) = value.as_object() else { return };
    for (name, number, form) in of.fields {
        if let Some(member) = object.get(*name) {
            field(*number, member, form, out);
        }
    }
    if of.extensions > 0 {
        for (name, extension) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            nested(of.extensions, out, |out| {
                bytes(1, name.as_bytes(), out);
                nested(2, out, |out| any(extension, out));
            });
        }
    }
}

fn any(value: &Value, out: &mut Vec<u8>) {
    // JSON is YAML.
    bytes(2, format!("{value}\n").as_bytes(), out);
}

fn field(number: u32, value: &Value, form: &Form, out: &mut Vec<u8>) {
    match form {
        Form::Text => {
            if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
                bytes(number, text.as_bytes(), out);
            }
        }
        Form::Bool => {
            if value.as_bool() == Some(true) {
                varint(u64::from(number) << 3, out);
                out.push(1);
            }
        }
        Form::Int => {
            if let Some(n) = value.as_i64().filter(|n| *n != 0) {
                varint(u64::from(number) << 3, out);
                varint(n as u64, out);
            }
        }
        Form::Double => {
            if let Some(n) = value.as_f64().filter(|n| *n != 0.0) {
                varint(u64::from(number) << 3 | 1, out);
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        Form::Texts => {
            for text in list(value).iter().filter_map(Value::as_str) {
                bytes(number, text.as_bytes(), out);
            }
        }
        Form::Message(of) => nested(number, out, |out| message(value, of, out)),
        Form::Messages(of) => {
            for each in list(value) {
                nested(number, out, |out| message(each, of, out));
            }
        }
        Form::Any => nested(number, out, |out| any(value, out)),
        Form::Anys => {
            for each in list(value) {
                nested(number, out, |out| any(each, out));
            }
        }
        Form::Map(of) => nested(number, out, |out| {
            for (name, member) in value.as_object().into_iter().flatten() {
                nested(1, out, |out| {
                    bytes(1, name.as_bytes(), out);
                    nested(2, out, |out| message(member, of, out));
                });
            }
        }),
        Form::Items => nested(number, out, |out| match value {
            Value::Array(all) => all.iter().for_each(|s| nested(1, out, |out| message(s, &SCHEMA, out))),
            one => nested(1, out, |out| message(one, &SCHEMA, out)),
        }),
        Form::Types => nested(number, out, |out| match value {
            Value::Array(all) => all.iter().filter_map(Value::as_str).for_each(|t| bytes(1, t.as_bytes(), out)),
            one => bytes(1, one.as_str().unwrap_or_default().as_bytes(), out),
        }),
        Form::SchemaOrBool => nested(number, out, |out| match value {
            Value::Bool(b) => out.extend_from_slice(&[2 << 3, u8::from(*b)]),
            schema => nested(1, out, |out| message(schema, &SCHEMA, out)),
        }),
        Form::SchemaItem => nested(number, out, |out| nested(1, out, |out| message(value, &SCHEMA, out))),
        Form::Parameters => {
            for each in list(value) {
                nested(number, out, |out| parameter(each, out));
            }
        }
        Form::Responses => nested(number, out, |out| {
            for (code, response) in value.as_object().into_iter().flatten() {
                nested(1, out, |out| {
                    bytes(1, code.as_bytes(), out);
                    nested(2, out, |out| nested(1, out, |out| message(response, &RESPONSE, out)));
                });
            }
        }),
        Form::Paths => nested(number, out, |out| {
            for (path, item) in value.as_object().into_iter().flatten() {
                nested(2, out, |out| {
                    bytes(1, path.as_bytes(), out);
                    nested(2, out, |out| message(item, &PATH_ITEM, out));
                });
            }
        }),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn parameter(value: &Value, out: &mut Vec<u8>) {
    if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
        nested(2, out, |out| bytes(1, reference.as_bytes(), out));
        return;
    }
    nested(1, out, |out| match value.get("in").and_then(Value::as_str) {
        Some("body") => nested(1, out, |out| message(value, &BODY_PARAMETER, out)),
        Some("path") => nested(2, out, |out| nested(4, out, |out| message(value, &PATH_PARAMETER, out))),
        _ => nested(2, out, |out| nested(3, out, |out| message(value, &QUERY_PARAMETER, out))),
    });
}
