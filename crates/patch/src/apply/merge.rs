//! Merging a configuration into the live object, and removing what is no longer applied.

use std::collections::HashMap;

use ironkeel_object::{Key, Map, Value};

use super::set::{field_key, is_member};
use super::view::View;

/// Merges `config` into `target`.
pub(super) fn merge(target: &mut Value, config: &Value, view: View<'_>) {
    let typed = !matches!(view, View::Unknown | View::Deduced);
    if typed && config.is_null() && (view.is_object(target) || view.is_list(target)) {
        // Nothing is applied below; what others have there stays.
        return;
    }
    let (object, list) = (view.is_object(target), view.is_list(target));
    match (&mut *target, config) {
        (Value::Object(here), Value::Object(members)) if view.is_object(config) => {
            let mut new = Vec::new();
            for (name, member) in members.iter() {
                let child = view.member(name).view;
                match here.get_mut(name) {
                    Some(slot) => merge(slot, member, child),
                    None => new.push((name.clone(), member.clone())),
                }
            }
            here.extend(new);
        }
        (Value::Array(here), Value::Array(elements)) if view.is_list(config) => {
            merge_list(here, elements, view);
        }
        // Nothing is applied below; what others have there stays.
        (Value::Object(_), Value::Null) if object => {}
        (Value::Array(_), Value::Null) if list => {}
        _ => target.clone_from(config),
    }
}

/// Elements keep the live order; those of the configuration follow their own order among them.
fn merge_list(here: &mut Vec<Value>, config: &[Value], view: View<'_>) {
    let wanted: HashMap<Key, usize> = config.iter().enumerate().map(|(i, e)| (view.key_of(e), i)).collect();
    let mut times = vec![0usize; config.len()];
    let mut live: Vec<(Option<usize>, Option<Value>)> = Vec::with_capacity(here.len());
    for element in std::mem::take(here) {
        let i = wanted.get(&view.key_of(&element)).copied();
        if let Some(i) = i {
            times[i] += 1;
            // Of several live elements with one key, one is left, and the configuration replaces it.
            if times[i] > 1 {
                continue;
            }
        }
        live.push((i, Some(element)));
    }
    let place: HashMap<usize, usize> = live.iter().enumerate().filter_map(|(at, (i, _))| Some(((*i)?, at))).collect();
    let mut at = 0;
    for (i, element) in config.iter().enumerate() {
        if wanted.get(&view.key_of(element)) != Some(&i) {
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
                if times[i] > 1 {
                    existing.clone_from(element);
                } else {
                    merge(&mut existing, element, view.element());
                }
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
pub(super) fn prune(target: &mut Value, last: &Map, now: &Map, others: &Map, view: View<'_>) {
    prune_keeping(target, last, now, others, view, &[]);
}

/// `keys` tell an element apart: they stay as long as the element does.
fn prune_keeping(target: &mut Value, last: &Map, now: &Map, others: &Map, view: View<'_>, keys: &[&str]) {
    static NONE: Map = Map::new();
    fn below<'s>(set: &'s Map, key: &str) -> &'s Map {
        set.get(key).and_then(Value::as_object).unwrap_or(&NONE)
    }
    let in_set = |set: &Map, key: &str| set.get(key).and_then(Value::as_object).is_some_and(is_member);
    match target {
        Value::Object(members) => {
            members.retain(|name, member| {
                let key = field_key(name);
                let known = view.member(name);
                // A name that the schema declares goes with what is below it.
                let has = |set: &Map| if known.declared { set.contains_key(&key) } else { in_set(set, &key) };
                if has(last) && !has(now) && !has(others) {
                    return keys.contains(&name);
                }
                if last.contains_key(&key) && (known.view.is_object(member) || known.view.is_list(member)) {
                    prune(member, below(last, &key), below(now, &key), below(others, &key), known.view);
                }
                true
            });
        }
        Value::Array(elements) => {
            let keys = view.keys();
            elements.retain_mut(|element| {
                let key = view.key_of(element);
                if in_set(last, &key) && !in_set(now, &key) && !in_set(others, &key) {
                    return false;
                }
                if last.contains_key(&key) && view.element().is_object(element) {
                    let (last, now, others) = (below(last, &key), below(now, &key), below(others, &key));
                    prune_keeping(element, last, now, others, view.element(), &keys);
                }
                true
            });
        }
        _ => {}
    }
}
