//! Server-side apply and tracking: who owns what after each write.

#![allow(clippy::unwrap_used)]

use ironkeel_object::{Value, object};
use ironkeel_patch::apply::MAX_UPDATE_MANAGERS;
use ironkeel_patch::{ApplyError, ApplyOptions, Schema, Structure, track_update};
use ironkeel_schema::type_by_name;

const NOW: &str = "2026-01-02T03:04:05Z";

fn deployment() -> Schema<'static> {
    Schema::Table(type_by_name("apps/v1.Deployment").unwrap())
}

fn by<'a>(manager: &'a str, schema: Schema<'a>) -> ApplyOptions<'a> {
    ApplyOptions { manager, api_version: "apps/v1", subresource: "", now: NOW, schema, reset: &[&["status"]] }
}

fn apply(live: &Value, config: &Value, force: bool, options: &ApplyOptions<'_>) -> Result<Value, ApplyError> {
    ironkeel_patch::apply(live, config, force, None, options)
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object.items_at(&["metadata", "managedFields"]);
    entries.iter().find(|e| e["manager"] == manager.into()).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

fn sample() -> Value {
    object!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": {"a": "b"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}})
}

fn created() -> Value {
    let mut object = sample();
    *object.slot(&["metadata", "uid"]) = "u".into();
    track_update(None, &mut object, &by("kubectl-create", deployment()));
    object
}

#[test]
fn a_create_is_owned_by_its_manager() {
    let object = created();
    assert_eq!(
        fields(&object, "kubectl-create"),
        object!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}
        })
    );
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["time"]), (&"Update".into(), &NOW.into()));
    assert_eq!((&entry["fieldsType"], &entry["apiVersion"]), (&"FieldsV1".into(), &"apps/v1".into()));
}

#[test]
fn an_update_takes_only_what_it_changes() {
    let old = created();
    let mut new = old.clone();
    *new.slot(&["spec", "replicas"]) = 3.into();
    new.slot(&["metadata", "labels"]).as_object_mut().unwrap().remove("a");
    track_update(Some(&old), &mut new, &by("scaler", deployment()));
    assert_eq!(fields(&new, "scaler"), object!({"f:spec": {"f:replicas": {}}}));
    let creator = fields(&new, "kubectl-create");
    assert_eq!(creator["f:spec"]["f:replicas"], Value::Null);
    assert_eq!(creator["f:metadata"]["f:labels"], Value::object(), "the emptied map itself is still owned");

    let before = new.clone();
    track_update(Some(&before), &mut new, &by("idle", deployment()));
    assert_eq!(new, before, "a write that changes nothing changes no owner");
}

#[test]
fn an_update_may_leave_out_or_reset_managed_fields() {
    let old = created();
    let mut new = old.clone();
    new.slot(&["metadata"]).as_object_mut().unwrap().remove("managedFields");
    track_update(Some(&old), &mut new, &by("x", deployment()));
    assert_eq!(new, old);
    for reset in [object!([]), object!([{}])] {
        let mut new = old.clone();
        *new.slot(&["metadata", "managedFields"]) = reset;
        track_update(Some(&old), &mut new, &by("x", deployment()));
        assert_eq!(new["metadata"]["managedFields"], Value::Null);
    }
}

#[test]
fn old_updaters_are_put_together() {
    let mut object = created();
    for i in 0..20 {
        let old = object.clone();
        object.slot(&["metadata", "labels"]).as_object_mut().unwrap().insert(format!("l{i}"), "x");
        let now = format!("2026-01-02T03:05:{i:02}Z");
        let manager = format!("m{i}");
        track_update(Some(&old), &mut object, &ApplyOptions { now: &now, ..by(&manager, deployment()) });
    }
    assert_eq!(object.items_at(&["metadata", "managedFields"]).len(), MAX_UPDATE_MANAGERS);
    assert_ne!(fields(&object, "ancient-changes")["f:spec"]["f:template"], Value::Null);
    assert_ne!(fields(&object, "m19"), Value::Null);
}

fn config(spec: Value) -> Value {
    object!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec})
}

#[test]
fn an_apply_creates_owns_and_prunes() {
    let empty = object!({"apiVersion": "apps/v1", "kind": "Deployment"});
    let options = by("me", deployment());
    let first = apply(
        &empty,
        &config(object!({"replicas": 2, "paused": true, "template": {"spec": {"containers": [
        {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}})),
        false,
        &options,
    )
    .unwrap();
    assert_eq!(fields(&first, "me")["f:spec"]["f:paused"], Value::object());
    assert_eq!(
        fields(&first, "me")["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"],
        object!({".": {}, "f:name": {}, "f:image": {}})
    );
    // The server defaults something in both containers; another manager owns a field of b.
    let mut live = first.clone();
    *live.slot(&["metadata", "uid"]) = "u".into();
    let containers = live.slot(&["spec", "template", "spec", "containers"]).as_array_mut().unwrap();
    containers.iter_mut().for_each(|c| *c.slot(&["terminationMessagePath"]) = "/dev/termination-log".into());
    let old = live.clone();
    let containers = live.slot(&["spec", "template", "spec", "containers"]).as_array_mut().unwrap();
    *containers[1].slot(&["workingDir"]) = "/w".into();
    track_update(Some(&old), &mut live, &by("other", deployment()));

    let second = apply(
        &live,
        &config(object!({"replicas": 2, "template": {"spec": {"containers": [{"name": "c"}]}}})),
        false,
        &options,
    )
    .unwrap();
    assert_eq!(second["spec"]["paused"], Value::Null, "no longer applied, owned by nobody else");
    let names: Vec<_> =
        second.items_at(&["spec", "template", "spec", "containers"]).iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["c".into()], "a and b are gone with all that others set in them");
    assert_eq!(fields(&second, "me")["f:spec"]["f:paused"], Value::Null);
}

#[test]
fn an_apply_conflicts_with_other_owners_unless_forced() {
    let live = created();
    let options = by("me", deployment());
    let error = apply(&live, &config(object!({"replicas": 5})), false, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let ApplyError::Conflicts(conflicts) = error else { panic!("{error}") };
    assert_eq!(conflicts[0].field, ".spec.replicas");

    let shared = apply(&live, &config(object!({"replicas": 1})), false, &options).unwrap();
    assert_eq!(fields(&shared, "me"), object!({"f:spec": {"f:replicas": {}}}), "the same value is owned by both");
    assert_eq!(fields(&shared, "kubectl-create")["f:spec"]["f:replicas"], Value::object());

    let image = config(object!({"template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}));
    let error = apply(&live, &image, false, &options).unwrap_err().to_string();
    assert!(error.ends_with(".spec.template.spec.containers[name=\"c\"].image"), "{error}");

    let forced = apply(&live, &config(object!({"replicas": 5})), true, &options).unwrap();
    assert_eq!(forced.i64_at(&["spec", "replicas"]), Some(5));
    assert_eq!(fields(&forced, "kubectl-create")["f:spec"]["f:replicas"], Value::Null);
    assert_eq!(apply(&forced, &config(object!({"replicas": 5})), false, &options).unwrap(), forced, "again: no change");
}

#[test]
fn an_apply_keeps_the_live_order_of_list_elements() {
    let names = |v: &Value| -> Vec<String> {
        v.items_at(&["spec", "template", "spec", "containers"])
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let containers = |list: &[&str]| {
        let list: Vec<Value> = list.iter().map(|n| object!({"name": (*n)})).collect();
        config(object!({"template": {"spec": {"containers": (Value::Array(list))}}}))
    };
    let live = containers(&["a", "b", "c"]);
    let options = by("me", deployment());
    for (applied, expected) in [
        (&["b", "d"][..], ["a", "b", "c", "d"]),
        (&["d", "a"][..], ["d", "a", "b", "c"]),
        (&["a", "d", "c"][..], ["a", "b", "d", "c"]),
    ] {
        let merged = apply(&live, &containers(applied), true, &options).unwrap();
        assert_eq!(names(&merged), expected, "by {applied:?}");
    }
    let swapped = apply(&live, &containers(&["c", "a"]), true, &options).unwrap();
    assert_eq!(names(&swapped), ["c", "a", "b"]);
}

#[test]
fn custom_resources_are_owned_member_by_member() {
    let mut object = object!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "finalizers": ["f"]},
        "spec": {"list": [1, 2], "deep": {"a": 1}}});
    track_update(None, &mut object, &by("m", Schema::Deduced));
    assert_eq!(
        fields(&object, "m"),
        object!({"f:metadata": {"f:finalizers": {".": {}, "v:\"f\"": {}}}, "f:spec": {".": {}, "f:deep": {".": {}, "f:a": {}}, "f:list": {}}})
    );
}

#[test]
fn kubectl_takes_over_what_client_side_apply_set_and_nobody_changed_since() {
    let mut live = sample();
    *live.slot(&["metadata", "uid"]) = "u".into();
    track_update(None, &mut live, &by("kubectl-client-side-apply", deployment()));
    let last = config(object!({"replicas": 1}));
    let changed = config(object!({"replicas": 4}));
    let by_kubectl = by("kubectl", deployment());
    let with = |live: &Value, config: &Value, options: &ApplyOptions<'_>| {
        ironkeel_patch::apply(live, config, false, Some(&last), options)
    };
    assert!(with(&live, &changed, &by("someone", deployment())).is_err());
    let applied = with(&live, &changed, &by_kubectl).unwrap();
    assert_eq!(applied.i64_at(&["spec", "replicas"]), Some(4));
    let paused = config(object!({"replicas": 4, "paused": true}));
    let mut stopped = live.clone();
    *stopped.slot(&["spec", "paused"]) = false.into();
    *stopped.slot(&["spec", "replicas"]) = 7.into();
    track_update(Some(&live), &mut stopped, &by("scaler", deployment()));
    let error = with(&stopped, &paused, &by_kubectl).unwrap_err().to_string();
    assert!(error.starts_with("Apply failed with 2 conflicts: conflicts with \"scaler\" using apps/v1:"), "{error}");
}

#[test]
fn a_configuration_must_fit_its_type() {
    let empty = object!({"apiVersion": "apps/v1", "kind": "Deployment"});
    let check = |spec: Value, expected: &str| {
        let error = apply(&empty, &config(spec), false, &by("me", deployment())).unwrap_err().to_string();
        assert_eq!(error, format!("failed to create typed patch object (n/d; apps/v1, Kind=Deployment): {expected}"));
    };
    check(object!({"foo": 1}), ".spec.foo: field not declared in schema");
    check(
        object!({"a": 1, "b": 2}),
        "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema",
    );
    check(
        object!({"template": {"spec": {"containers": [{"name": "c"}, {"name": "c"}]}}}),
        ".spec.template.spec.containers: duplicate entries for key [name=\"c\"]",
    );
    check(
        object!({"template": {"spec": {"containers": [5, {"name": 5}]}}}),
        ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
    );
    check(
        object!({"template": {"spec": {"containers": [{"name": "c", "image": 5}]}}}),
        ".spec.template.spec.containers[name=\"c\"].image: expected string, got &value.valueUnstructured{Value:5}",
    );
    check(
        object!({"template": {"spec": {"tolerations": [5]}}}),
        ".spec.template.spec.tolerations[0]: expected map, got &{5}",
    );
    check(object!({"template": {"spec": "x"}}), ".spec.template.spec: expected map, got &{x}");
    // A key that Go always writes is never missing.
    let nameless = config(object!({"template": {"spec": {"containers": [{"image": "i"}]}}}));
    apply(&empty, &nameless, false, &by("me", deployment())).unwrap();
    let error = apply(&object!({"kind": "Pod"}), &config(object!({})), false, &by("me", deployment())).unwrap_err();
    assert!(error.to_string().ends_with("invalid object type: apps/v1, Kind=Deployment"), "{error}");
    let other = object!({"apiVersion": "apps/v1beta1", "kind": "Deployment"});
    let error = apply(&empty, &other, false, &by("me", deployment())).unwrap_err().to_string();
    assert_eq!(error, "invalid object type: apps/v1beta1, Kind=Deployment");
}

#[test]
fn live_duplicates_are_owned_together_and_replaced_by_an_apply() {
    let ports = |list: Value| {
        object!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u"}, "spec":
        {"containers": [{"name": "c", "env": (list)}]}})
    };
    let pod = Schema::Table(type_by_name("core/v1.Pod").unwrap());
    let options = |manager| ApplyOptions { api_version: "v1", ..by(manager, pod) };
    let mut live = ports(object!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B"}]));
    track_update(None, &mut live, &options("creator"));
    let mut same = live.clone();
    *same.slot(&["spec", "hostname"]) = "h".into();
    track_update(Some(&live), &mut same, &options("idle"));
    assert_eq!(fields(&same, "idle"), object!({"f:spec": {"f:hostname": {}}}));
    let mut config = ports(object!([{"name": "A", "value": "3"}]));
    config.slot(&["metadata"]).as_object_mut().unwrap().remove("uid");
    let forced = apply(&live, &config, true, &options("me")).unwrap();
    assert_eq!(forced["spec"]["containers"][0]["env"], object!([{"name": "A", "value": "3"}, {"name": "B"}]),);
}

#[test]
fn custom_resources_follow_their_structural_schema() {
    let schema = object!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "atomic": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "one": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"},
                "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}}}}}});
    let structure = Structure::of_resource(&schema);
    let custom =
        |spec: Value| object!({"apiVersion": "apps/v1", "kind": "X", "metadata": {"name": "a"}, "spec": (spec)});
    let options = |manager| by(manager, Schema::Custom(&structure));
    let empty = object!({"apiVersion": "apps/v1", "kind": "X"});
    let first = custom(object!({"replicas": 1, "atomic": ["a"], "set": ["s"], "one": {"a": "1"}, "free": {"x": [1]},
        "ports": [{"port": 80, "name": "w"}]}));
    let mut live = apply(&empty, &first, false, &options("one")).unwrap();
    *live.slot(&["metadata", "uid"]) = "u".into();
    assert_eq!(
        fields(&live, "one")["f:spec"],
        object!({"f:replicas": {}, "f:atomic": {}, "f:one": {}, "f:set": {"v:\"s\"": {}}, "f:free": {"f:x": {}},
            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}}}})
    );
    let second = custom(object!({"set": ["t"], "ports": [{"port": 81}]}));
    let both = apply(&live, &second, false, &options("two")).unwrap();
    assert_eq!(both["spec"]["set"], object!(["s", "t"]));
    assert_eq!(both.items_at(&["spec", "ports"]).len(), 2);
    let taken = apply(&both, &custom(object!({"atomic": ["b"]})), false, &options("two")).unwrap_err().to_string();
    assert_eq!(taken, "Apply failed with 1 conflict: conflict with \"one\": .spec.atomic");
    let unknown = object!({"apiVersion": "apps/v1", "kind": "X", "metadata": {"name": "a"}, "unknownField": 1});
    let refused = apply(&both, &unknown, false, &options("two")).unwrap_err().to_string();
    assert!(refused.ends_with(".unknownField: field not declared in schema"), "{refused}");
}

#[test]
fn fields_that_a_way_resets_are_never_owned_by_it() {
    let pod = Schema::Table(type_by_name("core/v1.Pod").unwrap());
    let status = ApplyOptions {
        api_version: "v1",
        subresource: "status",
        reset: &[&["spec"], &["metadata", "labels"]],
        ..by("kubelet", pod)
    };
    let old = object!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u", "labels": {"a": "b"},
        "managedFields": [{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}}]}, "spec": {"nodeName": "n"}});
    let mut new = old.clone();
    *new.slot(&["status", "phase"]) = "Running".into();
    *new.slot(&["spec", "nodeName"]) = "m".into();
    *new.slot(&["metadata", "labels"]) = object!({"c": "d"});
    track_update(Some(&old), &mut new, &status);
    assert_eq!(fields(&new, "kubelet"), object!({"f:status": {"f:phase": {}}}));
    assert_eq!(fields(&new, "x"), object!({"f:metadata": {"f:labels": {"f:a": {}}}}));
}
