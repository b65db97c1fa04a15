//! Whether a configuration can be applied at all: fields that the type does not have, elements
//! without a key or with the key of another.

use std::collections::HashSet;

use ironkeel_object::{Key, Value};

use super::set::step_text;
use super::view::View;

/// Everything that is wrong, each as `.spec.foo: field not declared in schema`.
pub(super) fn problems(config: &Value, root: View<'_>) -> Vec<String> {
    let mut out = Vec::new();
    walk(config, root, "", &mut out);
    out
}

fn walk(value: &Value, view: View<'_>, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(members) if view.is_object(value) => {
            for (name, member) in members.iter() {
                let path = format!("{path}.{name}");
                match view.known_member(name) {
                    Some(known) => walk(member, known.view, &path, out),
                    None => out.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        Value::Array(elements) if view.is_list(value) => {
            let mut seen: HashSet<Key> = HashSet::with_capacity(elements.len());
            for (i, element) in elements.iter().enumerate() {
                if let Some(missing) = missing_key(element, view) {
                    out.push(format!("{path}: element {i}: {missing}"));
                    continue;
                }
                let key = view.key_of(element);
                let text = step_text(&key);
                walk(element, view.element(), &format!("{path}{text}"), out);
                if !seen.insert(key) {
                    out.push(format!("{path}: duplicate entries for key {text}"));
                }
            }
        }
        _ => {}
    }
}

fn missing_key(element: &Value, view: View<'_>) -> Option<String> {
    let keys = view.keys();
    if keys.is_empty() {
        return None;
    }
    if !matches!(element, Value::Object(_)) {
        let what = if element.is_null() { "a null element" } else { "non-map elements" };
        return Some(format!("associative list with keys may not have {what}"));
    }
    let absent = |key: &str| element.get(key).is_none_or(Value::is_null);
    let missing: Vec<&str> = keys.iter().copied().filter(|k| absent(k) && !view.key_has_default(k)).collect();
    // An element with some of its keys is another element than one with all of them.
    (missing.len() == keys.len()).then(|| {
        let names: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            names.join(" ")
        )
    })
}
