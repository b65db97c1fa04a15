//! Defaults, and the members that are always written, against upstream's answers to creates (`answers.txt`).
#![allow(clippy::unwrap_used)]

use ironkeel_codec::{complete, conform, parse_json};
use ironkeel_kinds::kind;
use ironkeel_object::{ObjectMeta, Value};

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
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b.iter()).enumerate() {
                differences(x, y, &format!("{path}[{i}]"), out);
            }
        }
        _ if ours != theirs => out.push(format!("{path}: {ours:?}, not {theirs:?}")),
        _ => {}
    }
}

#[test]
fn creates_are_answered_as_upstream_does() {
    let file = include_str!("answers.txt");
    let mut lines = file.lines().filter(|l| !l.starts_with('#'));
    let (mut faults, mut seen) = (Vec::new(), 0);
    while let (Some(head), Some(sent), Some(wanted)) = (lines.next(), lines.next(), lines.next()) {
        let (version, plural) = head.split_once(' ').unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kind(group, version, plural).unwrap();
        let id = kind.resource.type_id;
        let mut object = parse_json(sent.as_bytes()).unwrap();
        conform(&mut object, id, &mut Vec::new()).unwrap();
        for _ in 0..2 {
            kind.hooks.default(&mut object);
            kind.hooks.prepare_create(&mut object);
            complete(&mut object, id);
        }
        let wanted = parse_json(wanted.as_bytes()).unwrap();
        let mut found = Vec::new();
        differences(&object, &wanted, "", &mut found);
        if !found.is_empty() {
            faults.push(format!("{head} {}:\n  {}", object.name(), found.join("\n  ")));
        }
        seen += 1;
    }
    assert!(seen > 120, "{seen} objects");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
