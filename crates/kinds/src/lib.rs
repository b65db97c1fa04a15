//! The resource table: one row a resource, one file of hooks a kind.
//!
//! The registry's write path calls the hooks in this order: create = `default`, `prepare_create`,
//! (mutating admission), `default`, `validate`; update = `default`, `prepare_update`, (admission),
//! `default`, `validate_update`. A subresource that writes the object (`status`, `resize`,
//! `approval`, …) takes the same way with its name in `subresource`. Hooks work on the dynamic tree
//! of the *served version* that the client spoke; nothing here does I/O or reads a clock.
//!
//! A kind's file implements `rules::Rules` (what is special about it); `strategy::Strategy` puts
//! the generic behaviour, driven by the schema, around it and is the [`Hooks`] of the row.

mod apps;
mod autoscaling;
mod batch;
mod columns;
mod coordination;
mod core;
pub mod custom;
pub mod definition;
mod devices;
mod discovery;
mod equality;
mod error;
mod flowcontrol;
#[rustfmt::skip]
mod generated;
mod hooks;
mod lifecycle;
mod metadata;
mod migration;
mod names;
mod networking;
mod pod_spec;
mod pod_template;
mod policy;
mod print;
mod rbac;
mod registration;
mod repeats;
mod resources;
mod rules;
mod scheduling;
mod selector;
mod status;
mod storage;
mod strategy;
mod structural;
mod table;
mod warnings;

pub use core::service::service_address_errors;
pub use error::{FieldError, FieldErrorKind, Path};
pub use hooks::{ColumnDefinition, DeletePlan, Hooks, Scale, TableContext};
pub use lifecycle::deprecation;
pub use metadata::{ANNOTATIONS_MAX_BYTES, validate_metadata, validate_metadata_update};
pub use registration::expressions as admission_expressions;
pub use table::{kind, kind_for_gvk, kinds};

use std::sync::Arc;

use ironkeel_schema::Resource;

/// One row: a served resource and what is special about it.
#[derive(Clone)]
pub struct Kind {
    /// Names, verbs, scope, type.
    pub resource: Arc<Resource>,
    /// Its behaviour.
    pub hooks: Arc<dyn Hooks>,
    /// What a CustomResourceDefinition says of this version; none of a built-in kind.
    pub custom: Option<Arc<custom::Version>>,
}
