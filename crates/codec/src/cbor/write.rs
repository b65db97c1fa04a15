//! The CBOR writer: core deterministic encoding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{Map, Number, Value};
use ironkeel_schema::{Shape, TypeId};

/// Tag 55799: what follows is CBOR.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Tag 22: base64 is the text form of the bytes that follow.
const LATER_BASE64: u8 = 0xd6;

/// Writes an object behind the self-described tag, as request and response bodies have it. `type_id`
/// says which strings stand for bytes.
pub fn encode_cbor(value: &Value, type_id: Option<TypeId>, out: &mut Vec<u8>) {
    out.extend_from_slice(&SELF_DESCRIBED);
    encode_cbor_item(value, type_id, out);
}

/// Writes an object as one item of a sequence (`application/cbor-seq`), or inside of another.
pub fn encode_cbor_item(value: &Value, type_id: Option<TypeId>, out: &mut Vec<u8>) {
    item(value, &type_id.map_or(Shape::Any, Shape::Struct), out);
}

fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    head(2, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn item(value: &Value, shape: &Shape, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(b) => out.push(if *b { 0xf5 } else { 0xf4 }),
        Value::Number(Number::Int(i)) => match u64::try_from(*i) {
            Ok(n) => head(0, n, out),
            Err(_) => head(1, i.unsigned_abs() - 1, out),
        },
        Value::Number(Number::Float(f)) => float(*f, out),
        Value::String(text) => match (shape, STANDARD.decode(text)) {
            (Shape::Bytes, Ok(bytes)) => {
                out.push(LATER_BASE64);
                head(2, bytes.len() as u64, out);
                out.extend_from_slice(&bytes);
            }
            _ => string(text, out),
        },
        Value::Array(elements) => {
            head(4, elements.len() as u64, out);
            let inner = match shape {
                Shape::List(inner) => **inner,
                Shape::SchemaOrArray(id) => Shape::Struct(*id),
                _ => Shape::Any,
            };
            elements.iter().for_each(|e| item(e, &inner, out));
        }
        Value::Object(members) => object(members, shape, out),
    }
}

fn object(members: &Map, shape: &Shape, out: &mut Vec<u8>) {
    head(5, members.len() as u64, out);
    // Bytewise order of the encoded keys: shorter ones first, since the length stands before them.
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|a, b| (a.0.len(), a.0).cmp(&(b.0.len(), b.0)));
    for (name, member) in sorted {
        string(name, out);
        let inner = match shape {
            Shape::Struct(id) | Shape::SchemaOrArray(id) | Shape::SchemaOrBool(id) | Shape::SchemaOrStringArray(id) => {
                id.get().field(name).map_or(&Shape::Any, |f| &f.shape)
            }
            Shape::Map(inner) => inner,
            _ => &Shape::Any,
        };
        item(member, inner, out);
    }
}

/// The shortest form that keeps the value.
fn float(f: f64, out: &mut Vec<u8>) {
    let single = f as f32;
    if f64::from(single) != f {
        out.push(0xfb);
        out.extend_from_slice(&f.to_be_bytes());
        return;
    }
    match half(single) {
        Some(bits) => {
            out.push(0xf9);
            out.extend_from_slice(&bits.to_be_bytes());
        }
        None => {
            out.push(0xfa);
            out.extend_from_slice(&single.to_be_bytes());
        }
    }
}

/// The 16-bit form, where nothing is lost by it.
fn half(f: f32) -> Option<u16> {
    let bits = f.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        -127 if fraction == 0 => Some(sign),
        -14..=15 if fraction & 0x1fff == 0 => Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16),
        -24..=-15 => {
            // Subnormal: the implicit one becomes a bit of the fraction.
            let shift = (-exponent - 14 + 13) as u32;
            let whole = fraction | 0x80_0000;
            (whole & ((1 << shift) - 1) == 0).then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}
