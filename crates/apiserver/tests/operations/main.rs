//! What operators rely on: priority and fairness, the audit log, metrics, health, the end.
#![allow(clippy::unwrap_used, missing_docs)]

mod audit;
mod documented;
#[path = "../../../etcd/tests/server/mod.rs"]
mod etcd_server;
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
