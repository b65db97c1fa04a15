//! The node's heartbeat: a Lease in kube-node-lease, renewed every ten seconds.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, api::PostParams};

use crate::kubelet::Kubelet;

/// The namespace of node leases.
const NAMESPACE: &str = "kube-node-lease";
/// After so long without renewal the node is taken for dead, seconds.
const DURATION_S: i32 = 40;
/// How often it is renewed.
const PERIOD: Duration = Duration::from_secs(10);
/// First wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(7);

/// Renews the lease until shutdown.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let api: Api<Lease> = Api::namespaced(kubelet.client.clone(), NAMESPACE);
    let mut held: Option<Lease> = None;
    let mut retry = RETRY_FIRST;
    loop {
        let wait = match renew(&kubelet, &api, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                retry = RETRY_FIRST;
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "node lease not renewed");
                retry = (retry * 2).min(RETRY_MAX);
                retry
            }
        };
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn renew(kubelet: &Kubelet, api: &Api<Lease>, held: Option<Lease>) -> Result<Lease, kube::Error> {
    let name = &kubelet.config.node_name;
    let node_uid = kubelet.node.object.read().as_ref().and_then(|node| node.metadata.uid.clone());
    let existing = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let renewed = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(DURATION_S),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let owner = node_uid.map(|uid| {
        vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        }]
    });
    match existing {
        Some(mut lease) => {
            lease.spec = Some(renewed);
            lease.metadata.owner_references = owner.or(lease.metadata.owner_references);
            api.replace(name, &PostParams::default(), &lease).await
        }
        None => {
            let metadata = ObjectMeta { name: Some(name.clone()), owner_references: owner, ..ObjectMeta::default() };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(renewed) }).await
        }
    }
}
