//! Nodes: silent ones become Unknown, conditions become taints, pods leave nodes that they do not tolerate, and each
//! node gets a range for its pods.

mod eviction;
mod ipam;
mod lifecycle;

pub(crate) use eviction::run as run_eviction;
pub(crate) use ipam::run as run_ipam;
pub(crate) use lifecycle::run as run_lifecycle;
