//! Should they: the built-in admission plugins.

use std::sync::Arc;

use ironkeel_registry::{Chain, Registry};

/// The chain of plugins, in upstream's order.
pub fn chain(_registry: Arc<Registry>) -> Chain {
    Arc::new(ironkeel_registry::AdmitAll)
}
