//! Clusters for tests.
//!
//! [`Cluster`] is one as users have it: the real binary as root, in a network namespace of its own,
//! driven by real kubectl and helm. [`api::Api`] is an API server alone, in this process. Around them:
//! commands with limits, lists of checks, a registry, and snapshots of the host. What the tests check
//! lives in the tests of the crates that use this.

pub mod api;
mod checks;
mod cluster;
mod error;
pub mod etcd;
pub mod http;
mod namespace;
mod node;
mod ports;
pub mod registry;
pub mod run;
mod snapshot;
pub mod tools;

pub use checks::{Checks, must};
pub use cluster::{Cluster, Options};
pub use error::{Error, Outcome, expect, expect_words};
pub use namespace::{HOST_ADDRESS, NetworkNamespace};
pub use node::Node;
pub use ports::free_port;
pub use run::{Background, Output};
pub use snapshot::Snapshot;
