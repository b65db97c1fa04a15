//! What clients see of objects, lists, owners and versions, as upstream shows it.

use std::sync::Arc;

use http::Method;
use ironkeel_apiserver::ServedVersions;
use ironkeel_embedded::Options;
use serde_json::{Value, json};

use crate::support::{cluster, start_tuned};

fn owned<'v>(object: &'v Value, manager: &str) -> &'v Value {
    let all = object["metadata"]["managedFields"].as_array().unwrap();
    &all.iter().find(|e| e["manager"] == manager).unwrap()["fieldsV1"]
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_go_always_writes_are_answered_stored_and_listed() {
    let c = cluster().await;
    let http = c.admin();
    let levels = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    let level = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    let made = http.post(&format!("{levels}?fieldManager=m"), &level).await.expect(201);
    assert_eq!(made["status"], json!({}));
    let read = http.get(&format!("{levels}/l")).await.expect(200);
    assert_eq!(read, made);
    // Nobody owns what nobody set.
    assert_eq!(owned(&made, "m")["f:status"], Value::Null);
    let account = json!({"metadata": {"name": "default"}});
    http.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"automountServiceAccountToken": false, "hostNetwork": false,
        "containers": [{"name": "c", "image": "i"}]}});
    let made = http.post(&format!("{pods}?fieldManager=m"), &pod).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"], json!({}));
    assert_eq!(made["spec"].get("hostNetwork"), None);
    let container = &owned(&made, "m")["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(container["f:resources"], json!({}), "{made}");
    let list = http.get(pods).await.expect(200);
    let item = &list["items"][0];
    assert_eq!((&list["kind"], item.get("kind"), item.get("apiVersion")), (&json!("PodList"), None, None));
    assert_eq!(item["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let pretty = http.get(&format!("{pods}?pretty=true")).await.expect(200);
    assert_eq!(pretty, list);
    let unchanged = http.put(&format!("{pods}/p"), &made).await.expect(200);
    assert_eq!(unchanged["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_field_owns_it_though_it_is_not_kept_and_not_what_the_server_adds() {
    let c = cluster().await;
    let http = c.admin();
    let source = json!({"configMap": {"name": "a", "namespace": "b", "kubeletConfigKey": "c"}});
    let node = json!({"metadata": {"name": "n"}, "spec": {"configSource": source}});
    let made = http.post("/api/v1/nodes?fieldManager=m", &node).await.expect(201);
    assert_eq!(made["spec"]["configSource"], Value::Null);
    assert!(owned(&made, "m")["f:spec"]["f:configSource"].is_object(), "{made}");
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    let made = http.post("/apis/batch/v1/namespaces/default/jobs?fieldManager=m", &job).await.expect(201);
    assert!(made["spec"]["selector"]["matchLabels"].is_object());
    assert_eq!(owned(&made, "m")["f:spec"]["f:selector"], Value::Null, "{made}");
    assert_eq!(owned(&made, "m")["f:spec"]["f:template"]["f:metadata"], Value::Null, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_deprecated_version_says_so() {
    let c = cluster().await;
    let http = c.admin();
    let warning = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    for path in ["/api/v1/endpoints", "/api/v1/namespaces/default/endpoints/none"] {
        let answer = http.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.headers.get("warning").unwrap(), warning, "{path}");
    }
    let answer = http.send(Method::GET, "/api/v1/pods", &[], "").await;
    assert!(answer.headers.get("warning").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_not_served_are_nowhere() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |config| {
        config.versions = ServedVersions::stable();
        assert!(config.versions.choose("resource.k8s.io/v1beta2", true));
    })
    .await;
    let http = c.admin();
    assert_eq!(http.get("/apis/networking.k8s.io/v1beta1/ipaddresses").await.status.as_u16(), 404);
    http.get("/apis/resource.k8s.io/v1beta2/deviceclasses").await.expect(200);
    let group = http.get("/apis/resource.k8s.io").await.expect(200);
    assert_eq!(group["versions"].as_array().unwrap().len(), 2, "{group}");
    let groups = http.get("/apis").await.expect(200);
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!((names[0], names.len()), ("apiregistration.k8s.io", 20), "{names:?}");
    let index = http.get("/openapi/v3").await.expect(200);
    assert!(index["paths"]["apis/coordination.k8s.io/v1"].is_object());
    assert!(index["paths"]["apis/coordination.k8s.io/v1beta1"].is_null());
    let services = http.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.networking.k8s.io").await;
    assert_eq!(services.status.as_u16(), 404);
    // The objects are the same in every version that is served.
    let class = json!({"metadata": {"name": "c"}});
    http.post("/apis/resource.k8s.io/v1beta2/deviceclasses", &class).await.expect(201);
    assert_eq!(http.get("/apis/resource.k8s.io/v1/deviceclasses/c").await.expect(200)["kind"], "DeviceClass");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_start_served_goes_from_discovery() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let start = |versions: ServedVersions| {
        start_tuned(dir.clone(), Options::default(), |config| {
            config.versions = versions;
            config.hostname = "host".to_owned();
        })
    };
    let service = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.networking.k8s.io";
    let first = start(ServedVersions::chosen(["api/beta"]).unwrap()).await;
    first.ready().await;
    first.admin().get(service).await.expect(200);
    first.shutdown.cancel();
    first.serving.await.unwrap();
    drop(first.api);
    let second = start(ServedVersions::stable()).await;
    second.ready().await;
    second.admin().get(service).await.refused(404, "NotFound", "v1beta1.networking.k8s.io");
    second.admin().get("/apis/apiregistration.k8s.io/v1/apiservices/v1.networking.k8s.io").await.expect(200);
    second.shutdown.cancel();
    second.serving.await.unwrap();
    drop(second.api);
    // As little as may be: what has no place is not made.
    let third = start(ServedVersions::chosen(["api/all=false", "api/v1=true"]).unwrap()).await;
    third.ready().await;
    let http = third.admin();
    http.get("/api/v1/namespaces/kube-system").await.expect(200);
    http.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "m"}})).await.expect(201);
    assert_eq!(http.get("/apis/apps/v1/deployments").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_tells_since_when_it_is_in_its_phase() {
    let c = cluster().await;
    let http = c.admin();
    let volumes = "/api/v1/persistentvolumes";
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/v"}}});
    let made = http.post(volumes, &volume).await.expect(201);
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["lastPhaseTransitionTime"], made["metadata"]["creationTimestamp"]);
    let status = |status: Value| json!({ "status": status });
    let merge = "application/merge-patch+json";
    let path = format!("{volumes}/v/status");
    let told = http
        .patch(&path, merge, &status(json!({"phase": "Available", "lastPhaseTransitionTime": "2020-01-01T00:00:00Z"})))
        .await
        .expect(200);
    assert_eq!(told["status"]["lastPhaseTransitionTime"], "2020-01-01T00:00:00Z");
    let same = http.patch(&path, merge, &status(json!({"lastPhaseTransitionTime": null}))).await.expect(200);
    assert_eq!(same["status"]["lastPhaseTransitionTime"], "2020-01-01T00:00:00Z");
    let changed = http.patch(&path, merge, &status(json!({"phase": "Released"}))).await.expect(200);
    assert_ne!(changed["status"]["lastPhaseTransitionTime"], "2020-01-01T00:00:00Z");
}
