//! CBOR at the edge (KEP-4222, the gate `CBORServingAndStorage`): bodies that come as CBOR are read as the
//! JSON that they stand for, and answers that are wanted as CBOR are made of the JSON ones. A watch is
//! a sequence of events. Everything between knows nothing of it.
//!
//! Byte strings of built-in kinds are found by the object's kind; what is passed on to other servers
//! is left alone.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::ApiError;
use ironkeel_schema::TypeId;

use crate::answer::type_of;
use crate::body::Body;
use crate::negotiate;
use crate::request_info::RequestInfo;
use crate::server::Server;

const OBJECT: &str = "application/cbor";
const SEQUENCE: &str = "application/cbor-seq";
const APPLY: &str = "application/apply-patch+cbor";
/// A map of two members, in deterministic encoding.
const MAP_OF_TWO: u8 = 0xa2;

/// What of one exchange is CBOR.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    body: bool,
    answer: bool,
    watch: bool,
}

fn media(headers: &HeaderMap, name: http::HeaderName) -> String {
    let text = headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl Exchange {
    /// Looks whether a request speaks CBOR; its headers ask for JSON from then on.
    pub(crate) fn begin(server: &Server, parts: &mut Parts, info: &RequestInfo) -> Option<Exchange> {
        let streams = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "log" | "proxy");
        let elsewhere = || server.aggregator.remote(&info.group, &info.version).is_some();
        if !server.cbor || !info.is_resource || streams || elsewhere() {
            return None;
        }
        let watch = info.verb == "watch";
        let mut out = Exchange { body: false, answer: false, watch };
        let json = match media(&parts.headers, CONTENT_TYPE).as_str() {
            OBJECT => Some("application/json"),
            APPLY => Some("application/apply-patch+yaml"),
            _ => None,
        };
        if let Some(json) = json {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(json));
            out.body = true;
        }
        let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let wanted: &[&str] = if watch { &[SEQUENCE, OBJECT] } else { &[OBJECT] };
        if let Some(json) = negotiate::instead_of(accept, wanted)
            && let Ok(value) = HeaderValue::from_str(&json)
        {
            parts.headers.insert(ACCEPT, value);
            out.answer = true;
        }
        (out.body || out.answer).then_some(out)
    }

    /// A request's body as JSON.
    pub(crate) fn read(self, body: Bytes) -> Result<Bytes, ApiError> {
        if !self.body {
            return Ok(body);
        }
        let (tree, _) = ironkeel_codec::decode_cbor(&body, None)
            .map_err(|e| ApiError::bad_request(format!("error decoding CBOR: {e}")))?;
        let mut out = Vec::with_capacity(body.len() * 2);
        ironkeel_codec::encode_json(&tree, &mut out);
        Ok(out.into())
    }

    /// An answer in CBOR, if that is wanted.
    pub(crate) fn answer(self, response: Response<Body>) -> Response<Body> {
        if !self.answer || media(response.headers(), CONTENT_TYPE) != "application/json" {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        let events = self.watch && parts.status.is_success();
        let kind = if events { SEQUENCE } else { OBJECT };
        let body = if events {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let mut rest = BytesMut::new();
            Body::stream(body.into_stream().map(move |chunk| {
                rest.extend_from_slice(&chunk?);
                Ok(sequence(&mut rest))
            }))
        } else {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            match body.as_whole() {
                Some(whole) => Body::whole(object(whole)),
                None => Body::stream(stream::once(async move {
                    let mut all = BytesMut::new();
                    let mut pieces = body.into_stream();
                    while let Some(piece) = pieces.next().await {
                        all.extend_from_slice(&piece?);
                    }
                    Ok(Bytes::from(object(&all)))
                })),
            }
        };
        Response::from_parts(parts, body)
    }
}

fn type_of_tree(tree: &Value) -> Option<TypeId> {
    let gvk = tree.gvk();
    type_of(&gvk.group, &gvk.version, &gvk.kind)
}

/// One object; what is not JSON after all stays as it is.
fn object(json: &[u8]) -> Vec<u8> {
    let Ok(tree) = ironkeel_codec::parse_json(json) else { return json.to_vec() };
    let mut out = Vec::with_capacity(json.len());
    match list_of(&tree) {
        Some(element) => list(&tree, element, &mut out),
        None => ironkeel_codec::encode_cbor(&tree, type_of_tree(&tree), &mut out),
    }
    out
}

/// The type of the elements of a list whose own type is not in the tables.
fn list_of(tree: &Value) -> Option<TypeId> {
    let gvk = tree.gvk();
    let element = gvk.kind.strip_suffix("List")?;
    match type_of_tree(tree) {
        Some(_) => None,
        None => type_of(&gvk.group, &gvk.version, element).filter(|_| !tree.items_at(&["items"]).is_empty()),
    }
}

/// A list, each element as its own type says.
fn list(tree: &Value, element: TypeId, out: &mut Vec<u8>) {
    let mut head = tree.clone();
    let items = match head.as_object_mut().and_then(|m| m.remove("items")) {
        Some(Value::Array(items)) => items.to_vec(),
        _ => Vec::new(),
    };
    // Names in the order of their encoded form: shorter ones first.
    let mut names: Vec<&str> = tree.as_object().into_iter().flat_map(|m| m.keys()).map(AsRef::as_ref).collect();
    names.sort_by_key(|n| (n.len(), *n));
    out.extend_from_slice(&[0xd9, 0xd9, 0xf7, 0xa0 | names.len() as u8]);
    for name in names {
        ironkeel_codec::encode_cbor_item(&name.into(), None, out);
        if name != "items" {
            ironkeel_codec::encode_cbor_item(&tree[name], None, out);
            continue;
        }
        let count = items.len() as u64;
        out.push(0x9b);
        out.extend_from_slice(&count.to_be_bytes());
        items.iter().for_each(|item| ironkeel_codec::encode_cbor_item(item, Some(element), out));
    }
}

/// The whole lines in a buffer as items of a sequence; what is left stays in it.
fn sequence(buffer: &mut BytesMut) -> Bytes {
    let mut out = Vec::with_capacity(buffer.len());
    while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
        let line = buffer.split_to(end + 1);
        let Ok(event) = ironkeel_codec::parse_json(&line[..end]) else { continue };
        let (kind, object) = (event.str_at(&["type"]).unwrap_or_default(), &event["object"]);
        out.push(MAP_OF_TWO);
        for (name, value, of) in [("type", &Value::from(kind), None), ("object", object, type_of_tree(object))] {
            ironkeel_codec::encode_cbor_item(&name.into(), None, &mut out);
            ironkeel_codec::encode_cbor_item(value, of, &mut out);
        }
    }
    out.into()
}
