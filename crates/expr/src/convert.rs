//! From the data's tree to values, as the declared type says.
//!
//! A field of `format: date-time` is a timestamp, `duration` a duration, `byte` bytes; a `number`
//! is a double even when it was written without a fraction. A `dyn` tree is read as it stands.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use base64::Engine as _;
use ironkeel_object::{Number, Timestamp, Value};

use crate::types::{ListKind, ListType, Type};
use crate::value::{List, MapKey, MapVal, Val};
use crate::{EvalError, time};

/// Longest sets of lists or objects that are compared element by element; others go by key.
const MAX_COMPARED: usize = 1000;

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
    if *kind == ListKind::Atomic {
        return left.iter().zip(&right).all(|(a, b)| a.equals(b));
    }
    if *kind == ListKind::Set && left.iter().chain(&right).any(|item| MapKey::of(item).is_none()) {
        let few = left.len() <= MAX_COMPARED;
        return few && left.iter().all(|a| right.iter().any(|b| a.equals(b)));
    }
    let by_key: BTreeMap<_, _> = right.iter().map(|item| (identity(item, kind), item)).collect();
    left.iter().all(|item| by_key.get(&identity(item, kind)).is_some_and(|other| item.equals(other)))
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
        ListKind::Set if out.iter().any(|item| MapKey::of(item).is_none()) => {
            if out.len().max(b.len()) > MAX_COMPARED {
                return Err(EvalError::CostLimitExceeded);
            }
            for item in b.iter() {
                let item = item?;
                if !out.iter().any(|known| known.equals(&item)) {
                    out.push(item);
                }
            }
        }
        kind => {
            let mut places: BTreeMap<_, _> = out.iter().enumerate().map(|(i, v)| (identity(v, kind), i)).collect();
            for item in b.iter() {
                let item = item?;
                match places.entry(identity(&item, kind)) {
                    Entry::Occupied(at) => out[*at.get()] = item,
                    Entry::Vacant(place) => {
                        place.insert(out.len());
                        out.push(item);
                    }
                }
            }
        }
    }
    Ok(Val::from(out))
}

/// What makes an element one of its set or map: the value, or the values of its keys, which schemas
/// allow to be scalars only.
fn identity<'a>(item: &Val<'a>, kind: &ListKind) -> Vec<Option<MapKey<'a>>> {
    match kind {
        ListKind::Map(keys) => {
            let value = |key: &String| {
                let name = crate::escaping::escape(key);
                item.field(name.as_deref().unwrap_or(key)).and_then(Result::ok)
            };
            keys.iter().map(|key| value(key).and_then(|v| MapKey::of(&v))).collect()
        }
        _ => vec![MapKey::of(item)],
    }
}
