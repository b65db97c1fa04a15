//! The core group.

pub(crate) mod claim;
pub(crate) mod namespace;
pub(crate) mod pod;
pub(crate) mod pod_cells;
pub(crate) mod pod_update;
pub(crate) mod service;
pub(crate) mod service_cells;
