//! The YAML writer: block style, members in key order, as `kubectl -o yaml` shows objects.

use ironkeel_object::Value;

use super::scalar;
use crate::{encode_json, write_json_string};

/// Longer names of members are written behind a question mark, as Go's library does; readers take no
/// more than 1,024 characters otherwise.
const MAX_SIMPLE_KEY_BYTES: usize = 128;

/// Appends a value as a YAML document.
pub fn encode_yaml(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) if !members.is_empty() => block(value, 0, out),
        Value::Array(elements) if !elements.is_empty() => block(value, 0, out),
        other => {
            // Indented, lest a line of a text be taken for the document's end.
            inline(other, 1, out);
            out.push(b'\n');
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        _ => false,
    }
}

fn indent(depth: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + 2 * depth, b' ');
}

/// Writes a non-empty object or array; the cursor stands at the start of a line.
fn block(value: &Value, depth: usize, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    indent(depth, out);
                }
                let mut key = Vec::with_capacity(name.len() + 2);
                text(name, &mut key);
                let long = key.len() > MAX_SIMPLE_KEY_BYTES;
                if long {
                    out.extend_from_slice(b"? ");
                }
                out.append(&mut key);
                if long {
                    out.push(b'\n');
                    indent(depth, out);
                }
                out.push(b':');
                if is_block(member) {
                    out.push(b'\n');
                    // An array's dashes stand below its name, not indented.
                    let depth = if matches!(member, Value::Array(_)) && !long { depth } else { depth + 1 };
                    indent(depth, out);
                    block(member, depth, out);
                } else {
                    out.push(b' ');
                    inline(member, depth + 1, out);
                    out.push(b'\n');
                }
            }
        }
        Value::Array(elements) => {
            for (i, element) in elements.iter().enumerate() {
                if i > 0 {
                    indent(depth, out);
                }
                out.extend_from_slice(b"- ");
                if is_block(element) {
                    block(element, depth + 1, out);
                } else {
                    inline(element, depth + 1, out);
                    out.push(b'\n');
                }
            }
        }
        _ => {}
    }
}

fn inline(value: &Value, depth: usize, out: &mut Vec<u8>) {
    match value {
        Value::String(s) if s.contains('\n') && literal_block(s) => {
            let body = s.trim_end_matches('\n');
            let chomp = match s.len() - body.len() {
                0 => "|-",
                1 => "|",
                _ => "|+",
            };
            out.extend_from_slice(chomp.as_bytes());
            let lines = if chomp == "|+" { s.strip_suffix('\n').unwrap_or(s) } else { body };
            for line in lines.split('\n') {
                out.push(b'\n');
                if !line.is_empty() {
                    indent(depth, out);
                    out.extend_from_slice(line.as_bytes());
                }
            }
        }
        Value::String(s) => text(s, out),
        other => encode_json(other, out),
    }
}

/// Whether a text can stand in a literal block: no odd characters, no leading space.
fn literal_block(text: &str) -> bool {
    !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| {
            c == '\n' || c == '\t' || (!c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}'))
        })
}

/// A string: plain where no reader could take it for anything else, otherwise quoted as JSON does.
fn text(text: &str, out: &mut Vec<u8>) {
    let first_ok = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.'));
    let plain = first_ok
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b" -_./+=@:,()%<>;$^".contains(&b))
        // At the start of a line it would be the document's end.
        && !text.starts_with("...")
        && !text.contains(": ")
        && !text.ends_with([' ', ':'])
        && !matches!(text, "y" | "Y" | "n" | "N")
        && !text.bytes().all(|b| b.is_ascii_digit() || b"-:.eE+_".contains(&b))
        && !looks_like_date(text)
        && matches!(scalar::resolve(text), Value::String(_));
    if plain { out.extend_from_slice(text.as_bytes()) } else { write_json_string(text, out) }
}

/// YAML 1.1 readers take `2024-01-01…` for a time.
fn looks_like_date(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() >= 8 && b[..4].iter().all(u8::is_ascii_digit) && b[4] == b'-'
}
