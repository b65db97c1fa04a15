//! Server-side apply and tracking: who owns what after each write.

#![allow(clippy::unwrap_used)]

use ironkeel_object::{Value, object};
use ironkeel_patch::apply::MAX_UPDATE_MANAGERS;
use ironkeel_patch::{ApplyError, ApplyOptions, apply, track_update};
use ironkeel_schema::{TypeId, type_by_name};

const NOW: &str = "2026-01-02T03:04:05Z";

fn deployment() -> Option<TypeId> {
    type_by_name("apps/v1.Deployment")
}

fn by(manager: &str, type_id: Option<TypeId>) -> ApplyOptions<'_> {
    ApplyOptions { manager, api_version: "apps/v1", subresource: "", now: NOW, type_id }
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
    assert_eq!(names, ["b".into(), "c".into()], "a is gone with its defaults, b stays for the other's sake");
    assert_eq!(fields(&second, "me")["f:spec"]["f:paused"], Value::Null);
}

#[test]
fn an_apply_conflicts_with_other_owners_unless_forced() {
    let live = created();
    let options = by("me", deployment());
    let error = apply(&live, &config(object!({"replicas": 5})), false, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1 at 2026-01-02T03:04:05Z: .spec.replicas"
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
    track_update(None, &mut object, &by("m", None));
    assert_eq!(
        fields(&object, "m"),
        object!({"f:metadata": {"f:finalizers": {".": {}, "v:\"f\"": {}}}, "f:spec": {".": {}, "f:deep": {".": {}, "f:a": {}}, "f:list": {}}})
    );
}

#[test]
fn kubectl_takes_over_what_client_side_apply_owned() {
    let mut live = sample();
    *live.slot(&["metadata", "uid"]) = "u".into();
    *live.slot(&["metadata", "annotations"]) = object!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    track_update(None, &mut live, &by("kubectl-client-side-apply", deployment()));
    let changed = config(object!({"replicas": 4}));
    assert!(apply(&live, &changed, false, &by("someone", deployment())).is_err());
    let applied = apply(&live, &changed, false, &by("kubectl", deployment())).unwrap();
    assert_eq!(applied.i64_at(&["spec", "replicas"]), Some(4));
}
