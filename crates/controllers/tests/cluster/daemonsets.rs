//! DaemonSets: updates at the pace of maxUnavailable and by surge, revisions, nodes that come and go.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::{Value, json};

use crate::support::{Cluster, patch, template};

fn daemon_set(strategy: Value) -> Value {
    json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}}, "template": template(json!({"app": "d"})),
        "updateStrategy": strategy}})
}

fn image(image: &str) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8080}]);
    json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image, "ports": ports}]}}}})
}

fn uses(pod: &Pod, image: &str) -> bool {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
}

fn settled(nodes: i32) -> impl Fn(&DaemonSet) -> bool {
    move |set| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && status.updated_number_scheduled == Some(nodes)
            && status.number_available == Some(nodes)
            && status.desired_number_scheduled == nodes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_rolls_one_node_at_a_time_and_keeps_its_revisions() {
    let cluster = Cluster::start().await;
    for name in ["n1", "n2", "n3"] {
        cluster.make_node(name).await;
    }
    let kubelet = cluster.kubelet();
    cluster.make::<DaemonSet>(daemon_set(json!({"type": "RollingUpdate"}))).await;
    cluster.becomes("d", settled(3)).await;
    drop(kubelet);
    let api = cluster.api::<DaemonSet>("default");
    patch(&api, "d", image("a:2")).await;
    let stopping = |pods: &[Pod]| pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
    // Without a kubelet the first one does not go, and no second one follows it.
    cluster.eventually::<Pod>("default", |pods| stopping(pods) == 1).await;
    cluster.eventually::<ControllerRevision>("default", |all| all.len() == 2).await;
    assert_eq!(stopping(&cluster.eventually::<Pod>("default", |_| true).await), 1);
    let _kubelet = cluster.kubelet();
    cluster.becomes("d", settled(3)).await;
    cluster.eventually::<Pod>("default", |pods| pods.len() == 3 && pods.iter().all(|pod| uses(pod, "a:2"))).await;

    patch(&api, "d", image("a:1")).await;
    cluster.becomes("d", settled(3)).await;
    let revisions = cluster.eventually::<ControllerRevision>("default", |_| true).await;
    let mut numbers: Vec<_> = revisions.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3], "a template that was there before takes its revision up again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_surging_daemon_set_has_the_new_pod_before_the_old_one_goes() {
    let cluster = Cluster::start().await;
    cluster.make_node("n1").await;
    let kubelet = cluster.kubelet();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    cluster.make::<DaemonSet>(daemon_set(strategy)).await;
    cluster.becomes("d", settled(1)).await;
    drop(kubelet);
    patch(&cluster.api::<DaemonSet>("default"), "d", image("a:2")).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    assert!(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()));
    let _kubelet = cluster.kubelet();
    cluster.eventually::<Pod>("default", |pods| pods.len() == 1 && uses(&pods[0], "a:2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_that_updates_on_delete_waits_and_a_failed_pod_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.make_node("n1").await;
    let _kubelet = cluster.kubelet();
    cluster.make::<DaemonSet>(daemon_set(json!({"type": "OnDelete"}))).await;
    cluster.becomes("d", settled(1)).await;
    patch(&cluster.api::<DaemonSet>("default"), "d", image("a:2")).await;
    let seen = |set: &DaemonSet| {
        let status = set.status.as_ref().unwrap();
        status.observed_generation == set.metadata.generation && status.updated_number_scheduled.is_none()
    };
    cluster.becomes("d", seen).await;
    let pods = cluster.eventually::<Pod>("default", |_| true).await;
    assert!(pods.len() == 1 && uses(&pods[0], "a:1"));
    cluster.report(&pods[0], "Failed", "10.0.0.1").await;
    cluster.eventually::<Pod>("default", |pods| pods.len() == 1 && uses(&pods[0], "a:2")).await;
    // Where no node is, no pod is wanted; the one that was there is for the pod garbage collector.
    Api::<Node>::all(cluster.client.clone()).delete("n1", &DeleteParams::default()).await.unwrap();
    cluster.becomes::<DaemonSet>("d", |set| set.status.as_ref().unwrap().desired_number_scheduled == 0).await;
}
