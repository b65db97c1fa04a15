//! Port forward over SPDY: not served yet, so every protocol is refused with 403.

use std::sync::Arc;

use crate::Backend;

/// The versions of the protocol that are served.
pub(crate) const PROTOCOLS: &[&str] = &[];
/// SPDY in WebSocket messages.
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

pub(crate) async fn serve<S>(_: S, _: String, _: Arc<dyn Backend>) {}
