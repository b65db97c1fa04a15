//! Pods on this node: where they come from ([`manifests`], the API), the worker that each has ([`worker`]), and what a
//! worker is made of.

pub(crate) mod actions;
pub(crate) mod admit;
pub(crate) mod backoff;
pub(crate) mod cgroups;
pub(crate) mod config;
pub(crate) mod env;
pub(crate) mod hooks;
pub(crate) mod kill;
pub(crate) mod manifests;
pub(crate) mod mirror;
pub(crate) mod network;
pub(crate) mod pleg;
pub(crate) mod reason;
pub(crate) mod security;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod worker;
