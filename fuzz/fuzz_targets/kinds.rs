//! Objects by the rules of their kinds: defaults, creation, change, subresources, rows of a table. Each line is an
//! object in JSON. The first is of any built-in kind and the next what it is changed to; where the first is a sound
//! CustomResourceDefinition, the others are objects of its resource.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ironkeel_codec::decode_json;
use ironkeel_kinds::custom::kinds_of;
use ironkeel_kinds::{Kind, TableContext, kind_for_gvk, validate_metadata};
use ironkeel_object::Value;
use libfuzzer_sys::fuzz_target;

/// Versions of a definition that are looked at.
const VERSIONS: usize = 3;

/// As the server takes in a new object; none where it is refused.
fn create(kind: &Kind, mut object: Value) -> Option<Value> {
    let hooks = &kind.hooks;
    hooks.default(&mut object);
    let once = object.clone();
    hooks.default(&mut object);
    assert!(object == once, "defaults come once");
    hooks.prepare_create(&mut object);
    let mut errors = validate_metadata(&object, kind);
    errors.extend(hooks.validate(&object));
    hooks.warnings(&object, None, None);
    let cells = hooks.cells(&object, &TableContext { now_unix: 1_700_000_000 });
    assert_eq!(cells.len(), hooks.columns().len(), "a cell for each column");
    hooks.plan_delete(&object, None);
    for path in hooks.selectable().unwrap_or_default() {
        hooks.field(&object, path);
    }
    if let Some(scale) = hooks.scale(&object) {
        let mut scaled = object.clone();
        hooks.set_replicas(&mut scaled, scale.replicas);
    }
    errors.is_empty().then_some(object)
}

/// As it is changed, as a whole and by each subresource.
fn change(kind: &Kind, old: &Value, new: &Value) {
    let hooks = &kind.hooks;
    let subresources = kind.resource.subresources.iter().map(|s| Some(&*s.name));
    for subresource in subresources.chain([None]) {
        let mut new = new.clone();
        hooks.default(&mut new);
        hooks.prepare_update(&mut new, old, subresource);
        hooks.validate_update(&new, old, subresource);
        hooks.warnings(&new, Some(old), subresource);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|b| *b == b'\n');
    let Some(first) = lines.next() else { return };
    let Ok((plain, _)) = decode_json(first, None) else { return };
    let api_version = plain.str_at(&["apiVersion"]).unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(kind) = kind_for_gvk(group, version, plain.str_at(&["kind"]).unwrap_or_default()) else { return };
    let Ok((object, _)) = decode_json(first, Some(kind.resource.type_id)) else { return };
    let created = create(kind, object.clone());
    if kind.resource.plural != "customresourcedefinitions" {
        let old = created.as_ref().unwrap_or(&object);
        for line in lines.take(2) {
            if let Ok((new, _)) = decode_json(line, Some(kind.resource.type_id)) {
                change(kind, old, &new);
            }
        }
        return change(kind, old, old);
    }
    let Some(mut definition) = created else { return };
    let names = definition.at(&["spec", "names"]).cloned().unwrap_or_default();
    *definition.slot(&["status", "acceptedNames"]) = names;
    let kinds = kinds_of(&definition, &Arc::new(AtomicBool::new(false)));
    let mut last = None;
    for line in lines.take(2) {
        let Ok((object, _)) = decode_json(line, None) else { return };
        if object.as_object().is_none() {
            return;
        }
        for kind in kinds.iter().take(VERSIONS) {
            let mut object = object.clone();
            if let Some(custom) = &kind.custom {
                custom.shape(&mut object);
            }
            object = create(kind, object.clone()).unwrap_or(object);
            change(kind, last.as_ref().unwrap_or(&object), &object);
            last = Some(object);
        }
    }
});
