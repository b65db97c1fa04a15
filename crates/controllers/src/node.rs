//! Nodes: silent ones become Unknown, conditions become taints, and pods leave nodes that they do not tolerate.

mod eviction;
mod lifecycle;

pub(crate) use eviction::run as run_eviction;
pub(crate) use lifecycle::run as run_lifecycle;
