//! GET and LIST. A list goes out in chunks made of the cache's shared bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use ironkeel_codec::{Format, ProtobufList};
use ironkeel_object::{FieldSelector, LabelSelector, Map, Value};
use ironkeel_registry::{
    ApiError, Entry, ListAnswer, ListRequest, Registry, Row, Selection, VersionMatch, parse_revision,
};

use crate::answer::{self, IncludeObject};
use crate::body::Body;
use crate::context::Context;
use crate::negotiate::{Output, Shape};
use crate::table;

/// Size that a list's chunks are gathered to, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// GET of one object.
pub(crate) async fn get(c: &Context, row: &Row) -> Result<Response<Body>, ApiError> {
    let registry = &c.server.registry;
    if let Some(version) = c.query.get("resourceVersion") {
        registry.wait_for_revision(parse_revision(&version)?).await?;
    }
    let entry = registry.get(row, &c.info.namespace, &c.info.name)?;
    answer::entry(registry, row, &entry, 200, &c.output, c.include_object())
}

/// The selectors of a list, watch or deletecollection.
pub(crate) fn selection(c: &Context, row: &Row) -> Result<Selection, ApiError> {
    let home = row.home()?;
    let labels = match c.query.get("labelSelector") {
        Some(text) if !text.is_empty() => LabelSelector::parse(&text)?,
        _ => LabelSelector::default(),
    };
    let fields = match c.query.get("fieldSelector") {
        Some(text) if !text.is_empty() => FieldSelector::parse(&text)?,
        _ => FieldSelector::default(),
    };
    let mut selection = Selection::new(&c.info.namespace, labels, &fields, &row.selectable())?;
    if !c.info.name.is_empty() {
        selection.name = Some(c.info.name.clone());
    }
    Ok(selection)
}

/// `resourceVersionMatch`, checked against its companions.
pub(crate) fn version_match(c: &Context) -> Result<Option<VersionMatch>, ApiError> {
    let invalid = |why: &str| {
        let message = format!("resourceVersionMatch: {why}");
        ApiError { message: format!("ListOptions.meta.k8s.io \"\" is invalid: {message}"), ..ApiError::bad_request("") }
    };
    match c.query.get("resourceVersionMatch").as_deref() {
        None | Some("") => Ok(None),
        Some("Exact") => Ok(Some(VersionMatch::Exact)),
        Some("NotOlderThan") => Ok(Some(VersionMatch::NotOlderThan)),
        Some(other) => Err(invalid(&format!(
            "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
        ))),
    }
}

/// LIST.
pub(crate) async fn list(c: &Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    let matching = version_match(c)?;
    let resource_version = c.query.get("resourceVersion").unwrap_or_default().into_owned();
    let unset = resource_version.is_empty();
    if matching.is_some() && unset {
        return Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if matching == Some(VersionMatch::Exact) && resource_version == "0" {
        return Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ));
    }
    let limit = match c.query.get("limit") {
        Some(text) if !text.is_empty() => text
            .parse::<i64>()
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?
            .max(0) as usize,
        _ => 0,
    };
    // Upstream: a limit with an explicit resourceVersion and no match rule means that very revision.
    let matching = match matching {
        None if limit > 0 && !unset && resource_version != "0" => Some(VersionMatch::Exact),
        other => other,
    };
    let request = ListRequest {
        selection: selection(c, row)?,
        // A list from "any" revision is served whole, as upstream's cache does.
        limit: if resource_version == "0" { 0 } else { limit },
        continue_token: c.query.get("continue").unwrap_or_default().into_owned(),
        resource_version,
        version_match: matching,
    };
    let answer = c.server.registry.list(row, &request).await?;
    respond(&c.server.registry, row, answer, &c.output, c.include_object())
}

fn list_meta(answer: &ListAnswer) -> Value {
    let mut meta = Map::new();
    meta.insert("resourceVersion", answer.revision.to_string());
    if !answer.continue_token.is_empty() {
        meta.insert("continue", answer.continue_token.as_str());
        if let Some(remaining) = answer.remaining {
            meta.insert("remainingItemCount", remaining as i64);
        }
    }
    Value::Object(meta)
}

pub(crate) fn respond(
    registry: &Arc<Registry>,
    row: &Arc<Row>,
    answer: ListAnswer,
    output: &Output,
    include: IncludeObject,
) -> Result<Response<Body>, ApiError> {
    let meta = list_meta(&answer);
    match (output.shape, output.format, output.pretty) {
        (Shape::Objects | Shape::Metadata(_), Format::Json, false) => {
            Ok(json(registry.clone(), row.clone(), answer.entries, &meta, output.shape))
        }
        (Shape::Objects, Format::Protobuf, _) => protobuf(registry, row, &answer.entries, &meta),
        (Shape::Table(beta), ..) => {
            let now = registry.clock().now().as_second();
            let mut out = table::begin(row, beta, true);
            *out.slot(&["metadata"]) = meta;
            for entry in &answer.entries {
                table::push(&mut out, row, &registry.tree(row, entry)?, include, beta, now);
            }
            Ok(answer::value(200, &out, output))
        }
        (shape, ..) => {
            let (api_version, kind) = list_type(row, shape);
            let mut items = Vec::with_capacity(answer.entries.len());
            for entry in &answer.entries {
                let tree = registry.tree(row, entry)?;
                items.push(match shape {
                    Shape::Metadata(beta) => answer::partial_metadata(&tree, beta),
                    _ => tree,
                });
            }
            let mut out = Map::new();
            out.insert("apiVersion", api_version);
            out.insert("kind", kind);
            out.insert("metadata", meta);
            out.insert("items", items);
            Ok(answer::value(200, &Value::Object(out), output))
        }
    }
}

fn list_type(row: &Row, shape: Shape) -> (String, String) {
    match shape {
        Shape::Metadata(beta) => {
            let version = if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
            (version.to_owned(), "PartialObjectMetadataList".to_owned())
        }
        _ => (row.api_version.clone(), format!("{}List", row.kind_name())),
    }
}

fn json(
    registry: Arc<Registry>,
    row: Arc<Row>,
    entries: Vec<Arc<Entry>>,
    meta: &Value,
    shape: Shape,
) -> Response<Body> {
    let (api_version, kind) = list_type(&row, shape);
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(b"{\"kind\":\"");
    head.extend_from_slice(kind.as_bytes());
    head.extend_from_slice(b"\",\"apiVersion\":\"");
    head.extend_from_slice(api_version.as_bytes());
    head.extend_from_slice(b"\",\"metadata\":");
    ironkeel_codec::encode_json(meta, &mut head);
    head.extend_from_slice(b",\"items\":[");
    let bytes_of = move |entry: &Entry| match shape {
        Shape::Metadata(beta) => answer::entry_metadata(entry, beta),
        _ => answer::entry_json(&registry, &row, entry),
    };
    let small = entries.iter().map(|e| e.json.len()).sum::<usize>() < CHUNK_BYTES;
    let mut pieces = JsonPieces { head: Some(head), entries: entries.into_iter(), first: true, done: false, bytes_of };
    let body = if small {
        match pieces.chunk(usize::MAX) {
            Some(Ok(bytes)) => Body::whole(bytes),
            Some(Err(e)) => return answer::error(&ApiError::internal(e), &Output::JSON),
            None => Body::empty(),
        }
    } else {
        Body::stream(stream::iter(std::iter::from_fn(move || pieces.chunk(CHUNK_BYTES))))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

struct JsonPieces<F> {
    head: Option<Vec<u8>>,
    entries: std::vec::IntoIter<Arc<Entry>>,
    first: bool,
    done: bool,
    bytes_of: F,
}

impl<F: Fn(&Entry) -> Result<Bytes, ApiError>> JsonPieces<F> {
    fn chunk(&mut self, size: usize) -> Option<io::Result<Bytes>> {
        if self.done {
            return None;
        }
        let mut out = BytesMut::with_capacity(size.min(CHUNK_BYTES));
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        for entry in self.entries.by_ref() {
            if !std::mem::replace(&mut self.first, false) {
                out.extend_from_slice(b",");
            }
            match (self.bytes_of)(&entry) {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(e) => {
                    self.done = true;
                    return Some(Err(io::Error::other(e)));
                }
            }
            if out.len() >= size {
                return Some(Ok(out.freeze()));
            }
        }
        out.extend_from_slice(b"]}\n");
        self.done = true;
        Some(Ok(out.freeze()))
    }
}

fn protobuf(
    registry: &Arc<Registry>,
    row: &Row,
    entries: &[Arc<Entry>],
    meta: &Value,
) -> Result<Response<Body>, ApiError> {
    let mut messages = VecDeque::with_capacity(entries.len());
    for entry in entries {
        messages.push_back(answer::entry_protobuf(registry, row, entry)?);
    }
    let kind = format!("{}List", row.kind_name());
    let list = ProtobufList::new(&row.api_version, &kind, Some(meta), messages.iter().map(Bytes::len));
    let mut head = Some(list.head().to_vec());
    let mut done = false;
    let chunks = std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut out = head.take().unwrap_or_default();
        while out.len() < CHUNK_BYTES {
            match messages.pop_front() {
                Some(message) => {
                    ProtobufList::item_head(message.len(), &mut out);
                    out.extend_from_slice(&message);
                }
                None => {
                    out.extend_from_slice(ProtobufList::tail());
                    done = true;
                    break;
                }
            }
        }
        Some(Ok(Bytes::from(out)))
    });
    let mut response = Response::new(Body::stream(stream::iter(chunks)));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(Format::Protobuf.media_type()));
    Ok(response)
}
