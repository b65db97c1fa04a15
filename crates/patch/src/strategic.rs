//! Strategic merge patch: lists merge by the keys of the schema, directives say what else to do.

use std::collections::{HashMap, HashSet};

use ironkeel_object::{Map, Value};
use ironkeel_schema::{Field, Shape, TypeId};

use crate::PatchError;
use crate::shown::{shown, type_name};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `target` by the schema of `type_id`. On an error the target is left half changed.
pub fn strategic_merge(target: &mut Value, patch: &Value, type_id: TypeId) -> Result<(), PatchError> {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => merge_map(target, patch, Some(type_id)),
        _ => Err(malformed("cannot unmarshal a patch that is not an object".into())),
    }
}

fn malformed(message: String) -> PatchError {
    PatchError::Malformed(message)
}

fn unknown_directive(patch: &Map) -> PatchError {
    let directive = match patch.get(DIRECTIVE) {
        Some(Value::String(text)) => text.to_string(),
        Some(Value::Null) | None => "%!s(<nil>)".to_owned(),
        Some(other) => format!("%!s({}={})", type_name(other), shown(other)),
    };
    malformed(format!("unknown patch type: {directive} in map: {}", shown(&Value::Object(patch.clone()))))
}

fn not_a_list(order: &Value) -> PatchError {
    malformed(format!("expected a []interface {{}}, but received a {}", type_name(order)))
}

/// The row of a member's objects: the struct itself, or a list's elements.
fn row_of(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) => Some(*id),
        Shape::List(inner) | Shape::Map(inner) => row_of(inner),
        _ => None,
    }
}

fn merge_map(target: &mut Map, patch: &Map, row: Option<TypeId>) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "merge" => {}
            "replace" => {
                *target = patch.clone();
                strip_map(target);
                return Ok(());
            }
            "delete" => {
                *target = Map::new();
                return Ok(());
            }
            _ => return Err(unknown_directive(patch)),
        },
        Some(_) => return Err(unknown_directive(patch)),
    }
    retain_keys(target, patch)?;
    // Members come and go together at the end: one at a time, each would move all behind it.
    let (mut new, mut gone) = (Vec::new(), Vec::new());
    for (name, change) in patch.iter() {
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_PRIMITIVES) {
            let Value::Array(taken) = change else {
                return Err(malformed("invalid patch format of primitive list".into()));
            };
            if let Some(Value::Array(elements)) = target.get_mut(list) {
                let taken: HashSet<String> = taken.iter().map(identity).collect();
                elements.retain(|e| !taken.contains(&identity(e)));
            }
            continue;
        }
        let field = row.and_then(|r| r.get().field(name));
        let child = field.and_then(|f| row_of(&f.shape));
        match (target.get_mut(name), change) {
            (here, Value::Null) => gone.extend(here.map(|_| name.as_ref())),
            (Some(Value::Object(here)), Value::Object(change)) => {
                // A map of structs has free names: its members' rows are the struct's.
                let row = match field.map(|f| f.shape) {
                    Some(Shape::Map(_)) => None,
                    _ => child,
                };
                merge_map(here, change, row)?;
            }
            (Some(Value::Array(here)), Value::Array(change)) => {
                let order = element_order(patch, name)?;
                if let Some(order) = order {
                    check_order(change, order, field.and_then(|f| f.merge_key))?;
                }
                merge_list(here, change, field, child, order)?;
            }
            // There is nothing to delete.
            (here, Value::Object(change)) if change.str(DIRECTIVE) == Some("delete") => {
                gone.extend(here.map(|_| name.as_ref()));
            }
            (_, change) => {
                let mut value = change.clone();
                strip(&mut value);
                new.push((name.clone(), value));
            }
        }
    }
    if !gone.is_empty() {
        // A patch's members stand in order.
        target.retain(|name, _| gone.binary_search(&name).is_err());
    }
    target.extend(new);
    // An order for a list that the patch does not change otherwise.
    for (name, order) in patch.iter() {
        let Some(list) = name.strip_prefix(ELEMENT_ORDER) else { continue };
        let field = row.and_then(|r| r.get().field(list));
        let Value::Array(order) = order else {
            return Err(not_a_list(order));
        };
        if let Some(merge_key) = field.filter(|f| f.patch_merge).and_then(|f| f.merge_key) {
            name_all(order, merge_key)?;
        }
        if !patch.contains_key(list)
            && let Some(Value::Array(here)) = target.get_mut(list)
        {
            let before = here.clone();
            reorder(here, order, &before, field.and_then(|f| f.merge_key));
        }
    }
    Ok(())
}

fn element_order<'p>(patch: &'p Map, list: &str) -> Result<Option<&'p [Value]>, PatchError> {
    match patch.get(&format!("{ELEMENT_ORDER}{list}")) {
        None => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(other) => Err(not_a_list(other)),
    }
}

/// Each element of an order must say which element of the list it means.
fn name_all(order: &[Value], merge_key: &str) -> Result<(), PatchError> {
    for (i, element) in order.iter().enumerate() {
        if !matches!(element, Value::Object(_)) {
            return Err(malformed(format!("value for key {i} is not a map")));
        }
        if element.get(merge_key).is_none() {
            return Err(malformed(format!("map: {} does not contain declared merge key: {merge_key}", shown(element))));
        }
    }
    Ok(())
}

/// What a patch sets in a list must stand in the order that it asks for.
fn check_order(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), PatchError> {
    let same = |a: &Value, b: &Value| match merge_key {
        Some(key) if matches!(a, Value::Object(_)) => a.get(key) == b.get(key),
        _ => a == b,
    };
    if order.is_empty() {
        return Ok(());
    }
    let set = patch.iter().filter(|e| directive_of(e).is_none());
    let mut rest = order.iter();
    let mut ordered = true;
    for element in set {
        ordered &= rest.any(|o| same(element, o));
    }
    if ordered {
        return Ok(());
    }
    let list = |elements: &[Value]| shown(&Value::Array(elements.to_vec()));
    Err(malformed(format!(
        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
        list(patch),
        list(order)
    )))
}

fn retain_keys(target: &mut Map, patch: &Map) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(names) = directive else {
        return Err(malformed("invalid patch format of retainKeys".into()));
    };
    let names: HashSet<&str> = names.iter().filter_map(Value::as_str).collect();
    let listed = |name: &str| names.contains(name);
    let unlisted = patch.iter().any(|(name, change)| !name.starts_with('$') && !change.is_null() && !listed(name));
    if unlisted {
        return Err(malformed("invalid patch format of retainKeys".into()));
    }
    target.retain(|name, _| listed(name));
    Ok(())
}

fn merge_list(
    target: &mut Vec<Value>,
    patch: &[Value],
    field: Option<&Field>,
    row: Option<TypeId>,
    order: Option<&[Value]>,
) -> Result<(), PatchError> {
    let Some(field) = field.filter(|f| f.patch_merge) else {
        *target = patch.to_vec();
        target.iter_mut().for_each(strip);
        return Ok(());
    };
    let before = target.clone();
    let objects = patch.iter().chain(target.iter()).any(|e| matches!(e, Value::Object(_)));
    if !objects {
        let mut there: HashSet<String> = target.iter().map(identity).collect();
        for element in patch {
            if there.insert(identity(element)) {
                target.push(element.clone());
            }
        }
        reorder(target, order.unwrap_or(patch), &before, None);
        return Ok(());
    }
    let Some(merge_key) = field.merge_key else {
        return Err(malformed(format!("cannot merge list {} without a merge key", field.name)));
    };
    if patch.iter().any(|e| directive_of(e) == Some("replace")) {
        *target = patch.iter().filter(|e| directive_of(e).is_none()).cloned().collect();
        target.iter_mut().for_each(strip);
        return Ok(());
    }
    let mut changed = Vec::new();
    // Where elements of each key stand; what is deleted leaves its slot empty.
    let mut places: HashMap<String, Vec<usize>> = HashMap::with_capacity(target.len());
    for (at, key) in target.iter().enumerate().filter_map(|(at, e)| Some((at, e.get(merge_key)?))) {
        places.entry(identity(key)).or_default().push(at);
    }
    let mut slots: Vec<Option<Value>> = std::mem::take(target).into_iter().map(Some).collect();
    for element in patch {
        let Value::Object(change) = element else {
            let (before, patch) = (Value::Array(before), Value::Array(patch.to_vec()));
            return Err(malformed(format!(
                "list element types are not identical: [{} {}]",
                shown(&before),
                shown(&patch)
            )));
        };
        if change.get(DIRECTIVE).is_some_and(|d| !matches!(d.as_str(), Some("delete" | "merge" | "replace"))) {
            return Err(unknown_directive(change));
        }
        let Some(key) = change.get(merge_key) else {
            return Err(malformed(format!("map: {} does not contain declared merge key: {merge_key}", shown(element))));
        };
        let at = places.entry(identity(key)).or_default();
        match (directive_of(element), at.first()) {
            (Some("delete"), _) => at.drain(..).for_each(|at| slots[at] = None),
            (_, Some(at)) => {
                if let Some(Value::Object(here)) = &mut slots[*at] {
                    merge_map(here, change, row)?;
                }
                changed.push(element.clone());
            }
            (_, None) => {
                let mut value = element.clone();
                strip(&mut value);
                at.push(slots.len());
                slots.push(Some(value));
                changed.push(element.clone());
            }
        }
    }
    target.extend(slots.into_iter().flatten());
    reorder(target, order.unwrap_or(&changed), &before, Some(merge_key));
    Ok(())
}

fn directive_of(value: &Value) -> Option<&str> {
    value.get(DIRECTIVE).and_then(Value::as_str)
}

/// Puts the elements named by `order` in that order, and the others in the order they had before;
/// the two runs are joined by the positions that elements had before, new ones as early as can be.
fn reorder(list: &mut Vec<Value>, order: &[Value], before: &[Value], merge_key: Option<&str>) {
    let name = |element: &Value| match merge_key {
        Some(key) => element.get(key).map(identity),
        None => Some(identity(element)),
    };
    let places = |list: &[Value]| {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(list.len());
        for (at, name) in list.iter().enumerate().filter_map(|(at, e)| Some((at, name(e)?))) {
            places.entry(name).or_insert(at);
        }
        places
    };
    let (ordered, earlier) = (places(order), places(before));
    // Elements with their places in the order, and before.
    let (mut named, mut others): (Vec<_>, Vec<_>) = std::mem::take(list)
        .into_iter()
        .map(|element| {
            let name = name(&element);
            let place = |places: &HashMap<String, usize>| name.as_ref().and_then(|n| places.get(n)).copied();
            (place(&ordered), place(&earlier), element)
        })
        .partition(|(at, ..)| at.is_some());
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(_, before, _)| before.unwrap_or(usize::MAX));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some((_, n, _)), Some((_, o, _))) = (named.peek(), others.peek()) {
        let other_first = matches!((o, n), (Some(o), Some(n)) if o < n);
        list.extend(if other_first { others.next() } else { named.next() }.map(|(.., element)| element));
    }
    list.extend(named.chain(others).map(|(.., element)| element));
}

/// A value as a text that is another for every other value: what it is looked up by.
fn identity(value: &Value) -> String {
    format!("{value:?}")
}

/// Takes the directives out of a value that is taken over as it is, and what they delete.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => strip_map(map),
        Value::Array(elements) => {
            elements.retain(|e| directive_of(e).is_none_or(|d| d == "merge"));
            elements.iter_mut().for_each(strip);
        }
        _ => {}
    }
}

fn strip_map(map: &mut Map) {
    map.retain(|name, value| {
        let directive = name == DIRECTIVE
            || name == RETAIN_KEYS
            || name.starts_with(DELETE_PRIMITIVES)
            || name.starts_with(ELEMENT_ORDER);
        if !directive && !value.is_null() {
            strip(value);
        }
        !directive && !value.is_null()
    });
}
