//! What operators rely on: priority and fairness, the audit log, metrics, health, the end.
#![allow(clippy::unwrap_used, missing_docs)]

mod audit;
mod documented;
mod fairness;
mod gated;
mod health;
mod limits;
mod observing;
mod stopping;
mod store_traces;
#[path = "../support/mod.rs"]
mod support;
mod tracing;
