//! Rules that every row of the table keeps, and examples of upstream's words.
#![allow(clippy::unwrap_used)]

use ironkeel_kinds::{DeletePlan, Kind, TableContext, kind, kinds, validate_metadata, validate_metadata_update};
use ironkeel_object::{ObjectMeta, Value, object};

const NOW: TableContext = TableContext { now_unix: 1_700_000_000 };

fn row(group: &str, version: &str, plural: &str) -> &'static Kind {
    kind(group, version, plural).unwrap()
}

fn pod() -> Value {
    object!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "a", "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "busybox" }] }
    })
}

fn deployment() -> Value {
    object!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "nginx:1.27" }] }
            }
        }
    })
}

/// As a create goes: default, prepare, default, validate.
fn create(kind: &Kind, mut object: Value) -> (Value, Vec<String>) {
    kind.hooks.default(&mut object);
    kind.hooks.prepare_create(&mut object);
    kind.hooks.default(&mut object);
    let mut errors = validate_metadata(&object, kind);
    errors.extend(kind.hooks.validate(&object));
    (object, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn every_resource_has_a_row_that_bears_an_empty_object() {
    assert_eq!(kinds().len(), ironkeel_schema::resources().len());
    for k in kinds() {
        let mut o = object!({ "metadata": { "name": "a" } });
        o.set_gvk(&k.resource.api_version(), k.resource.kind);
        k.hooks.default(&mut o);
        let once = o.clone();
        k.hooks.default(&mut o);
        assert_eq!(once, o, "{} defaults twice", k.resource.plural);
        k.hooks.prepare_create(&mut o);
        let before = o.clone();
        for way in [None, Some("status")] {
            let mut new = before.clone();
            k.hooks.prepare_update(&mut new, &before, way);
            assert_eq!(new.generation(), before.generation(), "{} {way:?}", k.resource.plural);
        }
        k.hooks.validate(&o);
        k.hooks.to_stored(&mut o);
        k.hooks.from_stored(&mut o);
        let columns = k.hooks.columns();
        assert_eq!(columns.len(), k.hooks.cells(&o, &NOW).len(), "{}", k.resource.plural);
    }
}

#[test]
fn a_minimal_pod_is_defaulted_and_valid() {
    let k = row("", "v1", "pods");
    let (p, errors) = create(k, pod());
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(p.str_at(&["spec", "restartPolicy"]), Some("Always"));
    assert_eq!(p.str_at(&["status", "qosClass"]), Some("BestEffort"));
    assert_eq!(p["spec"]["containers"][0]["imagePullPolicy"].as_str(), Some("Always"));
    assert_eq!(p.generation(), 1);
}

#[test]
fn ephemeral_containers_come_later() {
    let mut p = pod();
    *p.slot(&["spec", "ephemeralContainers"]) = object!([{ "name": "d", "image": "busybox" }]);
    let (_, errors) = create(row("", "v1", "pods"), p);
    assert_eq!(errors, ["spec.ephemeralContainers: Forbidden: cannot be set on create"]);
}

#[test]
fn a_pod_update_may_change_the_image_only() {
    let k = row("", "v1", "pods");
    let (old, _) = create(k, pod());
    let mut new = old.clone();
    *new.get_mut("spec").unwrap().get_mut("containers").unwrap().as_array_mut().unwrap()[0].slot(&["image"]) =
        "b:1".into();
    k.hooks.prepare_update(&mut new, &old, None);
    assert!(k.hooks.validate_update(&new, &old, None).is_empty());
    assert_eq!(new.generation(), 2);
    *new.slot(&["spec", "restartPolicy"]) = "Never".into();
    let errors = k.hooks.validate_update(&new, &old, None);
    assert!(
        errors[0].to_string().starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{errors:?}"
    );
}

#[test]
fn deployments_say_what_is_wrong_in_upstreams_words() {
    let k = row("apps", "v1", "deployments");
    let (d, errors) = create(k, deployment());
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(d.i64_at(&["spec", "replicas"]), Some(1));
    assert_eq!(d.str_at(&["spec", "strategy", "rollingUpdate", "maxSurge"]), Some("25%"));
    let mut bad = deployment();
    let containers = bad.slot(&["spec", "template", "spec", "containers"]);
    *containers = object!([{ "name": "c" }]);
    let (_, errors) = create(k, bad);
    assert_eq!(errors, ["spec.template.spec.containers[0].image: Required value"]);
    let mut moved = d.clone();
    *moved.slot(&["spec", "selector"]) = object!({ "matchLabels": { "app": "b" } });
    // First what is wrong with it as it is, then what may not change.
    let errors: Vec<String> = k.hooks.validate_update(&moved, &d, None).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"
        ]
    );
}

#[test]
fn a_status_write_changes_status_only() {
    let k = row("apps", "v1", "deployments");
    let (old, _) = create(k, deployment());
    let mut new = old.clone();
    *new.slot(&["spec", "replicas"]) = 9_i64.into();
    *new.slot(&["status", "replicas"]) = 1_i64.into();
    k.hooks.prepare_update(&mut new, &old, Some("status"));
    assert_eq!(new.i64_at(&["spec", "replicas"]), Some(1));
    assert_eq!(new.i64_at(&["status", "replicas"]), Some(1));
    assert_eq!(new.generation(), old.generation());
}

#[test]
fn other_kinds_accept_their_minimal_objects() {
    let check = |group: &str, version: &str, plural: &str, mut o: Value| {
        let k = row(group, version, plural);
        o.set_gvk(&k.resource.api_version(), k.resource.kind);
        if k.resource.scope == ironkeel_schema::Scope::Namespaced {
            *o.slot(&["metadata", "namespace"]) = "default".into();
        }
        if o.name().is_empty() {
            *o.slot(&["metadata", "name"]) = "a".into();
        }
        *o.slot(&["metadata", "uid"]) = "u-1".into();
        let (_, errors) = create(k, o);
        assert_eq!(errors, Vec::<String>::new(), "{plural}");
    };
    let template = || object!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "x" }] } });
    let workload = || object!({ "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": (template()) } });
    let empty = Value::object;
    for p in [
        "configmaps",
        "secrets",
        "serviceaccounts",
        "namespaces",
        "nodes",
        "endpoints",
        "resourcequotas",
        "limitranges",
    ] {
        check("", "v1", p, empty());
    }
    for p in ["replicasets", "daemonsets", "statefulsets"] {
        check("apps", "v1", p, workload());
    }
    check("", "v1", "replicationcontrollers", object!({ "spec": { "template": (template()) } }));
    let mut once = template();
    *once.slot(&["spec", "restartPolicy"]) = "Never".into();
    check("batch", "v1", "jobs", object!({ "spec": { "template": (once.clone()) } }));
    check(
        "batch",
        "v1",
        "cronjobs",
        object!({ "spec": { "schedule": "*/5 * * * *", "jobTemplate": { "spec": { "template": (once) } } } }),
    );
    check("", "v1", "services", object!({ "spec": { "ports": [{ "port": 80_i64 }] } }));
    check(
        "",
        "v1",
        "persistentvolumeclaims",
        object!({ "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
    );
    check("coordination.k8s.io", "v1", "leases", empty());
    check("discovery.k8s.io", "v1", "endpointslices", object!({ "addressType": "IPv4", "endpoints": [] }));
    check(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterroles",
        object!({ "metadata": { "name": "system:x" }, "rules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }] }),
    );
    check("networking.k8s.io", "v1", "networkpolicies", object!({ "spec": { "podSelector": {} } }));
    check("policy", "v1", "poddisruptionbudgets", object!({ "spec": { "minAvailable": 1_i64 } }));
    check(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        object!({ "spec": { "maxReplicas": 3_i64, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "a" } } }),
    );
    check("storage.k8s.io", "v1", "storageclasses", object!({ "provisioner": "a/b" }));
    check("scheduling.k8s.io", "v1", "priorityclasses", object!({ "value": 5_i64 }));
    check("node.k8s.io", "v1", "runtimeclasses", object!({ "handler": "runc" }));
}

#[test]
fn pod_rows_read_as_upstreams() {
    let k = row("", "v1", "pods");
    let check = |status: Value, deleted: bool, want: [&str; 3]| {
        let mut p = pod();
        *p.slot(&["status"]) = status;
        if deleted {
            *p.slot(&["metadata", "deletionTimestamp"]) = "2023-11-14T22:13:00Z".into();
        }
        let cells = k.hooks.cells(&p, &NOW);
        let text: Vec<&str> = cells[1..4].iter().map(|c| c.as_str().unwrap()).collect();
        assert_eq!(text, want);
    };
    check(object!({ "phase": "Pending" }), false, ["0/1", "Pending", "0"]);
    let waiting = object!({ "phase": "Running", "containerStatuses": [{ "name": "c", "restartCount": 2_i64,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "finishedAt": "2023-11-14T22:13:15Z" } } }] });
    check(waiting, false, ["0/1", "CrashLoopBackOff", "2 (5s ago)"]);
    let running = object!({ "phase": "Running", "containerStatuses": [{ "name": "c", "ready": true, "state": { "running": {} } }] });
    check(running.clone(), false, ["1/1", "Running", "0"]);
    check(running, true, ["1/1", "Terminating", "0"]);
    let done = object!({ "phase": "Succeeded", "containerStatuses": [{ "name": "c", "state": { "terminated": { "reason": "Completed" } } }] });
    check(done, false, ["0/1", "Completed", "0"]);
}

#[test]
fn pods_end_gracefully_when_scheduled() {
    let k = row("", "v1", "pods");
    let (mut p, _) = create(k, pod());
    assert_eq!(k.hooks.plan_delete(&p, None), DeletePlan::Graceful { seconds: 0 });
    *p.slot(&["spec", "nodeName"]) = "n".into();
    assert_eq!(k.hooks.plan_delete(&p, None), DeletePlan::Graceful { seconds: 30 });
    assert_eq!(k.hooks.plan_delete(&p, Some(0)), DeletePlan::Graceful { seconds: 0 });
    assert_eq!(k.hooks.plan_delete(&p, Some(5)), DeletePlan::Graceful { seconds: 5 });
}

#[test]
fn metadata_keeps_its_rules() {
    let k = row("", "v1", "configmaps");
    let o = object!({ "metadata": { "name": "A_b", "namespace": "default" } });
    let errors = validate_metadata(&o, k);
    assert!(
        errors[0]
            .to_string()
            .starts_with("metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of")
    );
    let old = object!({ "metadata": { "name": "a", "uid": "1" } });
    let new = object!({ "metadata": { "name": "a", "uid": "2" } });
    assert_eq!(
        validate_metadata_update(&new, &old)[0].to_string(),
        "metadata.uid: Invalid value: \"2\": field is immutable"
    );
}

#[test]
fn events_of_both_groups_are_one_object() {
    let k = row("events.k8s.io", "v1", "events");
    let mut o = object!({ "note": "hi", "regarding": { "name": "p" } });
    let before = o.clone();
    k.hooks.to_stored(&mut o);
    assert_eq!(o.str_at(&["message"]), Some("hi"));
    assert_eq!(o.str_at(&["involvedObject", "name"]), Some("p"));
    k.hooks.from_stored(&mut o);
    assert_eq!(o, before);
}
