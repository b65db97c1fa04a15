//! What upstream's kube-controller-manager, kube-scheduler and their users rely on: bindings, evictions
//! and tokens are admitted as what they are, generated names are repeated where names are, and tokens in
//! Secrets are accepted and tracked.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use support::{Cluster, Http, cluster};

const PODS: &str = "/api/v1/namespaces/work/pods";
const SECRETS: &str = "/api/v1/namespaces/work/secrets";
const ACCOUNTS: &str = "/api/v1/namespaces/work/serviceaccounts";
const MERGE: &str = "application/merge-patch+json";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

async fn with_namespace() -> (Cluster, Http) {
    let c = cluster().await;
    let http = c.admin();
    http.post("/api/v1/namespaces", &json!({"metadata": {"name": "work"}})).await.expect(201);
    http.post(ACCOUNTS, &json!({"metadata": {"name": "default"}})).await.expect(201);
    let labels = json!({"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1", "other": "x"});
    http.post("/api/v1/nodes", &json!({"metadata": {"name": "n1", "labels": labels}})).await.expect(201);
    (c, http)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn binding(name: &str) -> Value {
    json!({"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}})
}

fn eviction(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "work"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_takes_its_nodes_topology_and_forgets_its_nomination() {
    let (_c, http) = with_namespace().await;
    http.post(PODS, &pod("p")).await.expect(201);
    let nominated = json!({"status": {"nominatedNodeName": "n0"}});
    http.patch(&format!("{PODS}/p/status"), MERGE, &nominated).await.expect(200);
    http.post(&format!("{PODS}/p/binding"), &binding("p")).await.expect(201);
    let bound = http.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let labels = json!({"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1"});
    assert_eq!(bound["metadata"]["labels"], labels);
    assert_eq!(bound["status"].get("nominatedNodeName"), None);

    let mut placed = pod("placed");
    placed["spec"]["nodeName"] = "n1".into();
    let placed = http.post(PODS, &placed).await.expect(201);
    assert_eq!(placed["metadata"]["labels"], labels, "made on its node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_goes_takes_no_bindings_evictions_and_tokens() {
    let (_c, http) = with_namespace().await;
    http.post(PODS, &pod("p")).await.expect(201);
    http.delete("/api/v1/namespaces/work").await.expect(200);
    let why = "is forbidden: unable to create new content in namespace work because it is being terminated";
    for (path, body) in [
        (format!("{PODS}/p/binding"), binding("p")),
        ("/api/v1/namespaces/work/bindings".to_owned(), binding("p")),
        (format!("{PODS}/p/eviction"), eviction("p")),
        (format!("{ACCOUNTS}/default/token"), json!({"spec": {"audiences": ["a"]}})),
    ] {
        let answer = http.post(&path, &body).await;
        assert_eq!(answer.json()["details"]["causes"][0]["reason"], "NamespaceTerminating", "{path}");
        answer.refused(403, "Forbidden", why);
    }
    let left = http.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(left["spec"].get("nodeName"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_admitted_as_itself_and_not_as_a_delete() {
    let (_c, http) = with_namespace().await;
    let deny = |name: &str, operation: &str, resource: &str| {
        (
            json!({"metadata": {"name": name}, "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource],
                }]},
                "matchConditions": [{"name": "kept", "expression": "request.name == 'kept' || request.operation == 'DELETE'"}],
                "validations": [{"expression": "false", "message": format!("no {operation}")}],
            }}),
            json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}),
        )
    };
    for (policy, bound) in [deny("evictions", "CREATE", "pods/eviction"), deny("deletes", "DELETE", "pods")] {
        let group = "/apis/admissionregistration.k8s.io/v1";
        http.post(&format!("{group}/validatingadmissionpolicies"), &policy).await.expect(201);
        http.post(&format!("{group}/validatingadmissionpolicybindings"), &bound).await.expect(201);
    }
    for name in ["kept", "gone"] {
        http.post(PODS, &pod(name)).await.expect(201);
    }
    http.delete(&format!("{PODS}/gone")).await.refused(422, "Invalid", "no DELETE");
    http.post(&format!("{PODS}/kept/eviction"), &eviction("kept")).await.refused(422, "Invalid", "no CREATE");
    http.post(&format!("{PODS}/gone/eviction"), &eviction("other")).await.refused(400, "BadRequest", "name in URL");
    http.post(&format!("{PODS}/gone/eviction"), &eviction("gone")).await.expect(201);
    http.get(&format!("{PODS}/gone")).await.refused(404, "NotFound", "gone");
    http.get(&format!("{PODS}/kept")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changes_an_eviction_by_what_evictions_have() {
    let (_c, http) = with_namespace().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = |expression: &str| {
        json!({"metadata": {"name": "slow"}, "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/eviction"],
            }]},
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        }})
    };
    let slow = policy("Object{deleteOptions: Object.deleteOptions{gracePeriodSeconds: 7}}");
    http.post(&format!("{group}/mutatingadmissionpolicies"), &slow).await.expect(201);
    let bound = json!({"metadata": {"name": "slow"}, "spec": {"policyName": "slow"}});
    http.post(&format!("{group}/mutatingadmissionpolicybindings"), &bound).await.expect(201);
    http.post(PODS, &pod("p")).await.expect(201);
    http.post(&format!("{PODS}/p/binding"), &binding("p")).await.expect(201);
    http.post(&format!("{PODS}/p/eviction"), &eviction("p")).await.expect(201);
    let leaving = http.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 7);

    let spec = json!({"spec": policy("Object{spec: Object.spec{nodeName: 'n2'}}")["spec"]});
    http.patch(&format!("{group}/mutatingadmissionpolicies/slow"), MERGE, &spec).await.expect(200);
    http.post(PODS, &pod("q")).await.expect(201);
    let refused = http.post(&format!("{PODS}/q/eviction"), &eviction("q")).await;
    refused.refused(403, "Invalid", ".spec: field not declared in schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_name_stands_wherever_the_name_is_repeated() {
    let (_c, http) = with_namespace().await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = json!({"metadata": {"generateName": "j-"}, "spec": {"template": template}});
    let job = http.post("/apis/batch/v1/namespaces/work/jobs", &job).await.expect(201);
    for key in ["job-name", "batch.kubernetes.io/job-name"] {
        assert_eq!(job["spec"]["template"]["metadata"]["labels"][key], job["metadata"]["name"], "{key}");
    }
    let space = http.post("/api/v1/namespaces", &json!({"metadata": {"generateName": "s-"}})).await.expect(201);
    assert_eq!(space["metadata"]["labels"]["kubernetes.io/metadata.name"], space["metadata"]["name"]);
}

/// As upstream's token controller signs it, with the cluster's key.
fn legacy_token(c: &Cluster, secret: &str, uid: &str) -> String {
    let pem = std::fs::read_to_string(c.dir.path().join("pki/sa.key")).unwrap();
    let der: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    let random = SystemRandom::new();
    let der = STANDARD.decode(der).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap();
    let claims = json!({
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:work:robot",
        "kubernetes.io/serviceaccount/namespace": "work",
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": uid,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": ""})), part(&claims));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

async fn review(http: &Http, token: &str) -> Value {
    let body = json!({"spec": {"token": token}});
    http.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await.expect(201)["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_secret_is_good_as_long_as_the_secret_holds_it() {
    let (c, http) = with_namespace().await;
    let account = http.post(ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let uid = account["metadata"]["uid"].as_str().unwrap();
    let token = legacy_token(&c, "robot-token", uid);
    assert_ne!(review(&http, &token).await["authenticated"], true, "no Secret holds it");

    let secret = json!({
        "metadata": {
            "name": "robot-token",
            "annotations": {"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": uid},
        },
        "type": "kubernetes.io/service-account-token",
        "data": {"token": STANDARD.encode(&token)},
    });
    http.post(SECRETS, &secret).await.expect(201);
    let status = review(&http, &token).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:work:robot");
    assert_eq!(status["user"]["uid"], uid);
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:work", "system:authenticated"]);
    assert_eq!(status["user"]["groups"], groups);
    let other = json!({"spec": {"token": token, "audiences": ["elsewhere"]}});
    let other = http.post("/apis/authentication.k8s.io/v1/tokenreviews", &other).await.expect(201);
    assert_ne!(other["status"]["authenticated"], true, "it is for this API server alone");

    // The label is written beside the answer; the watch tells when.
    let path = format!(
        "{SECRETS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = http.watch(&path).await;
    let labelled = loop {
        let (_, object) = watch.event().await;
        if let Some(day) = object["metadata"]["labels"][LAST_USED].as_str() {
            break day.to_owned();
        }
    };
    assert_eq!(labelled.len(), "2026-01-01".len(), "{labelled}");
    let tracking = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    let since = http.get(tracking).await.expect(200)["data"]["since"].clone();
    assert!(since.as_str().unwrap() <= labelled.as_str(), "{since}");

    let path = format!("{SECRETS}/robot-token");
    let label = |value: Value| json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": value}}});
    http.patch(&path, MERGE, &label("2026-01-01".into())).await.expect(200);
    assert_ne!(review(&http, &token).await["authenticated"], true, "marked by the cleaner");
    http.patch(&path, MERGE, &label(Value::Null)).await.expect(200);
    assert_eq!(review(&http, &token).await["authenticated"], true);
    let replaced = json!({"data": {"token": STANDARD.encode("another")}});
    http.patch(&path, MERGE, &replaced).await.expect(200);
    assert_ne!(review(&http, &token).await["authenticated"], true, "the Secret holds another");
}
