//! The kubelet between a real API server and a runtime that only remembers.
#![allow(missing_docs, dead_code, unreachable_pub, clippy::unwrap_used)]

mod cgroups;
mod fake;
mod fixture;
mod resize;

use std::time::{Duration, Instant};

use fixture::fixture;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::DeleteParams};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_restarts_and_is_deleted() {
    let f = fixture().await;
    f.create("a", json!({"terminationGracePeriodSeconds": 1, "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "$(X)2"}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}))
        .await;
    f.until("a", |status| status["phase"] == "Running" && status["containerStatuses"][0]["ready"] == true).await;
    let config = f.runtime.configs("c").remove(0);
    assert!(config.envs.iter().any(|env| env.key == "Y" && env.value == b"12"));
    assert!(config.mounts.iter().any(|mount| mount.container_path == "/v"));
    f.runtime.end("c", 1);
    let took = f.until("a", |status| {
        let container = &status["containerStatuses"][0];
        container["restartCount"] == 1
            && container["ready"] == true
            && container["lastState"]["terminated"]["exitCode"] == 1
    });
    println!("restarted after {:?}", took.await);
    f.runtime.end("c", 1);
    f.until("a", |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
    f.pods.delete("a", &DeleteParams::default()).await.unwrap();
    let start = Instant::now();
    while f.pods.get_opt("a").await.unwrap().is_some() || !f.runtime.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the pod is not gone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_waits_in_the_registrys_words() {
    let f = fixture().await;
    f.create("b", json!({"containers": [{"name": "c", "image": "missing:1"}]})).await;
    f.until("b", |status| {
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"].as_str().is_some_and(|r| r == "ErrImagePull" || r == "ImagePullBackOff")
            && waiting["message"].as_str().is_some_and(|m| m.contains("manifest unknown"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_like_pod_succeeds_after_its_init_container() {
    let f = fixture().await;
    f.create(
        "c",
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "i:1"}],
        "containers": [{"name": "m", "image": "i:1"}]}),
    )
    .await;
    f.until("c", |status| status["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    assert!(f.runtime.configs("m").is_empty());
    f.runtime.end("i", 0);
    f.until("c", |status| status["phase"] == "Running").await;
    f.runtime.end("m", 0);
    f.until("c", |status| status["phase"] == "Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_registered_and_ready() {
    let f = fixture().await;
    let nodes: Api<Node> = Api::all(f.client.clone());
    let start = Instant::now();
    loop {
        let node = nodes.get_opt("node-1").await.unwrap();
        let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the node is not ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("ready after {:?}", start.elapsed());
    // Who connects and says nothing is not waited for.
    let status = nodes.get("node-1").await.unwrap().status.unwrap();
    let port = status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port;
    let mut silent = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(40), silent.read(&mut [0; 16])).await;
    assert!(!matches!(ended.expect("the connection goes on"), Ok(1..)), "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_stops_while_a_container_takes_its_time_to_end() {
    let mut f = fixture().await;
    f.create("a", json!({"terminationGracePeriodSeconds": 300, "containers": [{"name": "c", "image": "i:1"}]})).await;
    f.until_runs("a").await;
    let held = f.runtime.changes.hold().await;
    f.pods.delete("a", &DeleteParams::default()).await.unwrap();
    f.runtime.changes.until_waiting(1).await;
    f.stop().await;
    f.runtime.changes.until_waiting(0).await;
    drop(held);
    // The next one goes on.
    f.start();
    let start = Instant::now();
    while f.pods.get_opt("a").await.unwrap().is_some() || !f.runtime.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(15), "the pod is not gone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_starts_during_a_look_is_not_started_again() {
    let f = fixture().await;
    let creating = f.runtime.creating.hold().await;
    f.create("a", json!({"containers": [{"name": "c", "image": "i:1"}]})).await;
    f.runtime.creating.until_waiting(1).await;
    f.runtime.listing.until_waiting(0).await;
    // A look that sees no container ends after the start.
    let listing = f.runtime.listing.hold().await;
    f.touch("a").await;
    f.runtime.listing.until_waiting(1).await;
    drop(creating);
    f.until_event("Started").await;
    drop(listing);
    f.until_runs("a").await;
    // Its next look, for this, has gone through all that one may begin.
    f.runtime.end("c", 1);
    f.until("a", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(f.runtime.configs("c").len(), 2);
}
