//! The JSON writer: members in key order, no spaces; or indented by two for people. An API object
//! begins as upstream's do, with `kind`, `apiVersion` and `metadata`: there are clients that look no
//! further to tell a `Status` from what they asked for.

use ironkeel_object::{Map, Number, Value};

/// What an API object begins with, in upstream's order.
const HEAD: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// The members of the outermost object: its head, then the rest in key order.
fn head_first(members: &Map) -> impl Iterator<Item = (&str, &Value)> {
    let head = HEAD.into_iter().filter_map(|name| Some((name, members.get(name)?)));
    head.chain(members.iter().map(|(name, member)| (name.as_ref(), member)).filter(|(name, _)| !HEAD.contains(name)))
}

/// Appends the canonical JSON of a value.
pub fn encode_json(value: &Value, out: &mut Vec<u8>) {
    let Value::Object(members) = value else { return encode_inner(value, out) };
    out.push(b'{');
    for (i, (name, member)) in head_first(members).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_json_string(name, out);
        out.push(b':');
        encode_inner(member, out);
    }
    out.push(b'}');
}

fn encode_inner(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(n) => write_number(*n, out),
        Value::String(s) => write_json_string(s, out),
        Value::Array(elements) => {
            out.push(b'[');
            for (i, element) in elements.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                encode_inner(element, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_json_string(name, out);
                out.push(b':');
                encode_inner(member, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends the JSON of a value as `?pretty=true` shows it: indented by two spaces.
pub fn encode_json_pretty(value: &Value, out: &mut Vec<u8>) {
    pretty(value, 0, out);
}

fn pretty(value: &Value, depth: usize, out: &mut Vec<u8>) {
    fn new_line(depth: usize, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    }
    match value {
        Value::Array(elements) if !elements.is_empty() => {
            out.push(b'[');
            for (i, element) in elements.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                new_line(depth + 1, out);
                pretty(element, depth + 1, out);
            }
            new_line(depth, out);
            out.push(b']');
        }
        Value::Object(members) if !members.is_empty() => {
            let write = |out: &mut Vec<u8>, i: usize, name: &str, member: &Value| {
                if i > 0 {
                    out.push(b',');
                }
                new_line(depth + 1, out);
                write_json_string(name, out);
                out.extend_from_slice(b": ");
                pretty(member, depth + 1, out);
            };
            out.push(b'{');
            if depth == 0 {
                head_first(members).enumerate().for_each(|(i, (name, member))| write(out, i, name, member));
            } else {
                members.iter().enumerate().for_each(|(i, (name, member))| write(out, i, name, member));
            }
            new_line(depth, out);
            out.push(b'}');
        }
        other => encode_inner(other, out),
    }
}

/// Bytes that a JSON string cannot hold as they are, and the first byte of U+2028 and U+2029.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = true;
        i += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0xe2] = true;
    table
};

/// Appends a JSON string, quotes included. Escapes what Go's encoder does, but leaves `<`, `>`
/// and `&` alone: both forms mean the same.
pub fn write_json_string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut done = 0;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if !SPECIAL[byte as usize] {
            at += 1;
            continue;
        }
        let mut hex = *b"\\u0000";
        let (escape, len): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0c => (b"\\f", 1),
            0xe2 => match bytes[at + 1..] {
                [0x80, 0xa8, ..] => (b"\\u2028", 3),
                [0x80, 0xa9, ..] => (b"\\u2029", 3),
                _ => {
                    at += 1;
                    continue;
                }
            },
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                hex[4] = DIGITS[usize::from(control >> 4)];
                hex[5] = DIGITS[usize::from(control & 15)];
                (&hex, 1)
            }
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(escape);
        at += len;
        done = at;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

fn write_number(number: Number, out: &mut Vec<u8>) {
    match number {
        Number::Int(i) => out.extend_from_slice(itoa::Buffer::new().format(i).as_bytes()),
        Number::Float(f) => write_float(f, out),
    }
}

/// The shortest digits that read back the same, in Go's form: an exponent below 1e-6 and from 1e21.
fn write_float(f: f64, out: &mut Vec<u8>) {
    if f == 0.0 || !f.is_finite() {
        // A Number is never NaN or infinite.
        out.extend_from_slice(if f.is_sign_negative() { b"-0" } else { b"0" });
        return;
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(f);
    let (text, exponent) = text.split_once('e').map_or((text, 0), |(t, e)| (t, e.parse::<i32>().unwrap_or(0)));
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |t| ("-", t));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = if fraction == "0" { "" } else { fraction };
    // value = 0.DIGITS * 10^point
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let point = whole.len() as i32 + exponent - (all.len() - digits.len()) as i32;
    let digits = digits.trim_end_matches('0');
    let magnitude = f.abs();
    out.extend_from_slice(sign.as_bytes());
    if !(1e-6..1e21).contains(&magnitude) {
        out.extend_from_slice(&digits.as_bytes()[..1]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[1..]);
        }
        let e = point - 1;
        out.extend_from_slice(if e < 0 { b"e-" } else { b"e+" });
        out.extend_from_slice(itoa::Buffer::new().format(e.abs()).as_bytes());
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(digits.as_bytes());
    } else {
        let point = point as usize;
        if digits.len() <= point {
            out.extend_from_slice(digits.as_bytes());
            out.resize(out.len() + point - digits.len(), b'0');
        } else {
            out.extend_from_slice(&digits.as_bytes()[..point]);
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[point..]);
        }
    }
}
