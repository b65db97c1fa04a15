//! Equality, order and membership.

use std::cmp::Ordering;

use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row};
use crate::value::{Val, compare_numbers};

macro_rules! ordering {
    ($name:literal, $id:literal, $code:ident) => {
        Row {
            name: $name,
            cost: Cost::Standard,
            code: $code,
            overloads: &[
                concat!($id, "_bool (bool, bool) -> bool"),
                concat!($id, "_int64 (int, int) -> bool"),
                concat!($id, "_int64_double (int, double) -> bool"),
                concat!($id, "_int64_uint64 (int, uint) -> bool"),
                concat!($id, "_uint64 (uint, uint) -> bool"),
                concat!($id, "_uint64_double (uint, double) -> bool"),
                concat!($id, "_uint64_int64 (uint, int) -> bool"),
                concat!($id, "_double (double, double) -> bool"),
                concat!($id, "_double_int64 (double, int) -> bool"),
                concat!($id, "_double_uint64 (double, uint) -> bool"),
                concat!($id, "_string (string, string) -> bool"),
                concat!($id, "_bytes (bytes, bytes) -> bool"),
                concat!($id, "_timestamp (timestamp, timestamp) -> bool"),
                concat!($id, "_duration (duration, duration) -> bool"),
            ],
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    Row { name: "_==_", cost: Cost::Standard, code: equals, overloads: &["equals (A, A) -> bool"] },
    Row { name: "_!=_", cost: Cost::Standard, code: not_equals, overloads: &["not_equals (A, A) -> bool"] },
    ordering!("_<_", "less", less),
    ordering!("_<=_", "less_equals", less_equals),
    ordering!("_>_", "greater", greater),
    ordering!("_>=_", "greater_equals", greater_equals),
    Row {
        name: "@in",
        cost: Cost::Standard,
        code: contained,
        overloads: &["in_list (A, list<A>) -> bool", "in_map (A, map<A, B>) -> bool"],
    },
];

/// Orders two values of types that have an order between them; `None` where NaN takes part.
pub(crate) fn compare(a: &Val<'_>, b: &Val<'_>) -> Result<Option<Ordering>, EvalError> {
    Ok(Some(match (a, b) {
        (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
        (Val::String(a), Val::String(b)) => a.cmp(b),
        (Val::Bytes(a), Val::Bytes(b)) => a.cmp(b),
        (Val::Timestamp(a), Val::Timestamp(b)) => a.cmp(b),
        (Val::Duration(a), Val::Duration(b)) => a.cmp(b),
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            return Ok(compare_numbers(a, b));
        }
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn ordered<'a>(args: &[Val<'a>], holds: fn(Ordering) -> bool) -> Answer<'a> {
    match args {
        [a, b] => Ok(Val::Bool(compare(a, b)?.is_some_and(holds))),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn less<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    ordered(args, Ordering::is_ge)
}

fn equals<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match args {
        [a, b] => Ok(Val::Bool(a.equals(b))),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn not_equals<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match args {
        [a, b] => Ok(Val::Bool(!a.equals(b))),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn contained<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match args {
        [value, Val::List(list)] => {
            for item in list.iter() {
                if item?.equals(value) {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        [value, Val::Map(map)] => Ok(Val::Bool(map.get(value).is_some())),
        [value, object @ (Val::Object(..) | Val::Message(_))] => {
            let name = value.as_str().ok_or(EvalError::NoSuchOverload)?;
            Ok(Val::Bool(object.field(name).is_some()))
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}
