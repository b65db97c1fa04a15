//! The kubelet between a real API server and a runtime that only remembers.
#![allow(missing_docs, dead_code, unreachable_pub, clippy::unwrap_used)]

mod fake;

use std::time::{Duration, Instant};

use fake::Fake;
use ironkeel_auth::Identity;
use ironkeel_cri::CriClient;
use ironkeel_kubelet::{CgroupDriver, Config};
use ironkeel_testkit::api::Api as Server;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Fixture {
    pods: Api<Pod>,
    client: kube::Client,
    runtime: Fake,
    stop: CancellationToken,
    root: std::path::PathBuf,
    _server: Server,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

async fn fixture() -> Fixture {
    let server = Server::start().await;
    let client = server.client(Identity::Admin);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    Api::namespaced(client.clone(), "default").create(&PostParams::default(), &account).await.unwrap();
    let root = std::env::temp_dir().join(format!("ironkeel-kubelet-{}", rand::random::<u64>()));
    let mut config = Config::new("node-1", root.join("kubelet"));
    config.pod_logs_dir = root.join("logs");
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.node_ips = vec!["127.0.0.1".parse().unwrap()];
    // The fake makes no processes, so nothing needs a cgroup.
    config.cgroup_driver = CgroupDriver::Systemd;
    let (runtime, stop) = (Fake::new(), CancellationToken::new());
    let cri = CriClient::in_process(runtime.clone(), runtime.clone());
    let kubelet = server.client(Identity::Kubelet);
    tokio::spawn(ironkeel_kubelet::run(config, kubelet, cri, stop.clone()));
    Fixture { pods: Api::namespaced(client.clone(), "default"), client, runtime, stop, root, _server: server }
}

impl Fixture {
    async fn create(&self, name: &str, spec: Value) {
        let mut pod = json!({"metadata": {"name": name}, "spec": spec});
        pod["spec"]["nodeName"] = json!("node-1");
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Waits until the pod looks so.
    async fn until(&self, name: &str, looks: impl Fn(&Value) -> bool) -> Duration {
        let start = Instant::now();
        let mut last = Value::Null;
        while start.elapsed() < Duration::from_secs(15) {
            last = serde_json::to_value(self.pods.get(name).await.unwrap()).unwrap();
            if looks(&last["status"]) {
                return start.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} never looked so: {}", last["status"]);
    }
}

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
}
