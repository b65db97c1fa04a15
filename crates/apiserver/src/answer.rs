//! Encoding answers: objects, statuses, documents; in the form that was negotiated.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use ironkeel_codec::Format;
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Entry, Format as Kept, Registry, Row, View};
use ironkeel_schema::{TypeId, type_by_name, type_id_for_kind};

use crate::body::Body;
use crate::negotiate::{Output, Shape};
use crate::{status, table};

/// What a table needs to know of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum IncludeObject {
    /// No object in the rows.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// An answer with a body.
pub(crate) fn with_type(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Any tree, whose type (for protobuf) is found by its `apiVersion` and `kind`.
pub(crate) fn value(code: u16, value: &Value, output: &Output) -> Response<Body> {
    let (bytes, content_type) = encode(value, output);
    with_type(code, content_type, bytes)
}

/// Bytes and media type of a tree.
pub(crate) fn encode(value: &Value, output: &Output) -> (Vec<u8>, &'static str) {
    let mut out = Vec::with_capacity(512);
    match output.format {
        Format::Protobuf => {
            let gvk = value.gvk();
            if let Some(type_id) = type_of(&gvk.group, &gvk.version, &gvk.kind) {
                return (ironkeel_codec::encode_protobuf(value, type_id), Format::Protobuf.media_type());
            }
        }
        Format::Yaml => {
            ironkeel_codec::encode_yaml(value, &mut out);
            return (out, Format::Yaml.media_type());
        }
        Format::Json => {}
    }
    if output.pretty {
        ironkeel_codec::encode_json_pretty(value, &mut out);
        out.push(b'\n');
    } else if status::is(value) {
        status::encode(value, &mut out);
    } else {
        ironkeel_codec::encode_json(value, &mut out);
    }
    (out, Format::Json.media_type())
}

/// The type of a kind; Status and its like stand in `meta/v1`.
pub(crate) fn type_of(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    type_id_for_kind(group, version, kind).or_else(|| type_by_name(&format!("meta/v1.{kind}")))
}

/// An error as a Status.
pub(crate) fn error(e: &ApiError, output: &Output) -> Response<Body> {
    let output = Output { shape: Shape::Objects, ..*output };
    let mut response = value(e.code(), &e.to_status(), &output);
    let seconds = e.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0
        && let Ok(text) = HeaderValue::from_str(&seconds.to_string())
    {
        response.headers_mut().insert(RETRY_AFTER, text);
    }
    response
}

/// Characters that an answer's warnings may have together before they are cut (upstream: as many).
const WARNINGS_MAX_CHARS: usize = 4 * 1024;
/// What is left of each then, in characters.
const WARNING_CUT_CHARS: usize = 256;

/// `Warning: 299 - "…"`, one header each.
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    // Short of room, each is cut, and the last ones are left out.
    let all: usize = warnings.iter().map(|w| w.chars().count()).sum();
    let each = if all > WARNINGS_MAX_CHARS { WARNING_CUT_CHARS } else { usize::MAX };
    let mut written = 0;
    for w in warnings {
        if written >= WARNINGS_MAX_CHARS {
            break;
        }
        let mut text = String::from("299 - \"");
        for c in w.chars().take(each) {
            written += 1;
            match c {
                '"' | '\\' => {
                    text.push('\\');
                    text.push(c);
                }
                c if c.is_control() => text.push(' '),
                c => text.push(c),
            }
        }
        text.push('"');
        if let Ok(v) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(WARNING, v);
        }
    }
}

/// `Status: Success` with details, as upstream answers a delete.
pub(crate) fn success(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    details.insert("name", name);
    if !group.is_empty() {
        details.insert("group", group);
    }
    details.insert("kind", plural);
    if !uid.is_empty() {
        details.insert("uid", uid);
    }
    let mut out = Map::new();
    out.insert("apiVersion", "v1");
    out.insert("kind", "Status");
    out.insert("metadata", Map::new());
    out.insert("status", "Success");
    out.insert("details", details);
    Value::Object(out)
}

/// The object of an entry as bytes of JSON in the row's version.
pub(crate) fn entry_json(registry: &Registry, row: &Row, entry: &Entry) -> Result<Bytes, ApiError> {
    if !row.converts_entry(entry) {
        return Ok(entry.json());
    }
    entry.view(View { row: row.id, format: Kept::Json }, || {
        let mut out = Vec::with_capacity(entry.json_len());
        ironkeel_codec::encode_json(&registry.tree(row, entry)?, &mut out);
        Ok(Bytes::copy_from_slice(&out))
    })
}

/// The protobuf message of an entry (no envelope).
pub(crate) fn entry_protobuf(registry: &Registry, row: &Row, entry: &Entry) -> Result<Bytes, ApiError> {
    entry.view(View { row: row.id, format: Kept::Protobuf }, || {
        let mut out = Vec::with_capacity(entry.json_len());
        ironkeel_codec::encode_protobuf_message(&registry.tree(row, entry)?, row.kind.resource.type_id, &mut out);
        Ok(Bytes::copy_from_slice(&out))
    })
}

/// `PartialObjectMetadata` of an entry as JSON.
pub(crate) fn entry_metadata(entry: &Entry, beta: bool) -> Result<Bytes, ApiError> {
    let version: &[u8] = if beta { b"meta.k8s.io/v1beta1" } else { b"meta.k8s.io/v1" };
    let mut out = Vec::with_capacity(512);
    for piece in [b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"", version, b"\",\"metadata\":"] {
        out.extend_from_slice(piece);
    }
    // A part of the bytes that are there: no tree is built, and nothing more is kept.
    if !entry.metadata_pieces(|piece| out.extend_from_slice(piece)) {
        out.clear();
        ironkeel_codec::encode_json(&partial_metadata(&*entry.tree()?, beta), &mut out);
        return Ok(out.into());
    }
    out.push(b'}');
    Ok(out.into())
}

/// `PartialObjectMetadata` of an entry as protobuf, envelope included.
pub(crate) fn entry_metadata_protobuf(entry: &Entry, beta: bool) -> Result<Bytes, ApiError> {
    let row = if beta { usize::MAX - 3 } else { usize::MAX - 2 };
    entry.view(View { row, format: Kept::Metadata }, || {
        let type_id = type_by_name("meta/v1.PartialObjectMetadata").ok_or_else(ApiError::no_such_resource)?;
        Ok(Bytes::copy_from_slice(&ironkeel_codec::encode_protobuf(&partial_metadata(&*entry.tree()?, beta), type_id)))
    })
}

/// `PartialObjectMetadata` of a tree.
pub(crate) fn partial_metadata(object: &Value, beta: bool) -> Value {
    let mut out = Map::new();
    out.insert("apiVersion", if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" });
    out.insert("kind", "PartialObjectMetadata");
    out.insert("metadata", object["metadata"].clone());
    Value::Object(out)
}

/// One stored object as an answer.
pub(crate) fn entry(
    registry: &Registry,
    row: &Row,
    entry: &Arc<Entry>,
    code: u16,
    output: &Output,
    include: IncludeObject,
) -> Result<Response<Body>, ApiError> {
    let json = Format::Json.media_type();
    match (output.shape, output.format, output.pretty) {
        (Shape::Objects, Format::Json, false) => Ok(with_type(code, json, entry_json(registry, row, entry)?)),
        (Shape::Objects, Format::Protobuf, _) => {
            let message = entry_protobuf(registry, row, entry)?;
            let bytes = crate::protobuf::envelope(&row.api_version, row.kind_name(), &message);
            Ok(with_type(code, Format::Protobuf.media_type(), bytes))
        }
        (Shape::Objects, ..) => Ok(value(code, &registry.tree(row, entry)?, output)),
        (Shape::Metadata(beta), Format::Json, false) => Ok(with_type(code, json, entry_metadata(entry, beta)?)),
        (Shape::Metadata(beta), Format::Protobuf, _) => {
            Ok(with_type(code, Format::Protobuf.media_type(), entry_metadata_protobuf(entry, beta)?))
        }
        (Shape::Metadata(beta), ..) => Ok(value(code, &partial_metadata(&*entry.tree()?, beta), output)),
        (Shape::Table(beta), ..) => {
            let now = registry.clock().now().as_second();
            let tree = registry.tree(row, entry)?;
            let mut table = table::begin(row, beta, true);
            table::push(&mut table, row, &tree, include, beta, now);
            *table.slot(&["metadata", "resourceVersion"]) = entry.revision.to_string().into();
            Ok(value(code, &table, output))
        }
    }
}
