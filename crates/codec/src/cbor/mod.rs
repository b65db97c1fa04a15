//! CBOR (RFC 8949) as KEP-4222 uses it: between bytes and the same tree that JSON makes.
//!
//! Objects go out behind the self-described tag, strings as byte strings, `[]byte` fields as byte
//! strings behind tag 22 (base64 in the tree), map keys in bytewise order. Reading takes text
//! strings and indefinite lengths too, and refuses what has no place in the tree: NaN, infinities,
//! integers beyond 64 bits, duplicate keys, keys that are no strings.

mod read;
mod write;

use ironkeel_object::Value;
use ironkeel_schema::TypeId;

pub use write::{encode_cbor, encode_cbor_item};

use crate::{DecodeError, Problem, conform};

/// Reads one data item, checked as [`crate::decode_json`] does. Unlike in JSON, duplicate keys are
/// never taken.
pub fn decode_cbor(bytes: &[u8], type_id: Option<TypeId>) -> Result<(Value, Vec<Problem>), DecodeError> {
    let mut value = read::read(bytes)?;
    let mut problems = Vec::new();
    if let Some(type_id) = type_id {
        conform(&mut value, type_id, &mut problems)?;
    }
    Ok((value, problems))
}
