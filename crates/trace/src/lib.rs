//! Where a request's time goes: its steps, one by one ([`Trace`]), told in the log when it took long (as upstream's
//! `k8s.io/utils/trace` does), and exported as OpenTelemetry spans ([`Tracer`], OTLP over gRPC, as
//! `k8s.io/component-base/tracing` does) where the configuration asks for it.
//!
//! Whoever does a part of a request's work finds its trace in a task-local: [`step`] notes what is over, [`span`] what
//! goes on, [`traceparent`] is the header for those who are asked. Without a request all three do nothing.
//! What does not live here: HTTP, and which requests there are (`apiserver`).

mod config;
mod context;
mod export;
mod otlp;
mod request;

pub use config::{Config, ConfigError, Target};
pub use context::{Context, TRACEPARENT};
pub use export::Tracer;
pub use request::{Outcome, SLOW_MS, Span, Trace, carried, span, step, traceparent};
