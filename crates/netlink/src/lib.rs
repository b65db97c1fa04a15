//! Links, addresses, routes and nftables over netlink, without helpers on the host.
//!
//! Blocking sockets: one request, one answer, microseconds each. Callers on an async runtime move
//! larger batches to a blocking thread. What does not live here: which links and rules a cluster
//! wants (`cni`, `proxy`).
#![allow(unsafe_code)]

mod message;
pub mod nft;
pub mod route;
mod socket;

pub use socket::{NetlinkError, Socket, in_namespace};
