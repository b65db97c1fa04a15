//! `"%s has %d".format([…])`.

use std::fmt::Write as _;

use regex::Regex;

use super::convert::double_text;
use crate::functions::{Answer, refuse, text};
use crate::value::{List, MapVal, Val};
use crate::{EvalError, time};

/// Digits after the point where the format says none.
const DEFAULT_PRECISION: usize = 6;
/// Most digits that a format may ask for.
const MAX_PRECISION: usize = 1000;
/// Deepest lists and maps that are written.
const MAX_DEPTH: usize = 100;

type Written = Result<(), EvalError>;

pub(super) fn format<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let template = text(args, 0)?;
    let Some(Val::List(values)) = args.get(1) else { return Err(EvalError::NoSuchOverload) };
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let Ok(n) = after[..digits].parse::<usize>() else {
                return refuse(
                    "could not parse formatting clause: error while parsing precision: unexpected end of string",
                );
            };
            precision = Some(n.min(MAX_PRECISION));
            rest = &after[digits..];
        }
        let Some(verb) = rest.chars().next() else {
            return refuse("unexpected end of string");
        };
        rest = &rest[verb.len_utf8()..];
        let Some(value) = values.get(next) else { return refuse(format!("index {next} out of range")) };
        next += 1;
        clause(&mut out, verb, precision, &value?)?;
    }
    out.push_str(rest);
    Ok(Val::from(out))
}

fn clause(out: &mut String, verb: char, precision: Option<usize>, value: &Val<'_>) -> Written {
    let type_name = || value.type_of().runtime_name().to_owned();
    let wrong = |clause: &str, takes: &str| {
        refuse(format!(
            "error during formatting: {clause} clause can only be used on {takes}, was given {}",
            type_name()
        ))
    };
    // Writing to a String cannot fail.
    let _ = match (verb, value) {
        ('s', value) => return plain(out, value, 0),
        ('d', Val::Int(i)) => write!(out, "{i}"),
        ('d', Val::Uint(u)) => write!(out, "{u}"),
        ('d', _) => return wrong("decimal", "integers"),
        ('f', Val::Double(d)) => {
            fixed(out, *d, precision.unwrap_or(DEFAULT_PRECISION));
            Ok(())
        }
        ('f', _) => return wrong("fixed-point", "doubles"),
        ('e', Val::Double(d)) => {
            scientific(out, *d, precision.unwrap_or(DEFAULT_PRECISION));
            Ok(())
        }
        ('e', _) => return wrong("scientific", "doubles"),
        ('b', Val::Int(i)) if *i < 0 => write!(out, "-{:b}", i.unsigned_abs()),
        ('b', Val::Int(i)) => write!(out, "{i:b}"),
        ('b', Val::Uint(u)) => write!(out, "{u:b}"),
        ('b', Val::Bool(b)) => write!(out, "{}", u8::from(*b)),
        ('b', _) => return wrong("binary", "integers and bools"),
        ('o', Val::Int(i)) if *i < 0 => write!(out, "-{:o}", i.unsigned_abs()),
        ('o', Val::Int(i)) => write!(out, "{i:o}"),
        ('o', Val::Uint(u)) => write!(out, "{u:o}"),
        ('o', _) => return wrong("octal", "integers"),
        ('x' | 'X', value) => {
            let digits = match value {
                Val::Int(i) if *i < 0 => format!("-{:x}", i.unsigned_abs()),
                Val::Int(i) => format!("{i:x}"),
                Val::Uint(u) => format!("{u:x}"),
                Val::String(s) => hex(s.as_bytes()),
                Val::Bytes(b) => hex(b),
                _ => return wrong("hexadecimal", "integers, byte buffers, and strings"),
            };
            out.push_str(&if verb == 'X' { digits.to_uppercase() } else { digits });
            Ok(())
        }
        (other, _) => {
            return refuse(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\""));
        }
    };
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn fixed(out: &mut String, d: f64, precision: usize) {
    if d.is_nan() {
        out.push_str("NaN");
    } else if d.is_infinite() {
        out.push_str(if d > 0.0 { "∞" } else { "-∞" });
    } else {
        let _ = write!(out, "{d:.precision$}");
    }
}

fn scientific(out: &mut String, d: f64, precision: usize) {
    if !d.is_finite() {
        return fixed(out, d, precision);
    }
    let text = format!("{d:.precision$e}");
    if let Some((mantissa, exponent)) = text.split_once('e') {
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
    }
}

/// What `%s` writes.
fn plain(out: &mut String, value: &Val<'_>, depth: usize) -> Written {
    if depth > MAX_DEPTH {
        return refuse("error during formatting: value is nested too deeply");
    }
    match value {
        Val::List(list) => list_text(out, list, depth),
        Val::Map(map) => map_text(out, map, depth),
        Val::String(s) => {
            out.push_str(s);
            Ok(())
        }
        Val::Null => {
            out.push_str("null");
            Ok(())
        }
        Val::Double(d) => {
            out.push_str(&double_text(*d));
            Ok(())
        }
        Val::Int(_) | Val::Uint(_) | Val::Bool(_) => {
            out.push_str(&super::operators::key_text(value));
            Ok(())
        }
        Val::Timestamp(t) => {
            out.push_str(&time::format(*t));
            Ok(())
        }
        Val::Duration(d) => {
            out.push_str(&time::format_duration(*d));
            Ok(())
        }
        Val::Bytes(b) => {
            out.push_str(&String::from_utf8_lossy(b));
            Ok(())
        }
        Val::Type(t) => {
            out.push_str(t.runtime_name());
            Ok(())
        }
        other => refuse(format!(
            "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
            other.type_of().runtime_name()
        )),
    }
}

/// A value within a list or a map: as CEL would write it.
fn inner(out: &mut String, value: &Val<'_>, depth: usize) -> Written {
    match value {
        Val::String(s) => {
            let _ = write!(out, "{s:?}");
            Ok(())
        }
        Val::Bytes(b) => {
            let _ = write!(out, "b{:?}", String::from_utf8_lossy(b));
            Ok(())
        }
        Val::Timestamp(t) => {
            let _ = write!(out, "timestamp({:?})", time::format(*t));
            Ok(())
        }
        Val::Duration(d) => {
            let _ = write!(out, "duration({:?})", time::format_duration(*d));
            Ok(())
        }
        Val::Double(d) if d.is_finite() => {
            let _ = write!(out, "{d:.DEFAULT_PRECISION$}");
            Ok(())
        }
        Val::Double(d) => {
            let _ = write!(out, "{:?}", double_text(*d));
            Ok(())
        }
        other => plain(out, other, depth),
    }
}

fn list_text(out: &mut String, list: &List<'_>, depth: usize) -> Written {
    out.push('[');
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        inner(out, &item?, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

fn map_text(out: &mut String, map: &MapVal<'_>, depth: usize) -> Written {
    let mut pairs = Vec::with_capacity(map.len());
    for (key, value) in map.entries()? {
        let mut pair = (String::new(), String::new());
        inner(&mut pair.0, &key, depth + 1)?;
        inner(&mut pair.1, &value, depth + 1)?;
        pairs.push(pair);
    }
    pairs.sort();
    out.push('{');
    for (i, (key, value)) in pairs.iter().enumerate() {
        let _ = write!(out, "{}{key}:{value}", if i > 0 { ", " } else { "" });
    }
    out.push('}');
    Ok(())
}
