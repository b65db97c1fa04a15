//! NamespaceLifecycle: nothing new in a missing or terminating namespace; some namespaces stay.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Cause, Operation};

use crate::Cluster;

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(crate) fn admit(c: &Cluster, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    if a.operation == Operation::Delete && a.is("", "namespaces") && IMMORTAL.contains(&a.name) {
        return Err(a.forbidden("this namespace may not be deleted"));
    }
    if a.operation != Operation::Create || !a.row.namespaced() || object.is_none() {
        return Ok(());
    }
    let namespace =
        c.get("", "namespaces", "", a.namespace).ok_or_else(|| ApiError::not_found("", "namespaces", a.namespace))?;
    let terminating =
        namespace.deletion_timestamp().is_some() || namespace.str_at(&["status", "phase"]) == Some("Terminating");
    if !terminating {
        return Ok(());
    }
    let mut e = a.forbidden(&format!(
        "unable to create new content in namespace {} because it is being terminated",
        a.namespace
    ));
    if let Some(d) = &mut e.details {
        d.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {} is being terminated", a.namespace),
            field: "metadata.namespace".to_owned(),
        });
    }
    Err(e)
}

/// NamespaceExists: nothing is done in a namespace that is not there.
pub(crate) fn exists(c: &Cluster, a: &Attributes<'_>) -> Result<(), ApiError> {
    if !a.row.namespaced() || a.namespace.is_empty() || c.get("", "namespaces", "", a.namespace).is_some() {
        return Ok(());
    }
    Err(ApiError::not_found("", "namespaces", a.namespace))
}
