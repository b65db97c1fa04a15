//! The scheduler against a real API server.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ironkeel_auth::Identity;
use ironkeel_informer::{Delta, Informer, WatchConfig};
use ironkeel_testkit::api::Api as Server;
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Fixture {
    client: kube::Client,
    pods: Informer<Pod>,
    stop: CancellationToken,
    _server: Server,
}

async fn fixture() -> Fixture {
    let server = Server::start().await;
    let client = server.client(Identity::Admin);
    let stop = CancellationToken::new();
    let scheduler = server.client(Identity::Scheduler);
    tokio::spawn(ironkeel_scheduler::run(ironkeel_scheduler::Config::default(), scheduler, stop.clone()));
    let pods = Informer::start(Api::<Pod>::all(client.clone()), WatchConfig::default(), stop.clone());
    let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } })).unwrap();
    Api::namespaced(client.clone(), "default").create(&PostParams::default(), &account).await.unwrap();
    Fixture { client, pods, stop, _server: server }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fixture {
    async fn node(&self, name: &str, cpu: &str, spec: Value, labels: Value) {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels }, "spec": spec,
        }))
        .unwrap();
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let resources = json!({ "cpu": cpu, "memory": "4Gi", "pods": "110" });
        let status = json!({ "status": { "capacity": resources, "allocatable": resources } });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        // What admission adds until the node is ready; no node controller runs here.
        let taints = json!({ "spec": { "taints": spec.get("taints").cloned().unwrap_or(json!([])) } });
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(taints)).await.unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, more: Value) {
        let mut pod = json!({
            "metadata": { "name": name },
            "spec": { "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu } } }] },
        });
        for (key, value) in more.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        Api::namespaced(self.client.clone(), "default").create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Waits until the pod looks so.
    async fn until<T>(&self, name: &str, look: impl Fn(&Pod) -> Option<T>) -> T {
        let mut deltas = self.pods.subscribe();
        let wait = async {
            loop {
                let delta = deltas.recv().await.unwrap();
                if let Delta::Added(pod) | Delta::Updated { new: pod, .. } = &delta
                    && pod.metadata.name.as_deref() == Some(name)
                    && let Some(found) = look(pod)
                {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{name} never looked so"))
    }

    async fn node_of(&self, name: &str) -> String {
        self.until(name, |p| p.spec.as_ref()?.node_name.clone()).await
    }

    async fn refusal(&self, name: &str) -> (String, String) {
        let refused = |p: &Pod| {
            let conditions = p.status.as_ref()?.conditions.as_ref()?;
            let c = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            Some((c.reason.clone()?, c.message.clone()?))
        };
        self.until(name, refused).await
    }
}

#[tokio::test]
async fn pods_go_where_there_is_room_and_wait_until_there_is() {
    let f = fixture().await;
    f.node("small", "500m", json!({}), json!({})).await;
    f.pod("first", "400m", json!({})).await;
    assert_eq!(f.node_of("first").await, "small");
    f.pod("second", "400m", json!({})).await;
    let (reason, message) = f.refusal("second").await;
    assert_eq!((reason.as_str(), message.as_str()), ("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu."));
    // A pod that leaves makes room.
    let pods: Api<Pod> = Api::namespaced(f.client.clone(), "default");
    pods.delete("first", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(f.node_of("second").await, "small");
    // A node that comes takes what waits.
    f.pod("third", "2", json!({})).await;
    f.refusal("third").await;
    f.node("large", "4", json!({}), json!({})).await;
    assert_eq!(f.node_of("third").await, "large");
    let events: Api<Event> = Api::namespaced(f.client.clone(), "default");
    let listed = events.list(&Default::default()).await.unwrap();
    let scheduled = listed.iter().any(|e| e.message.as_deref() == Some("Successfully assigned default/first to small"));
    assert!(scheduled, "{:?}", listed.iter().map(|e| &e.message).collect::<Vec<_>>());
}

#[tokio::test]
async fn selectors_taints_cordons_ports_and_gates_are_heeded() {
    let f = fixture().await;
    f.node("plain", "4", json!({}), json!({})).await;
    f.node("ssd", "4", json!({}), json!({ "disk": "ssd" })).await;
    f.node(
        "tainted",
        "4",
        json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }),
        json!({ "t": "1" }),
    )
    .await;
    f.node("cordoned", "4", json!({ "unschedulable": true }), json!({ "c": "1" })).await;
    f.pod("wants-ssd", "1", json!({ "nodeSelector": { "disk": "ssd" } })).await;
    assert_eq!(f.node_of("wants-ssd").await, "ssd");
    f.pod("refused", "1", json!({ "nodeSelector": { "t": "1" } })).await;
    let wanted = "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, \
                  2 node(s) didn't match Pod's node affinity/selector.";
    // Its first try may have known fewer nodes.
    f.until("refused", |p| {
        let conditions = p.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "PodScheduled" && c.message.as_deref() == Some(wanted)).map(drop)
    })
    .await;
    let tolerations = json!([{ "key": "k", "operator": "Exists" }]);
    f.pod("tolerates", "1", json!({ "nodeSelector": { "t": "1" }, "tolerations": tolerations })).await;
    assert_eq!(f.node_of("tolerates").await, "tainted");
    let pinned = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["plain"] }] }] } } });
    let ports = json!([{ "name": "c", "image": "i", "ports": [{ "containerPort": 80, "hostPort": 80 }] }]);
    f.pod("port", "1", json!({ "affinity": pinned, "containers": ports })).await;
    assert_eq!(f.node_of("port").await, "plain");
    f.pod("port-again", "1", json!({ "affinity": pinned, "containers": ports })).await;
    let (_, message) = f.refusal("port-again").await;
    assert!(message.contains("1 node(s) didn't have free ports for the requested pod ports"), "{message}");
    f.pod("gated", "1", json!({ "schedulingGates": [{ "name": "example.com/wait" }] })).await;
    let (reason, _) = f.refusal("gated").await;
    assert_eq!(reason, "SchedulingGated");
    let pods: Api<Pod> = Api::namespaced(f.client.clone(), "default");
    let open = json!({ "spec": { "schedulingGates": null } });
    pods.patch("gated", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    f.node_of("gated").await;
    // Uncordoned, it takes pods.
    f.pod("late", "1", json!({ "nodeSelector": { "c": "1" } })).await;
    f.refusal("late").await;
    let uncordon = json!({ "spec": { "unschedulable": false } });
    Api::<Node>::all(f.client.clone())
        .patch("cordoned", &PatchParams::default(), &Patch::Merge(uncordon))
        .await
        .unwrap();
    assert_eq!(f.node_of("late").await, "cordoned");
}

#[tokio::test]
async fn pods_spread_over_like_nodes_and_higher_priority_goes_first() {
    let f = fixture().await;
    for i in 0..4 {
        f.node(&format!("n{i}"), "4", json!({}), json!({})).await;
    }
    let mut nodes = std::collections::BTreeMap::<String, usize>::new();
    for i in 0..8 {
        let name = format!("p{i}");
        f.pod(&name, "500m", json!({})).await;
        *nodes.entry(f.node_of(&name).await).or_default() += 1;
    }
    assert_eq!(nodes.values().copied().collect::<Vec<_>>(), [2, 2, 2, 2], "{nodes:?}");
}
