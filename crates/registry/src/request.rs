//! What a writing request says, and what comes of it.

use std::sync::Arc;

use ironkeel_object::{Map, ObjectMeta, Value};
use parking_lot::Mutex;

use crate::admit::{Attributes, Operation, User};
use crate::entry::Entry;
use crate::error::ApiError;
use crate::registry::Chain;
use crate::storage::Row;

/// One writing request; owns all that it needs, since it runs on a task of its own.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Which resource, in which version.
    pub row: Arc<Row>,
    /// Namespace of the path; empty for cluster-wide objects.
    pub namespace: String,
    /// Name of the path; empty for a create on the collection.
    pub name: String,
    /// Subresource of the path; empty for the object itself.
    pub subresource: String,
    /// Who writes.
    pub user: Arc<User>,
    /// The verb of the request, as authorizers know it.
    pub verb: &'static str,
    /// Everything but the storing.
    pub dry_run: bool,
    /// Name in `managedFields`.
    pub field_manager: String,
    /// The admission chain.
    pub admission: Chain,
    /// The options of the request as admission shows them; see [`Attributes::options`].
    pub options: Arc<Value>,
    /// Warnings for the client.
    pub warnings: Arc<Mutex<Vec<String>>>,
    /// Annotations for the audit log.
    pub annotations: Arc<Mutex<Vec<(String, String)>>>,
}

impl WriteRequest {
    /// As admission plugins see it.
    pub fn attributes<'a>(&'a self, operation: Operation, name: &'a str) -> Attributes<'a> {
        Attributes {
            operation,
            row: &self.row,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name,
            shown_name: name,
            user: &self.user,
            verb: self.verb,
            dry_run: self.dry_run,
            options: &self.options,
            warnings: &self.warnings,
            annotations: &self.annotations,
        }
    }

    /// The subresource, where there is one.
    pub fn sub(&self) -> Option<&str> {
        (!self.subresource.is_empty()).then_some(self.subresource.as_str())
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(self.row.group(), self.row.plural(), name)
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> ApiError {
        ApiError::conflict(self.row.group(), self.row.plural(), name, why)
    }

    /// Checks namespace and name of a body against those of the path, and fills them in.
    pub(crate) fn place(&self, object: &mut Value) -> Result<(), ApiError> {
        let namespace = object.namespace();
        if self.row.namespaced() {
            if namespace.is_empty() {
                object.meta_mut().insert("namespace", self.namespace.as_str());
            } else if namespace != self.namespace {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        } else if !namespace.is_empty() {
            object.meta_mut().remove("namespace");
        }
        let name = object.name();
        if !self.name.is_empty() {
            if name.is_empty() {
                object.meta_mut().insert("name", self.name.as_str());
            } else if name != self.name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    self.name
                )));
            }
        }
        Ok(())
    }
}

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object in its stored form.
    pub entry: Arc<Entry>,
    /// Whether it was not there before.
    pub created: bool,
}

/// What came of a delete.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Entry>),
    /// Finalizers or a grace period keep it; its present state.
    Pending(Arc<Entry>),
}

/// `DeleteOptions` as far as the registry reads them.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub resource_version: Option<String>,
    /// `propagationPolicy`.
    pub propagation: Option<Propagation>,
    /// `orphanDependents`, its predecessor; never both.
    pub orphan_dependents: Option<bool>,
    /// `dryRun` of the body.
    pub dry_run: bool,
    /// `ignoreStoreReadErrorWithClusterBreakingPotential`: it is an object that cannot be read.
    pub ignore_read_error: bool,
}

impl DeleteOptions {
    /// As JSON, without `apiVersion` and `kind`.
    pub fn to_value(&self, dry_run: bool) -> Value {
        let mut out = Map::new();
        if let Some(seconds) = self.grace_seconds {
            out.insert("gracePeriodSeconds", seconds);
        }
        let mut preconditions = Map::new();
        for (key, text) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(text) = text {
                preconditions.insert(key, text.as_str());
            }
        }
        if !preconditions.is_empty() {
            out.insert("preconditions", preconditions);
        }
        if let Some(propagation) = self.propagation {
            out.insert("propagationPolicy", format!("{propagation:?}"));
        }
        if let Some(orphan) = self.orphan_dependents {
            out.insert("orphanDependents", orphan);
        }
        if dry_run {
            out.insert("dryRun", vec!["All"]);
        }
        Value::Object(out)
    }
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
}
