//! The audit log: which requests are recorded and how much of them ([`Policy`], audit.k8s.io/v1),
//! the record ([`Event`]), and where it goes (a rotated file of JSON lines, or anything that is a
//! [`Sink`]), at once or in batches.
//!
//! What does not live here: watching requests go by (`apiserver`), and HTTP. The legacy text
//! format of upstream's log is absent: [`Config::from_log_format`] says so.

mod auditor;
mod batch;
mod config;
mod error;
mod event;
mod file;
mod policy;
mod truncate;

pub use auditor::{Auditor, METRIC_FAMILIES, Sink};
pub use batch::{BatchConfig, Mode, Throttle};
pub use config::{Config, LogConfig, WebhookConfig};
pub use error::AuditError;
pub use event::{Event, Level, ObjectReference, Stage, User};
pub use policy::{Attributes, Policy, Verdict};
pub use truncate::Truncate;
