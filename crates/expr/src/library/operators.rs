//! Arithmetic, logic's helpers, indexing.

use std::sync::Arc;

use ironkeel_object::Timestamp;
use regex::Regex;

use crate::functions::{Answer, Cost, Row};
use crate::value::{Entries, MapKey, MapVal, Val};
use crate::{EvalError, convert, time};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "_+_",
        cost: Cost::Standard,
        code: add,
        overloads: &[
            "add_bytes (bytes, bytes) -> bytes",
            "add_double (double, double) -> double",
            "add_duration_duration (duration, duration) -> duration",
            "add_duration_timestamp (duration, timestamp) -> timestamp",
            "add_timestamp_duration (timestamp, duration) -> timestamp",
            "add_int64 (int, int) -> int",
            "add_list (list<A>, list<A>) -> list<A>",
            "add_string (string, string) -> string",
            "add_uint64 (uint, uint) -> uint",
        ],
    },
    Row {
        name: "_-_",
        cost: Cost::Standard,
        code: subtract,
        overloads: &[
            "subtract_double (double, double) -> double",
            "subtract_duration_duration (duration, duration) -> duration",
            "subtract_int64 (int, int) -> int",
            "subtract_timestamp_duration (timestamp, duration) -> timestamp",
            "subtract_timestamp_timestamp (timestamp, timestamp) -> duration",
            "subtract_uint64 (uint, uint) -> uint",
        ],
    },
    Row {
        name: "_*_",
        cost: Cost::Standard,
        code: multiply,
        overloads: &[
            "multiply_double (double, double) -> double",
            "multiply_int64 (int, int) -> int",
            "multiply_uint64 (uint, uint) -> uint",
        ],
    },
    Row {
        name: "_/_",
        cost: Cost::Standard,
        code: divide,
        overloads: &[
            "divide_double (double, double) -> double",
            "divide_int64 (int, int) -> int",
            "divide_uint64 (uint, uint) -> uint",
        ],
    },
    Row {
        name: "_%_",
        cost: Cost::Standard,
        code: modulo,
        overloads: &["modulo_int64 (int, int) -> int", "modulo_uint64 (uint, uint) -> uint"],
    },
    Row {
        name: "-_",
        cost: Cost::Standard,
        code: negate,
        overloads: &["negate_double (double) -> double", "negate_int64 (int) -> int"],
    },
    Row { name: "!_", cost: Cost::Standard, code: not, overloads: &["logical_not (bool) -> bool"] },
    Row {
        name: "@not_strictly_false",
        cost: Cost::Standard,
        code: identity,
        overloads: &["not_strictly_false (bool) -> bool"],
    },
    Row {
        name: "_[_]",
        cost: Cost::Standard,
        code: index,
        overloads: &[
            "index_list (list<A>, int) -> A",
            "index_map (map<A, B>, A) -> B",
            "optional_list_index_int (optional<list<A>>, int) -> optional<A>",
            "optional_map_index_value (optional<map<A, B>>, A) -> optional<B>",
        ],
    },
    Row {
        name: "_[?_]",
        cost: Cost::Standard,
        code: optional_index,
        overloads: &[
            "list_optindex_optional_int (list<A>, int) -> optional<A>",
            "optional_list_optindex_optional_int (optional<list<A>>, int) -> optional<A>",
            "map_optindex_optional_value (map<A, B>, A) -> optional<B>",
            "optional_map_optindex_optional_value (optional<map<A, B>>, A) -> optional<B>",
        ],
    },
    Row {
        name: "cel.@mapInsert",
        cost: Cost::One,
        code: map_insert,
        overloads: &[
            "@mapInsert_map_key_value (map<A, B>, A, B) -> map<A, B>",
            "@mapInsert_map_map (map<A, B>, map<A, B>) -> map<A, B>",
        ],
    },
];

fn take<'a>(args: &mut [Val<'a>], at: usize) -> Val<'a> {
    args.get_mut(at).map_or(Val::Null, |v| std::mem::replace(v, Val::Null))
}

fn overflow<T>(value: Option<T>) -> Result<T, EvalError> {
    value.ok_or(EvalError::IntegerOverflow)
}

fn unsigned<T>(value: Option<T>) -> Result<T, EvalError> {
    value.ok_or(EvalError::UnsignedIntegerOverflow)
}

fn add<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match (take(args, 0), take(args, 1)) {
        (Val::Int(a), Val::Int(b)) => Val::Int(overflow(a.checked_add(b))?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(unsigned(a.checked_add(b))?),
        (Val::Double(a), Val::Double(b)) => Val::Double(a + b),
        (Val::String(a), Val::String(b)) => {
            let mut out = String::with_capacity(a.len() + b.len());
            out.push_str(&a);
            out.push_str(&b);
            Val::from(out)
        }
        (Val::Bytes(a), Val::Bytes(b)) => Val::Bytes([&*a, &*b].concat().into()),
        (Val::List(a), Val::List(b)) => convert::add_lists(a, &b)?,
        (Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_add(b).ok_or(EvalError::DurationOverflow)?),
        (Val::Timestamp(t), Val::Duration(d)) | (Val::Duration(d), Val::Timestamp(t)) => {
            Val::Timestamp(time::shift(t, d.into()).ok_or(EvalError::TimestampOverflow)?)
        }
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn subtract<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match (take(args, 0), take(args, 1)) {
        (Val::Int(a), Val::Int(b)) => Val::Int(overflow(a.checked_sub(b))?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(unsigned(a.checked_sub(b))?),
        (Val::Double(a), Val::Double(b)) => Val::Double(a - b),
        (Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_sub(b).ok_or(EvalError::DurationOverflow)?),
        (Val::Timestamp(t), Val::Duration(d)) => {
            Val::Timestamp(time::shift(t, -i128::from(d)).ok_or(EvalError::TimestampOverflow)?)
        }
        (Val::Timestamp(a), Val::Timestamp(b)) => Val::Duration(span(a, b).ok_or(EvalError::DurationOverflow)?),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn span(a: Timestamp, b: Timestamp) -> Option<i64> {
    i64::try_from(time::nanos(a) - time::nanos(b)).ok()
}

fn multiply<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match (take(args, 0), take(args, 1)) {
        (Val::Int(a), Val::Int(b)) => Val::Int(overflow(a.checked_mul(b))?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(unsigned(a.checked_mul(b))?),
        (Val::Double(a), Val::Double(b)) => Val::Double(a * b),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn divide<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match (take(args, 0), take(args, 1)) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => return Err(EvalError::DivisionByZero),
        (Val::Int(a), Val::Int(b)) => Val::Int(overflow(a.checked_div(b))?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a / b),
        (Val::Double(a), Val::Double(b)) => Val::Double(a / b),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn modulo<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match (take(args, 0), take(args, 1)) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => return Err(EvalError::ModulusByZero),
        (Val::Int(a), Val::Int(b)) => Val::Int(overflow(a.checked_rem(b))?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a % b),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn negate<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match take(args, 0) {
        Val::Int(a) => Val::Int(overflow(a.checked_neg())?),
        Val::Double(a) => Val::Double(-a),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn not<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match args.first().and_then(Val::as_bool) {
        Some(b) => Ok(Val::Bool(!b)),
        None => Err(EvalError::NoSuchOverload),
    }
}

fn identity<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(take(args, 0))
}

/// A list's index from a number of any type that is whole.
fn position(key: &Val<'_>) -> Result<i64, EvalError> {
    match key {
        Val::Int(i) => Ok(*i),
        Val::Uint(u) => Ok(i64::try_from(*u).unwrap_or(i64::MAX)),
        Val::Double(d) if d.fract() == 0.0 && d.abs() < 9.2e18 => Ok(*d as i64),
        other => Err(EvalError::Refused(format!("unsupported index type '{}' in list", other.type_of()))),
    }
}

fn missing(key: &Val<'_>) -> EvalError {
    EvalError::NoSuchKey(key_text(key))
}

/// A key as messages show it.
pub(super) fn key_text(key: &Val<'_>) -> String {
    match key {
        Val::String(s) => s.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Bool(b) => b.to_string(),
        Val::Double(d) => d.to_string(),
        other => other.type_of().to_string(),
    }
}

fn index<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let key = take(args, 1);
    match take(args, 0) {
        Val::List(list) => {
            let at = position(&key)?;
            usize::try_from(at).ok().and_then(|i| list.get(i)).unwrap_or(Err(EvalError::IndexOutOfBounds(at)))
        }
        Val::Map(map) => map.get(&key).unwrap_or_else(|| Err(missing(&key))),
        ref object @ (Val::Object(..) | Val::Message(_)) => {
            let name = key.as_str().ok_or(EvalError::NoSuchOverload)?;
            object.field(name).unwrap_or_else(|| Err(missing(&key)))
        }
        Val::Optional(None) => Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => optional_index(&mut [(*inner).clone(), key], None),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn optional_index<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let key = take(args, 1);
    let found = match take(args, 0) {
        Val::List(list) => usize::try_from(position(&key)?).ok().and_then(|i| list.get(i)).transpose()?,
        Val::Map(map) => map.get(&key).transpose()?,
        ref object @ (Val::Object(..) | Val::Message(_)) => {
            object.field(key.as_str().ok_or(EvalError::NoSuchOverload)?).transpose()?
        }
        Val::Optional(None) => None,
        Val::Optional(Some(inner)) => return optional_index(&mut [(*inner).clone(), key], None),
        _ => return Err(EvalError::NoSuchOverload),
    };
    Ok(Val::Optional(found.map(Arc::new)))
}

fn map_insert<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let target = take(args, 0);
    let Val::Map(target) = target else { return Err(EvalError::NoSuchOverload) };
    let mut entries: Arc<Entries<'a>> = match target {
        MapVal::Owned(entries) => entries,
        MapVal::Tree(..) => {
            let keyed = target.entries()?.into_iter().filter_map(|(k, v)| Some((MapKey::of(&k)?, (k, v))));
            Arc::new(keyed.collect())
        }
    };
    let added = match (args.len(), take(args, 1)) {
        (3, key) => vec![(key, take(args, 2))],
        (_, Val::Map(other)) => other.entries()?,
        _ => return Err(EvalError::NoSuchOverload),
    };
    let into = Arc::make_mut(&mut entries);
    for (key, value) in added {
        let Some(by) = MapKey::of(&key) else { return Err(EvalError::NoSuchOverload) };
        if into.contains_key(&by) {
            let message = format!("insert failed: key {} already exists", key_text(&key));
            return Err(EvalError::Refused(message));
        }
        into.insert(by, (key, value));
    }
    Ok(Val::Map(MapVal::Owned(entries)))
}

/// Adds two values as `+` does.
pub(crate) fn sum<'a>(a: Val<'a>, b: Val<'a>) -> Answer<'a> {
    add(&mut [a, b], None)
}
