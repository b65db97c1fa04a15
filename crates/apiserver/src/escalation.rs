//! RBAC's own rule, which upstream keeps in the storage of roles and bindings: nobody grants what
//! they do not have (unless they may `escalate` or `bind`).

use std::sync::Arc;

use async_trait::async_trait;
use ironkeel_auth::{Authorizer, UserInfo};
use ironkeel_object::Value;
use ironkeel_registry::{Admission, ApiError, Attributes, Operation};

/// See the module.
pub(crate) struct Escalation(pub(crate) Arc<Authorizer>);

impl std::fmt::Debug for Escalation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Escalation")
    }
}

#[async_trait]
impl Admission for Escalation {
    async fn mutate(&self, _: &Attributes<'_>, _: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        if a.row.group() != "rbac.authorization.k8s.io" || !matches!(a.operation, Operation::Create | Operation::Update)
        {
            return Ok(());
        }
        let user = UserInfo {
            name: a.user.name.clone(),
            uid: a.user.uid.clone(),
            groups: a.user.groups.clone(),
            extra: a.user.extra.iter().cloned().collect(),
        };
        let same = |keys: &[&str]| old.is_some_and(|o| keys.iter().all(|k| o.get(k) == object.get(k)));
        let checked = match a.row.plural() {
            "roles" | "clusterroles" if !same(&["rules", "aggregationRule"]) => self.0.check_role(&user, object),
            "rolebindings" | "clusterrolebindings" if !same(&["roleRef", "subjects"]) => {
                self.0.check_binding(&user, object)
            }
            _ => Ok(()),
        };
        checked.map_err(|e| a.forbidden(&e.to_string()))
    }
}
