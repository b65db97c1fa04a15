//! What an accepted update is stored as, against upstream's answers (`updates.txt`): what it keeps of what was there,
//! what it drops, and whether it counts as a change.
#![allow(clippy::unwrap_used)]

mod upstream;

use ironkeel_codec::complete;
use ironkeel_object::ObjectMeta;
use upstream::{differences, entries, object};

#[test]
fn an_update_is_stored_as_upstream_stores_it() {
    const NOW: &str = "2026-01-01T00:00:00Z";
    let (mut faults, mut count) = (Vec::new(), 0);
    for (head, kind, body) in entries(include_str!("updates.txt"), 3) {
        let way = head.split(' ').next().unwrap();
        let [old, mut sent, mut wanted] = [0, 1, 2].map(|i| object(kind, body[i]));
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
        faults.extend(out.into_iter().map(|d| format!("{head} {}: {d}", sent.name())));
        count += 1;
    }
    assert!(count > 30, "{count} updates");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
