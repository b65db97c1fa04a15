//! StatefulSets: order, names, storage, partitions, revisions.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{Cluster, patch, template};

fn stateful(replicas: i32, spec: Value) -> Value {
    let mut set = json!({"metadata": {"name": "db"}, "spec": {
        "replicas": replicas, "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}}, "template": template(json!({"app": "db"}))}});
    for (name, value) in spec.as_object().unwrap() {
        set["spec"][name] = value.clone();
    }
    set
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}})
}

fn names(pods: &[Pod]) -> Vec<String> {
    let mut names: Vec<_> = pods.iter().map(|pod| pod.name_any()).collect();
    names.sort();
    names
}

fn images(pods: &[Pod]) -> Vec<String> {
    let mut sorted: Vec<&Pod> = pods.iter().collect();
    sorted.sort_by_key(|pod| pod.name_any());
    sorted.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect()
}

/// All are there and ready, and the change was seen.
fn settled(replicas: i32) -> impl Fn(&StatefulSet) -> bool {
    move |set| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && status.replicas == replicas
            && status.available_replicas == Some(replicas)
    }
}

fn updated(replicas: i32) -> impl Fn(&StatefulSet) -> bool {
    move |set| {
        let status = set.status.clone().unwrap_or_default();
        settled(replicas)(set)
            && status.updated_replicas == Some(replicas)
            && status.current_revision == status.update_revision
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_up_in_order_with_a_name_and_go_from_the_end() {
    let cluster = Cluster::start().await;
    cluster.make::<StatefulSet>(stateful(3, json!({"ordinals": {"start": 2}}))).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 1).await;
    let first = &pods[0];
    assert_eq!(first.name_any(), "db-2");
    let spec = first.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("db")));
    assert_eq!(first.labels()["apps.kubernetes.io/pod-index"], "2");
    assert_eq!(first.labels()["statefulset.kubernetes.io/pod-name"], "db-2");
    let set = cluster.becomes::<StatefulSet>("db", |set| set.status.as_ref().is_some_and(|s| s.replicas == 1)).await;
    assert_eq!(Some(&first.labels()["controller-revision-hash"]), set.status.unwrap().update_revision.as_ref());

    // The second waits for the first to be ready, and the third for the second.
    cluster.bind(first, "n1").await;
    cluster.report(first, "Running", "10.0.0.1").await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() > 1).await;
    assert_eq!(names(&pods), ["db-2", "db-3"]);
    let kubelet = cluster.kubelet();
    cluster.becomes("db", settled(3)).await;
    drop(kubelet);

    patch(&cluster.api::<StatefulSet>("default"), "db", json!({"spec": {"replicas": 1}})).await;
    let stopping = |pods: &[Pod]| {
        let stopping: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).cloned().collect();
        names(&stopping)
    };
    cluster.eventually::<Pod>("default", |pods| stopping(pods) == ["db-4"]).await;
    let _kubelet = cluster.kubelet();
    cluster.becomes("db", settled(1)).await;
    assert_eq!(names(&cluster.eventually::<Pod>("default", |_| true).await), ["db-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_pods_do_not_wait_for_each_other() {
    let cluster = Cluster::start().await;
    cluster.make::<StatefulSet>(stateful(3, json!({"podManagementPolicy": "Parallel"}))).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 3).await;
    assert_eq!(names(&pods), ["db-0", "db-1", "db-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_stops_at_its_partition_and_can_be_taken_back() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    let strategy = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    cluster.make::<StatefulSet>(stateful(3, strategy)).await;
    let first = cluster.becomes("db", updated(3)).await.status.unwrap().current_revision;
    let api = cluster.api::<StatefulSet>("default");
    patch(&api, "db", image("a:2")).await;
    let part = |set: &StatefulSet| settled(3)(set) && set.status.as_ref().unwrap().updated_replicas == Some(1);
    let set = cluster.becomes("db", part).await;
    let status = set.status.unwrap();
    assert_eq!(status.current_revision, first);
    assert_ne!(status.update_revision, first);
    assert_eq!(status.current_replicas, Some(2));
    assert_eq!(images(&cluster.eventually::<Pod>("default", |_| true).await), ["a:1", "a:1", "a:2"]);

    // A pod below the partition comes back as it was.
    cluster.api::<Pod>("default").delete("db-0", &DeleteParams::default()).await.unwrap();
    let known = cluster.becomes::<StatefulSet>("db", |set| !settled(3)(set)).await;
    assert_eq!(known.name_any(), "db");
    cluster.becomes("db", part).await;
    assert_eq!(images(&cluster.eventually::<Pod>("default", |_| true).await), ["a:1", "a:1", "a:2"]);

    let whole = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    patch(&api, "db", whole).await;
    cluster.becomes("db", updated(3)).await;
    assert_eq!(images(&cluster.eventually::<Pod>("default", |_| true).await), ["a:2", "a:2", "a:2"]);
    let revisions = cluster.eventually::<ControllerRevision>("default", |all| all.len() == 2).await;
    assert!(revisions.iter().all(|revision| revision.name_any().starts_with("db-")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pod_has_a_claim_that_stays_or_goes_as_the_policy_says() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let spec = json!({"volumeClaimTemplates": [claim],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"}});
    cluster.make::<StatefulSet>(stateful(2, spec)).await;
    cluster.becomes("db", settled(2)).await;
    let claims = cluster.eventually::<PersistentVolumeClaim>("default", |claims| claims.len() == 2).await;
    let mut found: Vec<_> = claims.iter().map(|claim| claim.name_any()).collect();
    found.sort();
    assert_eq!(found, ["data-db-0", "data-db-1"]);
    assert_eq!(claims[0].labels()["app"], "db");
    let pod = cluster.api::<Pod>("default").get("db-1").await.unwrap();
    let volumes = pod.spec.unwrap().volumes.unwrap();
    let source = volumes.iter().find(|volume| volume.name == "data").unwrap().persistent_volume_claim.clone();
    assert_eq!(source.unwrap().claim_name, "data-db-1");

    patch(&cluster.api::<StatefulSet>("default"), "db", json!({"spec": {"replicas": 1}})).await;
    let kept = |claims: &[PersistentVolumeClaim]| claims.len() == 1 && claims[0].name_any() == "data-db-0";
    cluster.eventually("default", kept).await;
    cluster.api::<StatefulSet>("default").delete("db", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Pod>("default", |pods| pods.is_empty()).await;
    cluster.eventually("default", kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_pod_is_made_again_under_its_name() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<StatefulSet>(stateful(1, json!({}))).await;
    cluster.becomes("db", settled(1)).await;
    let before = cluster.api::<Pod>("default").get("db-0").await.unwrap();
    cluster.report(&before, "Failed", "10.0.0.1").await;
    cluster
        .eventually::<Pod>("default", |pods| {
            pods.len() == 1 && pods[0].name_any() == "db-0" && pods[0].uid() != before.uid()
        })
        .await;
    cluster.becomes("db", settled(1)).await;
}
