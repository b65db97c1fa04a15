//! Exec and attach over SPDY: not served yet, so every protocol is refused with 403.

use std::sync::Arc;

use crate::Backend;
use crate::remote_command::RemoteCommand;

/// The versions of the protocol that are served.
pub(crate) const PROTOCOLS: &[&str] = &[];

pub(crate) async fn serve<S>(_: S, _: &'static str, _: RemoteCommand, _: Arc<dyn Backend>) {}
