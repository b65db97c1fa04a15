//! Server-side apply: two managers apply and one updates; field sets, structures and entries are the
//! fuzzer's.
#![no_main]

use ironkeel_codec::parse_json;
use ironkeel_object::Value;
use ironkeel_patch::{ApplyOptions, Schema, Structure, apply, track_update};
use ironkeel_schema::type_by_name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|b| *b == b'\n').filter_map(|part| parse_json(part).ok());
    let (Some(live), Some(config), Some(schema)) = (parts.next(), parts.next(), parts.next()) else { return };
    let structure = Structure::of_resource(&schema);
    for schema in [
        Schema::Table(type_by_name("core/v1.Pod").expect("Pods have a type")),
        Schema::Custom(&structure),
        Schema::Deduced,
    ] {
        let options = |manager| ApplyOptions {
            manager,
            api_version: "v1",
            subresource: "",
            now: "2026-01-01T00:00:00Z",
            schema,
            reset: &[&["status"]],
        };
        let mut object = if matches!(live, Value::Object(_)) { live.clone() } else { Value::object() };
        track_update(None, &mut object, &options("updater"));
        let Ok(first) = apply(&object, &config, true, Some(&live), &options("kubectl")) else { continue };
        let again = apply(&first, &config, false, None, &options("kubectl"));
        assert!(again.is_ok(), "what was forced does not conflict: {again:?}");
        let mut updated = first.clone();
        *updated.slot(&["metadata", "labels"]) = Value::object();
        track_update(Some(&first), &mut updated, &options("other"));
    }
});
