//! Patches that were made to cost: each is the most that fits into a request's body, on the most that is stored.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ironkeel_object::{Map, Value, object};
use ironkeel_patch::{
    ApplyError, ApplyOptions, MAX_CONFLICT_BYTES, PatchError, Schema, apply, json_patch, merge_patch, strategic_merge,
    track_update,
};
use ironkeel_schema::type_by_name;

/// Time in which an unoptimized build must be through; what grows with the square of its input takes minutes.
const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    assert!(begun.elapsed() < PATIENCE, "{what} took {:?}", begun.elapsed());
    result
}

fn members(prefix: char, count: usize, value: &Value) -> Value {
    Value::Object((0..count).map(|i| (format!("{prefix}{i:06}"), value.clone())).collect::<Map>())
}

fn named(prefix: char, count: usize) -> Value {
    Value::Array((0..count).map(|i| object!({ "name": (format!("{prefix}{i:06}")) })).collect())
}

const OPTIONS: ApplyOptions<'static> = ApplyOptions {
    manager: "m",
    api_version: "example.com/v1",
    subresource: "",
    now: "2026-01-01T00:00:00Z",
    schema: Schema::Deduced,
    reset: &[],
};

#[test]
fn a_merge_patch_moves_members_once() {
    let mut target = members('z', 150_000, &"".into());
    let patch = members('a', 300_000, &"".into());
    in_time("adding members", || merge_patch(&mut target, &patch));
    assert!(matches!(&target, Value::Object(m) if m.len() == 450_000));
    let gone = members('a', 300_000, &Value::Null);
    in_time("removing members", || merge_patch(&mut target, &gone));
    assert_eq!(target, members('z', 150_000, &"".into()));
}

#[test]
fn a_strategic_merge_finds_elements_without_a_search() {
    let pod = type_by_name("core/v1.Pod").unwrap();
    let mut target = object!({ "spec": {} });
    let half = object!({ "spec": { "containers": (named('c', 60_000)) } });
    strategic_merge(&mut target, &half, pod).unwrap();
    let patch = object!({ "spec": { "containers": (named('d', 100_000)) } });
    in_time("merging lists", || strategic_merge(&mut target, &patch, pod)).unwrap();
    let all = target.at(&["spec", "containers"]).and_then(Value::as_array).unwrap();
    assert_eq!(all.len(), 160_000);
    let texts = Value::Array((0..100_000).map(|i| Value::from(format!("f{i}"))).collect());
    let patch = object!({ "metadata": { "finalizers": (texts.clone()) } });
    let mut target = object!({ "metadata": { "finalizers": ["x"] } });
    in_time("merging texts", || strategic_merge(&mut target, &patch, pod)).unwrap();
    let gone = object!({ "metadata": { "$deleteFromPrimitiveList/finalizers": (texts) } });
    in_time("deleting texts", || strategic_merge(&mut target, &gone, pod)).unwrap();
    assert_eq!(target, object!({ "metadata": { "finalizers": ["x"] } }));
}

#[test]
fn operations_that_move_whole_objects_are_bounded_together() {
    let mut target = object!({ "a": (members('x', 100_000, &1.into())), "b": {} });
    let there_and_back = [
        object!({ "op": "move", "from": "/a", "path": "/b/c" }),
        object!({ "op": "move", "from": "/b/c", "path": "/a" }),
    ];
    let patch = Value::Array(there_and_back.iter().cycle().take(10_000).cloned().collect());
    let refused = in_time("moves", || json_patch(&mut target, &patch)).unwrap_err();
    assert!(matches!(&refused, PatchError::Inapplicable(why) if why.contains("touch more than")), "{refused}");
    assert_eq!(refused.status(), 422);
    // What people do stays far below.
    let mut target = object!({ "list": [] });
    let patch = Value::Array(vec![object!({ "op": "add", "path": "/list/0", "value": 1 }); 10_000]);
    json_patch(&mut target, &patch).unwrap();
}

#[test]
fn field_sets_are_united_and_parted_in_one_walk() {
    let object = |prefix| object!({ "apiVersion": "example.com/v1", "data": (members(prefix, 100_000, &1.into())) });
    let live = in_time("apply", || apply(&Value::object(), &object('z'), false, None, &OPTIONS)).unwrap();
    let live = in_time("another's apply", || {
        let options = ApplyOptions { manager: "n", ..OPTIONS };
        apply(&live, &object('a'), false, None, &options)
    });
    // What the first applied and does not name any more goes; what the other applied stays.
    let left = in_time("a smaller apply", || {
        apply(&live.unwrap(), &object!({ "apiVersion": "example.com/v1" }), false, None, &OPTIONS)
    });
    assert_eq!(left.unwrap().get("data"), object('a').get("data"));
}

#[test]
fn thousands_of_managers_are_put_together_in_one_walk() {
    let entry = |i: usize| {
        object!({
            "apiVersion": (format!("v{}", i % 5_000)), "operation": "Update", "fieldsType": "FieldsV1",
            "manager": (format!("m{i}")), "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}
        })
    };
    let entries = Value::Array((0..20_000).map(entry).collect());
    let mut new = object!({ "metadata": { "managedFields": (entries) }, "data": { "a": 1 } });
    in_time("tracking", || track_update(Some(&Value::object()), &mut new, &OPTIONS));
    let left = new.at(&["metadata", "managedFields"]).and_then(Value::as_array).unwrap();
    // One a version is the least that upstream's rule leaves.
    assert_eq!(left.len(), 5_001);
}

#[test]
fn conflicts_deep_below_long_names_are_told_in_bounds() {
    let object = |value: i64| {
        let mut node = members('x', 20_000, &value.into());
        for _ in 0..100 {
            node = Value::Object([("n".repeat(3_000), node)].into_iter().collect());
        }
        object!({ "apiVersion": "example.com/v1", "data": (node) })
    };
    let live = apply(&Value::object(), &object(1), false, None, &OPTIONS).unwrap();
    let other = ApplyOptions { manager: "n", ..OPTIONS };
    let refused = in_time("conflicts", || apply(&live, &object(2), false, None, &other)).unwrap_err();
    let ApplyError::Conflicts(conflicts) = &refused else { panic!("{refused}") };
    assert!(!conflicts.is_empty());
    assert!(conflicts.iter().map(|c| c.field.len()).sum::<usize>() <= MAX_CONFLICT_BYTES);
}

#[test]
fn faults_below_long_names_are_told_in_bounds() {
    let slice = type_by_name("resource/v1.ResourceSlice").unwrap();
    let options = ApplyOptions { api_version: "resource.k8s.io/v1", schema: Schema::Table(slice), ..OPTIONS };
    let live = object!({ "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice" });
    let mut config = live.clone();
    let mut attributes = Map::new();
    attributes.insert("n".repeat(1_000_000), members('x', 200_000, &1.into()));
    let device = object!({ "name": "d", "attributes": (Value::Object(attributes)) });
    *config.slot(&["spec", "devices"]) = Value::Array(vec![device]);
    let told = in_time("checking", || apply(&live, &config, false, None, &options)).unwrap_err();
    let ApplyError::Untyped { problems, .. } = told else { panic!("{told:?}") };
    assert!(
        problems.contains(".x000000: field not declared in schema") && problems.len() < 4_000_000,
        "{}",
        problems.len()
    );
}
