//! Nodes that fall silent, and pods that nobody else cleans up.

use std::time::Duration;

use ironkeel_controllers::Config;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Cluster, condition, patch, template};

fn quick() -> Config {
    Config {
        node_monitor_grace_period: Duration::from_millis(700),
        node_startup_grace_period: Duration::from_millis(900),
        node_monitor_period: Duration::from_millis(50),
        pod_gc_period: Duration::from_millis(50),
        pod_gc_node_grace_period: Duration::from_millis(200),
        ..Config::default()
    }
}

async fn node_is(cluster: &Cluster, name: &str, holds: impl Fn(&Node) -> bool) -> Node {
    let nodes = Api::<Node>::all(cluster.client.clone());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let node = nodes.get(name).await.unwrap();
        if holds(&node) {
            return node;
        }
        assert!(std::time::Instant::now() < deadline, "{node:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn taints(node: &Node) -> Vec<(String, String)> {
    let found = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut found: Vec<_> = found.into_iter().map(|taint| (taint.key, taint.effect)).collect();
    found.sort();
    found
}

async fn say_ready(cluster: &Cluster, name: &str) {
    let now = Timestamp::now().to_string();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    let nodes = Api::<Node>::all(cluster.client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = template(json!({"app": name}));
    pod["metadata"]["name"] = json!(name);
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_unknown_tainted_and_emptied_and_comes_back() {
    let cluster = Cluster::start_with(quick()).await;
    cluster.make_node("n1").await;
    let tolerations = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]);
    let moment = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                         "tolerationSeconds": 1}]);
    for (name, tolerations) in [("stays", &tolerations), ("leaves", &moment)] {
        cluster.make::<Pod>(pod(name, json!({"tolerations": tolerations}))).await;
        let made = cluster.api::<Pod>("default").get(name).await.unwrap();
        cluster.bind(&made, "n1").await;
        cluster.report(&made, "Running", "10.0.0.1").await;
    }
    say_ready(&cluster, "n1").await;

    let silent = node_is(&cluster, "n1", |node| condition(node, "Ready").0 == "Unknown").await;
    assert_eq!(condition(&silent, "Ready").1, "NodeStatusUnknown");
    assert_eq!(condition(&silent, "MemoryPressure").1, "NodeStatusNeverUpdated");
    let unreachable = |effect: &str| ("node.kubernetes.io/unreachable".to_owned(), effect.to_owned());
    let expected = [unreachable("NoExecute"), unreachable("NoSchedule")];
    node_is(&cluster, "n1", |node| taints(node) == expected).await;
    cluster.becomes::<Pod>("stays", |pod| condition(pod, "Ready").0 == "False").await;
    let leaving = cluster.becomes::<Pod>("leaves", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(condition(&leaving, "DisruptionTarget").1, "DeletionByTaintManager");
    assert!(cluster.api::<Pod>("default").get("stays").await.unwrap().metadata.deletion_timestamp.is_none());

    // Said again and again: it is silent too soon otherwise.
    let nodes = Api::<Node>::all(cluster.client.clone());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        say_ready(&cluster, "n1").await;
        let node = nodes.get("n1").await.unwrap();
        if taints(&node).is_empty() && condition(&node, "Ready").0 == "True" {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{node:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_lease_is_renewed_stays_ready() {
    // Long beside what a busy machine takes for one renewal.
    let grace = Duration::from_secs(4);
    let patient = Config { node_monitor_grace_period: grace, node_startup_grace_period: grace, ..quick() };
    let cluster = Cluster::start_with(patient).await;
    cluster.make_node("n1").await;
    say_ready(&cluster, "n1").await;
    let leases = cluster.api::<Lease>("kube-node-lease");
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}})).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    let started = std::time::Instant::now();
    while started.elapsed() < grace + Duration::from_secs(2) {
        patch(&leases, "n1", json!({"spec": {"renewTime": Timestamp::now().to_string()}})).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let node = Api::<Node>::all(cluster.client.clone()).get("n1").await.unwrap();
        assert_eq!(condition(&node, "Ready").0, "True");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_missing_nodes_and_surplus_finished_pods_are_collected() {
    let cluster = Cluster::start_with(Config { terminated_pod_threshold: 1, ..quick() }).await;
    cluster.make_node("n1").await;
    cluster.make::<Pod>(pod("left", json!({"nodeName": "n1"}))).await;
    let left = cluster.api::<Pod>("default").get("left").await.unwrap();
    cluster.report(&left, "Running", "10.0.0.1").await;
    Api::<Node>::all(cluster.client.clone()).delete("n1", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Pod>("default", |pods| pods.is_empty()).await;

    cluster.make_node("n2").await;
    for name in ["done-1", "done-2", "done-3"] {
        cluster.make::<Pod>(pod(name, json!({"nodeName": "n2"}))).await;
        let made = cluster.api::<Pod>("default").get(name).await.unwrap();
        cluster.report(&made, "Succeeded", "10.0.0.1").await;
    }
    let kept = cluster.eventually::<Pod>("default", |pods| pods.len() == 1).await;
    assert!(kept[0].name_any().starts_with("done-"));

    // Deleted before it was bound, and held by nothing: nobody else would end it.
    cluster.make::<Pod>(pod("unbound", json!({}))).await;
    cluster.api::<Pod>("default").delete("unbound", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Pod>("default", |pods| pods.iter().all(|pod| pod.name_any() != "unbound")).await;
}
