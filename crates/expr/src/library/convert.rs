//! Conversions between types, `size`, `type` and `dyn`.

use std::sync::Arc;

use ironkeel_object::Timestamp;
use regex::Regex;

use crate::functions::{Answer, Cost, Row, refuse};
use crate::value::{OpaqueVal, Val};
use crate::{EvalError, time};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "int",
        cost: Cost::Standard,
        code: to_int,
        overloads: &[
            "int64_to_int64 (int) -> int",
            "double_to_int64 (double) -> int",
            "duration_to_int64 (duration) -> int",
            "string_to_int64 (string) -> int",
            "timestamp_to_int64 (timestamp) -> int",
            "uint64_to_int64 (uint) -> int",
        ],
    },
    Row {
        name: "uint",
        cost: Cost::Standard,
        code: to_uint,
        overloads: &[
            "uint64_to_uint64 (uint) -> uint",
            "double_to_uint64 (double) -> uint",
            "int64_to_uint64 (int) -> uint",
            "string_to_uint64 (string) -> uint",
        ],
    },
    Row {
        name: "double",
        cost: Cost::Standard,
        code: to_double,
        overloads: &[
            "double_to_double (double) -> double",
            "int64_to_double (int) -> double",
            "string_to_double (string) -> double",
            "uint64_to_double (uint) -> double",
        ],
    },
    Row {
        name: "bool",
        cost: Cost::Standard,
        code: to_bool,
        overloads: &["bool_to_bool (bool) -> bool", "string_to_bool (string) -> bool"],
    },
    Row {
        name: "string",
        cost: Cost::Standard,
        code: to_string,
        overloads: &[
            "string_to_string (string) -> string",
            "bool_to_string (bool) -> string",
            "bytes_to_string (bytes) -> string",
            "double_to_string (double) -> string",
            "duration_to_string (duration) -> string",
            "int64_to_string (int) -> string",
            "timestamp_to_string (timestamp) -> string",
            "uint64_to_string (uint) -> string",
            "ip_to_string (ip) -> string",
            "cidr_to_string (cidr) -> string",
        ],
    },
    Row {
        name: "bytes",
        cost: Cost::Standard,
        code: to_bytes,
        overloads: &["bytes_to_bytes (bytes) -> bytes", "string_to_bytes (string) -> bytes"],
    },
    Row {
        name: "timestamp",
        cost: Cost::Standard,
        code: to_timestamp,
        overloads: &[
            "timestamp_to_timestamp (timestamp) -> timestamp",
            "int64_to_timestamp (int) -> timestamp",
            "string_to_timestamp (string) -> timestamp",
        ],
    },
    Row {
        name: "duration",
        cost: Cost::Standard,
        code: to_duration,
        overloads: &[
            "duration_to_duration (duration) -> duration",
            "int64_to_duration (int) -> duration",
            "string_to_duration (string) -> duration",
        ],
    },
    Row { name: "dyn", cost: Cost::Standard, code: to_dyn, overloads: &["to_dyn (A) -> dyn"] },
    Row { name: "type", cost: Cost::Standard, code: type_of, overloads: &["type (A) -> type<A>"] },
    Row {
        name: "size",
        cost: Cost::Standard,
        code: size,
        overloads: &[
            "size_bytes (bytes) -> int",
            ".bytes_size (bytes) -> int",
            "size_list (list<A>) -> int",
            ".list_size (list<A>) -> int",
            "size_map (map<A, B>) -> int",
            ".map_size (map<A, B>) -> int",
            "size_string (string) -> int",
            ".string_size (string) -> int",
        ],
    },
];

/// Whether a call of it with a literal is worked out while compiling.
pub(crate) fn is_conversion(name: &str) -> bool {
    matches!(name, "int" | "uint" | "double" | "bool" | "string" | "bytes" | "timestamp" | "duration" | "type")
}

/// The argument; each function here has one at least.
fn first<'v, 'a>(args: &'v mut [Val<'a>]) -> &'v mut Val<'a> {
    &mut args[0]
}

fn type_error<T>(args: &[Val<'_>], to: &str) -> Result<T, EvalError> {
    let from = args.first().map(|v| v.type_of().runtime_name().to_owned()).unwrap_or_default();
    refuse(format!("type conversion error from '{from}' to '{to}'"))
}

fn to_int<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(match first(args) {
        Val::Int(i) => *i,
        Val::Uint(u) => i64::try_from(*u).map_err(|_| EvalError::IntegerOverflow)?,
        Val::Double(d) if *d > i64::MIN as f64 && *d < i64::MAX as f64 => *d as i64,
        Val::Double(_) => return Err(EvalError::IntegerOverflow),
        Val::Timestamp(t) => t.seconds,
        Val::Duration(d) => *d,
        Val::String(s) => match s.parse() {
            Ok(i) => i,
            Err(_) => return type_error(args, "int"),
        },
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn to_uint<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Uint(match first(args) {
        Val::Uint(u) => *u,
        Val::Int(i) => u64::try_from(*i).map_err(|_| EvalError::UnsignedIntegerOverflow)?,
        Val::Double(d) if *d >= 0.0 && *d < u64::MAX as f64 => *d as u64,
        Val::Double(_) => return Err(EvalError::UnsignedIntegerOverflow),
        Val::String(s) => match s.parse() {
            Ok(u) => u,
            Err(_) => return type_error(args, "uint"),
        },
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn to_double<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Double(match first(args) {
        Val::Double(d) => *d,
        Val::Int(i) => *i as f64,
        Val::Uint(u) => *u as f64,
        Val::String(s) => match s.parse() {
            Ok(d) => d,
            Err(_) => return type_error(args, "double"),
        },
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn to_bool<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(match first(args) {
        Val::Bool(b) => *b,
        Val::String(s) => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return type_error(args, "bool"),
        },
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

/// A double as Go's `%g` shows it.
pub(crate) fn double_text(d: f64) -> String {
    if d.is_nan() {
        return "NaN".into();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let exponent = if d == 0.0 { 0 } else { d.abs().log10().floor() as i32 };
    if (-5..21).contains(&exponent) {
        return d.to_string();
    }
    let text = format!("{d:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

fn to_string<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match first(args) {
        Val::String(s) => Val::String(s.clone()),
        Val::Bool(b) => Val::from(b.to_string()),
        Val::Int(i) => Val::from(i.to_string()),
        Val::Uint(u) => Val::from(u.to_string()),
        Val::Double(d) => Val::from(double_text(*d)),
        Val::Timestamp(t) => Val::from(time::format(*t)),
        Val::Duration(d) => Val::from(time::format_duration(*d)),
        Val::Bytes(b) => match std::str::from_utf8(b) {
            Ok(s) => Val::from(s.to_owned()),
            Err(_) => return refuse("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Val::Opaque(o) => match &**o {
            OpaqueVal::Ip(ip) => Val::from(ip.to_string()),
            OpaqueVal::Cidr(cidr) => Val::from(cidr.to_string()),
            _ => return Err(EvalError::NoSuchOverload),
        },
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn to_bytes<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match first(args) {
        Val::Bytes(b) => Val::Bytes(b.clone()),
        Val::String(s) => Val::Bytes(Arc::from(s.as_bytes())),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn to_timestamp<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let parsed = match first(args) {
        Val::Timestamp(t) => Some(*t),
        Val::Int(seconds) => Some(Timestamp { seconds: *seconds, nanos: 0 }),
        Val::String(s) => match Timestamp::parse(s) {
            None => return type_error(args, "google.protobuf.Timestamp"),
            known => known,
        },
        _ => return Err(EvalError::NoSuchOverload),
    };
    match parsed.and_then(|t| time::shift(t, 0)) {
        Some(t) => Ok(Val::Timestamp(t)),
        None => Err(EvalError::TimestampOverflow),
    }
}

fn to_duration<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Duration(match first(args) {
        Val::Duration(d) => *d,
        Val::Int(nanos) => *nanos,
        Val::String(s) => match ironkeel_object::parse_go_duration(s) {
            Some(d) => d,
            None => return type_error(args, "google.protobuf.Duration"),
        },
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn to_dyn<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(std::mem::replace(first(args), Val::Null))
}

fn type_of<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Type(first(args).type_of()))
}

fn size<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match first(args) {
        sized @ (Val::String(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) | Val::Object(..)) => {
            Ok(Val::Int(sized.size() as i64))
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}
