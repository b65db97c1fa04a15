//! The Service and EndpointSlice that lead pods to cluster DNS on this host.
//!
//! Upstream runs DNS in pods; here it listens on the node's own pod-range address, and the Service
//! `kube-system/kube-dns` has that as its endpoint.

use std::net::{IpAddr, SocketAddr};

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

const FIELD_MANAGER: &str = "ironkeel";

/// Applies both; can be repeated.
pub(crate) async fn publish(
    client: &kube::Client,
    service_ip: IpAddr,
    endpoint: SocketAddr,
    node: &str,
) -> Result<(), kube::Error> {
    let ports = |target: bool| -> Vec<Value> {
        [("dns", "UDP"), ("dns-tcp", "TCP")]
            .into_iter()
            .map(|(name, protocol)| {
                let mut port =
                    json!({ "name": name, "port": if target { endpoint.port() } else { 53 }, "protocol": protocol });
                if !target {
                    port["targetPort"] = endpoint.port().into();
                }
                port
            })
            .collect()
    };
    let labels =
        json!({ "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true" });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": labels },
        "spec": { "clusterIP": service_ip.to_string(), "ports": ports(false) },
    });
    apply(client, GroupVersionKind::gvk("", "v1", "Service"), "services", service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kube-dns-ironkeel", "namespace": "kube-system", "labels": {
            "kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "ironkeel",
        } },
        "addressType": "IPv4",
        "ports": ports(true),
        "endpoints": [{ "addresses": [endpoint.ip().to_string()], "nodeName": node, "conditions": { "ready": true } }],
    });
    apply(client, GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"), "endpointslices", slice).await
}

async fn apply(client: &kube::Client, gvk: GroupVersionKind, plural: &str, object: Value) -> Result<(), kube::Error> {
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "kube-system", &resource);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await.map(drop)
}
