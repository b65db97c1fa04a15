//! Defaults, and the members that are always written, against upstream's answers to creates (`answers.txt`).
#![allow(clippy::unwrap_used)]

mod upstream;

use ironkeel_codec::{complete, parse_json};
use ironkeel_object::ObjectMeta;
use upstream::{differences, entries, object};

#[test]
fn creates_are_answered_as_upstream_does() {
    let (mut faults, mut seen) = (Vec::new(), 0);
    for (head, kind, body) in entries(include_str!("answers.txt"), 2) {
        let mut object = object(kind, body[0]);
        for _ in 0..2 {
            kind.hooks.default(&mut object);
            kind.hooks.prepare_create(&mut object);
            complete(&mut object, kind.resource.type_id);
        }
        let wanted = parse_json(body[1].as_bytes()).unwrap();
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
