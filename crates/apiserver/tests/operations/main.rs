//! What operators rely on: priority and fairness, the audit log, metrics, health, the end.
#![allow(clippy::unwrap_used, missing_docs)]

mod audit;
mod fairness;
mod observing;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
