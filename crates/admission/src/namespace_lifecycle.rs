//! NamespaceLifecycle: nothing new in a missing or terminating namespace; some namespaces stay.
//! NamespaceExists and NamespaceAutoProvision: what else becomes of a missing one.

use std::sync::Arc;

use ironkeel_object::{ObjectMeta, Value, object};
use ironkeel_registry::{AdmitAll, ApiError, Attributes, Cause, Operation, Reason, User, WriteRequest};

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

/// NamespaceAutoProvision: a create makes the namespace that it is for.
pub(crate) async fn provide(c: &Cluster, a: &Attributes<'_>) -> Result<(), ApiError> {
    let wanted = a.operation == Operation::Create && !a.dry_run && a.row.namespaced() && !a.namespace.is_empty();
    if !wanted || c.get("", "namespaces", "", a.namespace).is_some() {
        return Ok(());
    }
    let Some(registry) = &c.registry else { return Ok(()) };
    let row = registry.row("", "v1", "namespaces").ok_or_else(ApiError::no_such_resource)?;
    let request = WriteRequest {
        row,
        namespace: String::new(),
        name: String::new(),
        subresource: String::new(),
        user: Arc::new(User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        }),
        verb: "create",
        dry_run: false,
        field_manager: "kube-apiserver".to_owned(),
        admission: Arc::new(AdmitAll),
        options: Arc::default(),
        warnings: Arc::default(),
        annotations: Arc::default(),
    };
    let namespace = object!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": (a.namespace) } });
    match registry.create(&request, namespace).await {
        Err(e) if e.reason != Reason::AlreadyExists => Err(a.forbidden(&e.message)),
        _ => Ok(()),
    }
}
