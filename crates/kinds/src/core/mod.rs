//! The core group.

pub(crate) mod claim;
pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod pod_cells;
mod pod_resize;
mod pod_status;
pub(crate) mod pod_update;
pub(crate) mod quota;
pub(crate) mod replication_controller;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod service_cells;
mod service_update;
pub(crate) mod volume;
