//! OwnerReferencesPermissionEnforcement: only who may delete an object makes another its owner, and
//! only who may hold up an owner's deletion sets `blockOwnerDeletion`.

use ironkeel_object::{Gvk, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;
use crate::attributes::caller;

fn references(o: &Value) -> &[Value] {
    o.items_at(&["metadata", "ownerReferences"])
}

fn blocks(r: &Value) -> bool {
    r.get("blockOwnerDeletion").and_then(Value::as_bool) == Some(true)
}

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let writes = matches!(a.operation, Operation::Create | Operation::Update);
    // Pods' bindings and statuses keep references by their own rules.
    let exempt = a.row.plural() == "pods" && matches!(a.subresource, "binding" | "status");
    let before = old.map(references).unwrap_or_default();
    if !writes || exempt || references(object) == before {
        return Ok(());
    }
    let Some(authorizer) = &c.authorizer else { return Ok(()) };
    let user = caller(a);
    if a.operation == Operation::Update {
        let ask = ironkeel_auth::Attributes {
            namespace: a.namespace,
            name: a.name,
            subresource: a.subresource,
            ..ironkeel_auth::Attributes::for_resource(
                &user,
                "delete",
                a.row.group(),
                a.row.kind.resource.version,
                a.row.plural(),
            )
        };
        let decision = authorizer.authorize(&ask);
        if !decision.is_allowed() {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", decision.reason());
            return Err(a.forbidden(&why));
        }
    }
    let finalize = |group: &str, version: &str, plural: &str, namespace: &str, name: &str| {
        authorizer.authorize(&ironkeel_auth::Attributes {
            subresource: "finalizers",
            namespace,
            name,
            ..ironkeel_auth::Attributes::for_resource(&user, "update", group, version, plural)
        })
    };
    let new = references(object)
        .iter()
        .filter(|r| blocks(r) && !before.iter().any(|b| b.str_at(&["uid"]) == r.str_at(&["uid"]) && blocks(b)));
    let mut new = new.peekable();
    if new.peek().is_none() || finalize("*", "*", "*", "", "*").is_allowed() {
        return Ok(());
    }
    for reference in new {
        let text = |key: &str| reference.str_at(&[key]).unwrap_or_default();
        let owner = Gvk::new(text("apiVersion"), text("kind"));
        let rows = c.registry.as_ref().map(|r| r.rows());
        let row = rows.iter().flat_map(|rows| rows.iter()).find(|r| {
            r.kind_name() == owner.kind && r.group() == owner.group && r.kind.resource.version == owner.version
        });
        let Some(row) = row else {
            return Err(a.forbidden(&format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}: no matches for kind {:?} in version {:?}",
                text("apiVersion"),
                owner.kind,
                owner.kind,
                text("apiVersion")
            )));
        };
        let namespace = if row.namespaced() { a.namespace } else { "" };
        let decision = finalize(row.group(), row.kind.resource.version, row.plural(), namespace, text("name"));
        if !decision.is_allowed() {
            return Err(a.forbidden(&format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, <nil>",
                decision.reason()
            )));
        }
    }
    Ok(())
}
