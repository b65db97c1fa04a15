//! The garbage collector: owners that are gone, waiting, elsewhere, in a circle, or of resources that come later.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Cluster, patch};

/// A reference to an owner, which blocks its foreground deletion.
fn to(api_version: &str, kind: &str, owner: &impl ResourceExt) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": owner.name_any(), "uid": owner.uid().unwrap(),
           "blockOwnerDeletion": true})
}

fn to_map(owner: &ConfigMap) -> Value {
    to("v1", "ConfigMap", owner)
}

async fn map(cluster: &Cluster, namespace: &str, name: &str, owners: Value) -> ConfigMap {
    let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
    let map: ConfigMap = serde_json::from_value(map).unwrap();
    cluster.api::<ConfigMap>(namespace).create(&PostParams::default(), &map).await.unwrap()
}

/// Waits until the namespace has these maps and no other.
async fn left(cluster: &Cluster, namespace: &str, wanted: &[&str]) {
    let names = |maps: &[ConfigMap]| {
        let names = maps.iter().map(ResourceExt::name_any).filter(|name| name != "kube-root-ca.crt");
        names.collect::<Vec<_>>()
    };
    cluster.eventually::<ConfigMap>(namespace, |maps| names(maps) == wanted).await;
}

async fn until(holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it never came to that");
}

/// Has the collector decide about something that was made later, so that it has decided about all before.
async fn settle(cluster: &Cluster) {
    let gone = map(cluster, "default", "settling", json!([])).await;
    cluster.api::<ConfigMap>("default").delete("settling", &DeleteParams::default()).await.unwrap();
    map(cluster, "default", "settled", json!([to_map(&gone)])).await;
    cluster.eventually::<ConfigMap>("default", |maps| maps.iter().all(|map| map.name_any() != "settled")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_only_what_is_where_the_reference_says() {
    let cluster = Cluster::start().await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let other: Namespace = serde_json::from_value(json!({"metadata": {"name": "other"}})).unwrap();
    namespaces.create(&PostParams::default(), &other).await.unwrap();
    let owner = map(&cluster, "default", "owner", json!([])).await;
    let mut unknown = to_map(&owner);
    unknown["uid"] = json!("00000000-0000-4000-8000-000000000000");
    // The stray names the same uid from a namespace where it does not exist.
    map(&cluster, "other", "stray", json!([to_map(&owner)])).await;
    map(&cluster, "default", "child", json!([to_map(&owner)])).await;
    map(&cluster, "default", "dangling", json!([unknown])).await;
    map(&cluster, "default", "half", json!([unknown, to_map(&owner)])).await;
    left(&cluster, "other", &[]).await;
    left(&cluster, "default", &["child", "half", "owner"]).await;
    // A reference to what is gone goes, beside one to what is there.
    cluster.becomes::<ConfigMap>("half", |map| map.owner_references().len() == 1).await;
    cluster.api::<ConfigMap>("default").delete("owner", &DeleteParams::default()).await.unwrap();
    left(&cluster, "default", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_scoped_objects_own_and_are_owned_by_their_like() {
    let cluster = Cluster::start().await;
    let roles = Api::<ClusterRole>::all(cluster.client.clone());
    let role = |name: &str, owners: Value| -> ClusterRole {
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}, "rules": []})).unwrap()
    };
    let classes = Api::<PriorityClass>::all(cluster.client.clone());
    let class = json!({"metadata": {"name": "owner"}, "value": 1});
    let owner = classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    let reference = to("scheduling.k8s.io/v1", "PriorityClass", &owner);
    roles.create(&PostParams::default(), &role("owned", json!([reference]))).await.unwrap();
    map(&cluster, "default", "owned", json!([reference])).await;
    // Nothing is known of a namespaced owner of what is in no namespace: it stays.
    let namespaced = map(&cluster, "default", "owner", json!([])).await;
    roles.create(&PostParams::default(), &role("mistaken", json!([to_map(&namespaced)]))).await.unwrap();
    settle(&cluster).await;
    left(&cluster, "default", &["owned", "owner"]).await;
    assert!(roles.get_opt("owned").await.unwrap().is_some());
    classes.delete("owner", &DeleteParams::default()).await.unwrap();
    cluster.api::<ConfigMap>("default").delete("owner", &DeleteParams::default()).await.unwrap();
    left(&cluster, "default", &[]).await;
    settle(&cluster).await;
    until(async || roles.get_opt("owned").await.unwrap().is_none()).await;
    assert!(roles.get_opt("mistaken").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreground_deletion_waits_for_those_that_block_it() {
    let cluster = Cluster::start().await;
    let maps = cluster.api::<ConfigMap>("default");
    let owner = map(&cluster, "default", "owner", json!([])).await;
    let mut loose = to_map(&owner);
    loose["blockOwnerDeletion"] = json!(false);
    map(&cluster, "default", "blocking", json!([to_map(&owner)])).await;
    map(&cluster, "default", "loose", json!([loose])).await;
    for name in ["blocking", "loose"] {
        patch(&maps, name, json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    }
    settle(&cluster).await;
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    let going = |map: &ConfigMap| map.metadata.deletion_timestamp.is_some();
    cluster.becomes::<ConfigMap>("blocking", going).await;
    cluster.becomes::<ConfigMap>("loose", going).await;
    settle(&cluster).await;
    left(&cluster, "default", &["blocking", "loose", "owner"]).await;
    patch(&maps, "blocking", json!({"metadata": {"finalizers": null}})).await;
    left(&cluster, "default", &["loose"]).await;
    patch(&maps, "loose", json!({"metadata": {"finalizers": null}})).await;
    left(&cluster, "default", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_goes_and_orphans_stay() {
    let cluster = Cluster::start().await;
    let maps = cluster.api::<ConfigMap>("default");
    let first = map(&cluster, "default", "first", json!([])).await;
    let second = map(&cluster, "default", "second", json!([to_map(&first)])).await;
    patch(&maps, "first", json!({"metadata": {"ownerReferences": [to_map(&second)]}})).await;
    settle(&cluster).await;
    left(&cluster, "default", &["first", "second"]).await;
    maps.delete("first", &DeleteParams::foreground()).await.unwrap();
    left(&cluster, "default", &[]).await;
    let owner = map(&cluster, "default", "owner", json!([])).await;
    map(&cluster, "default", "orphan", json!([to_map(&owner)])).await;
    settle(&cluster).await;
    maps.delete("owner", &DeleteParams::orphan()).await.unwrap();
    left(&cluster, "default", &["orphan"]).await;
    assert_eq!(maps.get("orphan").await.unwrap().owner_references(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_may_be_named_in_any_version_and_be_of_a_later_resource() {
    let cluster = Cluster::start().await;
    // Version 2 is preferred.
    cluster
        .make::<HorizontalPodAutoscaler>(json!({"metadata": {"name": "owner"},
            "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}}))
        .await;
    let scalers = cluster.api::<HorizontalPodAutoscaler>("default");
    let scaler = scalers.get("owner").await.unwrap();
    map(&cluster, "default", "scaled", json!([to("autoscaling/v1", "HorizontalPodAutoscaler", &scaler)])).await;
    settle(&cluster).await;
    left(&cluster, "default", &["scaled"]).await;
    scalers.delete("owner", &DeleteParams::default()).await.unwrap();
    left(&cluster, "default", &[]).await;

    let resource = ApiResource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
    };
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let widgets = Api::<DynamicObject>::namespaced_with(cluster.client.clone(), "default", &resource);
    until(async || widgets.list(&ListParams::default()).await.is_ok()).await;
    let widget = widgets.create(&PostParams::default(), &DynamicObject::new("w", &resource)).await.unwrap();
    map(&cluster, "default", "owned", json!([to("example.com/v1", "Widget", &widget)])).await;
    settle(&cluster).await;
    left(&cluster, "default", &["owned"]).await;
    widgets.delete("w", &DeleteParams::default()).await.unwrap();
    left(&cluster, "default", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_are_seen_to_go_while_another_version_becomes_the_preferred_one() {
    const OWNERS: usize = 300;
    let cluster = Cluster::start().await;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let version = |name: &str| json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [version("v1")]}});
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let resource = ApiResource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
    };
    let widgets = Api::<DynamicObject>::namespaced_with(cluster.client.clone(), "default", &resource);
    until(async || widgets.list(&ListParams::default()).await.is_ok()).await;
    let names: Vec<String> = (0..OWNERS).map(|i| format!("w{i}")).collect();
    for name in &names {
        let widget = widgets.create(&PostParams::default(), &DynamicObject::new(name, &resource)).await.unwrap();
        map(&cluster, "default", name, json!([to("example.com/v1", "Widget", &widget)])).await;
    }
    settle(&cluster).await;
    let both = json!({"spec": {"versions": [version("v1"), version("v2")]}});
    patch(&definitions, "widgets.example.com", both).await;
    // They go while the collector finds out, and follows.
    for name in &names {
        widgets.delete(name, &DeleteParams::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    left(&cluster, "default", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_an_owner_rightly_goes_though_something_named_it_wrongly_before() {
    let cluster = Cluster::start().await;
    let roles = Api::<ClusterRole>::all(cluster.client.clone());
    let gone = map(&cluster, "default", "gone", json!([])).await;
    cluster.api::<ConfigMap>("default").delete("gone", &DeleteParams::default()).await.unwrap();
    settle(&cluster).await;
    let mistaken = json!({"metadata": {"name": "mistaken", "ownerReferences": [to_map(&gone)]}, "rules": []});
    roles.create(&PostParams::default(), &serde_json::from_value(mistaken).unwrap()).await.unwrap();
    settle(&cluster).await;
    map(&cluster, "default", "child", json!([to_map(&gone)])).await;
    left(&cluster, "default", &[]).await;
    assert!(roles.get_opt("mistaken").await.unwrap().is_some());
}
