//! Merging a configuration into the live object, and removing what is no longer applied.

use std::collections::HashMap;

use ironkeel_object::{Key, Map, Value};

use super::compare::key_of;
use super::set::field_key;
use super::view::View;

/// Merges `config` into `target`.
pub(super) fn merge(target: &mut Value, config: &Value, view: View) {
    match (&mut *target, config) {
        (Value::Object(here), Value::Object(members)) if view.is_object(config) => {
            for (name, member) in members.iter() {
                let (child, _) = view.member(name);
                match here.get_mut(name) {
                    Some(slot) => merge(slot, member, child),
                    None => _ = here.insert(name.clone(), member.clone()),
                }
            }
        }
        (Value::Array(here), Value::Array(elements)) if view.is_list(config) => {
            merge_list(here, elements, view);
        }
        _ => target.clone_from(config),
    }
}

/// Elements keep the live order; those of the configuration follow their own order among them.
fn merge_list(here: &mut Vec<Value>, config: &[Value], view: View) {
    let wanted: HashMap<Key, usize> = config.iter().enumerate().map(|(i, e)| (key_of(e, view), i)).collect();
    let mut live: Vec<(Option<usize>, Option<Value>)> = std::mem::take(here)
        .into_iter()
        .map(|element| (wanted.get(&key_of(&element, view)).copied(), Some(element)))
        .collect();
    let place: HashMap<usize, usize> = live.iter().enumerate().filter_map(|(at, (i, _))| Some(((*i)?, at))).collect();
    let mut at = 0;
    for (i, element) in config.iter().enumerate() {
        if wanted.get(&key_of(element, view)) != Some(&i) {
            // A key that stands twice: the last one counts.
            continue;
        }
        // What only the live list has stays where it is.
        while let Some((None, only_live)) = live.get_mut(at) {
            here.extend(only_live.take());
            at += 1;
        }
        match place.get(&i).and_then(|p| Some((*p, live[*p].1.take()?))) {
            Some((p, mut existing)) => {
                merge(&mut existing, element, view.element());
                here.push(existing);
                if p == at {
                    at += 1;
                }
            }
            None => here.push(element.clone()),
        }
        while live.get(at).is_some_and(|(i, left)| i.is_some() && left.is_none()) {
            at += 1;
        }
    }
    here.extend(live.into_iter().filter_map(|(_, left)| left));
}

/// Removes what the manager applied `last` time, does not apply now, and nobody else owns.
pub(super) fn prune(target: &mut Value, last: &Map, now: &Map, others: &Map, view: View) {
    prune_keeping(target, last, now, others, view, &[]);
}

/// `keys` tell an element apart: they stay as long as the element does.
fn prune_keeping(target: &mut Value, last: &Map, now: &Map, others: &Map, view: View, keys: &[&str]) {
    static NONE: Map = Map::new();
    fn below<'s>(set: &'s Map, key: &str) -> &'s Map {
        set.get(key).and_then(Value::as_object).unwrap_or(&NONE)
    }
    let gone = |key: &str| last.contains_key(key) && !now.contains_key(key) && !others.contains_key(key);
    match target {
        Value::Object(members) => {
            members.retain(|name, member| {
                let key = field_key(name);
                if gone(&key) {
                    return keys.contains(&name);
                }
                if last.contains_key(&key) {
                    let (child, _) = view.member(name);
                    if child.is_object(member) || child.is_list(member) {
                        prune(member, below(last, &key), below(now, &key), below(others, &key), child);
                    }
                }
                true
            });
        }
        Value::Array(elements) => {
            elements.retain_mut(|element| {
                let key = key_of(element, view);
                if gone(&key) {
                    return false;
                }
                if last.contains_key(&key) && view.element().is_object(element) {
                    let (last, now, others) = (below(last, &key), below(now, &key), below(others, &key));
                    let keys = if let View::Keyed(_, keys) = view { keys } else { &[] };
                    prune_keeping(element, last, now, others, view.element(), keys);
                }
                true
            });
        }
        _ => {}
    }
}
