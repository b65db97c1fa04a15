//! Deletes: grace periods, finalizers, what becomes of dependents, collections.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_store::{Condition, Layer, Store, StoreError, WriteAnswer};
use serde_json::{Value, json};
use support::{Answer, Http, cluster, start_over};
use tokio::sync::Notify;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const MERGE: &str = "application/merge-patch+json";

async fn delete(http: &Http, path: &str, options: &Value) -> Answer {
    http.send(Method::DELETE, path, &[("content-type", "application/json")], options.to_string()).await
}

async fn pod(http: &Http, name: &str, node: Option<&str>) -> Value {
    let account = json!({"metadata": {"name": "default"}});
    let account = http.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert!(matches!(account.status.as_u16(), 201 | 409));
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    http.post(PODS, &pod).await.expect(201)
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_on_its_way_changes_only_when_its_time_is_shortened() {
    let c = cluster().await;
    let http = c.admin();
    let made = pod(&http, "p", Some("n")).await;
    let leaving = http.delete(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    let path = format!("{PODS}/p");
    for options in [
        json!({}),
        json!({"propagationPolicy": "Foreground"}),
        json!({"propagationPolicy": "Orphan", "gracePeriodSeconds": 30}),
        json!({"orphanDependents": true}),
        json!({"gracePeriodSeconds": 60}),
    ] {
        let again = delete(&http, &path, &options).await.expect(200);
        assert_eq!(again, leaving, "{options}");
    }
    let sooner = delete(&http, &path, &json!({"gracePeriodSeconds": 10})).await.expect(200);
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 10);
    let at = |o: &Value| o["metadata"]["deletionTimestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(at(&leaving).as_second() - at(&sooner).as_second(), 20);
    let mut watch = http.watch(&format!("{PODS}?watch=1&resourceVersion={}", version(&sooner))).await;
    let gone = delete(&http, &path, &json!({"gracePeriodSeconds": 0})).await.expect(200);
    assert_eq!(
        (&gone["metadata"]["deletionGracePeriodSeconds"], &gone["metadata"]["uid"]),
        (&json!(0), &made["metadata"]["uid"])
    );
    for wanted in ["MODIFIED", "DELETED"] {
        let (kind, object) = watch.event().await;
        assert_eq!((kind.as_str(), &object["metadata"]["deletionGracePeriodSeconds"]), (wanted, &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_node_is_marked_and_goes() {
    let c = cluster().await;
    let http = c.admin();
    let made = pod(&http, "p", None).await;
    let path = format!("{PODS}/p");
    let tried = http.delete(&format!("{path}?dryRun=All")).await.expect(200);
    assert!(tried["metadata"]["deletionTimestamp"].is_string(), "{tried}");
    assert_eq!(http.get(&path).await.expect(200), made);
    let mut watch = http.watch(&format!("{PODS}?watch=1&resourceVersion={}", version(&made))).await;
    let gone = delete(&http, &path, &json!({"preconditions": {"resourceVersion": version(&made).to_string()}})).await;
    let gone = gone.expect(200);
    assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (kind, object) = watch.event().await;
        assert!(object["metadata"]["deletionTimestamp"].is_string(), "{object}");
        seen.push((kind, version(&object)));
    }
    assert_eq!((seen[0].0.as_str(), seen[1].0.as_str(), seen[1].1), ("MODIFIED", "DELETED", version(&gone)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_finalizers_alone_takes_others_until_it_goes() {
    let c = cluster().await;
    let http = c.admin();
    let map = json!({"metadata": {"name": "m", "finalizers": ["a.b/c"]}});
    http.post(MAPS, &map).await.expect(201);
    let path = format!("{MAPS}/m");
    let held = http.delete(&path).await.expect(200);
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(http.delete(&path).await.expect(200), held, "nothing is left to be done");
    for (policy, finalizers) in [
        ("Orphan", json!(["a.b/c", "orphan"])),
        ("Foreground", json!(["a.b/c", "foregroundDeletion"])),
        ("Background", json!(["a.b/c"])),
    ] {
        let again = delete(&http, &path, &json!({"propagationPolicy": policy})).await.expect(200);
        assert_eq!(again["metadata"]["finalizers"], finalizers, "{policy}");
        assert_eq!(again["metadata"]["deletionTimestamp"], held["metadata"]["deletionTimestamp"]);
    }
    http.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    http.get(&path).await.refused(404, "NotFound", "");
    // A finalizer that is there says what nobody else says, and others keep their places.
    let map = json!({"metadata": {"name": "o", "finalizers": ["orphan", "a.b/c"]}});
    http.post(MAPS, &map).await.expect(201);
    let held = http.delete(&format!("{MAPS}/o")).await.expect(200);
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan", "a.b/c"]));
    let map = json!({"metadata": {"name": "b", "finalizers": ["orphan"]}});
    http.post(MAPS, &map).await.expect(201);
    let gone = delete(&http, &format!("{MAPS}/b"), &json!({"propagationPolicy": "Background"})).await.expect(200);
    assert_eq!(gone["status"], "Success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_says_what_becomes_of_dependents_where_nobody_else_does() {
    let c = cluster().await;
    let http = c.admin();
    let spec = json!({"selector": {"a": "b"}, "replicas": 0, "template": template()});
    for name in ["a", "b"] {
        http.post(CONTROLLERS, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    }
    let kept = http.delete(&format!("{CONTROLLERS}/a")).await.expect(200);
    assert_eq!((&kept["kind"], &kept["metadata"]["finalizers"]), (&json!("ReplicationController"), &json!(["orphan"])));
    assert_eq!(kept["metadata"]["generation"], 2, "controllers see that it goes");
    let gone = delete(&http, &format!("{CONTROLLERS}/b"), &json!({"orphanDependents": false})).await;
    assert_eq!(gone.expect(200)["status"], "Success");

    let mut spec = json!({"template": template()});
    spec["template"]["spec"]["restartPolicy"] = "Never".into();
    for name in ["a", "b"] {
        http.post(JOBS, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    }
    let kept = http.delete(&format!("{JOBS}/a")).await;
    let warning = kept.headers["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains("child pods are preserved by default when jobs are deleted"), "{warning}");
    assert_eq!(kept.expect(200)["metadata"]["finalizers"], json!(["orphan"]));
    let gone = delete(&http, &format!("{JOBS}/b"), &json!({"propagationPolicy": "Background"})).await;
    assert!(!gone.headers.contains_key("warning"));
    gone.expect(200);

    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "replicas": 0, "template": template()});
    for name in ["a", "b"] {
        http.post(SETS, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    }
    assert_eq!(http.delete(&format!("{SETS}/a")).await.expect(200)["status"], "Success");
    let waits = delete(&http, &format!("{SETS}/b"), &json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(
        (&waits["metadata"]["generation"], &waits["metadata"]["deletionGracePeriodSeconds"]),
        (&json!(2), &json!(0))
    );
    let pending = delete(&http, &format!("{SETS}/b"), &json!({"propagationPolicy": "Orphan"})).await.expect(200);
    assert_eq!(
        (&pending["metadata"]["generation"], &pending["metadata"]["finalizers"]),
        (&json!(2), &json!(["orphan"]))
    );

    // Nothing hangs on an Event.
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    let events = "/api/v1/namespaces/default/events";
    http.post(events, &event).await.expect(201);
    let gone = delete(&http, &format!("{events}/e"), &json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(gone["status"], "Success");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_definitions_begin_to_go_in_their_own_way() {
    let c = cluster().await;
    let http = c.admin();
    let made = http.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.expect(201);
    let path = "/api/v1/namespaces/n";
    let wrong = json!({"preconditions": {"uid": "other"}});
    let uid = made["metadata"]["uid"].as_str().unwrap();
    delete(&http, path, &wrong).await.refused(
        409,
        "Conflict",
        &format!("namespaces \"n\": Precondition failed: UID in precondition: other, UID in object meta: {uid}"),
    );
    let going = delete(&http, path, &json!({"orphanDependents": false})).await.expect(202);
    assert_eq!(
        (&going["status"]["phase"], &going["metadata"]["finalizers"]),
        (&json!("Terminating"), &json!(["foregroundDeletion"]))
    );
    assert!(going["metadata"]["deletionGracePeriodSeconds"].is_null(), "{going}");
    let again = delete(&http, path, &json!({"propagationPolicy": "Orphan"})).await.expect(200);
    assert_eq!(again["metadata"]["finalizers"], going["metadata"]["finalizers"]);

    http.post(MAPS, &json!({"metadata": {"name": "m"}})).await.expect(201);
    delete(&http, &format!("{MAPS}/m"), &wrong).await.refused(
        409,
        "Conflict",
        "Operation cannot be fulfilled on ConfigMap \"m\": the UID in the precondition (other) does not match the UID in record",
    );

    let definition = json!({"metadata": {"name": "cogs.example.com", "finalizers": ["a.b/c"]}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "cogs", "kind": "Cog"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let made = http.post(definitions, &definition).await.expect(201);
    let going = http.delete(&format!("{definitions}/cogs.example.com")).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert!(going["metadata"]["deletionGracePeriodSeconds"].is_null(), "{going}");
    assert_eq!(going["metadata"]["generation"], made["metadata"]["generation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_answers_with_the_object_where_upstream_does() {
    let c = cluster().await;
    let http = c.admin();
    for (path, kind) in [("/apis/resource.k8s.io/v1/deviceclasses", "DeviceClass"), ("/api/v1/namespaces", "Namespace")]
    {
        http.post(path, &json!({"metadata": {"name": "n"}})).await.expect(201);
        let first = http.delete(&format!("{path}/n")).await.expect(200);
        assert_eq!(first["kind"], kind);
    }
    let finalized = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
    http.put("/api/v1/namespaces/n/finalize", &finalized).await.expect(200);
    http.get("/api/v1/namespaces/n").await.refused(404, "NotFound", "not found");
    http.post(MAPS, &json!({"metadata": {"name": "n"}})).await.expect(201);
    assert_eq!(http.delete(&format!("{MAPS}/n")).await.expect(200)["kind"], "Status");
}

/// A store whose first delete of a key waits.
#[derive(Debug)]
struct Held {
    inner: Arc<dyn Store>,
    held: AtomicBool,
    asked: Notify,
    go_on: Notify,
}

#[async_trait]
impl Layer for Held {
    fn beneath(&self) -> &dyn Store {
        &*self.inner
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        if key.ends_with(b"/again") && !self.held.swap(true, Ordering::AcqRel) {
            self.asked.notify_one();
            self.go_on.notified().await;
        }
        self.inner.delete(key, condition).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_goes_as_it_was_listed() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let inner = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let (held, asked, go_on) = (AtomicBool::new(false), Notify::new(), Notify::new());
    let store = Arc::new(Held { inner, held, asked, go_on });
    let c = start_over(dir, store.clone(), |_| {}).await;
    let http = c.admin();
    for name in ["again", "other"] {
        http.post(MAPS, &json!({"metadata": {"name": name}})).await.expect(201);
    }
    let deleting = tokio::spawn({
        let http = http.clone();
        async move { http.delete(MAPS).await.expect(200) }
    });
    tokio::time::timeout(std::time::Duration::from_secs(10), store.asked.notified()).await.expect("the delete");
    http.delete(&format!("{MAPS}/again")).await.expect(200);
    let new = http.post(MAPS, &json!({"metadata": {"name": "again"}})).await.expect(201);
    store.go_on.notify_one();
    let listed = deleting.await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!(http.get(&format!("{MAPS}/again")).await.expect(200), new, "it was not there when the list was made");
    http.get(&format!("{MAPS}/other")).await.refused(404, "NotFound", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_collection_can_be_deleted() {
    let c = cluster().await;
    let http = c.admin();
    for name in ["a", "b", "c"] {
        http.post(MAPS, &json!({"metadata": {"name": name}})).await.expect(201);
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = http.delete(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(names(&http.get(MAPS).await.expect(200)), ["c"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    http.delete(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert!(names(&http.get(MAPS).await.expect(200)).is_empty());
    let wrong = http.delete(&format!("{MAPS}?resourceVersionMatch=Exact")).await;
    wrong.refused(422, "Invalid", "resourceVersionMatch is forbidden unless resourceVersion is provided");
}
