//! Values as Go's `%v` and `%#v` show them, which is how upstream's errors show a patch.

use std::fmt::Write as _;

use ironkeel_object::{Number, Value, quoted};

/// Longest text that an error shows of a value, in bytes.
const SHOWN_BYTES: usize = 16 << 10;

/// `map[spec:map[replicas:5]]`.
pub fn shown(value: &Value) -> String {
    let mut out = String::new();
    write_plain(value, &mut out);
    cut(out)
}

/// `map[string]interface {}{"a":5}`.
pub(crate) fn shown_typed(value: &Value) -> String {
    let mut out = String::new();
    write_typed(value, &mut out);
    cut(out)
}

/// Go's name of the type of a JSON value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(Number::Int(_)) => "int64",
        Value::Number(Number::Float(_)) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN_BYTES {
        let end = (0..=SHOWN_BYTES).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn write_plain(value: &Value, out: &mut String) {
    if out.len() > SHOWN_BYTES {
        return;
    }
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => _ = write!(out, "{b}"),
        Value::Number(n) => number(*n, out),
        Value::String(s) => out.push_str(s),
        Value::Array(elements) => {
            out.push('[');
            for (i, element) in elements.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write_plain(element, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("map[");
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                out.push_str(name);
                out.push(':');
                write_plain(member, out);
            }
            out.push(']');
        }
    }
}

fn write_typed(value: &Value, out: &mut String) {
    if out.len() > SHOWN_BYTES {
        return;
    }
    match value {
        Value::Null => out.push_str("interface {}(nil)"),
        Value::String(s) => out.push_str(&quoted(s)),
        Value::Array(elements) => {
            out.push_str("[]interface {}{");
            for (i, element) in elements.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_typed(element, out);
            }
            out.push('}');
        }
        Value::Object(members) => {
            out.push_str("map[string]interface {}{");
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                _ = write!(out, "{}:", quoted(name));
                write_typed(member, out);
            }
            out.push('}');
        }
        other => write_plain(other, out),
    }
}

/// Exponents outside of -4..6 are written as such.
fn number(number: Number, out: &mut String) {
    let f = match number {
        Number::Int(i) => {
            _ = write!(out, "{i}");
            return;
        }
        Number::Float(f) => f,
    };
    let text = format!("{f:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return out.push_str(&text) };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            _ = write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
        }
        _ => _ = write!(out, "{f}"),
    }
}
