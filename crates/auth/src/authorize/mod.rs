//! May they: the chain of authorizers in order: `system:masters`, node, RBAC.
//!
//! A check takes no lock and allocates next to nothing. Paths such as /healthz and /version are
//! opened by the bootstrap role `system:public-info-viewer`, not here.

mod escalation;
mod node;
mod rbac;
mod rules;

use std::sync::Arc;

use ironkeel_object::ObjectSource;

use crate::UserInfo;

pub use escalation::EscalationError;
pub use rules::{PolicyRule, covers};

use node::NodeAuthorizer;
use rbac::Rbac;

/// What is to be done, by whom.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, …
    pub verb: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural of the resource.
    pub resource: &'a str,
    /// Subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty cluster-wide.
    pub namespace: &'a str,
    /// Name; of a list or watch, what its field selector fixes `metadata.name` to; else empty.
    pub name: &'a str,
    /// The path, where this is not about a resource.
    pub path: &'a str,
    /// Whether this is about a resource.
    pub resource_request: bool,
    /// The field selector of a list, watch or deletecollection, as in the query; empty where there
    /// is none. A kubelet may list pods only with `spec.nodeName=<its node>`.
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// A request for a path that is no resource.
    pub fn for_path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Attributes { path, resource_request: false, ..Self::for_resource(user, verb, "", "", "") }
    }

    /// A request for a cluster-wide collection; set the other fields as needed.
    pub fn for_resource(
        user: &'a UserInfo,
        verb: &'a str,
        group: &'a str,
        version: &'a str,
        resource: &'a str,
    ) -> Self {
        Attributes {
            user,
            verb,
            group,
            version,
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            resource_request: true,
            field_selector: "",
        }
    }

    /// Why not, in upstream's words; `reason` is the decision's, and may be empty.
    pub fn refusal(&self, reason: &str) -> String {
        let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let user = &self.user.name;
        if !self.resource_request {
            return format!("User {user:?} cannot {} path {:?}{tail}", self.verb, self.path);
        }
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", self.resource, self.subresource);
        let scope = match self.namespace {
            "" => " at the cluster scope".to_owned(),
            namespace => format!(" in the namespace {namespace:?}"),
        };
        format!("User {user:?} cannot {} resource {resource:?} in API group {:?}{scope}{tail}", self.verb, self.group)
    }
}

/// An answer, with its reason (may be empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow(Arc<str>),
    /// No, and no other authorizer is asked.
    Deny(Arc<str>),
    /// No rule says yes: no.
    NoOpinion(Arc<str>),
}

impl Decision {
    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    /// The reason; may be empty.
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(r) | Decision::Deny(r) | Decision::NoOpinion(r) => r,
        }
    }
}

/// One of the ways in which a request may be allowed (`--authorization-mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is, by this one.
    AlwaysDeny,
    /// Kubelets, by what their pods need.
    Node,
    /// Roles and their bindings.
    Rbac,
}

/// The whole chain.
pub struct Authorizer {
    modes: Vec<AuthorizationMode>,
    rbac: Rbac,
    node: NodeAuthorizer,
    nothing: Arc<str>,
}

impl Authorizer {
    /// Node and RBAC; reads roles, bindings and pods from `source`.
    pub fn new(source: Arc<dyn ObjectSource>) -> Self {
        Self::with_modes(source, vec![AuthorizationMode::Node, AuthorizationMode::Rbac])
    }

    /// These modes, in this order.
    pub fn with_modes(source: Arc<dyn ObjectSource>, modes: Vec<AuthorizationMode>) -> Self {
        Authorizer { modes, rbac: Rbac::new(source.clone()), node: NodeAuthorizer::new(source), nothing: "".into() }
    }

    /// Whether it may be done.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(UserInfo::MASTERS) {
            return Decision::Allow(self.nothing.clone());
        }
        let mut refused = None;
        for mode in &self.modes {
            match mode {
                AuthorizationMode::AlwaysAllow => return Decision::Allow(self.nothing.clone()),
                AuthorizationMode::AlwaysDeny => {
                    refused.get_or_insert("Everything is forbidden.");
                }
                AuthorizationMode::Node => {
                    if let Some(node) = attributes.user.node() {
                        match self.node.authorize(node, attributes) {
                            Ok(()) => return Decision::Allow(self.nothing.clone()),
                            Err(reason) => refused = Some(reason),
                        }
                    }
                }
                AuthorizationMode::Rbac => {
                    if let Some(reason) = self.rbac.authorize(attributes) {
                        return Decision::Allow(reason);
                    }
                }
            }
        }
        Decision::NoOpinion(refused.map_or_else(|| self.nothing.clone(), Arc::from))
    }

    /// All rules that hold for a user in a namespace (SelfSubjectRulesReview); the second value
    /// says whether there may be more that no rule lists (a kubelet's).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, bool) {
        if user.in_group(UserInfo::MASTERS) {
            return (PolicyRule::everything(), false);
        }
        (self.rbac.rules_for(user, namespace), user.node().is_some())
    }
}
