//! Shared caches with indexes, work queue, expectations, leader election, events: the kit that every component of the
//! control plane and the node is built with.
//!
//! Here: client-go's `tools/cache`, `util/workqueue`, `tools/record` and `tools/leaderelection`, and the parts of
//! `pkg/controller` that every controller shares. Not here: rules about pods (the semantics crate) and transports (the
//! client crate).

mod cache;
mod compiled;
mod events;
mod expectations;
mod factory;
mod feed;
mod lease;
mod ownership;
mod queue;
mod queue_metrics;
mod reflector;
mod wire;

pub use cache::{Delta, Informer, WatchConfig};
#[doc(hidden)]
pub use compiled::compile_shared_types;
pub use events::{EventKind, EventRecorder, reference_to};
pub use expectations::{Expectations, slow_start_batch};
pub use factory::InformerFactory;
pub use feed::{MetadataChange, MetadataFeed, follow_metadata};
pub use lease::{LeaderElector, LeaderElectorConfig};
pub use ownership::{ControllerRefManager, controller_of, controller_reference};
pub use queue::{WorkQueue, run_workers};
pub use queue_metrics::render_queues;

/// What goes wrong in this kit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API answered with an error, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The object that should own others is being deleted, or is another object under the same name by now.
    #[error("{kind} {namespace}/{name} is being deleted or was replaced: it adopts nothing")]
    OwnerGone {
        /// Kind of the owner.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}
