//! API priority and fairness (KEP-1040): requests are classified by FlowSchemas into priority
//! levels; each level has seats, lends and borrows them, and shares them fairly between flows by
//! queues, shuffle sharding and virtual time.
//!
//! [`Controller`] is the whole of it: it reads the configuration from given objects, classifies a
//! request without an allocation, and answers a [`Seat`] at once where one is free. What does not
//! live here: HTTP, the storing of objects and of their status (`apiserver`).

mod allocate;
mod bootstrap;
mod config;
mod controller;
mod demand;
mod dropped;
mod dump;
mod level;
mod matching;
mod metrics;
mod queues;
mod seat;
mod shuffle;
mod watchers;
mod width;

pub use bootstrap::{AUTO_UPDATE, is_leftover, mandatory, reconcile, suggested};
pub use controller::{Classified, Controller, StatusUpdate};
pub use dump::DumpKind;
pub use matching::Digest;
pub use metrics::METRIC_FAMILIES;
pub use seat::{Details, Refusal, RefusalReason, Seat, Work};
pub use watchers::{WatchCounts, Watched};
pub use width::{ListStats, MAX_LIST_SEATS, MAX_MUTATING_SEATS, Width};

/// Field manager of status conditions that this writes.
pub const CONSUMER_FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Field manager of the bootstrap objects.
pub const PRODUCER_FIELD_MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
/// Time between two adjustments of what levels lend and borrow, in seconds.
pub const ADJUSTMENT_SECONDS: u64 = 10;
/// Time between two looks at the bootstrap objects, in seconds.
pub const BOOTSTRAP_SECONDS: u64 = 60;
