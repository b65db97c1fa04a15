//! From the data's tree to values, as the declared type says.
//!
//! A field of `format: date-time` is a timestamp, `duration` a duration, `byte` bytes; a `number`
//! is a double even when it was written without a fraction. A `dyn` tree is read as it stands.

use std::sync::Arc;

use base64::Engine as _;
use ironkeel_object::{Number, Timestamp, Value};

use crate::types::{ListKind, ListType, Type};
use crate::value::{List, MapVal, Val};
use crate::{EvalError, time};

static DYN: Type = Type::Dyn;
static DYN_LIST: ListType = ListType { element: Type::Dyn, kind: ListKind::Atomic };

/// Reads a tree as the type says; where the tree is of another shape, as it stands.
pub(crate) fn to_val<'a>(tree: &'a Value, ty: &'a Type) -> Result<Val<'a>, EvalError> {
    Ok(match (tree, ty) {
        (Value::Null, _) => Val::Null,
        (Value::Bool(b), _) => Val::Bool(*b),
        (Value::Number(Number::Int(i)), Type::Double) => Val::Double(*i as f64),
        (Value::Number(Number::Int(i)), Type::Uint) => Val::Uint(u64::try_from(*i).unwrap_or(0)),
        (Value::Number(Number::Int(i)), _) => Val::Int(*i),
        (Value::Number(Number::Float(f)), Type::Int) if f.fract() == 0.0 && f.abs() < 9.2e18 => Val::Int(*f as i64),
        (Value::Number(Number::Float(f)), _) => Val::Double(*f),
        (Value::String(s), Type::Timestamp) => Val::Timestamp(moment(s)?),
        (Value::String(s), Type::Duration) => Val::Duration(
            time::parse_duration(s)
                .ok_or_else(|| EvalError::Refused(format!("Invalid duration formatted string {s}")))?,
        ),
        (Value::String(s), Type::Bytes) => Val::Bytes(
            base64::engine::general_purpose::STANDARD
                .decode(s)
                .map_err(|e| EvalError::Refused(format!("Invalid byte formatted string {s}: {e}")))?
                .into(),
        ),
        (Value::String(s), _) => Val::from(s.as_str()),
        (Value::Array(items), Type::List(ty)) => Val::List(List::Tree(items, ty)),
        (Value::Array(items), _) => Val::List(List::Tree(items, &DYN_LIST)),
        (Value::Object(map), Type::Object(ty)) => Val::Object(map, ty),
        (Value::Object(map), Type::Map(ty)) => Val::Map(MapVal::Tree(map, &ty.1)),
        (Value::Object(map), _) => Val::Map(MapVal::Tree(map, &DYN)),
    })
}

fn moment(text: &str) -> Result<Timestamp, EvalError> {
    let parsed = if text.len() == 10 { Timestamp::parse(&format!("{text}T00:00:00Z")) } else { Timestamp::parse(text) };
    parsed.ok_or_else(|| EvalError::Refused(format!("Invalid date-time formatted string {text}")))
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Equality of lists: in order, or as `x-kubernetes-list-type` of the left (else the right) one says.
pub(crate) fn lists_equal<'a>(a: &List<'a>, b: &List<'a>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let kind = if *a.kind() == ListKind::Atomic { b.kind() } else { a.kind() };
    let (Ok(left), Ok(right)) = (a.iter().collect::<Result<Vec<_>, _>>(), b.iter().collect::<Result<Vec<_>, _>>())
    else {
        return false;
    };
    match kind {
        ListKind::Atomic => left.iter().zip(&right).all(|(a, b)| a.equals(b)),
        ListKind::Set => left.iter().all(|a| right.iter().any(|b| a.equals(b))),
        ListKind::Map(keys) => {
            left.iter().all(|a| right.iter().find(|b| same_keys(a, b, keys)).is_some_and(|b| a.equals(b)))
        }
    }
}

/// `a + b` of lists: appended, or the union and the merge that `x-kubernetes-list-type` says.
pub(crate) fn add_lists<'a>(a: List<'a>, b: &List<'a>) -> Result<Val<'a>, EvalError> {
    let kind = a.kind();
    let mut out = match a {
        List::Owned(items) => Arc::try_unwrap(items).unwrap_or_else(|shared| (*shared).clone()),
        tree => tree.iter().collect::<Result<Vec<_>, _>>()?,
    };
    match kind {
        ListKind::Atomic => {
            for item in b.iter() {
                out.push(item?);
            }
        }
        ListKind::Set => {
            for item in b.iter() {
                let item = item?;
                if !out.iter().any(|known| known.equals(&item)) {
                    out.push(item);
                }
            }
        }
        ListKind::Map(keys) => {
            for item in b.iter() {
                let item = item?;
                match out.iter_mut().find(|known| same_keys(known, &item, keys)) {
                    Some(known) => *known = item,
                    None => out.push(item),
                }
            }
        }
    }
    Ok(Val::from(out))
}

fn same_keys<'a>(a: &Val<'a>, b: &Val<'a>, keys: &[String]) -> bool {
    keys.iter().all(|key| {
        let name = crate::escaping::escape(key);
        let name = name.as_deref().unwrap_or(key);
        match (a.field(name), b.field(name)) {
            (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
            (None, None) => true,
            _ => false,
        }
    })
}
