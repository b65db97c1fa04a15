//! Optional values.

use std::sync::Arc;

use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row};
use crate::value::Val;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "optional.of", cost: Cost::One, code: of, overloads: &["optional_of (A) -> optional<A>"] },
    Row {
        name: "optional.ofNonZeroValue",
        cost: Cost::One,
        code: of_non_zero,
        overloads: &["optional_ofNonZeroValue (A) -> optional<A>"],
    },
    Row { name: "optional.none", cost: Cost::One, code: none, overloads: &["optional_none () -> optional<A>"] },
    Row {
        name: "optional.unwrap",
        cost: Cost::One,
        code: unwrap,
        overloads: &["optional_unwrap (list<optional<A>>) -> list<A>"],
    },
    Row {
        name: "unwrapOpt",
        cost: Cost::One,
        code: unwrap,
        overloads: &[".optional_unwrapOpt (list<optional<A>>) -> list<A>"],
    },
    Row { name: "value", cost: Cost::One, code: value, overloads: &[".optional_value (optional<A>) -> A"] },
    Row {
        name: "hasValue",
        cost: Cost::One,
        code: has_value,
        overloads: &[".optional_hasValue (optional<A>) -> bool"],
    },
    Row {
        name: "or",
        cost: Cost::One,
        code: or,
        overloads: &[".optional_or_optional (optional<A>, optional<A>) -> optional<A>"],
    },
    Row {
        name: "orValue",
        cost: Cost::One,
        code: or_value,
        overloads: &[".optional_orValue_value (optional<A>, A) -> A"],
    },
    Row { name: "first", cost: Cost::One, code: first, overloads: &[".list_first (list<A>) -> optional<A>"] },
    Row { name: "last", cost: Cost::One, code: last, overloads: &[".list_last (list<A>) -> optional<A>"] },
];

fn some(value: Val<'_>) -> Val<'_> {
    Val::Optional(Some(Arc::new(value)))
}

fn take<'a>(args: &mut [Val<'a>], at: usize) -> Val<'a> {
    args.get_mut(at).map_or(Val::Null, |v| std::mem::replace(v, Val::Null))
}

fn of<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(some(take(args, 0)))
}

/// Whether it is what its type begins with: 0, "", [], …
pub(crate) fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null => true,
        Val::Bool(b) => !b,
        Val::Int(i) => *i == 0,
        Val::Uint(u) => *u == 0,
        Val::Double(d) => *d == 0.0,
        Val::String(s) => s.is_empty(),
        Val::Bytes(b) => b.is_empty(),
        Val::Duration(d) => *d == 0,
        Val::Timestamp(t) => t.seconds == -62_135_596_800 && t.nanos == 0,
        Val::List(l) => l.is_empty(),
        Val::Map(m) => m.is_empty(),
        Val::Object(m, _) => m.is_empty(),
        Val::Message(m) => m.fields.is_empty(),
        Val::Optional(o) => o.is_none(),
        _ => false,
    }
}

fn of_non_zero<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let value = take(args, 0);
    Ok(if is_zero(&value) { Val::Optional(None) } else { some(value) })
}

fn none<'a>(_: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Optional(None))
}

fn inner<'a>(value: Val<'a>) -> Result<Option<Val<'a>>, EvalError> {
    match value {
        Val::Optional(o) => Ok(o.map(|v| (*v).clone())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn unwrap<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let Val::List(list) = take(args, 0) else { return Err(EvalError::NoSuchOverload) };
    let mut out = Vec::new();
    for item in list.iter() {
        out.extend(inner(item?)?);
    }
    Ok(Val::from(out))
}

fn value<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    inner(take(args, 0))?.ok_or(EvalError::NoneDereference)
}

fn has_value<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    inner(take(args, 0)).map(|v| Val::Bool(v.is_some()))
}

fn or<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match take(args, 0) {
        Val::Optional(None) => Ok(take(args, 1)),
        some @ Val::Optional(_) => Ok(some),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn or_value<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(match inner(take(args, 0))? {
        Some(value) => value,
        None => take(args, 1),
    })
}

fn end<'a>(args: &mut [Val<'a>], at: impl Fn(usize) -> usize) -> Answer<'a> {
    let Val::List(list) = take(args, 0) else { return Err(EvalError::NoSuchOverload) };
    Ok(Val::Optional(list.get(at(list.len())).transpose()?.map(Arc::new)))
}

fn first<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    end(args, |_| 0)
}

fn last<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    end(args, |len| len.wrapping_sub(1))
}
