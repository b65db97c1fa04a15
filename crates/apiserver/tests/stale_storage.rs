//! Writes that change nothing: what is stored in another form than it would be now is stored anew, the rest is not
//! written.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_encryption::{Encrypted, Provider, Rule};
use ironkeel_store::{Condition, Store};
use serde_json::{Value, json};
use support::{Cluster, Http, Several, start_over};

const APPLY: &str = "application/apply-patch+yaml";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn rule(keys: &[(&str, u8)]) -> Vec<Rule> {
    let providers = keys.iter().map(|(name, byte)| Arc::new(Provider::aes_gcm(name, &[*byte; 32]).unwrap())).collect();
    vec![Rule { prefixes: vec![b"/registry/secrets/".to_vec()], providers }]
}

/// A server with encrypted Secrets, the store around it and the one beneath.
async fn cluster() -> (Cluster, Arc<Encrypted>, Arc<Embedded>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let beneath = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let encrypted = Arc::new(Encrypted::new(beneath.clone(), rule(&[("one", 1)])));
    let cluster = start_over(dir, encrypted.clone(), |_| {}).await;
    (cluster, encrypted, beneath)
}

async fn stored(store: &Embedded, key: &str) -> Bytes {
    store.get(key.as_bytes(), 0).await.unwrap().0.unwrap().value
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// A PUT and an apply that change nothing: answers whether the first and then the second one wrote.
async fn written(http: &Http, path: &str) -> (bool, bool) {
    let before = http.get(path).await.expect(200);
    let dry = http.put(&format!("{path}?dryRun=All"), &before).await.expect(200);
    assert_eq!(dry, before);
    let put = http.put(path, &before).await.expect(200);
    let nothing = json!({"apiVersion": before["apiVersion"], "kind": before["kind"], "metadata": {
        "uid": before["metadata"]["uid"], "resourceVersion": put["metadata"]["resourceVersion"]}});
    let applied = http.patch(&format!("{path}?fieldManager=m"), APPLY, &nothing).await.expect(200);
    let same = |object: &Value| {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = Value::Null;
        object
    };
    assert_eq!(same(&put), same(&before));
    assert_eq!(same(&applied), same(&before));
    (version(&put) != version(&before), version(&applied) != version(&put))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_under_an_older_key_comes_under_the_new_one() {
    let (cluster, encrypted, beneath) = cluster().await;
    let http = cluster.admin();
    let path = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    http.post(path, &secret).await.expect(201);
    let (path, key) = (format!("{path}/s"), "/registry/secrets/default/s");
    assert_eq!(written(&http, &path).await, (false, false));
    encrypted.replace(rule(&[("two", 2), ("one", 1)]));
    assert!(stored(&beneath, key).await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    assert_eq!(written(&http, &path).await, (true, false));
    assert!(stored(&beneath, key).await.starts_with(b"k8s:enc:aesgcm:v1:two:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_has_written_its_own_way_is_written_in_ours() {
    let (cluster, encrypted, beneath) = cluster().await;
    let http = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    http.post(path, &json!({"metadata": {"name": "m"}, "data": {"k": "v"}})).await.expect(201);
    let (path, key) = (format!("{path}/m"), "/registry/configmaps/default/m");
    assert_eq!(written(&http, &path).await, (false, false));
    let ours = stored(&beneath, key).await;
    let mut theirs = ours.to_vec();
    theirs.push(b'\n');
    let was = version(&http.get(&path).await.expect(200));
    let put = (Bytes::from_static(key.as_bytes()), Bytes::from(theirs));
    encrypted.put(put.0, put.1, Condition::Always, 0).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while version(&http.get(&path).await.expect(200)) == was {
        assert!(Instant::now() < deadline, "the other's write is not seen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(written(&http, &path).await, (true, false));
    assert_eq!(stored(&beneath, key).await, ours);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_resource_comes_to_the_version_that_is_stored_now() {
    let (cluster, _, beneath) = cluster().await;
    let http = cluster.admin();
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {"group": "shop.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                 "versions": [version("v1", true), version("v2", false)]},
    });
    http.post(DEFINITIONS, &definition).await.expect(201);
    let path = "/apis/shop.example.com/v1/namespaces/default/widgets";
    let deadline = Instant::now() + Duration::from_secs(20);
    let widget =
        |name: &str| json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": name}});
    while http.post(path, &widget("a")).await.status != 201 {
        assert!(Instant::now() < deadline, "the definition is not established");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let key = |name: &str| format!("/registry/shop.example.com/widgets/default/{name}");
    let first = format!("{path}/a");
    assert_eq!(written(&http, &first).await, (false, false));
    let swap = json!({"spec": {"versions": [version("v1", false), version("v2", true)]}});
    let definition = format!("{DEFINITIONS}/widgets.shop.example.com");
    http.patch(&definition, "application/merge-patch+json", &swap).await.expect(200);
    let stored_as = async |name: &str| {
        let object: Value = serde_json::from_slice(&stored(&beneath, &key(name)).await).unwrap();
        object["apiVersion"].clone()
    };
    for probe in 0.. {
        let name = format!("probe-{probe}");
        http.post(path, &widget(&name)).await.expect(201);
        if stored_as(&name).await == "shop.example.com/v2" {
            break;
        }
        assert!(Instant::now() < deadline, "the other version is not stored");
    }
    assert_eq!(stored_as("a").await, "shop.example.com/v1");
    assert_eq!(written(&http, &first).await, (true, false));
    assert_eq!(stored_as("a").await, "shop.example.com/v2");
    assert_eq!(written(&http, &first.replace("/v1/", "/v2/")).await, (false, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_as_json_comes_to_protobuf_where_that_is_stored() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let beneath = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let scaler = json!({"metadata": {"name": "s"}, "spec": {"maxReplicas": 2,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}]}}}});
    let objects = [
        ("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", "s", scaler, "horizontalpodautoscalers"),
        ("/apis/apps/v1/namespaces/default/deployments", "d", deployment, "deployments"),
    ];
    let first = start_over(dir.clone(), beneath.clone(), |_| {}).await;
    for (path, _, object, _) in &objects {
        first.admin().post(path, object).await.expect(201);
    }
    first.shutdown.cancel();
    first.serving.await.unwrap();
    let second = start_over(dir, Arc::new(Several(beneath.clone())), |_| {}).await;
    let http = second.admin();
    for (path, name, _, plural) in objects {
        let (path, key) = (format!("{path}/{name}"), format!("/registry/{plural}/default/{name}"));
        assert!(stored(&beneath, &key).await.starts_with(b"{"), "{key}");
        assert_eq!(written(&http, &path).await, (true, false), "{key}");
        assert!(stored(&beneath, &key).await.starts_with(b"k8s\0"), "{key}");
        assert_eq!(written(&http, &path.replace("autoscaling/v1", "autoscaling/v2")).await, (false, false), "{key}");
    }
}
