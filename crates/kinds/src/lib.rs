//! The resource table: one row a resource, one file of hooks a kind.
//!
//! The registry's write path calls the hooks in this order: create = `default`, `prepare_create`,
//! (mutating admission), `default`, `validate`; update = `default`, `prepare_update`, (admission),
//! `default`, `validate_update`. A subresource that writes the object (`status`, `resize`,
//! `approval`, …) takes the same way with its name in `subresource`. Hooks work on the dynamic tree
//! of the *served version* that the client spoke; nothing here does I/O or reads a clock.

mod error;
mod hooks;

pub use error::{FieldError, FieldErrorKind, Path};
pub use hooks::{ColumnDefinition, DeletePlan, Hooks, Scale, TableContext};

use ironkeel_schema::Resource;

/// One row: a served resource and what is special about it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Names, verbs, scope, type.
    pub resource: &'static Resource,
    /// Its behaviour; [`hooks::Plain`] where a kind needs none of its own.
    pub hooks: &'static dyn Hooks,
}
