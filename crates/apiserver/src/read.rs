//! GET and LIST. A list goes out in chunks made of the cache's shared bytes.

use std::collections::VecDeque;
use std::io;
use std::num::IntErrorKind;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use ironkeel_codec::{Format, ProtobufList};
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{FieldSelector, LabelSelector, Map, Value};
use ironkeel_registry::{
    ApiError, Entry, FieldTerm, ListAnswer, ListRequest, Reason, Registry, Row, Selection, VersionMatch, parse_revision,
};

use crate::answer::{self, IncludeObject};
use crate::body::Body;
use crate::context::Context;
use crate::negotiate::{Output, Shape};
use crate::table;

/// Size that a list's chunks are gathered to, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// Lists below this size go out in one piece, in bytes (larger ones are compressed where the client
/// takes that).
const WHOLE_BYTES: usize = 128 << 10;

/// GET of one object.
pub(crate) async fn get(c: &Context, row: &Row) -> Result<Response<Body>, ApiError> {
    let registry = &c.server.registry;
    c.check_table_options()?;
    if matches!(c.output.shape, Shape::Metadata(_)) && c.output.metadata_list {
        return Err(wrong_metadata("PartialObjectMetadataList", "not a list", &row.api_version, row.kind_name()));
    }
    if let Some(version) = c.query.get("resourceVersion") {
        registry.wait_for_revision(parse_revision(&version)?).await?;
    }
    let entry = registry.get(row, &c.info.namespace, &c.info.name)?;
    registry.prepare(row, std::slice::from_ref(&entry)).await?;
    answer::entry(registry, row, &entry, 200, &c.output, c.include_object())
}

/// 406: metadata of one object were asked of a list, or the other way round.
fn wrong_metadata(asked: &str, what: &str, api_version: &str, kind: &str) -> ApiError {
    let found = format!("*{}.{kind}", api_version.replace('/', "."));
    let message = format!("you requested {asked}, but the requested object is {what} ({found})");
    ApiError::new(Reason::NotAcceptable, message)
}

/// The selectors of a list, watch or deletecollection.
pub(crate) fn selection(c: &Context, row: &Row) -> Result<Selection, ApiError> {
    row.home()?;
    let labels = match c.query.get("labelSelector") {
        Some(text) if !text.is_empty() => LabelSelector::parse(&text)?,
        _ => LabelSelector::default(),
    };
    let fields = match c.query.get("fieldSelector") {
        Some(text) if !text.is_empty() => FieldSelector::parse(&text)?,
        _ => FieldSelector::default(),
    };
    let selectable = row.selectable();
    let known = |field: &str| {
        field == "metadata.name"
            || (field == "metadata.namespace" && knows_namespace(row))
            || selectable.contains(&field)
    };
    if let Some(unknown) = fields.requirements.iter().find(|r| !known(&r.field)) {
        return Err(ApiError::bad_request(unknown_field(row, &unknown.field)));
    }
    let name = &c.info.name;
    if !name.is_empty()
        && !fields.requirements.is_empty()
        && fields.required("metadata.name").is_none_or(|selected| selected != name)
    {
        return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    let mut selection = Selection::new(&c.info.namespace, labels, &fields, &selectable)?;
    if !name.is_empty() {
        selection.name = Some(name.clone());
    }
    Ok(selection)
}

/// Upstream's conversion functions of three kinds do not list the namespace, which these do not have.
fn knows_namespace(row: &Row) -> bool {
    !matches!(
        (row.group(), row.plural()),
        ("", "namespaces" | "nodes") | ("certificates.k8s.io", "certificatesigningrequests")
    )
}

/// What upstream's conversion function of the kind says of a field that it does not know.
fn unknown_field(row: &Row, field: &str) -> String {
    match (row.group(), row.plural()) {
        ("", "pods" | "nodes" | "replicationcontrollers" | "events" | "namespaces" | "secrets" | "services")
        | ("events.k8s.io", "events")
        | ("certificates.k8s.io", _) => format!("field label not supported: {field}"),
        ("batch", "jobs") => format!("field label {field:?} not supported for Job"),
        ("resource.k8s.io", "resourceslices") => {
            format!("field label not supported for {}, Kind=ResourceSlice: {field}", row.api_version)
        }
        _ if row.kind.custom.is_some() => format!("field label not supported: {field}"),
        _ => format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
    }
}

/// `resourceVersionMatch` with its companions, all that is wrong with them in one 422.
pub(crate) fn version_match(c: &Context, watch: bool) -> Result<Option<VersionMatch>, ApiError> {
    let text = c.query.get("resourceVersionMatch").unwrap_or_default();
    let given = |name: &str| c.query.get(name).is_some_and(|v| !v.is_empty());
    let initial = c.query.get("sendInitialEvents").is_some();
    let mut errors = Vec::new();
    let mut wrong = |field: &str, kind: FieldErrorKind, message: String| {
        errors.push(FieldError { path: Path::new(field), kind, message });
    };
    let forbidden = |why: &str| format!("Forbidden: {why}");
    let unsupported = |supported: &str| format!("Unsupported value: {text:?}: supported values: {supported}");
    const MATCH: &str = "resourceVersionMatch";
    if watch {
        if initial && text != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            wrong(MATCH, FieldErrorKind::Forbidden, forbidden(why));
        }
        if !text.is_empty() {
            if !initial {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                wrong(MATCH, FieldErrorKind::Forbidden, forbidden(why));
            }
            if text != "NotOlderThan" {
                wrong(MATCH, FieldErrorKind::NotSupported, unsupported("\"NotOlderThan\""));
            }
        }
    } else if !text.is_empty() && !given("resourceVersion") {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        wrong(MATCH, FieldErrorKind::Forbidden, forbidden(why));
    }
    if !text.is_empty() && given("continue") {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        wrong(MATCH, FieldErrorKind::Forbidden, forbidden(why));
    }
    if !watch {
        if !matches!(text.as_ref(), "" | "Exact" | "NotOlderThan") {
            wrong(MATCH, FieldErrorKind::NotSupported, unsupported("\"Exact\", \"NotOlderThan\", \"\""));
        }
        if text == "Exact" && c.query.get("resourceVersion").is_some_and(|v| v == "0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            wrong(MATCH, FieldErrorKind::Forbidden, forbidden(why));
        }
        if initial {
            let why = "sendInitialEvents is forbidden for list";
            wrong("sendInitialEvents", FieldErrorKind::Forbidden, forbidden(why));
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors));
    }
    Ok(match text.as_ref() {
        "Exact" => Some(VersionMatch::Exact),
        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
        _ => None,
    })
}

/// A number of the query; 400 as Go's parser says it.
pub(crate) fn number(c: &Context, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = c.query.get(name).filter(|t| !t.is_empty()) else { return Ok(None) };
    let why = match text.parse::<i64>() {
        Ok(number) => return Ok(Some(number)),
        Err(e) => match e.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        },
    };
    Err(ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}")))
}

/// What a list, or the delete of a collection, asks for.
pub(crate) fn list_request(c: &Context, row: &Row) -> Result<ListRequest, ApiError> {
    let limit = number(c, "limit")?.unwrap_or(0).max(0) as usize;
    number(c, "timeoutSeconds")?;
    let matching = version_match(c, false)?;
    let resource_version = c.query.get("resourceVersion").unwrap_or_default().into_owned();
    let unset = resource_version.is_empty();
    // Upstream: a limit with an explicit resourceVersion and no match rule means that very revision.
    let matching = match matching {
        None if limit > 0 && !unset && resource_version != "0" => Some(VersionMatch::Exact),
        other => other,
    };
    Ok(ListRequest {
        selection: selection(c, row)?,
        // A list from "any" revision is served whole, as upstream's cache does.
        limit: if resource_version == "0" { 0 } else { limit },
        continue_token: c.query.get("continue").unwrap_or_default().into_owned(),
        resource_version,
        version_match: matching,
    })
}

/// LIST.
pub(crate) async fn list(c: &Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    let mut request = list_request(c, row)?;
    c.check_table_options()?;
    if matches!(c.output.shape, Shape::Metadata(_)) && !c.output.metadata_list {
        let kind = format!("{}List", row.kind_name());
        return Err(wrong_metadata("PartialObjectMetadata", "a list", &row.api_version, &kind));
    }
    let limit = request.limit;
    let terms = request.selection.take_converted(row, &row.selectable());
    if !terms.is_empty() {
        // Which objects match is known only when they are converted; then the page is cut below.
        request.limit = 0;
    }
    let mut answer = c.server.registry.list(row, &request).await?;
    if answer.cached {
        c.server.metrics.caches.list(row.group(), row.plural(), answer.fetched, answer.entries.len());
    }
    c.server.registry.prepare(row, &answer.entries).await?;
    if !terms.is_empty() {
        answer.entries.retain(|e| FieldTerm::holds(&terms, &c.server.registry, row, e));
        answer = answer.first(limit);
    }
    let _step = ironkeel_trace::span("encode");
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
                let mut tree = registry.tree(row, entry)?;
                items.push(match shape {
                    Shape::Metadata(beta) => answer::partial_metadata(&tree, beta),
                    _ => {
                        if let Some(members) = tree.as_object_mut().filter(|_| row.kind.custom.is_none()) {
                            members.retain(|name, _| !matches!(name, "kind" | "apiVersion"));
                        }
                        tree
                    }
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
    let typed = item_type(&row);
    let write = move |entry: &Entry, out: &mut BytesMut| {
        match shape {
            Shape::Metadata(beta) => out.extend_from_slice(&answer::entry_metadata(entry, beta)?),
            _ if !row.converts_entry(entry) => {
                let mut begun = false;
                entry.json_pieces(|piece| {
                    let piece = if begun { piece } else { untyped(piece, &typed, out) };
                    begun = true;
                    out.extend_from_slice(piece);
                });
            }
            _ => {
                let json = answer::entry_json(&registry, &row, entry)?;
                let rest = untyped(&json, &typed, out);
                out.extend_from_slice(rest);
            }
        }
        Ok(())
    };
    let small = entries.iter().map(|e| e.json_len() + 1).sum::<usize>() + head.len() < WHOLE_BYTES;
    let mut pieces = JsonPieces { head: Some(head), entries: entries.into_iter(), first: true, done: false, write };
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

/// How an object of this row begins in JSON. Items of a list say it no more, but for custom resources', whose
/// lists upstream writes as they are.
fn item_type(row: &Row) -> Vec<u8> {
    let kind = row.kind_name();
    if row.kind.custom.is_some() {
        return Vec::new();
    }
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{}\",", row.api_version).into_bytes()
}

/// What follows the type at the head of an object's JSON; the brace before it is written.
fn untyped<'j>(json: &'j [u8], typed: &[u8], out: &mut BytesMut) -> &'j [u8] {
    match json.strip_prefix(typed) {
        Some(rest) if !typed.is_empty() => {
            out.extend_from_slice(b"{");
            rest
        }
        _ => json,
    }
}

struct JsonPieces<F> {
    head: Option<Vec<u8>>,
    entries: std::vec::IntoIter<Arc<Entry>>,
    first: bool,
    done: bool,
    write: F,
}

impl<F: Fn(&Entry, &mut BytesMut) -> Result<(), ApiError>> JsonPieces<F> {
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
            if let Err(e) = (self.write)(&entry, &mut out) {
                self.done = true;
                return Some(Err(io::Error::other(e)));
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
    let small = messages.iter().map(Bytes::len).sum::<usize>() < WHOLE_BYTES / 2;
    let size = if small { usize::MAX } else { CHUNK_BYTES };
    let mut chunks = std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut out = head.take().unwrap_or_default();
        while out.len() < size {
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
        Some(Bytes::from(out))
    });
    let body =
        if small { Body::whole(chunks.next().unwrap_or_default()) } else { Body::stream(stream::iter(chunks.map(Ok))) };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(Format::Protobuf.media_type()));
    Ok(response)
}
