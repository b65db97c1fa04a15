//! A pod network that waits for its range: a node learns `spec.podCIDR` only after its kubelet has
//! registered it, and the runtime has to be there before.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use crate::{BuiltinNetwork, PodNetwork, PodNetworkError, PodNetworkRequest};

/// The built-in network, once it is there; not ready before. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct LateNetwork(Arc<OnceLock<Arc<BuiltinNetwork>>>);

impl LateNetwork {
    /// Gives it its network. The first one stays.
    pub fn set(&self, network: Arc<BuiltinNetwork>) {
        // A second one has the same range: the caller follows one Node.
        let _ = self.0.set(network);
    }
}

#[async_trait]
impl PodNetwork for LateNetwork {
    async fn set_up(&self, request: PodNetworkRequest<'_>) -> Result<Vec<IpAddr>, PodNetworkError> {
        match self.0.get() {
            Some(network) => network.set_up(request).await,
            None => Err(PodNetworkError::NoRange),
        }
    }

    async fn tear_down(&self, sandbox_id: &str) -> Result<(), PodNetworkError> {
        match self.0.get() {
            Some(network) => network.tear_down(sandbox_id).await,
            // Nothing was ever connected.
            None => Ok(()),
        }
    }

    async fn ready(&self) -> Result<(), PodNetworkError> {
        self.0.get().map(drop).ok_or(PodNetworkError::NoRange)
    }
}
