//! Field sets as FieldsV1 trees. A node that is empty, or has the member `.`, is in the set
//! itself; other members are the paths below it.

use std::fmt::Write as _;

use ironkeel_object::{Key, Map, Number, Value};

use super::view::Default;

/// The member that puts a node with children into the set.
const SELF: &str = ".";

/// A node from its children and whether it is in the set itself; `None` when neither.
pub(super) fn node(mut children: Map, member: bool) -> Option<Value> {
    if children.is_empty() {
        return member.then(Value::object);
    }
    if member {
        children.insert(SELF, Value::object());
    }
    Some(Value::Object(children))
}

pub(super) fn is_member(node: &Map) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn children(node: &Map) -> impl Iterator<Item = (&Key, &Map)> {
    node.iter().filter(|(k, _)| *k != SELF).filter_map(|(k, v)| Some((k, v.as_object()?)))
}

/// Whether a client's set can be read: an object whose members are path elements, all the way down. Elements of a kind
/// that nobody knows are left alone.
pub(super) fn readable(set: &Value) -> bool {
    let Value::Object(members) = set else { return false };
    members.iter().all(|(key, below)| {
        key.as_ref() == SELF
            || match key.split_at_checked(2) {
                Some(("f:", _)) => readable(below),
                Some(("v:", json)) => json_like(json) && readable(below),
                Some(("k:", json)) => json.starts_with('{') && json.ends_with('}') && readable(below),
                Some(("i:", index)) => index.parse::<i64>().is_ok() && readable(below),
                Some((kind, _)) => kind.ends_with(':'),
                None => false,
            }
    })
}

/// Whether this looks like a JSON value: enough to tell a set from garbage.
fn json_like(json: &str) -> bool {
    json.parse::<f64>().is_ok()
        || matches!(json, "true" | "false" | "null")
        || (json.len() > 1 && json.starts_with(['"', '[', '{']) && json.ends_with(['"', ']', '}']))
}

/// Adds `b`'s paths to the tree `a`. Both are roots: the root itself is never a member.
pub(super) fn union(a: &mut Map, b: &Map) {
    let mut new = Vec::new();
    for (key, below) in children(b) {
        match a.get_mut(key) {
            Some(Value::Object(here)) => {
                let member = is_member(here) || is_member(below);
                union(here, below);
                if member && !here.is_empty() {
                    here.insert(SELF, Value::object());
                }
            }
            _ => new.push((key.clone(), Value::Object(below.clone()))),
        }
    }
    a.extend(new);
}

/// Takes `b`'s paths out of the tree `a`.
pub(super) fn difference(a: &mut Map, b: &Map) {
    let mut emptied = Vec::new();
    for (key, gone) in children(b) {
        let Some(Value::Object(here)) = a.get_mut(key) else { continue };
        let member = is_member(here) && !is_member(gone);
        difference(here, gone);
        here.remove(SELF);
        if !here.is_empty() {
            if member {
                here.insert(SELF, Value::object());
            }
        } else if !member {
            emptied.push(key.as_ref());
        }
    }
    if !emptied.is_empty() {
        // Members stand in order.
        a.retain(|key, _| emptied.binary_search(&key).is_err());
    }
}

/// Takes a path and all below it out of the tree.
pub(super) fn remove_path(set: &mut Map, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    let key = field_key(first);
    if rest.is_empty() {
        set.remove(&key);
        return;
    }
    let Some(Value::Object(below)) = set.get_mut(&key) else { return };
    if below.is_empty() {
        return;
    }
    remove_path(below, rest);
    if below.is_empty() {
        set.remove(&key);
    }
}

/// The texts of the paths that are in both: the first, and others while all fit into `room` bytes. Each names all
/// that is above it, so a few deep fields with long names could make gigabytes.
pub(super) fn common_paths(a: &Map, b: &Map, room: usize) -> Vec<String> {
    let mut found = Found { paths: Vec::new(), room };
    found.common(a, b, &mut String::new());
    found.paths
}

struct Found {
    paths: Vec<String>,
    room: usize,
}

impl Found {
    fn common(&mut self, a: &Map, b: &Map, path: &mut String) {
        let length = path.len();
        for (key, below) in children(a) {
            let Some(Value::Object(other)) = b.get(key) else { continue };
            path.push_str(&step_text(key));
            if is_member(below) && is_member(other) {
                if self.room < path.len() && !self.paths.is_empty() {
                    return;
                }
                self.room = self.room.saturating_sub(path.len());
                self.paths.push(path.clone());
            }
            self.common(below, other, path);
            path.truncate(length);
        }
    }
}

/// `f:spec` as `.spec`, `k:{"name":"c"}` as `[name="c"]`, `v:"x"` as `[="x"]`, `i:0` as `[0]`.
pub(super) fn step_text(key: &str) -> String {
    match key.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", index)) => format!("[{index}]"),
        Some(("k:", keys)) => {
            let inner = keys.strip_prefix('{').and_then(|k| k.strip_suffix('}')).unwrap_or(keys);
            let mut out = String::from("[");
            // Names stand before the colon, quoted; values stay as they are.
            let (mut in_name, mut quoted, mut escaped) = (true, false, false);
            for c in inner.chars() {
                match c {
                    _ if escaped => {
                        escaped = false;
                        out.push(c);
                    }
                    '\\' if quoted => {
                        escaped = true;
                        out.push(c);
                    }
                    '"' => {
                        quoted = !quoted;
                        if !in_name {
                            out.push(c);
                        }
                    }
                    ':' if !quoted && in_name => {
                        in_name = false;
                        out.push('=');
                    }
                    ',' if !quoted => {
                        in_name = true;
                        out.push(',');
                    }
                    c => out.push(c),
                }
            }
            out.push(']');
            out
        }
        _ => key.to_owned(),
    }
}

/// `f:` and a member's name.
pub(super) fn field_key(name: &str) -> Key {
    Key::Owned(format!("f:{name}"))
}

/// `k:` and the values of an element's keys, in order of their names; absent ones by the schema's default.
pub(super) fn element_key(element: &Value, keys: &[(&str, Option<Default<'_>>)]) -> String {
    let mut out = String::from("k:{");
    for (key, default) in keys {
        let separator = if out.len() > 3 { "," } else { "" };
        // Writing to a String cannot fail.
        match (element.get(key).filter(|v| !v.is_null()), *default) {
            (Some(value), _) | (None, Some(Default::Value(value))) => {
                let _ = write!(out, "{separator}\"{key}\":");
                write_scalar(value, &mut out);
            }
            (None, Some(Default::Text(text))) => _ = write!(out, "{separator}\"{key}\":{text}"),
            (None, None) => {}
        }
    }
    out.push('}');
    out
}

/// `v:` and a scalar.
pub(super) fn value_key(value: &Value) -> String {
    let mut out = String::from("v:");
    write_scalar(value, &mut out);
    out
}

fn write_scalar(value: &Value, out: &mut String) {
    match value {
        Value::Bool(b) => _ = write!(out, "{b}"),
        Value::Number(Number::Int(i)) => _ = write!(out, "{i}"),
        Value::Number(Number::Float(f)) => _ = write!(out, "{f}"),
        Value::String(s) => {
            out.push('"');
            for c in s.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if (c as u32) < 0x20 => _ = write!(out, "\\u{:04x}", c as u32),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        _ => out.push_str("null"),
    }
}
