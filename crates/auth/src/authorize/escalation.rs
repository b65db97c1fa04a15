//! Nobody hands out what they do not hold: checks for writers of roles and bindings.
//!
//! Verb `escalate` on the role, or `bind` on the role that a binding names, lifts them; whoever asks here
//! has asked all authorizers about that before ([`escalate`], [`bind`]). What somebody holds is what RBAC
//! says, whichever authorizers there are.

use ironkeel_object::{ObjectMeta, Value};

use super::rbac::{aggregate, not_found};
use super::rules::{described, quoted};
use super::{Attributes, Authorizer, PolicyRule, covers};
use crate::UserInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Why a role or binding is refused.
#[derive(Debug, thiserror::Error)]
pub enum EscalationError {
    /// It grants what its writer does not have.
    #[error(
        "user {user:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}{resolution}",
        quoted(groups),
        described(missing)
    )]
    NotHeld {
        /// The writer.
        user: String,
        /// Its groups.
        groups: Vec<String>,
        /// What it does not have.
        missing: Vec<PolicyRule>,
        /// What went wrong in finding out what it has; may be empty.
        resolution: String,
    },
    /// The binding names a role that is not there.
    #[error("{}", not_found(resource, name))]
    RoleNotFound {
        /// Plural of what is being written (as upstream has it).
        resource: &'static str,
        /// Its name.
        name: String,
    },
    /// An aggregation rule gathers whatever there is; only who may do everything writes one.
    #[error("must have cluster-admin privileges to use the aggregationRule")]
    Aggregation,
}

/// What lifts the check of a role's rules. The name is that of the request: nothing where it creates.
pub fn escalate<'a>(user: &'a UserInfo, resource: &'a str, namespace: &'a str, name: &'a str) -> Attributes<'a> {
    Attributes { namespace, name, ..Attributes::for_resource(user, "escalate", GROUP, "*", resource) }
}

/// What lifts the check of a binding.
pub fn bind<'a>(user: &'a UserInfo, binding: &'a Value) -> Attributes<'a> {
    let role = if binding.str_at(&["roleRef", "kind"]) == Some("ClusterRole") { "clusterroles" } else { "roles" };
    let name = binding.str_at(&["roleRef", "name"]).unwrap_or_default();
    Attributes { namespace: binding.namespace(), name, ..Attributes::for_resource(user, "bind", GROUP, "*", role) }
}

fn aggregates(role: &Value) -> bool {
    !role.items_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty()
}

/// Whether a change is about nothing but what the garbage collector writes.
pub fn only_collected(object: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut copy = object.clone();
        let meta = copy.meta_mut();
        for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "selfLink"] {
            meta.remove(key);
        }
        copy
    };
    bare(object) == bare(old)
}

impl Authorizer {
    /// Whether `user` may write `role`, which was `old` before.
    ///
    /// # Errors
    /// It grants what the writer does not hold.
    pub fn check_role(&self, user: &UserInfo, role: &Value, old: Option<&Value>) -> Result<(), EscalationError> {
        if user.in_group(UserInfo::MASTERS) {
            return Ok(());
        }
        let namespace = role.namespace();
        let resource = if namespace.is_empty() { "clusterroles" } else { "roles" };
        self.check_held(user, namespace, resource, &PolicyRule::of_role(role))?;
        let aggregation = aggregates(role) || old.is_some_and(aggregates);
        if aggregation && !covers(&self.rbac.held(user, "").rules, &PolicyRule::everything()).is_empty() {
            return Err(EscalationError::Aggregation);
        }
        Ok(())
    }

    /// Whether `user` may write `binding`.
    ///
    /// # Errors
    /// It grants what the writer does not hold, or names a role that is not there.
    pub fn check_binding(&self, user: &UserInfo, binding: &Value) -> Result<(), EscalationError> {
        if user.in_group(UserInfo::MASTERS) {
            return Ok(());
        }
        let namespace = binding.namespace();
        let resource = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
        let role_ref = &binding["roleRef"];
        let Some(rules) = self.rbac.referenced_rules(namespace, role_ref) else {
            let name = role_ref.str_at(&["name"]).unwrap_or_default().to_owned();
            return Err(EscalationError::RoleNotFound { resource, name });
        };
        self.check_held(user, namespace, resource, &rules)
    }

    fn check_held(
        &self,
        user: &UserInfo,
        namespace: &str,
        resource: &str,
        wanted: &[PolicyRule],
    ) -> Result<(), EscalationError> {
        let held = self.rbac.held(user, namespace);
        let missing = covers(&held.rules, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let errors = held.missing.iter().map(|(_, name)| not_found(resource, name));
        let resolution = match held.missing.len() {
            0 => String::new(),
            _ => format!("; resolution errors: [{}]", aggregate(errors)),
        };
        Err(EscalationError::NotHeld { user: user.name.clone(), groups: user.groups.clone(), missing, resolution })
    }
}
