//! What operators rely on: priority and fairness, the audit log, metrics, health.
#![allow(clippy::unwrap_used, missing_docs)]

mod audit;
mod fairness;
mod observing;
#[path = "../support/mod.rs"]
mod support;
