//! JSON, merge and strategic merge patches: RFC examples and upstream's directives.

#![allow(clippy::unwrap_used)]

use ironkeel_object::{Value, object};
use ironkeel_patch::{PatchError, json_patch, merge_patch, strategic_merge};
use ironkeel_schema::type_by_name;

fn json(mut target: Value, patch: Value) -> Result<Value, PatchError> {
    json_patch(&mut target, &patch).map(|()| target)
}

#[test]
fn json_patch_does_every_operation() {
    let doc = || object!({"a": {"b": [1, 2, 3]}, "c/d": "x", "e~f": true});
    for (patch, expected) in [
        (
            object!([{"op": "add", "path": "/a/b/1", "value": 9}]),
            object!({"a": {"b": [1, 9, 2, 3]}, "c/d": "x", "e~f": true}),
        ),
        (
            object!([{"op": "add", "path": "/a/b/-", "value": 9}]),
            object!({"a": {"b": [1, 2, 3, 9]}, "c/d": "x", "e~f": true}),
        ),
        (object!([{"op": "remove", "path": "/c~1d"}]), object!({"a": {"b": [1, 2, 3]}, "e~f": true})),
        (
            object!([{"op": "replace", "path": "/e~0f", "value": null}]),
            object!({"a": {"b": [1, 2, 3]}, "c/d": "x", "e~f": null}),
        ),
        (
            object!([{"op": "move", "from": "/a/b/0", "path": "/g"}]),
            object!({"a": {"b": [2, 3]}, "c/d": "x", "e~f": true, "g": 1}),
        ),
        (
            object!([{"op": "copy", "from": "/a/b", "path": "/g"}]),
            object!({"a": {"b": [1, 2, 3]}, "c/d": "x", "e~f": true, "g": [1, 2, 3]}),
        ),
        (
            object!([{"op": "test", "path": "/a/b/2", "value": 3.0}, {"op": "replace", "path": "", "value": {}}]),
            object!({}),
        ),
    ] {
        assert_eq!(json(doc(), patch.clone()).unwrap(), expected, "{patch:?}");
    }
}

#[test]
fn json_patch_refuses_what_does_not_apply() {
    let doc = || object!({"a": [1], "b": {}});
    for (patch, message) in [
        (object!([{"op": "test", "path": "/a/0", "value": 2}]), "testing value /a/0 failed: test failed"),
        (
            object!([{"op": "remove", "path": "/x"}]),
            "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            object!([{"op": "add", "path": "/x/y", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/x/y\": missing value",
        ),
        (object!([{"op": "frob", "path": "/x"}]), "Unexpected kind: frob"),
        (
            object!([{"op": "add", "path": "", "value": {}}]),
            "add operation does not apply: doc is missing path: \"\": missing value",
        ),
        (object!([{"op": "test", "path": "/b/x", "value": 1}]), "testing value /b/x failed: test failed"),
        (
            object!([{"op": "replace", "path": "/a/7", "value": 1}]),
            "replace operation does not apply: doc is missing key: /a/7: missing value",
        ),
        (
            object!([{"op": "move", "from": "/b", "path": "/b/c"}]),
            "move operation does not apply: /b/c is inside of /b",
        ),
    ] {
        let error = json(doc(), patch).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.status()), (message, 422));
    }
    assert_eq!(json(doc(), object!({})).unwrap_err().status(), 400);
    assert!(json(doc(), object!([{"op": "add", "path": "/a/7", "value": 1}])).is_err());
    let many = Value::Array(vec![object!({"op": "test", "path": "/a/0", "value": 1}); 10_001]);
    assert_eq!(json(doc(), many).unwrap_err().status(), 413);
}

#[test]
fn json_patch_takes_what_is_missing_for_null_as_upstream_does() {
    for (patch, expected) in [
        (object!([{"op": "add", "path": "/x"}]), object!({"a": 1, "x": null})),
        (object!([{"op": "replace", "path": "/x", "value": 2}]), object!({"a": 1, "x": 2})),
        (object!([{"op": "copy", "from": "/n", "path": "/x"}]), object!({"a": 1, "x": null})),
        (object!([{"op": "test", "path": "/n"}]), object!({"a": 1})),
        // What stands before the first slash says nothing.
        (object!([{"op": "add", "path": "b/x", "value": 2}]), object!({"a": 1, "x": 2})),
        (Value::Null, object!({"a": 1})),
    ] {
        assert_eq!(json(object!({"a": 1}), patch.clone()).unwrap(), expected, "{patch:?}");
    }
    assert_eq!(json(object!({}), object!(["x"])).unwrap_err().status(), 400);
}

#[test]
fn json_patch_neither_nests_nor_grows_without_bound() {
    let nest = object!({"op": "move", "from": "/b", "path": "/c"});
    let wrap = [
        nest,
        object!({"op": "add", "path": "/b", "value": {}}),
        object!({"op": "move", "from": "/c", "path": "/b/c"}),
    ];
    let patch = Value::Array(wrap.iter().cycle().take(3000).cloned().collect());
    assert_eq!(json(object!({"b": {}}), patch).unwrap_err().status(), 422);
    let double = Value::Array(vec![object!({"op": "copy", "from": "/a", "path": "/a/-"}); 60]);
    assert!(json(object!({"a": ["xxxxxxxx"]}), double).unwrap_err().to_string().starts_with("Unable to copy"));
}

#[test]
fn merge_patch_follows_the_rfc() {
    for (target, patch, expected) in [
        (object!({"a": "b"}), object!({"a": "c"}), object!({"a": "c"})),
        (object!({"a": "b", "b": "c"}), object!({"a": null}), object!({"b": "c"})),
        (object!({"a": ["b"]}), object!({"a": "c"}), object!({"a": "c"})),
        (object!({"a": {"b": "c"}}), object!({"a": {"b": "d", "c": null}}), object!({"a": {"b": "d"}})),
        (object!({"a": [1, 2]}), object!({"a": [3]}), object!({"a": [3]})),
        (object!(["a"]), object!({"a": {"bb": {"ccc": null}}}), object!({"a": {"bb": {}}})),
        (object!({"a": "foo"}), object!("bar"), object!("bar")),
    ] {
        let mut result = target;
        merge_patch(&mut result, &patch);
        assert_eq!(result, expected);
    }
}

/// Patches a Pod's spec.
fn pod(spec: Value, patch: Value) -> Result<Value, PatchError> {
    let mut target = object!({ "spec": spec });
    let patch = object!({ "spec": patch });
    strategic_merge(&mut target, &patch, type_by_name("core/v1.Pod").unwrap())?;
    Ok(target["spec"].clone())
}

#[test]
fn strategic_merge_merges_lists_by_key() {
    let spec = || object!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}], "nodeName": "n"});
    let result = pod(
        spec(),
        object!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}], "nodeName": null}),
    )
    .unwrap();
    let containers = object!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b"}]);
    assert_eq!(result, object!({ "containers": containers }));
    let result = pod(spec(), object!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}]})).unwrap();
    assert_eq!(result["containers"], object!([{"name": "c"}, {"name": "b"}]));
    let result = pod(spec(), object!({"containers": [{"$patch": "replace"}, {"name": "c"}]})).unwrap();
    assert_eq!(result["containers"], object!([{"name": "c"}]));
    let result = pod(spec(), object!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "3"}]})).unwrap();
    assert_eq!(result.items_at(&["containers"])[0]["name"], "b".into());
    assert_eq!(pod(spec(), object!({"containers": [{"image": "x"}]})).unwrap_err().status(), 400);
}

#[test]
fn strategic_merge_obeys_map_directives() {
    let spec = || object!({"nodeSelector": {"a": "1", "b": "2"}, "tolerations": [{"key": "k"}]});
    let with = |patch| pod(spec(), patch).unwrap();
    assert_eq!(with(object!({"nodeSelector": {"$patch": "replace", "c": "3"}}))["nodeSelector"], object!({"c": "3"}));
    assert_eq!(with(object!({"nodeSelector": {"$patch": "delete"}}))["nodeSelector"], object!({}));
    assert_eq!(with(object!({"nodeSelector": {"$retainKeys": ["b"], "b": "4"}}))["nodeSelector"], object!({"b": "4"}));
    assert_eq!(with(object!({"tolerations": [{"key": "z"}]}))["tolerations"], object!([{"key": "z"}]), "atomic");
    assert!(pod(spec(), object!({"nodeSelector": {"$patch": "frob"}})).is_err());
    assert!(pod(spec(), object!({"nodeSelector": {"$retainKeys": ["b"], "c": "4"}})).is_err());
}

#[test]
fn strategic_merge_merges_and_deletes_primitives() {
    let mut target = object!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = object!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "$setElementOrder/finalizers": ["b", "c"]}});
    strategic_merge(&mut target, &patch, type_by_name("core/v1.Pod").unwrap()).unwrap();
    assert_eq!(target, object!({"metadata": {"finalizers": ["b", "c"]}}));
}

#[test]
fn strategic_merge_refuses_what_contradicts_itself() {
    let live = || object!({"containers": [{"name": "a"}, {"name": "b"}], "volumes": [{"name": "v", "emptyDir": {}}]});
    let order = object!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]});
    let error = pod(live(), order).unwrap_err();
    assert_eq!(error.status(), 400);
    let retained = object!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/"}}]});
    let error = pod(live(), retained).unwrap_err();
    assert_eq!((error.status(), error.to_string()), (400, "invalid patch format of retainKeys".to_owned()));
    let absent = pod(live(), object!({"securityContext": {"$patch": "delete"}})).unwrap();
    assert_eq!(absent, pod(live(), object!({})).unwrap());
}
