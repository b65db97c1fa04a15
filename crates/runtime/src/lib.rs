//! The embedded container runtime: a CRI v1 server.
//!
//! Pods' processes live under one shim each (see [`shim_main`]), so they outlive this process, and a
//! new [`Runtime`] finds them again. Images, root file systems, specifications, logs, statistics and
//! streams are made here; the kernel's part of making a container is libcontainer's, in the shim.
//!
//! Everything made on the host is in the journal before it is made. What this runtime does not do:
//! user namespaces, AppArmor and SELinux, checkpoints, CDI devices; each is refused by name.
#![allow(unsafe_code)]

mod attach;
mod cgroup;
mod container;
mod error;
mod events;
mod image;
mod overlay;
mod process;
mod records;
mod rootfs;
mod runtime;
mod sandbox;
mod service;
mod shim;
mod shim_client;
mod spec;
mod stats;
mod usage;

pub use error::Error;
pub use image::{ImageName, ImageRecord, ImageStore, Imported, PullProgress, RegistryConfig};
pub use runtime::{Runtime, RuntimeConfig};
pub use shim::shim_main;
