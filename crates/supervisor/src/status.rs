//! `ironkeel status`: whether the node is Ready and DNS answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;

use crate::{Error, Instance};

/// Pause between looks while waiting.
const POLL: Duration = Duration::from_millis(100);
/// One look takes at most so long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What `status` found.
#[derive(Debug, Default)]
pub struct StatusReport {
    /// Every node with its Ready condition's reason when it is not ready.
    pub nodes: Vec<(String, Result<(), String>)>,
    /// Whether cluster DNS answers for `kubernetes.default`.
    pub dns: Option<Result<(), String>>,
    /// Why the API server could not be asked.
    pub api: Option<String>,
}

impl StatusReport {
    /// Whether everything is as it should be.
    pub fn healthy(&self) -> bool {
        let nodes = !self.nodes.is_empty() && self.nodes.iter().all(|(_, ready)| ready.is_ok());
        nodes && self.api.is_none() && matches!(self.dns, Some(Ok(())))
    }
}

/// Looks once, or until all is well or `wait` is over.
pub fn status(instance: &Instance, wait: Duration) -> LocalBoxFuture<'_, Result<StatusReport, Error>> {
    Box::pin(wait_until_well(instance, wait))
}

async fn wait_until_well(instance: &Instance, wait: Duration) -> Result<StatusReport, Error> {
    let deadline = Instant::now() + wait;
    loop {
        let report = match tokio::time::timeout(LOOK_TIMEOUT, look(instance)).await {
            Ok(Ok(report)) => report,
            Ok(Err(reason)) => StatusReport { api: Some(reason), ..StatusReport::default() },
            Err(_) => StatusReport { api: Some("no answer in time".into()), ..StatusReport::default() },
        };
        if report.healthy() || Instant::now() >= deadline {
            return Ok(report);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn look(instance: &Instance) -> Result<StatusReport, String> {
    let client = ironkeel_client::from_kubeconfig(instance.admin_kubeconfig()).await.map_err(|e| e.to_string())?;
    let nodes = Api::<Node>::all(client.clone()).list(&Default::default()).await.map_err(|e| e.to_string())?;
    let nodes = nodes.items.iter().map(|node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        let ready = node.status.as_ref().and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
        let outcome = match ready {
            Some(c) if c.status == "True" => Ok(()),
            Some(c) => Err(c.message.clone().unwrap_or_else(|| "not ready".into())),
            None => Err("the kubelet has not reported yet".into()),
        };
        (name, outcome)
    });
    let mut report = StatusReport { nodes: nodes.collect(), ..StatusReport::default() };
    let dns = Api::<Service>::namespaced(client, "kube-system").get_opt("kube-dns").await.map_err(|e| e.to_string())?;
    let address = dns.and_then(|s| s.spec?.cluster_ip?.parse().ok());
    report.dns = Some(match address {
        Some(ip) => ask(SocketAddr::new(ip, 53)).await,
        None => Err("there is no Service kube-system/kube-dns".into()),
    });
    Ok(report)
}

/// Asks for `kubernetes.default.svc.cluster.local` over UDP.
async fn ask(server: SocketAddr) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{server}: {e}");
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    let mut query = vec![0x49, 0x4b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query).await.map_err(failed)?;
    let mut answer = [0; 512];
    let n = match tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await {
        Ok(received) => received.map_err(failed)?,
        Err(_) => return Err(format!("{server} does not answer")),
    };
    // Same id, no error code, at least one answer.
    if n > 12 && answer[..2] == query[..2] && answer[3] & 0x0f == 0 && answer[7] > 0 {
        Ok(())
    } else {
        Err(format!("{server} does not know kubernetes.default.svc.cluster.local"))
    }
}
