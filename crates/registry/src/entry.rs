//! One object in the watch cache: its encoded bytes and the little that selectors need.
//!
//! The stored bytes are canonical JSON without `resourceVersion`, and the same memory as the store's
//! own; who serves them splices the revision in as the first member of `metadata`, so no tree is
//! built. Other encodings are made on demand by who serves them and kept here.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ironkeel_kinds::Kind;
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_schema::TypeId;
use parking_lot::Mutex;

use crate::error::ApiError;

/// Which encoding of an entry: a served row and a format of the caller's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// [`crate::Row::id`].
    pub row: usize,
    /// The encoding.
    pub format: Format,
}

/// Encodings that entries keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON of a version that is not the stored one.
    Json,
    /// The protobuf message (without the envelope).
    Protobuf,
    /// `PartialObjectMetadata` as JSON.
    Metadata,
}

/// What the write path already knows of a value it is about to store; spares the cache a decode.
#[derive(Debug)]
pub(crate) struct Extract {
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
    /// The type of the stored version; none of a custom resource.
    type_id: Option<TypeId>,
    /// `apiVersion` of the bytes, of a custom resource: its definition may have changed the stored
    /// version since they were written.
    api_version: Option<Box<str>>,
}

impl Extract {
    pub(crate) fn of(object: &Value, kind: &Kind, selectable: &[&'static str]) -> Self {
        let labels = object
            .meta()
            .and_then(|m| m.get("labels"))
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::iter)
            .map(|(k, v)| (k.as_ref().into(), v.as_str().unwrap_or_default().into()))
            .collect();
        let fields = selectable.iter().map(|path| kind.hooks.field(object, path).unwrap_or_default().into()).collect();
        let custom = kind.custom.is_some();
        let api_version = custom.then(|| object.str_at(&["apiVersion"]).unwrap_or_default().into());
        Extract { labels, fields, type_id: stored_type(kind), api_version }
    }
}

/// The type that a kind's stored bytes are decoded with.
pub(crate) fn stored_type(kind: &Kind) -> Option<TypeId> {
    kind.custom.is_none().then_some(kind.resource.type_id)
}

/// Adds to an object of a built-in kind the members that upstream always writes.
pub(crate) fn complete(kind: &Kind, object: &mut Value) {
    if let Some(type_id) = stored_type(kind) {
        ironkeel_codec::complete(object, type_id);
    }
}

/// One object at one revision. Never changes; the cache replaces it whole.
#[derive(Debug)]
pub struct Entry {
    key: Box<str>,
    name_at: usize,
    /// `metadata.resourceVersion` of this state.
    pub revision: u64,
    /// JSON of the stored version, without resourceVersion.
    stored: Bytes,
    /// Where in it the resourceVersion belongs; `None` where there is none.
    revision_at: Option<NonZeroU32>,
    extract: Arc<Extract>,
    tree: OnceLock<Arc<Value>>,
    views: Mutex<Vec<(View, Bytes)>>,
}

impl Entry {
    /// `key` is `namespace/name` or `name`; `stored` the bytes of the store.
    pub(crate) fn new(key: &str, revision: u64, stored: Bytes, extract: Arc<Extract>) -> Self {
        Entry {
            key: key.into(),
            name_at: key.rfind('/').map_or(0, |i| i + 1),
            revision,
            // What was not stored (a dry run) has no revision.
            revision_at: if revision == 0 { None } else { metadata_at(&stored) },
            stored,
            extract,
            tree: OnceLock::new(),
            views: Mutex::default(),
        }
    }

    /// The same object under a later revision: what a watcher sees of a delete.
    pub(crate) fn at_revision(&self, revision: u64) -> Self {
        Entry {
            key: self.key.clone(),
            name_at: self.name_at,
            revision,
            stored: self.stored.clone(),
            revision_at: self.revision_at,
            extract: self.extract.clone(),
            tree: OnceLock::new(),
            views: Mutex::default(),
        }
    }

    /// `namespace/name` or `name`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.key[self.name_at..]
    }

    /// Namespace; empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        &self.key[..self.name_at.saturating_sub(1)]
    }

    /// JSON of the stored version, resourceVersion included, piece by piece.
    pub fn json_pieces(&self, mut each: impl FnMut(&[u8])) {
        match self.revision_at {
            None => each(&self.stored),
            Some(at) => {
                each(&self.stored[..at.get() as usize]);
                self.pieces_from(at, self.stored.len(), each);
            }
        }
    }

    /// From behind the `{` of the metadata to `end`.
    fn pieces_from(&self, at: NonZeroU32, end: usize, mut each: impl FnMut(&[u8])) {
        let at = at.get() as usize;
        each(REVISION_MEMBER);
        each(itoa::Buffer::new().format(self.revision).as_bytes());
        each(if self.stored.get(at) == Some(&b'}') { b"\"" } else { b"\"," });
        each(&self.stored[at..end]);
    }

    /// Length of the JSON, in bytes.
    pub fn json_len(&self) -> usize {
        self.stored.len() + if self.revision_at.is_some() { REVISION_MEMBER_BYTES } else { 0 }
    }

    /// JSON of the stored version, resourceVersion included.
    pub fn json(&self) -> Bytes {
        if self.revision_at.is_none() {
            return self.stored.clone();
        }
        let mut out = Vec::with_capacity(self.json_len());
        self.json_pieces(|piece| out.extend_from_slice(piece));
        out.into()
    }

    /// The value of `metadata`, piece by piece; false where there is none.
    pub fn metadata_pieces(&self, mut each: impl FnMut(&[u8])) -> bool {
        let Some(at) = self.revision_at else { return false };
        let Some(end) = value_end(&self.stored, at.get() as usize - 1) else { return false };
        each(b"{");
        self.pieces_from(at, end, each);
        true
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.extract.labels;
        labels.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok().map(|i| labels[i].1.as_ref())
    }

    /// `apiVersion` of the bytes, where it is not for sure that of [`crate::Stored`].
    pub(crate) fn api_version(&self) -> Option<&str> {
        self.extract.api_version.as_deref()
    }

    /// A selectable field, by its place in [`crate::Stored::selectable`].
    pub(crate) fn field(&self, i: usize) -> &str {
        self.extract.fields.get(i).map_or("", |f| f)
    }

    /// The tree of the stored version; built anew unless [`Entry::kept_tree`] kept one.
    pub fn tree(&self) -> Result<Arc<Value>, ApiError> {
        match self.tree.get() {
            Some(tree) => Ok(tree.clone()),
            None => decode(&self.json(), self.extract.type_id).map(Arc::new),
        }
    }

    /// The tree of the stored version, kept for the entry's life: for what authorizers and admission
    /// read again and again.
    pub fn kept_tree(&self) -> Result<Arc<Value>, ApiError> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree.clone());
        }
        let tree = Arc::new(decode(&self.json(), self.extract.type_id)?);
        Ok(self.tree.get_or_init(|| tree).clone())
    }

    /// Another encoding, where it has been made.
    pub fn known_view(&self, view: View) -> Option<Bytes> {
        self.views.lock().iter().find(|(v, _)| *v == view).map(|(_, bytes)| bytes.clone())
    }

    /// Another encoding, made by `make` once and shared from then on.
    pub fn view(&self, view: View, make: impl FnOnce() -> Result<Bytes, ApiError>) -> Result<Bytes, ApiError> {
        if let Some(bytes) = self.known_view(view) {
            return Ok(bytes);
        }
        let made = make()?;
        let mut views = self.views.lock();
        if let Some((_, bytes)) = views.iter().find(|(v, _)| *v == view) {
            return Ok(bytes.clone());
        }
        views.push((view, made.clone()));
        Ok(made)
    }
}

/// Decodes bytes that this server wrote.
pub(crate) fn decode(json: &[u8], type_id: Option<TypeId>) -> Result<Value, ApiError> {
    ironkeel_codec::decode_stored_json(json, type_id)
        .map_err(|e| ApiError::internal(format!("a stored object does not decode: {e}")))
}

/// Offset just behind the `{` of the top-level `metadata`.
fn metadata_at(json: &[u8]) -> Option<NonZeroU32> {
    let mut i = json.iter().position(|b| *b == b'{')? + 1;
    loop {
        let start = i + json.get(i..)?.iter().position(|b| *b == b'"')?;
        let end = string_end(json, start)?;
        let key = &json[start + 1..end - 1];
        let value = end + json.get(end..)?.iter().position(|b| *b == b':')? + 1;
        if key == b"metadata" {
            return NonZeroU32::new(u32::try_from(value + 1).ok()?).filter(|_| json.get(value) == Some(&b'{'));
        }
        i = value_end(json, value)?;
    }
}

/// Offset behind the closing quote of the string that opens at `start`.
fn string_end(json: &[u8], start: usize) -> Option<usize> {
    let mut i = start + 1;
    loop {
        i += memchr::memchr2(b'"', b'\\', json.get(i..)?)?;
        if json[i] == b'"' {
            return Some(i + 1);
        }
        i += 2;
    }
}

fn value_end(json: &[u8], start: usize) -> Option<usize> {
    let (mut i, mut depth) = (start, 0usize);
    loop {
        match json.get(i)? {
            b'"' => {
                i = string_end(json, i)?;
                if depth == 0 {
                    return Some(i);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth == 0 {
                    return Some(i);
                }
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            b',' if depth == 0 => return Some(i),
            _ => {}
        }
        i += 1;
    }
}

const REVISION_MEMBER: &[u8] = b"\"resourceVersion\":\"";

/// Most that a revision adds to the JSON: the member, its digits, quote and comma.
const REVISION_MEMBER_BYTES: usize = REVISION_MEMBER.len() + 20 + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_goes_into_the_top_level_metadata() {
        for stored in [
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","uid":"u"}}"#,
            r#"{"apiVersion":"v1","data":{"x":"\"metadata\":{","y":"}]\\"},"kind":"ConfigMap","metadata":{"name":"a"}}"#,
            r#"{"apiVersion":"apps/v1","data":{"metadata":{"n":[{"metadata":{}}]}},"kind":"ControllerRevision","metadata":{}}"#,
            r#"{"a":[1,2],"b":-1.5e3,"c":null,"metadata":{"name":"z"},"spec":{"metadata":{"q":1}}}"#,
        ] {
            let nothing = Extract { labels: [].into(), fields: [].into(), type_id: None, api_version: None };
            let entry = Entry::new("default/a", 42, Bytes::from_static(stored.as_bytes()), Arc::new(nothing));
            for (entry, revision) in [(&entry, "42"), (&entry.at_revision(12_345), "12345")] {
                let json = entry.json();
                assert!(json.len() <= entry.json_len());
                let mut value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
                assert_eq!(value["metadata"]["resourceVersion"], revision, "{stored}");
                let mut metadata = Vec::new();
                assert!(entry.metadata_pieces(|piece| metadata.extend_from_slice(piece)), "{stored}");
                let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
                assert_eq!(metadata, value["metadata"], "{stored}");
                value["metadata"].as_object_mut().expect("an object").remove("resourceVersion");
                let before: serde_json::Value = serde_json::from_str(stored).expect("JSON");
                assert_eq!(value, before);
            }
        }
    }
}
