//! JSON: reading, with or without a type, and writing the canonical form.

mod order;
mod read;
mod write;

use ironkeel_object::Value;
use ironkeel_schema::{Shape, TypeId};

pub use write::{encode_json, encode_json_pretty, write_json_string};

use crate::{DecodeError, Problem, conform};

/// Reads JSON without a type, as for patches; of duplicate members the last one is taken.
pub fn parse_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    parse_json_strict(bytes).map(|(value, _)| value)
}

/// Reads JSON without a type; duplicate members are reported.
pub fn parse_json_strict(bytes: &[u8]) -> Result<(Value, Vec<Problem>), DecodeError> {
    read::read(bytes, None)
}

/// Reads an object. With a type it is checked against it (see [`conform`]); without one (custom
/// resources) everything is kept. Duplicate and unknown members are reported.
pub fn decode_json(bytes: &[u8], type_id: Option<TypeId>) -> Result<(Value, Vec<Problem>), DecodeError> {
    let (mut value, mut problems) = read::read(bytes, type_id.map(Shape::Struct))?;
    if let Some(type_id) = type_id {
        conform(&mut value, type_id, &mut problems)?;
    }
    if problems.len() > 1 {
        order::sort(bytes, &mut problems);
    }
    Ok((value, problems))
}

/// Reads an object that was checked before it was stored: names are borrowed from its type, and
/// nothing is checked again. Much cheaper than [`decode_json`], in time and in memory.
pub fn decode_stored_json(bytes: &[u8], type_id: Option<TypeId>) -> Result<Value, DecodeError> {
    read::read(bytes, type_id.map(Shape::Struct)).map(|(value, _)| value)
}
