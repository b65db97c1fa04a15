//! The first slice end to end: start, TLS, CRUD, list, watch, patch.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use support::cluster;

async fn crud(client: kube::Client) {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let body: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}})).unwrap();
    let made = api.create(&PostParams::default(), &body).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.resource_version.is_some());
    let got = api.get("a").await.unwrap();
    assert_eq!(got, made);
    let listed = api.list(&ListParams::default().labels("x=y")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k2": "w"}}))).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let gone = api.get("a").await.unwrap_err();
    assert_eq!(gone.to_string().contains("configmaps \"a\" not found"), true, "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_clients_work_in_process_and_over_tls() {
    let c = cluster().await;
    crud(c.kube()).await;
    crud(c.kube_tls().await).await;
}
