//! What callers, clients' connections and whoever is asked about them must not get away with.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod authorizers;
mod connections;
mod delegates;
#[path = "../support/mod.rs"]
mod support;
mod wire;
