//! Patches of every kind and server-side apply, through the server.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Http, cluster};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const APPLY: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn whole() -> Value {
    deployment(
        json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}),
    )
}

async fn apply(http: &Http, path: &str, manager: &str, body: &Value) -> Answer {
    http.patch(&format!("{path}?fieldManager={manager}"), APPLY, body).await
}

fn entry(object: &Value, manager: &str, subresource: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let of = |e: &&Value| e["manager"] == manager && e["subresource"].as_str().unwrap_or_default() == subresource;
    entries.iter().find(of).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_creates_shares_conflicts_takes_and_gives_up() {
    let c = cluster().await;
    let http = c.admin();
    let path = format!("{DEPLOYMENTS}/d");
    let created = apply(&http, &path, "one", &whole()).await.expect(201);
    let one = entry(&created, "one", "");
    assert_eq!(one["operation"], "Apply");
    assert_eq!(one["fieldsV1"]["f:spec"]["f:replicas"], json!({}));
    assert!(one["fieldsV1"]["f:status"].is_null());
    let version = &created["metadata"]["resourceVersion"];
    let again = apply(&http, &path, "one", &whole()).await.expect(200);
    assert_eq!(&again["metadata"]["resourceVersion"], version, "an apply of the same changes nothing");

    let shared = apply(&http, &path, "two", &deployment(json!({"replicas": 1}))).await.expect(200);
    assert_eq!(entry(&shared, "two", "")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let four = deployment(json!({"replicas": 4}));
    let refused = apply(&http, &path, "two", &four).await;
    let status = refused.json();
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict",
        "message": "conflict with \"one\"", "field": ".spec.replicas"}])
    );
    refused.refused(409, "Conflict", "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let forced = http.patch(&format!("{path}?fieldManager=two&force=true"), APPLY, &four).await.expect(200);
    assert!(entry(&forced, "one", "")["fieldsV1"]["f:spec"]["f:replicas"].is_null());

    let scaled = http.patch(&format!("{path}?fieldManager=scaler"), MERGE, &json!({"spec": {"replicas": 5}})).await;
    let scaled = scaled.expect(200);
    assert_eq!(entry(&scaled, "scaler", "")["operation"], "Update");
    let message = apply(&http, &path, "two", &four).await.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("conflict with \"scaler\" using apps/v1:"), "{message}");

    let without = deployment(json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
        "selector": {"matchLabels": {"a": "b"}}}));
    let mut labelled = without.clone();
    labelled["spec"]["template"]["metadata"] = json!({"labels": {"a": "b"}});
    let pruned = apply(&http, &path, "one", &labelled).await.expect(200);
    assert!(pruned["spec"]["template"]["spec"]["containers"][0]["ports"].is_null(), "no longer applied");
    assert_eq!(pruned["spec"]["replicas"], 5, "another's field stays");

    let reset = http.patch(&path, MERGE, &json!({"metadata": {"managedFields": []}})).await.expect(200);
    assert!(reset["metadata"]["managedFields"].is_null());
    let first = apply(&http, &path, "late", &deployment(json!({"paused": true}))).await.expect(200);
    assert_eq!(entry(&first, "before-first-apply", "")["operation"], "Update");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_is_checked_before_it_is_merged() {
    let c = cluster().await;
    let http = c.admin();
    let path = format!("{DEPLOYMENTS}/d");
    let check = async |path: &str, body: &Value, code: u16, message: &str| {
        let answer = http.patch(path, APPLY, body).await;
        let status = answer.json();
        assert_eq!(answer.status.as_u16(), code, "{status}");
        let found = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(found.contains(message), "{found:?} does not contain {message:?}");
    };
    check(
        &path,
        &whole(),
        422,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
    )
    .await;
    let by_me = format!("{path}?fieldManager=me");
    let long = format!("{path}?fieldManager={}", "x".repeat(129));
    check(&long, &whole(), 422, "fieldManager: Too long: may not be more than 128 bytes").await;
    check(&format!("{path}?fieldManager=a%07b"), &whole(), 422, "invalid character U+0007 (at position 1)").await;
    let mut unknown = whole();
    unknown["spec"]["unknownField"] = 1.into();
    let untyped = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.unknownField: field not declared in schema";
    check(&by_me, &unknown, 400, untyped).await;
    let mut older = whole();
    older["apiVersion"] = "apps/v1beta1".into();
    check(&by_me, &older, 400, "invalid object type: apps/v1beta1, Kind=Deployment").await;
    let mut named = whole();
    named["metadata"]["managedFields"] = json!([]);
    check(&by_me, &named, 400, "metadata.managedFields must be nil").await;
    let mut uid = whole();
    uid["metadata"]["uid"] = "123".into();
    check(&by_me, &uid, 409, "uid mismatch: the provided object specified uid 123, and no existing object was found")
        .await;
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: b\n  a: c\n";
    let strict = format!("{MAPS}/m?fieldManager=me&fieldValidation=Strict");
    let answer = http.send(Method::PATCH, &strict, &[("content-type", APPLY)], twice).await;
    answer.refused(400, "BadRequest", "line 7: key \"a\" already set in map");
    let answer =
        http.send(Method::PATCH, &format!("{MAPS}/m?fieldManager=me"), &[("content-type", APPLY)], twice).await;
    assert!(answer.headers["warning"].to_str().unwrap().contains("already set in map"));
    answer.expect(201);

    let reader = c.as_user("reader", &[]);
    let role = json!({"metadata": {"name": "patcher"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"],
        "verbs": ["patch", "get"]}]});
    http.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    let binding = json!({"metadata": {"name": "patcher"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "patcher"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
        "name": "reader"}]});
    http.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    let map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y"}});
    apply(&reader, &format!("{MAPS}/m"), "r", &map("m")).await.expect(200);
    let denied = apply(&reader, &format!("{MAPS}/new"), "r", &map("new")).await;
    denied.refused(403, "Forbidden", "User \"reader\" cannot create resource \"configmaps\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_through_a_subresource_owns_only_what_it_may_write() {
    let c = cluster().await;
    let http = c.admin();
    let path = format!("{DEPLOYMENTS}/d");
    http.post(&format!("{DEPLOYMENTS}?fieldManager=creator"), &whole()).await.expect(201);
    let scale = |n: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": n}});
    let refused = apply(&http, &format!("{path}/scale"), "hpa", &scale(3)).await;
    refused.refused(409, "Conflict", "conflict with \"creator\" using apps/v1:");
    let forced = http.patch(&format!("{path}/scale?fieldManager=hpa&force=true"), APPLY, &scale(3)).await.expect(200);
    assert_eq!(forced["spec"]["replicas"], 3);
    let now = http.get(&path).await.expect(200);
    assert_eq!(entry(&now, "hpa", "scale")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entry(&now, "hpa", "scale")["operation"], "Apply");
    assert!(entry(&now, "creator", "")["fieldsV1"]["f:spec"]["f:replicas"].is_null());

    let condition = json!({"type": "Custom", "status": "True"});
    let mut status = deployment(json!({"replicas": 9}));
    status["status"] = json!({"conditions": [condition]});
    let written = apply(&http, &format!("{path}/status"), "controller", &status).await.expect(200);
    assert_eq!(written["spec"]["replicas"], 3);
    assert_eq!(written["status"]["conditions"][0]["type"], "Custom");
    let fields = &entry(&written, "controller", "status")["fieldsV1"];
    assert!(fields["f:spec"].is_null(), "{fields}");
    assert!(fields["f:status"]["f:conditions"]["k:{\"type\":\"Custom\"}"].is_object(), "{fields}");
    apply(&http, &format!("{DEPLOYMENTS}/none/status"), "controller", &status).await.refused(
        404,
        "NotFound",
        "\"none\" not found",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admission_adds_belongs_to_nobody() {
    let c = cluster().await;
    let http = c.admin();
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = http.post("/api/v1/namespaces/default/pods?fieldManager=me", &pod).await.expect(201);
    assert!(created["spec"]["tolerations"].is_array());
    let fields = &entry(&created, "me", "")["fieldsV1"]["f:spec"];
    assert!(fields["f:containers"].is_object());
    assert!(fields["f:tolerations"].is_null() && fields["f:volumes"].is_null(), "{fields}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectls_way_from_client_side_to_server_side_apply_is_smooth() {
    let c = cluster().await;
    let http = c.admin();
    let path = format!("{DEPLOYMENTS}/d");
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let mut by_client = whole();
    by_client["metadata"]["annotations"] = json!({annotation: format!("{}\n", whole())});
    http.post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), &by_client).await.expect(201);
    let mut changed = whole();
    changed["spec"]["replicas"] = 2.into();
    let applied = apply(&http, &path, "kubectl", &changed).await.expect(200);
    let noted: Value = serde_json::from_str(applied["metadata"]["annotations"][annotation].as_str().unwrap()).unwrap();
    assert_eq!(noted["spec"]["replicas"], 2, "the annotation follows");
    // What kubectl sends to put its client-side entry into the server-side one.
    let mut entries = applied["metadata"]["managedFields"].as_array().unwrap().clone();
    let client = entries.iter().position(|e| e["manager"] == "kubectl-client-side-apply").unwrap();
    let client = entries.remove(client);
    let own = entries.iter_mut().find(|e| e["manager"] == "kubectl").unwrap();
    for part in ["f:metadata", "f:spec"] {
        for (k, v) in client["fieldsV1"][part].as_object().into_iter().flatten() {
            let part = own["fieldsV1"].as_object_mut().unwrap().entry(part).or_insert(json!({}));
            part.as_object_mut().unwrap().entry(k.clone()).or_insert(v.clone());
        }
    }
    let migrate = json!([{"op": "replace", "path": "/metadata/managedFields", "value": entries},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": applied["metadata"]["resourceVersion"]}]);
    let migrated = http.patch(&format!("{path}?fieldManager=kubectl"), JSON_PATCH, &migrate).await.expect(200);
    assert_eq!(migrated["metadata"]["managedFields"].as_array().unwrap().len(), entries.len());
    let reapplied = apply(&http, &path, "kubectl", &changed).await.expect(200);
    assert_eq!(reapplied["spec"]["replicas"], 2);
    let stale = http.patch(&format!("{path}?fieldManager=kubectl"), JSON_PATCH, &migrate).await;
    stale.refused(409, "Conflict", "the object has been modified");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_are_refused_as_upstream_refuses_them() {
    let c = cluster().await;
    let http = c.admin();
    http.post(MAPS, &json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await.expect(201);
    let path = format!("{MAPS}/m");
    let strict = format!("{path}?fieldValidation=Strict");
    http.patch(&path, "application/json", &json!({})).await.refused(
        415,
        "UnsupportedMediaType",
        "415: Unsupported Media Type",
    );
    // A value that is not there is null, what is replaced need not be there, and `null` is no operation.
    let absent = json!([{"op": "add", "path": "/data/x"}, {"op": "replace", "path": "/data/y", "value": "z"},
        {"op": "copy", "from": "/data/none", "path": "/data/c"}, {"op": "test", "path": "/data/none"}]);
    let patched = http.patch(&format!("{path}?dryRun=All"), JSON_PATCH, &absent).await.expect(200);
    assert_eq!(patched["data"], json!({"a": "b", "c": "", "x": "", "y": "z"}));
    http.patch(&path, JSON_PATCH, &Value::Null).await.expect(200);
    http.patch(&path, JSON_PATCH, &json!([{"op": "add", "path": "", "value": {}}])).await.refused(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    http.patch(&path, JSON_PATCH, &json!([1])).await.refused(
        400,
        "BadRequest",
        "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
    );
    http.patch(&format!("{path}?force=true"), MERGE, &json!({})).await.refused(
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
    );
    http.patch(&format!("{MAPS}/none"), MERGE, &json!({})).await.refused(
        404,
        "NotFound",
        "configmaps \"none\" not found",
    );
    let test = json!([{"op": "test", "path": "/data/a", "value": "z"}]);
    http.patch(&path, JSON_PATCH, &test).await.refused(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/data/a", "value": "b"})).collect();
    http.patch(&path, JSON_PATCH, &json!(many)).await.refused(
        413,
        "RequestEntityTooLarge",
        "The allowed maximum operations in a JSON patch is 10000, got 10001",
    );
    http.patch(&path, JSON_PATCH, &json!({"a": 1})).await.refused(
        400,
        "BadRequest",
        "cannot unmarshal object into Go value",
    );
    let foo = json!([{"op": "add", "path": "/data/x", "value": "y", "foo": 1}]);
    http.patch(&strict, JSON_PATCH, &foo).await.refused(422, "Invalid", "json patch unknown field \"[0].foo\"");
    http.patch(&strict, MERGE, &json!({"foo": 1})).await.refused(
        422,
        "Invalid",
        "strict decoding error: unknown field \"foo\"",
    );
    let wrong = http.patch(&path, MERGE, &json!({"data": {"a": 1}})).await;
    wrong.refused(422, "Invalid", " \"\" is invalid: patch: Invalid value:");
    let twice = "{\"data\":{\"a\":\"1\",\"a\":\"2\"}}";
    let answer = http.send(Method::PATCH, &strict, &[("content-type", STRATEGIC)], twice).await;
    answer.refused(422, "Invalid", "duplicate field \"data.a\"");
    let warned = http.patch(&path, MERGE, &json!({"foo": 1})).await;
    assert!(warned.headers["warning"].to_str().unwrap().contains("unknown field"));
    warned.expect(200);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "c"}});
    http.patch(&path, MERGE, &stale).await.refused(409, "Conflict", "the object has been modified");
    let moved = json!([{"op": "copy", "from": "/data/a", "path": "/data/b"}, {"op": "move", "from": "/data/a", "path": "/data/c"},
        {"op": "test", "path": "/data/b", "value": "b"}]);
    assert_eq!(http.patch(&path, JSON_PATCH, &moved).await.expect(200)["data"], json!({"b": "b", "c": "b"}));
}

/// What an apply says of the object it means holds although it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_apply_that_changes_nothing_still_means_one_object() {
    let c = cluster().await;
    let http = c.admin();
    let path = format!("{MAPS}/same");
    let config = |meta: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"k": "v"}});
    let made = apply(&http, &path, "m", &config(json!({"name": "same"}))).await.expect(201);
    let version = made["metadata"]["resourceVersion"].clone();
    for (meta, code) in [
        (json!({"name": "same", "resourceVersion": "1"}), 409),
        (json!({"name": "same", "uid": "another"}), 422),
        (json!({"name": "other"}), 400),
        (json!({"name": "same", "namespace": "kube-system"}), 400),
        (json!({"name": "same", "namespace": "default", "resourceVersion": version}), 200),
    ] {
        apply(&http, &path, "m", &config(meta)).await.expect(code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_makes_no_other_kind_of_an_object_and_takes_no_name_away() {
    let c = cluster().await;
    let http = c.admin();
    let path = format!("{MAPS}/kept");
    let body = json!({"metadata": {"name": "kept"}, "data": {"k": "v"}});
    http.post(MAPS, &body).await.expect(201);
    for (change, code, words) in [
        (json!({"kind": "Pod"}), 422, "converting (v1.Pod) to (core.ConfigMap): unknown conversion"),
        (json!({"kind": "Zzz"}), 422, "no kind \"Zzz\" is registered for version \"v1\""),
        (json!({"apiVersion": "v2"}), 422, "no kind \"ConfigMap\" is registered for version \"v2\""),
        (json!({"metadata": {"name": null}}), 400, "was undeterminable: name must be provided"),
    ] {
        let refused = http.patch(&path, MERGE, &change).await.expect(code);
        assert!(refused["message"].as_str().unwrap().contains(words), "{change}: {refused}");
    }
    http.patch(&path, MERGE, &json!({"kind": "ConfigMap", "data": {"k": "w"}})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_address_does_not_change_by_its_old_name() {
    let c = cluster().await;
    let http = c.admin();
    let services = "/api/v1/namespaces/default/services";
    let body = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    http.post(services, &body).await.expect(201);
    let path = format!("{services}/s");
    let refused = http.patch(&path, MERGE, &json!({"spec": {"clusterIP": "None"}})).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("may not change once set"), "{refused}");
}
