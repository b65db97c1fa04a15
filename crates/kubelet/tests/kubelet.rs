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
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Fixture {
    pods: Api<Pod>,
    client: kube::Client,
    runtime: Fake,
    stop: CancellationToken,
    /// The kubelet, until it has ended.
    running: Option<tokio::task::JoinHandle<()>>,
    root: std::path::PathBuf,
    _server: Server,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
        let running = self.running.take();
        // What it writes while it ends would stay.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(async { running?.await.ok() }));
        let _ = std::fs::remove_dir_all(&self.root);
        if !std::thread::panicking() {
            assert!(!self.root.exists(), "{} stays", self.root.display());
        }
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
    let running = ironkeel_kubelet::run(config, kubelet, cri, stop.clone());
    let running = Some(tokio::spawn(async move { running.await.unwrap() }));
    Fixture { pods: Api::namespaced(client.clone(), "default"), client, runtime, stop, running, root, _server: server }
}

impl Fixture {
    async fn create(&self, name: &str, spec: Value) {
        let mut pod = json!({"metadata": {"name": name}, "spec": spec});
        pod["spec"]["nodeName"] = json!("node-1");
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Changes resources while the pod runs.
    async fn resize(&self, name: &str, spec: Value) -> kube::Result<Pod> {
        let patch = Patch::Strategic(json!({"spec": spec}));
        self.pods.patch_subresource("resize", name, &PatchParams::default(), &patch).await
    }

    /// The node, once it has said what it is.
    async fn node(&self) -> Node {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let start = Instant::now();
        loop {
            let node = nodes.get_opt("node-1").await.unwrap();
            if let Some(node) = node.filter(|n| n.status.as_ref().is_some_and(|s| s.allocatable.is_some())) {
                return node;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the node is not registered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The pod runs, and all that it asked for is in force.
    async fn until_runs(&self, name: &str) {
        self.until(name, |status| {
            status["phase"] == "Running" && status["containerStatuses"][0]["resources"].is_object()
        })
        .await;
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

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_resources_change_in_place() {
    let f = fixture().await;
    let spec = json!({"resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
        "containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "50m"}}}]});
    f.create("p", spec).await;
    f.until_runs("p").await;
    f.until("p", |status| {
        status["allocatedResources"] == json!({"cpu": "100m", "memory": "32Mi"})
            && status["resources"]["limits"] == json!({"cpu": "200m", "memory": "64Mi"})
    })
    .await;
    assert!(f.node().await.status.unwrap().declared_features.unwrap().is_sorted());
    let before = f.pods.get("p").await.unwrap();
    f.resize("p", json!({"resources": {"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}}})).await.unwrap();
    f.until("p", |status| {
        status["allocatedResources"] == json!({"cpu": "150m", "memory": "32Mi"})
            && status["resources"]["limits"] == json!({"cpu": "300m", "memory": "64Mi"})
            && status["containerStatuses"][0]["restartCount"] == 0
            && condition(status, "PodResizePending").is_none()
            && condition(status, "PodResizeInProgress").is_none()
    })
    .await;
    let after = f.pods.get("p").await.unwrap();
    let id = |pod: &Pod| pod.status.clone().unwrap().container_statuses.unwrap()[0].container_id.clone();
    assert_eq!(id(&after), id(&before));
    assert_eq!(after.metadata.generation, Some(2));
    // What no resize may do is refused before the node hears of it.
    let message = |result: kube::Result<Pod>| match result.unwrap_err() {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("{other}"),
    };
    let equal = json!({"resources": {"requests": {"cpu": "300m", "memory": "64Mi"}}});
    assert!(message(f.resize("p", equal).await).contains("Pod QOS Class may not change as a result of resizing"));
    let gone = json!({"resources": {"limits": {"cpu": null}}});
    let said = message(f.resize("p", gone).await);
    assert!(said.contains("spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"), "{said}");
    let gone = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": null}}}]});
    let said = message(f.resize("p", gone).await);
    assert!(
        said.contains("spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"),
        "{said}"
    );
    let other = json!({"containers": [{"name": "c", "resources": {"requests": {"ephemeral-storage": "1Gi"}}}]});
    let said = message(f.resize("p", other).await);
    assert!(said.contains("spec: Forbidden: only cpu and memory resources are mutable"), "{said}");
    let more = json!({"containers": [{"name": "d", "image": "i:1"}]});
    let said = message(f.resize("p", more).await);
    assert!(said.contains("spec.containers: Forbidden: containers may not be added or removed on resize"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_waits_for_others_to_go() {
    let f = fixture().await;
    let cores: usize = f.node().await.status.unwrap().allocatable.unwrap()["cpu"].0.parse().unwrap();
    let container =
        |milli: usize| json!({"name": "c", "image": "i:1", "resources": {"requests": {"cpu": format!("{milli}m")}}});
    let most = cores * 1000 - 200;
    f.create("other", json!({"terminationGracePeriodSeconds": 0, "containers": [container(most)]})).await;
    f.create("p", json!({"containers": [container(100)]})).await;
    f.until_runs("other").await;
    f.until_runs("p").await;
    f.resize("p", json!({"containers": [container(500)]})).await.unwrap();
    f.until("p", |status| {
        condition(status, "PodResizePending").is_some_and(|c| c["reason"] == "Deferred")
            && status["containerStatuses"][0]["allocatedResources"]["cpu"] == "100m"
            && status["allocatedResources"]["cpu"] == "100m"
    })
    .await;
    let shares = |f: &Fixture| {
        f.runtime
            .configs("c")
            .iter()
            .map(|c| c.linux.as_ref().unwrap().resources.as_ref().unwrap().cpu_shares)
            .collect::<Vec<_>>()
    };
    assert!(shares(&f).contains(&102));
    // Room comes by a smaller neighbour, without waiting for the next try.
    f.resize("other", json!({"containers": [container(100)]})).await.unwrap();
    f.until("p", |status| {
        condition(status, "PodResizePending").is_none()
            && status["containerStatuses"][0]["allocatedResources"]["cpu"] == "500m"
            && status["containerStatuses"][0]["resources"]["requests"]["cpu"] == "500m"
    })
    .await;
    assert!(shares(&f).contains(&512));
}
