//! The end of a server: it comes soon whatever clients do, and leaves nothing that holds the store.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, WatchParams};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{cluster, start};

/// Longest time from the order to stop to the end, in seconds; a stuck client costs less.
const PATIENCE_SECONDS: u64 = 9;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_leaves_nothing_behind() {
    let c = cluster().await;
    let http = c.admin();

    // A watch over TLS, and a client that never says a word.
    let over_tls = c.kube_tls().await;
    let mut watch = Box::pin(
        Api::<ConfigMap>::default_namespaced(over_tls.clone()).watch(&WatchParams::default(), "0").await.unwrap(),
    );
    let silent = TcpStream::connect(c.address).await.unwrap();

    // A definition with a conversion webhook, going, with an object that does not want to go.
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let version = |name: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true } } })
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "clocks.shop.example.com" },
        "spec": {
            "group": "shop.example.com", "scope": "Cluster", "names": { "plural": "clocks", "kind": "Clock" },
            "versions": [version("v1", true), version("v2", false)],
            "conversion": { "strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": { "service": { "namespace": "default", "name": "converter" } },
            } },
        },
    });
    let mut events = http.watch(&format!("{path}?watch=1&resourceVersion=0")).await;
    http.post(path, &definition).await.expect(201);
    while !events.event().await.1["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"))
    {}
    let clock = json!({ "apiVersion": "shop.example.com/v1", "kind": "Clock",
        "metadata": { "name": "a", "finalizers": ["example.com/stay"] } });
    http.post("/apis/shop.example.com/v1/clocks", &clock).await.expect(201);
    http.delete(&format!("{path}/clocks.shop.example.com")).await.expect(200);
    drop((events, http));

    c.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(PATIENCE_SECONDS), c.serving).await.expect("the end in time").unwrap();
    // The client sees its watch end, whichever way.
    while let Ok(Some(_)) = watch.try_next().await {}
    let registry = Arc::downgrade(&c.api.registry());
    drop(c.api);
    assert!(registry.upgrade().is_none(), "something holds the registry");
    drop(silent);
    start(c.dir).await.admin().get("/apis/shop.example.com/v1/clocks/a").await.expect(200);
}
