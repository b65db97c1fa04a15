//! The whole cluster in one process, and each part in one of its own: start order, readiness, stop.
//!
//! The only place that names the store's engine and wires transports: components get an in-process
//! client with their own identity, everyone else TLS. What does not live here: anything that a
//! component does, and the command line (`ironkeel`).

mod at_rest;
mod cluster_dns;
mod component;
mod components;
mod engine;
mod error;
mod flags;
mod host;
mod images;
mod instance;
mod kube_apiserver;
mod network;
mod node;
mod notify;
mod preflight;
mod progress;
mod reset;
mod status;
mod up;

pub use component::{Component, ComponentArguments, ComponentCommand};
pub use error::Error;
pub use flags::FlagError;
pub use images::{ImageCommand, run_image_command};
pub use instance::{Instance, Ranges, UpOptions};
pub use ironkeel_etcd::Config as EtcdConfig;
pub use kube_apiserver::{ApiServerArguments, ApiServerCommand, api_server_arguments, verbosity};
pub use node::{NodeOptions, node, node_kubeconfig, write_private};
pub use progress::Progress;
pub use reset::reset;
pub use status::{StatusReport, status};
pub use up::up;

/// Resolves when the process is asked to stop.
///
/// What runs until then is boxed too, and takes no type of the caller's, so that the code of it all is made in this
/// crate, not once more in the program.
pub type Stop = futures::future::BoxFuture<'static, ()>;
