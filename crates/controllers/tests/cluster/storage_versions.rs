//! StorageVersionMigrations: what was stored in another version is stored anew, one migration a resource at a time.

use std::time::{Duration, Instant};

use ironkeel_controllers::{Config, StorageVersionMigrator};
use ironkeel_store::Store as _;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::support::{Cluster, condition};

const PATIENCE: Duration = Duration::from_secs(20);
const DEFINITION: &str = "widgets.shop.example.com";

async fn cluster() -> Cluster {
    let migrator = StorageVersionMigrator { discovery_patience: Duration::ZERO };
    Cluster::start_with(Config { storage_version_migrator: Some(migrator), ..Config::default() }).await
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn definitions(cluster: &Cluster) -> Api<DynamicObject> {
    let of = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
    Api::all_with(cluster.client.clone(), &of)
}

fn widgets(cluster: &Cluster) -> Api<DynamicObject> {
    let of = resource("shop.example.com", "v1", "Widget", "widgets");
    Api::namespaced_with(cluster.client.clone(), "default", &of)
}

fn dynamic(object: Value) -> DynamicObject {
    serde_json::from_value(object).unwrap()
}

/// The version in which a widget is stored.
async fn stored_as(cluster: &Cluster, name: &str) -> Value {
    let key = format!("/registry/shop.example.com/widgets/default/{name}");
    let found = cluster.store.get(key.as_bytes(), 0).await.unwrap().0.unwrap();
    serde_json::from_slice::<Value>(&found.value).unwrap()["apiVersion"].clone()
}

async fn make_widget(cluster: &Cluster, name: &str) {
    let widget = json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": name},
                        "spec": {"size": 3}});
    widgets(cluster).create(&PostParams::default(), &dynamic(widget)).await.unwrap();
}

async fn start(cluster: &Cluster, name: &str, group: &str, plural: &str) {
    let migration = json!({"metadata": {"name": name}, "spec": {"resource": {"group": group, "resource": plural}}});
    let api = Api::<StorageVersionMigration>::all(cluster.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(migration).unwrap()).await.unwrap();
}

/// Waits until a migration is over, and returns it.
async fn over(cluster: &Cluster, name: &str) -> Value {
    let api = Api::<StorageVersionMigration>::all(cluster.client.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = api.get(name).await.unwrap();
        if condition(&found, "Running") == ("False".to_owned(), "MigrationCompleted".to_owned()) {
            return serde_json::to_value(found).unwrap();
        }
        assert!(Instant::now() < deadline, "never over: {found:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn succeeded(migration: &Value) {
    let wanted = ("True".to_owned(), "StorageVersionMigrationSucceeded".to_owned());
    assert_eq!(condition(migration, "Succeeded"), wanted, "{migration:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_in_another_version_is_stored_anew_and_the_version_can_go() {
    let cluster = cluster().await;
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": DEFINITION},
        "spec": {"group": "shop.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                 "versions": [version("v1", true), version("v2", false)]},
    });
    let api = definitions(&cluster);
    api.create(&PostParams::default(), &dynamic(definition)).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while condition(&api.get(DEFINITION).await.unwrap(), "Established").0 != "True"
        || widgets(&cluster).list(&Default::default()).await.is_err()
    {
        assert!(Instant::now() < deadline, "the definition is not established");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for name in ["a", "b", "c"] {
        make_widget(&cluster, name).await;
        assert_eq!(stored_as(&cluster, name).await, "shop.example.com/v1");
    }
    let swap = json!({"spec": {"versions": [version("v1", false), version("v2", true)]}});
    api.patch(DEFINITION, &PatchParams::default(), &Patch::Merge(swap)).await.unwrap();
    for probe in 0.. {
        let name = format!("probe-{probe}");
        make_widget(&cluster, &name).await;
        if stored_as(&cluster, &name).await == "shop.example.com/v2" {
            break;
        }
        assert!(Instant::now() < deadline, "the other version is not stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stored_as(&cluster, "a").await, "shop.example.com/v1");
    let before = widgets(&cluster).get("a").await.unwrap();

    for name in ["first", "second"] {
        start(&cluster, name, "shop.example.com", "widgets").await;
    }
    let (first, second) = (over(&cluster, "first").await, over(&cluster, "second").await);
    succeeded(&first);
    succeeded(&second);
    // The second began when the first had written everything.
    let checkpoint = |found: &Value| found["status"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(checkpoint(&first) < checkpoint(&second), "{first:#} {second:#}");
    for widget in widgets(&cluster).list(&Default::default()).await.unwrap() {
        let name = widget.metadata.name.unwrap();
        assert_eq!(stored_as(&cluster, &name).await, "shop.example.com/v2", "{name}");
        assert!(widget.metadata.resource_version.unwrap().parse::<u64>().unwrap() < checkpoint(&second));
    }
    let after = widgets(&cluster).get("a").await.unwrap();
    assert_ne!(after.metadata.resource_version, before.metadata.resource_version);
    assert_eq!((&after.data, &after.metadata.uid), (&before.data, &before.metadata.uid));
    assert_eq!(after.metadata.managed_fields, before.metadata.managed_fields);

    let found = api.get(DEFINITION).await.unwrap();
    assert_eq!(found.data["status"]["storedVersions"], json!(["v2"]));
    assert_eq!(condition(&found, "StorageMigrating"), ("False".to_owned(), "MigrationSucceeded".to_owned()));
    let only = json!({"spec": {"versions": [version("v2", true)]}});
    api.patch(DEFINITION, &PatchParams::default(), &Patch::Merge(only)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_or_cannot_be_written_is_not_migrated() {
    let cluster = cluster().await;
    start(&cluster, "unknown", "shop.example.com", "nothings").await;
    start(&cluster, "review", "authentication.k8s.io", "tokenreviews").await;
    start(&cluster, "roles", "rbac.authorization.k8s.io", "clusterroles").await;
    let told = |migration: &Value| {
        let wanted = ("True".to_owned(), "StorageVersionMigrationFailed".to_owned());
        assert_eq!(condition(migration, "Failed"), wanted, "{migration:#}");
        let conditions = migration["status"]["conditions"].as_array().unwrap();
        let failed = conditions.iter().find(|condition| condition["type"] == "Failed").unwrap();
        failed["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(told(&over(&cluster, "unknown").await), "resource does not exist in discovery");
    assert_eq!(
        told(&over(&cluster, "review").await),
        "resource \"authentication.k8s.io/v1, Resource=tokenreviews\" does not support discovery operations: \
         [update patch list]"
    );
    // A built-in resource that is stored as it should be: nothing is written, and that is success.
    succeeded(&over(&cluster, "roles").await);
}
