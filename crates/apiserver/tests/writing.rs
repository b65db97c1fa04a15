//! Writes: conflicts, dry runs, bad input, deletion with finalizers and grace, subresources, restart.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Cluster, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

async fn with_account() -> Cluster {
    let c = cluster().await;
    let body = json!({"metadata": {"name": "default"}});
    c.admin().post("/api/v1/namespaces/default/serviceaccounts", &body).await.expect(201);
    c
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_answered_as_upstream_does_and_stores_nothing() {
    let c = with_account().await;
    let http = c.admin();
    let before = http.get("/api/v1/configmaps").await.expect(200);
    let strict = "?fieldValidation=Strict";
    let mut unknown = map("bad");
    unknown["foo"] = 1.into();
    http.post(&format!("{MAPS}{strict}"), &unknown).await.refused(
        400,
        "BadRequest",
        "strict decoding error: unknown field \"foo\"",
    );
    let twice = r#"{"metadata":{"name":"bad"},"data":{"a":"1"},"data":{"b":"2"}}"#;
    http.send(Method::POST, &format!("{MAPS}{strict}"), JSON, twice).await.refused(
        400,
        "BadRequest",
        "duplicate field \"data\"",
    );
    http.post(MAPS, &json!({"metadata": {"name": "bad"}, "data": 5})).await.refused(
        400,
        "BadRequest",
        "cannot unmarshal",
    );
    http.post(MAPS, &json!({"metadata": {}})).await.refused(422, "Invalid", "name or generateName is required");
    http.post(MAPS, &json!({"metadata": {"name": "Bad_Name"}})).await.refused(
        422,
        "Invalid",
        "ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain",
    );
    http.post(PODS, &json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).await.refused(
        422,
        "Invalid",
        "spec.containers: Required value",
    );
    http.post(MAPS, &json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "bad"}})).await.refused(
        400,
        "BadRequest",
        "Secret",
    );
    http.post(MAPS, &json!({"apiVersion": "v2", "metadata": {"name": "bad"}})).await.refused(
        400,
        "BadRequest",
        "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" \
         in scheme",
    );
    http.post(MAPS, &json!({"metadata": {"name": "bad", "namespace": "other"}})).await.refused(
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    http.post("/api/v1/namespaces/missing/configmaps", &map("bad")).await.refused(
        404,
        "NotFound",
        "namespaces \"missing\" not found",
    );
    http.send(Method::POST, MAPS, JSON, "{").await.refused(400, "BadRequest", "unexpected end of JSON input");
    http.send(Method::POST, MAPS, &[("content-type", "text/plain")], "x").await.refused(
        415,
        "UnsupportedMediaType",
        "accepted media types",
    );
    http.send(Method::GET, MAPS, &[("accept", "text/html")], "").await.refused(
        406,
        "NotAcceptable",
        "406: Not Acceptable",
    );
    let large = format!(r#"{{"metadata":{{"name":"bad"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    http.send(Method::POST, MAPS, JSON, large).await.refused(413, "RequestEntityTooLarge", "limit is 3145728");
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"].iter().zip(["b", "c", "d", "e", "f", "g", "h", "i"]) {
        let list = vec![format!("*{from}"); 9].join(",");
        bomb.push_str(&format!("{to}: &{to} [{list}]\n"));
    }
    http.send(Method::POST, MAPS, &[("content-type", "application/yaml")], bomb).await.refused(
        400,
        "BadRequest",
        "excessive aliasing",
    );
    http.send(Method::POST, MAPS, JSON, "").await.refused(
        400,
        "BadRequest",
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: \
         unexpected end of JSON input (<empty>)",
    );
    http.send(Method::POST, MAPS, JSON, "null").await.refused(422, "Invalid", "name or generateName is required");
    let no_method = "the server does not allow this method on the requested resource";
    http.post("/api/v1/configmaps", &map("bad")).await.refused(405, "MethodNotAllowed", no_method);
    // What is said to all namespaces at once can only be asked for.
    http.post(MAPS, &map("kept")).await.expect(201);
    http.delete("/api/v1/configmaps").await.refused(405, "MethodNotAllowed", no_method);
    http.get(&format!("{MAPS}/kept")).await.expect(200);
    http.post(&format!("{MAPS}/kept"), &map("kept")).await.refused(405, "MethodNotAllowed", no_method);
    assert_eq!(http.send(Method::HEAD, &format!("{MAPS}/kept"), &[], "").await.status, 405);
    http.get("/api/v1/configmaps/kept").await.refused(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    http.get(&format!("{MAPS}/%2e%2e")).await.refused(
        400,
        "BadRequest",
        "Name parameter invalid: \"..\": may not be '..'",
    );
    let nowhere = http.get("/nonsense").await;
    assert_eq!((nowhere.status.as_u16(), &nowhere.bytes[..]), (404, &b"404 page not found\n"[..]));
    assert_eq!(nowhere.headers["x-content-type-options"], "nosniff");
    // A PUT bears the name that its path does.
    let put = format!("{MAPS}/kept");
    for (name, why) in [
        (None, "the name of the object (kept based on URL) was undeterminable: name must be provided"),
        (Some("other"), "the name of the object (other) does not match the name on the URL (kept)"),
    ] {
        let body = json!({"metadata": {"name": name}}).to_string();
        http.send(Method::PUT, &put, JSON, body).await.refused(400, "BadRequest", why);
    }
    http.delete(&put).await.expect(200);
    http.get("/api/v1/nonsense").await.refused(404, "NotFound", "the server could not find the requested resource");
    http.get(&format!("{MAPS}/x/status")).await.refused(404, "NotFound", "could not find the requested resource");
    http.post(&format!("{MAPS}?dryRun=Some"), &map("bad")).await.refused(422, "Invalid", "dryRun");
    http.patch(&format!("{MAPS}/bad"), "application/merge-patch+json", &json!({})).await.refused(
        404,
        "NotFound",
        "configmaps \"bad\" not found",
    );
    http.put(&format!("{MAPS}/bad"), &map("bad")).await.refused(404, "NotFound", "configmaps \"bad\" not found");
    assert_eq!(http.get("/api/v1/configmaps").await.expect(200)["items"], before["items"]);
    let warned = http.post(MAPS, &unknown).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"foo\\\"\"");
    assert!(warned.expect(201)["foo"].is_null());
    http.post(MAPS, &map("bad")).await.refused(409, "AlreadyExists", "configmaps \"bad\" already exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_versions_conflict_and_dry_runs_leave_no_trace() {
    let c = cluster().await;
    let http = c.admin();
    let made = http.post(MAPS, &map("a")).await.expect(201);
    let mut changed = made.clone();
    changed["data"]["k"] = "w".into();
    let dry = http.put(&format!("{MAPS}/a?dryRun=All"), &changed).await.expect(200);
    assert_eq!(dry["data"]["k"], "w");
    assert_eq!(http.get(&format!("{MAPS}/a")).await.expect(200), made);
    http.put(&format!("{MAPS}/a"), &changed).await.expect(200);
    http.put(&format!("{MAPS}/a"), &changed).await.refused(409, "Conflict", "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again");
    changed["metadata"]["resourceVersion"] = Value::Null;
    changed["data"]["k"] = "z".into();
    http.put(&format!("{MAPS}/a"), &changed).await.expect(200);
    changed["metadata"]["uid"] = "other".into();
    http.put(&format!("{MAPS}/a"), &changed).await.refused(409, "Conflict", "Precondition failed: UID");
    let before = http.get("/api/v1/configmaps").await.expect(200);
    http.post(&format!("{MAPS}?dryRun=All"), &map("b")).await.expect(201);
    http.delete(&format!("{MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(http.get("/api/v1/configmaps").await.expect(200)["items"], before["items"]);
    http.get(&format!("{MAPS}/b")).await.refused(404, "NotFound", "");
    let wrong = json!({"preconditions": {"uid": "x"}});
    http.send(Method::DELETE, &format!("{MAPS}/a"), JSON, wrong.to_string()).await.refused(
        409,
        "Conflict",
        "the UID in the precondition (x) does not match",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_patches_all_arrive() {
    let c = cluster().await;
    let http = c.admin();
    http.post(MAPS, &map("a")).await.expect(201);
    let tasks: Vec<_> = (0..24)
        .map(|i| {
            let http = http.clone();
            tokio::spawn(async move {
                let patch = json!({"data": {format!("k{i}"): "v"}});
                http.patch(&format!("{MAPS}/a"), "application/merge-patch+json", &patch).await.expect(200);
            })
        })
        .collect();
    for t in tasks {
        t.await.unwrap();
    }
    assert_eq!(http.get(&format!("{MAPS}/a")).await.expect(200)["data"].as_object().unwrap().len(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_owns_fields_and_conflicts_with_other_owners() {
    let c = cluster().await;
    let http = c.admin();
    let apply = "application/apply-patch+yaml";
    let body = |v: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": v}});
    http.patch(&format!("{MAPS}/a"), apply, &body("1")).await.refused(422, "Invalid", "fieldManager: Required value");
    let made = http.patch(&format!("{MAPS}/a?fieldManager=one"), apply, &body("1")).await.expect(201);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = http.patch(&format!("{MAPS}/a?fieldManager=one"), apply, &body("1")).await.expect(200);
    assert_eq!(
        again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"],
        "applying the same writes nothing"
    );
    let a = http.patch(&format!("{MAPS}/a?fieldManager=two"), apply, &body("2")).await;
    assert_eq!(a.json()["details"]["causes"][0]["reason"], "FieldManagerConflict");
    a.refused(409, "Conflict", "Apply failed with 1 conflict: conflict with \"one\"");
    http.patch(&format!("{MAPS}/a?fieldManager=two&force=true"), apply, &body("2")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let c = cluster().await;
    let http = c.admin();
    let mut body = map("a");
    body["metadata"]["finalizers"] = json!(["example.com/f"]);
    http.post(MAPS, &body).await.expect(201);
    let held = http.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(held["kind"], "ConfigMap");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let add = json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}});
    http.patch(&format!("{MAPS}/a"), "application/merge-patch+json", &add).await.refused(
        422,
        "Invalid",
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted",
    );
    let none = json!({"metadata": {"finalizers": null}});
    http.patch(&format!("{MAPS}/a"), "application/merge-patch+json", &none).await.expect(200);
    http.get(&format!("{MAPS}/a")).await.refused(404, "NotFound", "");

    http.post(MAPS, &map("b")).await.expect(201);
    let foreground = json!({"propagationPolicy": "Foreground"});
    let held = http.send(Method::DELETE, &format!("{MAPS}/b"), JSON, foreground.to_string()).await.expect(200);
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    http.post(MAPS, &map("c")).await.expect(201);
    let gone = http.delete(&format!("{MAPS}/c")).await.expect(200);
    assert_eq!(
        (&gone["kind"], &gone["status"], &gone["details"]["name"]),
        (&json!("Status"), &json!("Success"), &json!("c"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_completed_bound_and_deleted_gracefully() {
    let c = with_account().await;
    let http = c.admin();
    let made = http.post(PODS, &pod("p")).await.expect(201);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let volume = made["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(made["status"]["phase"], "Pending");
    let list = http.get("/api/v1/pods?fieldSelector=spec.nodeName%3D").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    http.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    http.post(&format!("{PODS}/p/binding"), &binding).await.refused(
        409,
        "Conflict",
        "pod p is already assigned to node \"n1\"",
    );
    let bound = http.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let scheduled = bound["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled");
    assert_eq!(scheduled.unwrap()["status"], "True");
    let status = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "other"}});
    let run = http.patch(&format!("{PODS}/p/status"), "application/merge-patch+json", &status).await.expect(200);
    assert_eq!((&run["status"]["phase"], &run["spec"]["nodeName"]), (&json!("Running"), &json!("n1")));

    let leaving = http.delete(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    let sooner = http.delete(&format!("{PODS}/p?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    http.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await.expect(200);
    http.get(&format!("{PODS}/p")).await.refused(404, "NotFound", "pods \"p\" not found");

    http.post(PODS, &pod("q")).await.expect(201);
    let evict = json!({"metadata": {"name": "q"}});
    http.post(&format!("{PODS}/q/eviction"), &evict).await.expect(201);
    let mut account = pod("r");
    account["spec"]["serviceAccountName"] = "nobody".into();
    http.post(PODS, &account).await.refused(403, "Forbidden", "serviceaccount \"nobody\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_addresses_that_no_other_has() {
    let c = cluster().await;
    let http = c.admin();
    let services = "/api/v1/namespaces/default/services";
    let tasks: Vec<_> = (0..30)
        .map(|i| {
            let http = http.clone();
            tokio::spawn(async move {
                let body = json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
                http.post(services, &body).await.expect(201)
            })
        })
        .collect();
    let (mut ips, mut ports) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for t in tasks {
        let s = t.await.unwrap();
        assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4"]));
        assert!(ips.insert(s["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        let port = s["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
        assert!((30_000..=32_767).contains(&port) && ports.insert(port));
    }
    let taken = ips.iter().next().unwrap();
    let body = json!({"metadata": {"name": "t"}, "spec": {"clusterIP": taken, "ports": [{"port": 80}]}});
    http.post(services, &body).await.refused(422, "Invalid", "provided IP is already allocated");
    let body = json!({"metadata": {"name": "t"}, "spec": {"clusterIP": "192.0.2.3", "ports": [{"port": 80}]}});
    http.post(services, &body).await.refused(422, "Invalid", "the provided network does not match the current range");
    let before = http.get(&format!("{services}/s1")).await.expect(200);
    let kept = http
        .patch(&format!("{services}/s1"), "application/merge-patch+json", &json!({"spec": {"type": "ClusterIP"}}))
        .await
        .expect(200);
    assert_eq!(kept["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    assert!(kept["spec"]["ports"][0]["nodePort"].is_null());
    http.delete(&format!("{services}/s2")).await.expect(200);
    let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    assert_eq!(http.post(services, &headless).await.expect(201)["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_generate_name_collections_and_yaml() {
    let c = cluster().await;
    let http = c.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 2\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n";
    let made = http.send(Method::POST, deployments, &[("content-type", "application/yaml")], body).await.expect(201);
    assert_eq!(made["metadata"]["generation"], 1);
    let scale = http.get(&format!("{deployments}/d/scale")).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let patch = json!({"spec": {"replicas": 5}});
    let scale = http.patch(&format!("{deployments}/d/scale"), "application/merge-patch+json", &patch).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], 5);
    let after = http.get(&format!("{deployments}/d")).await.expect(200);
    assert_eq!((&after["spec"]["replicas"], &after["metadata"]["generation"]), (&json!(5), &json!(2)));

    for _ in 0..5 {
        let one = http.post(MAPS, &json!({"metadata": {"generateName": "g-", "labels": {"g": "1"}}})).await.expect(201);
        assert_eq!(one["metadata"]["name"].as_str().unwrap().len(), 7);
    }
    http.post(MAPS, &map("other")).await.expect(201);
    let gone = http.delete(&format!("{MAPS}?labelSelector=g%3D1")).await.expect(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 5);
    assert_eq!(http.get(MAPS).await.expect(200)["items"].as_array().unwrap().len(), 1);

    let yaml = http.send(Method::GET, &format!("{MAPS}/other"), &[("accept", "application/yaml")], "").await;
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: ConfigMap"));
    let proto = http
        .send(Method::GET, &format!("{MAPS}/other"), &[("accept", "application/vnd.kubernetes.protobuf")], "")
        .await;
    let sent = [("content-type", "application/vnd.kubernetes.protobuf")];
    let same = http.send(Method::PUT, &format!("{MAPS}/other"), &sent, proto.bytes).await.expect(200);
    assert_eq!(same["data"]["k"], "v");
    let meta = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let list = http.send(Method::GET, MAPS, &meta, "").await.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
    assert!(list["items"][0]["data"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_health_and_metrics_answer() {
    let c = cluster().await;
    let http = c.admin();
    for path in [
        "/",
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/version",
        "/openapi/v3",
        "/openapi/v3/apis/apps/v1",
        "/openapi/v2",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
    ] {
        http.get(path).await.expect(200);
    }
    let aggregated =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let all = http.send(Method::GET, "/apis", &aggregated, "").await;
    assert_eq!(all.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(all.expect(200)["kind"], "APIGroupDiscoveryList");
    c.ready().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        assert_eq!(&http.get(path).await.bytes[..], b"ok");
    }
    assert!(String::from_utf8_lossy(&http.get("/readyz?verbose").await.bytes).contains("[+]etcd ok"));
    let metrics = http.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("apiserver_request_total{verb=\"GET\""));
    c.as_user("eve", &["system:authenticated"]).get("/metrics").await.refused(
        403,
        "Forbidden",
        "forbidden: User \"eve\" cannot get path \"/metrics\"",
    );
    c.as_user("eve", &["system:authenticated"]).get("/version").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_restart() {
    let c = cluster().await;
    let http = c.admin();
    for i in 0..20 {
        http.post(MAPS, &map(&format!("m{i}"))).await.expect(201);
    }
    http.delete(&format!("{MAPS}/m7")).await.expect(200);
    let before = http.get(&format!("{MAPS}/m3")).await.expect(200);
    drop(http);
    let c = c.restart().await;
    let http = c.admin();
    assert_eq!(http.get(&format!("{MAPS}/m3")).await.expect(200), before);
    assert_eq!(http.get(MAPS).await.expect(200)["items"].as_array().unwrap().len(), 19);
    let services = "/api/v1/namespaces/default/services";
    let body = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    assert_ne!(http.post(services, &body).await.expect(201)["spec"]["clusterIP"], "10.96.0.1");
}
