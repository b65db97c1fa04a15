//! What an accepted update is stored as, against upstream's answers (`updates.txt`): what it keeps of what was there,
//! what it drops, and whether it counts as a change.
#![allow(clippy::unwrap_used)]

use ironkeel_codec::{complete, conform, parse_json};
use ironkeel_kinds::kind;
use ironkeel_object::Value;

/// Paths at which two trees differ, with both values.
fn differences(ours: &Value, theirs: &Value, path: &str, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a.iter() {
                match b.get(name) {
                    Some(other) => differences(value, other, &format!("{path}.{name}"), out),
                    None => out.push(format!("{path}.{name}: {value:?}, not there upstream")),
                }
            }
            let absent = b.iter().filter(|(name, _)| !a.contains_key(name));
            out.extend(absent.map(|(name, value)| format!("{path}.{name}: absent, not {value:?}")));
        }
        _ if ours != theirs => out.push(format!("{path}: {ours:?}, not {theirs:?}")),
        _ => {}
    }
}

#[test]
fn an_update_is_stored_as_upstream_stores_it() {
    const NOW: &str = "2026-01-01T00:00:00Z";
    let mut lines = include_str!("updates.txt").lines().filter(|l| !l.starts_with('#'));
    let (mut faults, mut count) = (Vec::new(), 0);
    while let Some(head) = lines.next() {
        let [way, version, plural] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kind(group, version, plural).unwrap();
        let mut read = || {
            let mut tree = parse_json(lines.next().unwrap().as_bytes()).unwrap();
            conform(&mut tree, kind.resource.type_id, &mut Vec::new()).unwrap();
            tree
        };
        let (old, mut sent, mut wanted) = (read(), read(), read());
        let hooks = &kind.hooks;
        let subresource = (way != "update").then_some(way);
        hooks.default(&mut sent);
        hooks.prepare_update(&mut sent, &old, subresource);
        hooks.stamp(&mut sent, Some(&old), subresource, NOW);
        hooks.default(&mut sent);
        let errors = hooks.validate_update(&sent, &old, subresource);
        for tree in [&mut sent, &mut wanted] {
            complete(tree, kind.resource.type_id);
        }
        let mut out: Vec<String> = errors.iter().map(ToString::to_string).collect();
        differences(&sent, &wanted, "", &mut out);
        faults.extend(out.into_iter().map(|d| format!("{head} {}: {d}", sent["metadata"]["name"].as_str().unwrap())));
        count += 1;
    }
    assert!(count > 30, "{count} updates");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
