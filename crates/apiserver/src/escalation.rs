//! RBAC's own rule, which upstream keeps in the storage of roles and bindings: nobody grants what
//! they do not have (unless they may `escalate` or `bind`, which all authorizers are asked about).

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use ironkeel_auth::authorize::{self, EscalationError};
use ironkeel_auth::{Attributes as Access, UserInfo};
use ironkeel_object::Value;
use ironkeel_registry::{Admission, ApiError, Attributes, Operation};

use crate::layers;
use crate::server::Server;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Knows the server as soon as it is there.
#[derive(Clone, Default)]
pub(crate) struct Escalation(Arc<OnceLock<Weak<Server>>>);

impl std::fmt::Debug for Escalation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Escalation")
    }
}

impl Escalation {
    pub(crate) fn belongs_to(&self, server: &Arc<Server>) {
        let _ = self.0.set(Arc::downgrade(server));
    }
}

#[async_trait]
impl Admission for Escalation {
    async fn mutate(&self, _: &Attributes<'_>, _: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        if a.row.group() != GROUP || !matches!(a.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        if old.is_some_and(|old| authorize::only_collected(object, old)) {
            return Ok(());
        }
        let gone = || ApiError::internal("the server is not there yet");
        let server = self.0.get().and_then(Weak::upgrade).ok_or_else(gone)?;
        let user = UserInfo {
            name: a.user.name.clone(),
            uid: a.user.uid.clone(),
            groups: a.user.groups.clone(),
            extra: a.user.extra.iter().cloned().collect(),
        };
        let may = async |access: Access<'_>| layers::decide(&server, &access).await.is_allowed();
        let checked = match a.row.plural() {
            "roles" | "clusterroles" => {
                // The request that creates names no object.
                let name = if old.is_some() { a.name } else { "" };
                if may(authorize::escalate(&user, a.row.plural(), a.namespace, name)).await {
                    return Ok(());
                }
                server.authorizer.check_role(&user, object, old)
            }
            "rolebindings" | "clusterrolebindings" => {
                if may(authorize::bind(&user, object)).await {
                    return Ok(());
                }
                server.authorizer.check_binding(&user, object)
            }
            _ => Ok(()),
        };
        checked.map_err(|e| match &e {
            EscalationError::RoleNotFound { resource, name } => ApiError::not_found(GROUP, resource, name),
            EscalationError::NotHeld { .. } | EscalationError::Aggregation => a.forbidden(&e.to_string()),
        })
    }
}
