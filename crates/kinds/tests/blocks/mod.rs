//! The objects under `rules/`: read, changed and sent as the write path does.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::BTreeSet;
use std::path::Path;

use ironkeel_codec::{conform, parse_json};
use ironkeel_kinds::{Kind, kind, validate_metadata, validate_metadata_update};
use ironkeel_object::{ObjectMeta, Value};

/// One object and the changes to it.
pub struct Block {
    pub way: String,
    pub kind: &'static Kind,
    pub title: String,
    pub object: Value,
    pub changes: Vec<(String, BTreeSet<String>)>,
}

fn blocks(text: &str) -> Vec<Block> {
    let text = text.replace("<300 x>", &"x".repeat(300));
    let mut lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).peekable();
    let mut all = Vec::new();
    while let Some(head) = lines.next() {
        let [way, version, plural, _] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kind(group, version, plural).unwrap();
        let object = parse_json(lines.next().unwrap().as_bytes()).unwrap();
        let mut changes = Vec::new();
        while let Some(change) = lines.next_if(|l| l.contains(" = ")) {
            let causes = lines.next().unwrap().trim().split("; ").map(str::to_owned).collect();
            changes.push((change.to_owned(), causes));
        }
        all.push(Block { way: way.to_owned(), kind, title: head.to_owned(), object, changes });
    }
    all
}

/// Puts a value at a path of the form `spec.list[0]["a.b/c"].field`.
pub fn change(object: &mut Value, path: &str, value: Option<Value>) {
    let mut steps: Vec<Result<String, usize>> = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let quoted = inner.strip_prefix('"').map(|q| q.split_once("\"]").unwrap());
            let (step, after) = match quoted {
                Some((key, after)) => (Ok(key.to_owned()), after),
                None => inner.split_once(']').map(|(n, after)| (Err(n.parse().unwrap()), after)).unwrap(),
            };
            steps.push(step);
            rest = after;
        } else {
            let plain = rest.strip_prefix('.').unwrap_or(rest);
            let end = plain.find(['.', '[']).unwrap_or(plain.len());
            steps.push(Ok(plain[..end].to_owned()));
            rest = &plain[end..];
        }
    }
    let (last, front) = steps.split_last().unwrap();
    let mut at = object;
    for step in front {
        at = match step {
            Ok(key) => {
                let map = at.as_object_mut().unwrap();
                map.entry(key.clone(), Value::object)
            }
            Err(i) => &mut at.as_array_mut().unwrap()[*i],
        };
    }
    match (last, value) {
        (Ok(key), Some(v)) => {
            at.as_object_mut().unwrap().insert(key.clone(), v);
        }
        (Ok(key), None) => {
            at.as_object_mut().unwrap().remove(key);
        }
        (Err(i), Some(v)) => at.as_array_mut().unwrap()[*i] = v,
        (Err(i), None) => {
            at.as_array_mut().unwrap().remove(*i);
        }
    }
}

/// Sends an object as the write path does; answers it and the causes.
pub fn send(block: &Block, mut object: Value) -> (Value, BTreeSet<String>) {
    let hooks = &block.kind.hooks;
    conform(&mut object, block.kind.resource.type_id, &mut Vec::new()).unwrap();
    let mut errors;
    if block.way == "create" {
        object.meta_mut().insert("uid", "u-1");
        object.meta_mut().insert("creationTimestamp", "2026-01-01T00:00:00Z");
        hooks.default(&mut object);
        hooks.prepare_create(&mut object);
        hooks.default(&mut object);
        errors = validate_metadata(&object, block.kind);
        errors.extend(hooks.validate(&object));
    } else {
        let mut old = block.object.clone();
        conform(&mut old, block.kind.resource.type_id, &mut Vec::new()).unwrap();
        hooks.default(&mut old);
        let subresource = (block.way != "update").then_some(block.way.as_str());
        hooks.default(&mut object);
        hooks.prepare_update(&mut object, &old, subresource);
        hooks.default(&mut object);
        errors = validate_metadata(&object, block.kind);
        errors.extend(validate_metadata_update(&object, &old));
        errors.extend(hooks.validate_update(&object, &old, subresource));
    }
    let reason = |e: &ironkeel_kinds::FieldError| e.kind.reason().trim_start_matches("FieldValue").to_owned();
    (object, errors.iter().map(|e| format!("{}: {}", e.path, reason(e))).collect())
}

pub fn each(check: impl Fn(&Block)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10);
    for file in files {
        blocks(&std::fs::read_to_string(file).unwrap()).iter().for_each(&check);
    }
}
