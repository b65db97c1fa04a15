//! What callers, clients' connections and whoever is asked about them must not get away with.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod acting;
mod authorizers;
mod connections;
mod delegates;
mod escalation;
mod slow_readers;
#[path = "../support/mod.rs"]
mod support;
mod wire;
