//! The list of layers, dispatch, discovery, streaming proxies.
//!
//! A request goes through [`layers`] from top to bottom: request info, authenticate, impersonate,
//! limits, authorize, then the dispatcher, where writes meet admission on the registry's one write
//! path. What does not live here: rules of kinds (`kinds`), storage (`registry`), decisions about
//! identity and permission (`auth`), admission plugins (`admission`).

mod access;
mod aggregation;
mod answer;
mod at_rest;
mod audit;
mod binding;
mod body;
mod bootstrap;
mod cbor;
mod component_status;
mod compress;
mod connect_options;
mod context;
mod conversion;
mod decode;
mod definitions;
mod delegates;
mod deprecated;
mod dispatch;
mod documents;
mod ending;
mod error;
mod escalation;
mod eviction;
mod flow;
mod forward;
mod health;
mod hooks;
mod identity;
mod identity_leases;
mod in_process;
mod layers;
mod legacy_tokens;
mod limits;
mod measured;
mod metered;
mod metric_names;
mod metrics;
mod negotiate;
mod outbound;
mod policy_status;
mod process;
mod protobuf;
mod read;
mod reload;
mod request_info;
mod reviews;
mod rewrite;
mod sent;
mod server;
mod service_ranges;
mod status;
mod streaming;
mod table;
mod targets;
mod tasks;
mod token;
mod translate;
mod watch_stream;
mod write;
mod zpages;

pub use at_rest::store_prefixes;
pub use body::{BODY_LIMIT_BYTES, Body};
mod versions;
pub use component_status::HostedComponent;
pub use delegates::{DelegatesConfig, WebhookConfig};
pub use error::Error;
pub use health::HealthCheck;
pub use ironkeel_audit::Config as AuditConfig;
pub use ironkeel_auth::UserInfo;
pub use ironkeel_trace::{Config as TracingConfig, ConfigError as TracingConfigError};
pub use limits::InFlightLimits;
pub use measured::families as metric_families;
pub use measured::features::Feature;
pub use outbound::{ClientIdentity, kubelet_tls};
pub use process::render as render_process;
pub use server::{ApiServer, Config, InProcess, MAX_MUTATING_IN_FLIGHT, MAX_READING_IN_FLIGHT};
pub use versions::ServedVersions;
