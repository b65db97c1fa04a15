//! YAML as sigs.k8s.io/yaml reads it: turned into the JSON tree first, then decoded like JSON.

mod read;
mod scalar;
mod write;

use ironkeel_object::Value;
use ironkeel_schema::TypeId;

pub use write::encode_yaml;

use crate::{DecodeError, Problem, ProblemKind, conform, json};

/// Reads one YAML document (JSON is YAML too), checked as [`crate::decode_json`] does. Anything
/// behind the first document but empty documents is refused.
pub fn decode_yaml(bytes: &[u8], type_id: Option<TypeId>) -> Result<(Value, Vec<Problem>), DecodeError> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = json::parse_json_strict(bytes)
        && decoded.1.is_empty()
    {
        // Names are interned only by a typed read; conform does not need it.
        return finish(decoded, type_id);
    }
    let (value, duplicates) = read::read(bytes)?;
    finish((value, in_one(&duplicates)), type_id)
}

/// Duplicate keys as Go's YAML library tells them: all in one error.
fn in_one(duplicates: &[Problem]) -> Vec<Problem> {
    if duplicates.is_empty() {
        return Vec::new();
    }
    let lines: Vec<String> = duplicates.iter().map(|p| format!("\n  {}", p.path)).collect();
    let path = format!("yaml: unmarshal errors:{}", lines.concat());
    vec![Problem { path, kind: ProblemKind::DuplicateKeys }]
}

fn finish(
    (mut value, mut problems): (Value, Vec<Problem>),
    type_id: Option<TypeId>,
) -> Result<(Value, Vec<Problem>), DecodeError> {
    if let Some(type_id) = type_id {
        conform(&mut value, type_id, &mut problems)?;
    }
    Ok((value, problems))
}
