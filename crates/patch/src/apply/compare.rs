//! What differs between two objects, as field sets; and the set of one configuration.

use std::cmp::Ordering;
use std::collections::HashMap;

use ironkeel_object::{Key, Map, Value};

use super::set::{field_key, node};
use super::view::View;

/// Metadata that the server keeps; nobody owns it.
fn is_stripped(name: &str) -> bool {
    matches!(
        name,
        "name"
            | "namespace"
            | "creationTimestamp"
            | "selfLink"
            | "uid"
            | "clusterName"
            | "generation"
            | "managedFields"
            | "resourceVersion"
    )
}

/// The older side of a comparison.
#[derive(Clone, Copy)]
enum Old<'a> {
    Absent,
    /// Nobody set it, but Go writes it: an empty struct, list or scalar.
    Zero,
    There(&'a Value),
}

/// Paths that were added or changed, and paths that are gone.
#[derive(Default)]
struct Difference {
    changed: Option<Value>,
    removed: Option<Value>,
}

/// Compares two versions of an object (`None`: it is new): what was added or changed, and what was removed.
pub(super) fn objects(old: Option<&Value>, new: &Value, root: View<'_>) -> (Map, Map) {
    let old = old.map_or(Old::Zero, Old::There);
    let difference = members(old, Some(new), root, Depth::Root);
    let map = |node| match node {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    (map(difference.changed), map(difference.removed))
}

#[derive(Clone, Copy, PartialEq)]
enum Depth {
    Root,
    Metadata,
    Below,
}

impl Depth {
    fn skips(self, name: &str) -> bool {
        match self {
            Depth::Root => matches!(name, "apiVersion" | "kind"),
            Depth::Metadata => is_stripped(name),
            Depth::Below => false,
        }
    }

    fn below(self, name: &str) -> Depth {
        if self == Depth::Root && name == "metadata" { Depth::Metadata } else { Depth::Below }
    }
}

fn compare(old: Old<'_>, new: Option<&Value>, view: View<'_>, depth: Depth) -> Difference {
    let object = |v: &Value| view.is_object(v);
    let list = |v: &Value| view.is_list(v);
    let old_value = match old {
        Old::There(v) => Some(v),
        _ => None,
    };
    let some = old_value.or(new);
    let both = |test: &dyn Fn(&Value) -> bool| {
        some.is_some() && old_value.is_none_or(|v| test(v) || v.is_null()) && new.is_none_or(|v| test(v) || v.is_null())
    };
    let empty = old_value.is_none_or(Value::is_empty) && new.is_none_or(Value::is_empty);
    if !empty && both(&object) {
        return members(old, new, view, depth);
    }
    if !empty && both(&list) {
        return elements(old, new, view);
    }
    leaf(old, new)
}

fn leaf(old: Old<'_>, new: Option<&Value>) -> Difference {
    let here = || Some(Value::object());
    match (old, new) {
        (Old::There(o), Some(n)) if !same(o, n) => Difference { changed: here(), removed: None },
        (Old::Zero, Some(n)) if !n.is_empty() => Difference { changed: here(), removed: None },
        (Old::Absent, Some(_)) => Difference { changed: here(), removed: None },
        (Old::There(_), None) => Difference { changed: None, removed: here() },
        _ => Difference::default(),
    }
}

/// Equal, whether or not a whole number was written with a fraction.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || a.as_f64() == b.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().zip(y.iter()).all(|((k, v), (l, w))| k == l && same(v, w))
        }
        _ => a == b,
    }
}

/// Collects the differences below a node; keys are made only where something differs.
#[derive(Default)]
struct Children {
    changed: Vec<(Key, Value)>,
    removed: Vec<(Key, Value)>,
}

impl Children {
    fn add(&mut self, key: impl Fn() -> Key, difference: Difference) {
        if let Some(changed) = difference.changed {
            self.changed.push((key(), changed));
        }
        if let Some(removed) = difference.removed {
            self.removed.push((key(), removed));
        }
    }

    /// The difference of the node itself: it was added when there was none, removed when there is none.
    fn finish(self, old: Old<'_>, new: Option<&Value>) -> Difference {
        let map = |list| Map::from_unsorted(list).0;
        Difference {
            changed: node(map(self.changed), matches!(old, Old::Absent)),
            removed: node(map(self.removed), new.is_none()),
        }
    }
}

fn members(old: Old<'_>, new: Option<&Value>, view: View<'_>, depth: Depth) -> Difference {
    static EMPTY: Map = Map::new();
    let old_map = match old {
        Old::There(Value::Object(m)) => m,
        _ => &EMPTY,
    };
    let new_map = new.and_then(Value::as_object).unwrap_or(&EMPTY);
    let mut children = Children::default();
    let mut olds = old_map.iter().peekable();
    let mut news = new_map.iter().peekable();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (Some((o, _)), Some((n, _))) => o.cmp(n),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let before = if order == Ordering::Greater { None } else { olds.next() };
        let after = if order == Ordering::Less { None } else { news.next() };
        let Some((name, _)) = before.or(after) else { break };
        if depth.skips(name) {
            continue;
        }
        let member = view.member(name);
        let older = match (before, old) {
            (Some((_, value)), _) => Old::There(value),
            (None, Old::Absent) => Old::Absent,
            (None, _) if member.always => Old::Zero,
            (None, _) => Old::Absent,
        };
        let difference = compare(older, after.map(|(_, v)| v), member.view, depth.below(name));
        children.add(|| field_key(name), difference);
    }
    children.finish(old, new)
}

fn elements(old: Old<'_>, new: Option<&Value>, view: View<'_>) -> Difference {
    let olds = match old {
        Old::There(Value::Array(a)) => a.as_slice(),
        _ => &[],
    };
    let news = new.and_then(Value::as_array).unwrap_or_default();
    let mut children = Children::default();
    // Most writes leave a list as it was, element by element.
    let aligned = olds.len() == news.len() && olds.iter().zip(news).all(|(o, n)| same_element(o, n, view));
    if aligned {
        for (o, n) in olds.iter().zip(news) {
            let difference = compare(Old::There(o), Some(n), view.element(), Depth::Below);
            children.add(|| view.key_of(o), difference);
        }
        return children.finish(old, new);
    }
    let mut by_key: HashMap<Key, (Vec<&Value>, Vec<&Value>)> = HashMap::with_capacity(olds.len());
    for o in olds {
        by_key.entry(view.key_of(o)).or_default().0.push(o);
    }
    for n in news {
        by_key.entry(view.key_of(n)).or_default().1.push(n);
    }
    for (key, (before, after)) in by_key {
        let difference = match (before.as_slice(), after.as_slice()) {
            ([], [n]) => compare(Old::Absent, Some(n), view.element(), Depth::Below),
            ([o], [n]) => compare(Old::There(o), Some(n), view.element(), Depth::Below),
            ([o], []) => compare(Old::There(o), None, view.element(), Depth::Below),
            // Elements of one key are owned together.
            (before, after) if before == after => Difference::default(),
            (_, []) => Difference { changed: None, removed: Some(Value::object()) },
            _ => Difference { changed: Some(Value::object()), removed: None },
        };
        children.add(|| key.clone(), difference);
    }
    children.finish(old, new)
}

fn same_element(a: &Value, b: &Value, view: View<'_>) -> bool {
    let keys = view.keys();
    if keys.is_empty() { a == b } else { keys.iter().all(|k| a.get(k) == b.get(k)) }
}

/// The fields that a configuration sets.
pub(super) fn set_of(config: &Value, root: View<'_>) -> Map {
    match fields(config, root, Depth::Root) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The set below a value; for a container without the container itself.
fn fields(value: &Value, view: View<'_>, depth: Depth) -> Option<Value> {
    let mut children = Vec::new();
    match value {
        Value::Object(map) if view.is_object(value) => {
            for (name, member) in map.iter().filter(|(name, _)| !depth.skips(name)) {
                let known = view.member(name);
                // Names that the schema knows are not owned for themselves.
                let itself = !known.declared || member.is_null() || member.as_object().is_some_and(Map::is_empty);
                if depth == Depth::Root && name == "metadata" && itself {
                    continue;
                }
                let below = fields(member, known.view, depth.below(name));
                children.extend(with_itself(below, itself).map(|n| (field_key(name), n)));
            }
        }
        Value::Array(list) if view.is_list(value) => {
            for element in list {
                let below = fields(element, view.element(), Depth::Below);
                children.extend(with_itself(below, true).map(|n| (view.key_of(element), n)));
            }
        }
        _ => return Some(Value::object()),
    }
    node(Map::from_unsorted(children).0, false)
}

fn with_itself(below: Option<Value>, itself: bool) -> Option<Value> {
    match below {
        Some(Value::Object(children)) if itself && !children.is_empty() => node(children, true),
        Some(other) => Some(other),
        None => itself.then(Value::object),
    }
}
