//! What the schema's rows alone tell: declared defaults, required fields, closed enums, keys of
//! lists. Rules that need code stand in the kind's own file.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ironkeel_object::Value;
use ironkeel_schema::{Field, ListType, Resource, Shape, TypeId};
use parking_lot::Mutex;

use crate::error::{Errors, FieldErrorKind, shown};
use crate::{FieldError, Path};

/// How much of the schema's rules applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Nothing: the kind's own rules say all.
    Nothing,
    /// Closed enums only: the kind's own rules say the rest, with upstream's exceptions.
    Enums,
    /// Required fields and the keys of lists too.
    Full,
}

fn nested(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(t) => Some(*t),
        Shape::List(s) | Shape::Map(s) => nested(s),
        _ => None,
    }
}

/// Whether a type or anything below it declares a default; recursion ends at types seen before.
fn has_defaults(id: TypeId) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<TypeId, bool>>> = LazyLock::new(Mutex::default);
    let known = |id| KNOWN.lock().get(&id).copied();
    if let Some(k) = known(id) {
        return k;
    }
    let mut seen = vec![id];
    let mut next = 0;
    let mut found = false;
    while next < seen.len() && !found {
        for f in seen[next].get().fields {
            found |= declared(f).is_some();
            if let Some(t) = nested(&f.shape).filter(|t| !seen.contains(t)) {
                seen.push(t);
            }
        }
        next += 1;
    }
    KNOWN.lock().insert(id, found);
    found
}

fn declared(f: &Field) -> Option<Value> {
    match f.default?.trim() {
        "true" => Some(Value::Bool(true)),
        "false" => f.pointer.then_some(Value::Bool(false)),
        "\"\"" | "0" => None,
        text => match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            Some(s) => Some(s.into()),
            None => text.parse::<i64>().ok().map(Value::from),
        },
    }
}

/// Fills in the defaults that the schema declares, below members that are present.
pub(crate) fn defaults(id: TypeId, value: &mut Value) {
    if !has_defaults(id) {
        return;
    }
    let Some(map) = value.as_object_mut() else { return };
    for f in id.get().fields {
        if let Some(d) = declared(f) {
            let blank = match map.get(f.name) {
                None | Some(Value::Null) => true,
                Some(Value::String(s)) => s.is_empty() && !f.pointer,
                Some(v) => !f.pointer && v.as_i64() == Some(0),
            };
            if blank {
                map.insert(f.name, d);
            }
        }
        if let Some(t) = nested(&f.shape).filter(|t| has_defaults(*t)) {
            match map.get_mut(f.name) {
                Some(Value::Array(items)) => items.iter_mut().for_each(|v| defaults(t, v)),
                Some(Value::Object(m)) if matches!(f.shape, Shape::Map(_)) => {
                    m.iter_mut().for_each(|(_, v)| defaults(t, v));
                }
                Some(v @ Value::Object(_)) => defaults(t, v),
                _ => {}
            }
        }
    }
}

/// The schema's rules for an object of a resource; `status` and `metadata` are left out.
pub(crate) fn validate(resource: &Resource, object: &Value, depth: Depth, e: &mut Errors) {
    let Some(map) = object.as_object().filter(|_| depth != Depth::Nothing) else { return };
    for f in resource.type_id.get().fields {
        if matches!(f.name, "status" | "metadata" | "apiVersion" | "kind") {
            continue;
        }
        field(f, map.get(f.name), &Path::new(f.name), depth, e);
    }
}

fn blank(f: &Field, value: Option<&Value>) -> bool {
    match (&f.shape, value) {
        // A zero number or false cannot be told from an absent one, unless it is a pointer.
        (Shape::Bool | Shape::Int32 | Shape::Int64 | Shape::Float64, _) => f.pointer && value.is_none(),
        (_, None | Some(Value::Null)) => true,
        (Shape::Struct(_), Some(_)) => false,
        (_, Some(v)) => matches!(v, Value::String(_) | Value::Array(_) | Value::Object(_)) && v.is_empty(),
    }
}

fn field(f: &Field, value: Option<&Value>, path: &Path, depth: Depth, e: &mut Errors) {
    if depth == Depth::Full && f.required && blank(f, value) {
        e.required(path, "");
        return;
    }
    let Some(value) = value else { return };
    if let (Depth::Full, Some(items)) = (depth, value.as_array()) {
        unique(f.list, items, path, e);
    }
    shape(&f.shape, value, path, depth, e);
}

fn unique(list: ListType, items: &[Value], path: &Path, e: &mut Errors) {
    let key = |v: &Value| -> Option<String> {
        match list {
            ListType::Set => Some(shown(v)),
            ListType::Map(keys) => {
                let parts: Vec<String> = keys
                    .iter()
                    .filter_map(|k| v.get(k).map(|x| format!("{}:{}", shown(&Value::from(*k)), shown(x))))
                    .collect();
                Some(format!("{{{}}}", parts.join(",")))
            }
            _ => None,
        }
    };
    let mut seen: HashSet<String> = HashSet::new();
    for (i, v) in items.iter().enumerate() {
        let Some(k) = key(v) else { return };
        if !seen.insert(k) {
            let mut shown_value = v.clone();
            if let (ListType::Map(keys), Some(m)) = (list, shown_value.as_object_mut()) {
                m.retain(|name, _| keys.contains(&name));
            }
            e.duplicate(&path.index(i), shown_value);
        }
    }
}

fn shape(s: &Shape, value: &Value, path: &Path, depth: Depth, e: &mut Errors) {
    match (s, value) {
        (Shape::Enum(set), Value::String(v)) if set.closed && !v.is_empty() && !set.values.contains(&v.as_str()) => {
            e.not_supported(path, v.as_str(), set.values);
        }
        (Shape::Struct(t), Value::Object(m)) => {
            for f in t.get().fields {
                field(f, m.get(f.name), &path.child(f.name), depth, e);
            }
        }
        (Shape::List(inner), Value::Array(items)) => {
            for (i, v) in items.iter().enumerate() {
                shape(inner, v, &path.index(i), depth, e);
            }
        }
        (Shape::Map(inner), Value::Object(m)) => {
            for (k, v) in m.iter() {
                shape(inner, v, &path.key(k), depth, e);
            }
        }
        _ => {}
    }
}

/// Joins a kind's own findings with the schema's: a field that has an error of the same kind
/// already does not get a second one.
pub(crate) fn join(own: Errors, schema: Errors) -> Vec<FieldError> {
    let mut all = own.into_vec();
    let told: HashSet<(&str, FieldErrorKind)> = all.iter().map(|e| (e.path.as_str(), e.kind)).collect();
    let covered = |s: &FieldError| {
        let told = |kind| told.contains(&(s.path.as_str(), kind));
        told(s.kind) || (s.kind == FieldErrorKind::NotSupported && told(FieldErrorKind::Invalid))
    };
    let extra: Vec<FieldError> = schema.into_vec().into_iter().filter(|s| !covered(s)).collect();
    all.extend(extra);
    all
}
