//! CRI v1: messages, client and server.
//!
//! What a kubelet and a container runtime say to each other. The messages and services in [`v1`] are
//! generated from the API's facts; the rest of the crate connects a client to a runtime, over a unix
//! socket (containerd, CRI-O) or by calling the services of this process without a wire in between.

mod client;

/// Package `runtime.v1`: messages, `runtime_service_client`, `runtime_service_server`,
/// `image_service_client`, `image_service_server`.
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, unreachable_pub)]
#[path = "generated/v1.rs"]
pub mod v1;

pub use client::{ConnectError, CriClient, MAX_MESSAGE_BYTES, Transport, TransportError};
