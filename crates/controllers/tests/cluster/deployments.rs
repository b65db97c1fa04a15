//! Deployments: strategies, pauses, rollbacks, scaling in the middle of a rollout, deadlines, history.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Cluster, condition, deployment, patch};

const REVISION: &str = "deployment.kubernetes.io/revision";

fn with(mut object: Value, spec: Value) -> Value {
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    object
}

async fn set_image(api: &Api<Deployment>, image: &str) {
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await.unwrap();
}

fn image_of(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

/// Every replica is of the current template, available, and seen.
fn rolled_out(replicas: i32) -> impl Fn(&Deployment) -> bool {
    move |web| {
        let status = web.status.clone().unwrap_or_default();
        status.observed_generation == web.metadata.generation
            && condition(web, "Progressing").1 == "NewReplicaSetAvailable"
            && [status.replicas, status.updated_replicas, status.available_replicas]
                .iter()
                .all(|n| *n == Some(replicas))
    }
}

/// Sizes of the ReplicaSets by image.
fn sizes(sets: &[ReplicaSet]) -> BTreeMap<String, i32> {
    let row = |set: &ReplicaSet| {
        let spec = set.spec.as_ref().unwrap();
        let containers = &spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers;
        (containers[0].image.clone().unwrap(), spec.replicas.unwrap())
    };
    sets.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_stops_the_last_old_pod_before_the_first_new_one() {
    let cluster = Cluster::start().await;
    let kubelet = cluster.kubelet();
    cluster.make::<Deployment>(with(deployment(2), json!({"strategy": {"type": "Recreate"}}))).await;
    cluster.becomes("web", rolled_out(2)).await;
    drop(kubelet);
    set_image(&cluster.api("default"), "a:2").await;
    let stopping = |pods: &[Pod]| pods.len() == 2 && pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
    cluster.eventually::<Pod>("default", stopping).await;
    // The old pods still run: the Deployment has seen the change, and made nothing.
    let seen = |web: &Deployment| web.status.as_ref().unwrap().observed_generation == web.metadata.generation;
    cluster.becomes::<Deployment>("web", seen).await;
    assert_eq!(cluster.eventually::<ReplicaSet>("default", |_| true).await.len(), 1);
    let _kubelet = cluster.kubelet();
    cluster.becomes("web", rolled_out(2)).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    assert!(pods.iter().all(|pod| image_of(pod) == "a:2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<Deployment>(deployment(1)).await;
    cluster.becomes("web", rolled_out(1)).await;
    let api = cluster.api::<Deployment>("default");
    patch(&api, "web", json!({"spec": {"paused": true}})).await;
    cluster.becomes::<Deployment>("web", |web| condition(web, "Progressing").1 == "DeploymentPaused").await;
    set_image(&api, "a:2").await;
    patch(&api, "web", json!({"spec": {"replicas": 3}})).await;
    let scaled = |web: &Deployment| web.status.as_ref().unwrap().available_replicas == Some(3);
    let web = cluster.becomes::<Deployment>("web", scaled).await;
    assert_eq!(web.status.unwrap().updated_replicas, None);
    let sets = cluster.eventually::<ReplicaSet>("default", |_| true).await;
    assert_eq!(sizes(&sets), BTreeMap::from([("a:1".to_owned(), 3)]));
    patch(&api, "web", json!({"spec": {"paused": false}})).await;
    cluster.becomes("web", rolled_out(3)).await;
    let sets = cluster.eventually::<ReplicaSet>("default", |sets| sets.len() == 2).await;
    assert_eq!(sizes(&sets), BTreeMap::from([("a:1".to_owned(), 0), ("a:2".to_owned(), 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_up_the_old_replica_set_under_a_new_revision() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<Deployment>(deployment(2)).await;
    cluster.becomes("web", rolled_out(2)).await;
    let api = cluster.api::<Deployment>("default");
    set_image(&api, "a:2").await;
    let second = cluster.becomes("web", rolled_out(2)).await;
    assert_eq!(second.annotations()[REVISION], "2");
    let names = |sets: &[ReplicaSet]| sets.iter().map(|set| set.name_any()).collect::<Vec<_>>();
    let before = cluster.eventually::<ReplicaSet>("default", |sets| sets.len() == 2).await;

    // As `kubectl rollout undo` does: the template of the old ReplicaSet, without the hash.
    let old = before.iter().find(|set| set.annotations()[REVISION] == "1").unwrap();
    let mut template = serde_json::to_value(&old.spec.as_ref().unwrap().template).unwrap();
    template["metadata"]["labels"].as_object_mut().unwrap().remove("pod-template-hash");
    let undo = serde_json::from_value(json!([
        {"op": "replace", "path": "/spec/template", "value": template},
    ]));
    api.patch("web", &PatchParams::default(), &Patch::<Deployment>::Json(undo.unwrap())).await.unwrap();
    let third = cluster.becomes("web", |web: &Deployment| web.annotations()[REVISION] == "3").await;
    assert_eq!(third.name_any(), "web");
    cluster.becomes("web", rolled_out(2)).await;
    let after = cluster.eventually::<ReplicaSet>("default", |_| true).await;
    assert_eq!(names(&after), names(&before));
    let again = after.iter().find(|set| set.name_any() == old.name_any()).unwrap();
    assert_eq!(again.annotations()[REVISION], "3");
    assert_eq!(again.annotations()["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(sizes(&after), BTreeMap::from([("a:1".to_owned(), 2), ("a:2".to_owned(), 0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_in_the_middle_of_a_rollout_shares_the_replicas_out() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    let strategy =
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}});
    cluster.make::<Deployment>(with(deployment(10), strategy)).await;
    cluster.becomes("web", rolled_out(10)).await;
    let api = cluster.api::<Deployment>("default");
    // Its pods never become ready, so the rollout stands still at 8 old ones and 5 new ones.
    set_image(&api, "never:1").await;
    let stuck = BTreeMap::from([("a:1".to_owned(), 8), ("never:1".to_owned(), 5)]);
    cluster.eventually::<ReplicaSet>("default", |sets| sizes(sets) == stuck).await;
    let quiet = |web: &Deployment| web.status.as_ref().unwrap().replicas == Some(13);
    cluster.becomes::<Deployment>("web", quiet).await;
    patch(&api, "web", json!({"spec": {"replicas": 30}})).await;
    // 33 are allowed: of the 20 more, the old have 8/13 and the new the rest.
    let shared = BTreeMap::from([("a:1".to_owned(), 20), ("never:1".to_owned(), 13)]);
    cluster.eventually::<ReplicaSet>("default", |sets| sizes(sets) == shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_stands_still_exceeds_its_deadline_and_recovers() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<Deployment>(with(deployment(1), json!({"progressDeadlineSeconds": 1}))).await;
    cluster.becomes("web", rolled_out(1)).await;
    let api = cluster.api::<Deployment>("default");
    set_image(&api, "never:1").await;
    let late = |web: &Deployment| condition(web, "Progressing") == ("False".into(), "ProgressDeadlineExceeded".into());
    let web = cluster.becomes::<Deployment>("web", late).await;
    assert_eq!(condition(&web, "Available").0, "True", "the old pod still serves");
    set_image(&api, "a:3").await;
    cluster.becomes("web", rolled_out(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_replica_sets_go_beyond_the_history_limit() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<Deployment>(with(deployment(1), json!({"revisionHistoryLimit": 1}))).await;
    cluster.becomes("web", rolled_out(1)).await;
    let api = cluster.api::<Deployment>("default");
    for image in ["a:2", "a:3", "a:4"] {
        set_image(&api, image).await;
        cluster.becomes("web", rolled_out(1)).await;
    }
    let kept = BTreeMap::from([("a:3".to_owned(), 0), ("a:4".to_owned(), 1)]);
    cluster.eventually::<ReplicaSet>("default", |sets| sizes(sets) == kept).await;
}
