//! Nobody hands out what they do not hold: checks for writers of roles and bindings.
//!
//! Verb `escalate` on the role, or `bind` on the role that a binding names, lifts them.

use ironkeel_object::{ObjectMeta, Value};

use super::{Attributes, Authorizer, PolicyRule, covers};
use crate::UserInfo;

/// Why a role or binding may not be written (403).
#[derive(Debug, thiserror::Error)]
pub enum EscalationError {
    /// Rules that the writer does not hold.
    #[error("user {user:?} (groups={groups:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        missing.iter().map(PolicyRule::compact).collect::<Vec<_>>().join("\n"))]
    NotHeld {
        /// The writer.
        user: String,
        /// The writer's groups.
        groups: Vec<String>,
        /// What is not held.
        missing: Vec<PolicyRule>,
    },
    /// The role that a binding names is not there (404).
    #[error("{kind} {name:?} not found")]
    RoleNotFound {
        /// `Role` or `ClusterRole`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Writing an aggregation rule needs all rights.
    #[error("must have cluster-admin privileges to use an aggregationRule")]
    Aggregation,
}

impl Authorizer {
    /// Whether `user` may write this Role or ClusterRole. Call it on create, and on an update that
    /// changes rules or the aggregation rule.
    ///
    /// # Errors
    /// What is not held.
    pub fn check_role(&self, user: &UserInfo, role: &Value) -> Result<(), EscalationError> {
        let namespace = role.namespace();
        let resource = if namespace.is_empty() { "clusterroles" } else { "roles" };
        let escalate = Attributes {
            namespace,
            name: role.name(),
            ..Attributes::for_resource(user, "escalate", "rbac.authorization.k8s.io", "v1", resource)
        };
        if self.authorize(&escalate).is_allowed() {
            return Ok(());
        }
        if role.get("aggregationRule").is_some_and(|r| !r.is_null())
            && !covers(&self.held(user, ""), &PolicyRule::everything()).is_empty()
        {
            return Err(EscalationError::Aggregation);
        }
        self.check_held(user, namespace, &PolicyRule::of_role(role))
    }

    /// Whether `user` may write this RoleBinding or ClusterRoleBinding. Call it on create, and on an
    /// update that changes subjects.
    ///
    /// # Errors
    /// What is not held; a role that is not there.
    pub fn check_binding(&self, user: &UserInfo, binding: &Value) -> Result<(), EscalationError> {
        let namespace = binding.namespace();
        let role_ref = &binding["roleRef"];
        let kind = role_ref.str_at(&["kind"]).unwrap_or_default();
        let name = role_ref.str_at(&["name"]).unwrap_or_default();
        let bind = Attributes {
            namespace,
            name,
            ..Attributes::for_resource(
                user,
                "bind",
                "rbac.authorization.k8s.io",
                "v1",
                if kind == "ClusterRole" { "clusterroles" } else { "roles" },
            )
        };
        if self.authorize(&bind).is_allowed() {
            return Ok(());
        }
        let Some(rules) = self.rbac.referenced_rules(namespace, role_ref) else {
            return Err(EscalationError::RoleNotFound { kind: kind.to_owned(), name: name.to_owned() });
        };
        self.check_held(user, namespace, &rules)
    }

    /// What roles alone give: who is allowed something otherwise cannot hand it out.
    fn held(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        if user.in_group(UserInfo::MASTERS) { PolicyRule::everything() } else { self.rbac.rules_for(user, namespace) }
    }

    fn check_held(&self, user: &UserInfo, namespace: &str, wanted: &[PolicyRule]) -> Result<(), EscalationError> {
        let missing = covers(&self.held(user, namespace), wanted);
        if missing.is_empty() {
            return Ok(());
        }
        Err(EscalationError::NotHeld { user: user.name.clone(), groups: user.groups.clone(), missing })
    }
}
