//! Every kind's rules, against what upstream answers to the same objects (`rules/*.txt`), and what
//! holds for every object there: defaults settle at once, JSON and protobuf lose nothing.
#![allow(clippy::unwrap_used)]

mod blocks;

use blocks::{change, each, send};
use ironkeel_codec::{decode_json, decode_protobuf, encode_json, encode_protobuf, parse_json};
use ironkeel_object::ObjectMeta;

#[test]
fn every_rule_refuses_what_upstream_refuses() {
    let faults = std::cell::RefCell::new(Vec::new());
    each(|block| {
        let (_, causes) = send(block, block.object.clone());
        if !causes.is_empty() {
            faults.borrow_mut().push(format!("{}: refused as it is: {causes:?}", block.title));
        }
        for (text, wanted) in &block.changes {
            let (path, value) = text.split_once(" = ").unwrap();
            let value = (value != "(absent)").then(|| parse_json(value.as_bytes()).unwrap());
            let mut object = block.object.clone();
            change(&mut object, path, value);
            let (_, causes) = send(block, object);
            if causes != *wanted {
                faults.borrow_mut().push(format!("{}: {text}: {causes:?}, not {wanted:?}", block.title));
            }
        }
    });
    let faults = faults.into_inner();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn defaults_settle_at_once() {
    each(|block| {
        let (object, _) = send(block, block.object.clone());
        let mut again = object.clone();
        block.kind.hooks.default(&mut again);
        assert_eq!(object, again, "{}", block.title);
    });
}

#[test]
fn no_encoding_loses_anything() {
    each(|block| {
        let (object, _) = send(block, block.object.clone());
        let id = block.kind.resource.type_id;
        let mut json = Vec::new();
        encode_json(&object, &mut json);
        let (read, problems) = decode_json(&json, Some(id)).unwrap();
        assert!(problems.is_empty(), "{}: {problems:?}", block.title);
        // What stands in one encoding stands in the other; zeros come and go with presence.
        let bytes = encode_protobuf(&read, id);
        let back = decode_protobuf(&bytes, &|_, _| Some(id)).unwrap();
        assert_eq!(encode_protobuf(&back, id), bytes, "{}", block.title);
    });
}

#[test]
fn an_update_that_changes_nothing_raises_no_generation() {
    each(|block| {
        let (old, _) = send(block, block.object.clone());
        let mut new = old.clone();
        block.kind.hooks.prepare_update(&mut new, &old, None);
        assert_eq!(new.generation(), old.generation(), "{}", block.title);
    });
}
