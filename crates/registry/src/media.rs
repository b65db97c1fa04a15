//! What objects are in the store: JSON, or protobuf in upstream's envelope.
//!
//! An embedded store keeps JSON, which the watch cache serves as it is. A shared store keeps what
//! upstream's API server keeps there (protobuf for built-in kinds, JSON for custom resources), so that
//! either can take over from the other, or stand beside it. Reading takes both, in any version that is
//! served, and whatever order of members another writer chose: the cache gets our own canonical JSON.

use std::cell::RefCell;

use bytes::Bytes;
use ironkeel_codec::{PROTOBUF_MAGIC, decode_protobuf, encode_json, encode_protobuf};
use ironkeel_object::{ObjectMeta, Value};

use crate::definition_v1beta1;
use crate::entry::{complete, decode, stored_type};
use crate::error::ApiError;
use crate::storage::Stored;

/// What built-in kinds are stored as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageMedia {
    /// Canonical JSON.
    #[default]
    Json,
    /// `k8s\0`, then a `runtime.Unknown` around the message.
    Protobuf,
}

/// A larger buffer for encoding is not kept, in bytes.
const SCRATCH_BYTES: usize = 64 << 10;

/// How our own JSON begins; the second is what earlier releases wrote.
const OWN_BEGINS: [&[u8]; 2] = [b"{\"kind\":", b"{\"apiVersion\":"];

/// Why an encrypted value is not decrypted.
pub(crate) const NO_PROVIDER: &str = "no provider that is configured can read it";

/// What a stored object in CBOR begins with.
const SELF_DESCRIBED_CBOR: &[u8] = &[0xd9, 0xd9, 0xf7];

/// The bytes for the store of an object in its stored form, whose JSON is there already.
pub(crate) fn to_store(home: &Stored, object: &Value, json: &Bytes) -> Bytes {
    match (home.media, stored_type(&home.kind)) {
        (StorageMedia::Protobuf, Some(type_id)) => encode_protobuf(object, type_id).into(),
        _ => json.clone(),
    }
}

/// Whether the cache cannot serve stored bytes as they are.
pub(crate) fn is_foreign(value: &[u8]) -> bool {
    // Upstream ends JSON with a line feed.
    !OWN_BEGINS.iter().any(|begin| value.starts_with(begin)) || value.last() != Some(&b'}')
}

/// Reads stored bytes into the stored form; with it whether they were somebody else's, and the JSON in
/// their place has to be made anew.
pub(crate) fn from_store(home: &Stored, value: &[u8]) -> Result<(Value, bool), ApiError> {
    let foreign = is_foreign(value);
    if value.starts_with(ironkeel_store::SEALED) {
        return Err(ApiError::internal(NO_PROVIDER));
    }
    let mut tree = if value.starts_with(PROTOBUF_MAGIC) {
        let resolve = |api_version: &str, kind: &str| {
            let mut rows = std::iter::once(&home.kind).chain(&home.other_versions);
            let row = rows.find(|k| k.resource.kind == kind && k.resource.api_version() == api_version)?;
            stored_type(row)
        };
        decode_protobuf(value, &resolve)
            .map_err(|e| ApiError::internal(format!("a stored object does not decode: {e}")))?
    } else if value.starts_with(SELF_DESCRIBED_CBOR) {
        // Upstream's, of a server whose gate for it is on.
        let found = ironkeel_codec::decode_cbor(value, stored_type(&home.kind));
        found.map_err(|e| ApiError::internal(format!("a stored object does not decode: {e}")))?.0
    } else {
        decode(value, stored_type(&home.kind))?
    };
    if home.kind.custom.is_some() {
        return Ok((tree, foreign));
    }
    let version = tree.str_at(&["apiVersion"]).unwrap_or_default();
    let other = version != home.api_version;
    if other {
        let row = home.other_versions.iter().find(|k| k.resource.api_version() == version);
        match row {
            Some(row) => row.hooks.to_stored(&mut tree),
            None if version == definition_v1beta1::API_VERSION => definition_v1beta1::to_v1(&mut tree),
            None => {
                return Err(ApiError::internal(format!("a stored object has version {version:?}, which is not known")));
            }
        }
        tree.set_gvk(&home.api_version, home.kind.resource.kind);
    }
    if foreign || other {
        let meta = tree.meta_mut();
        meta.remove("resourceVersion");
        meta.remove("selfLink");
        // Fields that its writer did not know yet.
        home.kind.hooks.default(&mut tree);
        complete(&home.kind, &mut tree);
    }
    Ok((tree, foreign || other))
}

/// Our JSON of a tree. It is kept for long, so that it takes no more memory than it must.
pub(crate) fn canonical(tree: &Value) -> Bytes {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        encode_json(tree, scratch);
        let bytes = Bytes::copy_from_slice(scratch);
        if scratch.capacity() > SCRATCH_BYTES {
            *scratch = Vec::new();
        }
        bytes
    })
}
