//! The pod network interface and its built-in implementation.
//!
//! The runtime calls it when a sandbox comes and goes; the supervisor chooses the implementation.
//! Routes to other nodes' pods are kept by [`follow_nodes`].

use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;

mod addresses;
mod builtin;
mod late;
mod node_routes;
mod rules;

pub use builtin::{BuiltinConfig, BuiltinNetwork, FORWARDING_BEFORE};
pub use late::LateNetwork;
pub use node_routes::{NodeRoutesConfig, follow_nodes};

/// Who gets an address.
#[derive(Clone, Debug)]
pub struct PodNetworkRequest<'a> {
    /// Sandbox id; the key of everything that is made for it.
    pub sandbox_id: &'a str,
    /// Pod namespace.
    pub namespace: &'a str,
    /// Pod name.
    pub name: &'a str,
    /// Pod UID.
    pub uid: &'a str,
    /// The sandbox's network namespace, a bind-mounted file.
    pub netns: &'a Path,
    /// `hostPort`s to map.
    pub port_mappings: &'a [PortMapping],
}

/// One `hostPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node.
    pub host_port: u16,
    /// Address on the node; empty for all.
    pub host_ip: String,
}

/// Gives sandboxes their addresses. Both calls can be repeated: the second call with the same
/// sandbox answers the same addresses, or does nothing.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a sandbox; answers its addresses, the first is the pod's `podIP`.
    async fn set_up(&self, request: PodNetworkRequest<'_>) -> Result<Vec<IpAddr>, PodNetworkError>;
    /// Undoes `set_up`; no error when there is nothing left.
    async fn tear_down(&self, sandbox_id: &str) -> Result<(), PodNetworkError>;
    /// Whether pods can be connected now; the runtime's NetworkReady condition.
    async fn ready(&self) -> Result<(), PodNetworkError>;
}

/// Why a sandbox got no network.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// The address range is used up.
    #[error("no free address left in {0}")]
    NoAddress(String),
    /// The node has no range yet.
    #[error("this node has no range for pods yet: its Node has no spec.podCIDR")]
    NoRange,
    /// A step on the host failed.
    #[error("{step}: {reason}")]
    Host {
        /// What was tried.
        step: String,
        /// The system's words.
        reason: String,
    },
}
