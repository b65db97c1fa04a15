//! May they: the chain of authorizers in order: `system:masters`, node, RBAC.
//!
//! A check takes no lock and allocates next to nothing. Paths such as /healthz and /version are
//! opened by the bootstrap role `system:public-info-viewer`, not here.

mod abac;
mod configuration;
mod escalation;
mod match_conditions;
mod node;
mod rbac;
mod rules;

use std::sync::Arc;

use arc_swap::ArcSwap;
use ironkeel_object::{ObjectSource, Value};

use crate::UserInfo;

pub use abac::AbacPolicies;
pub use configuration::{AuthorizerEntry, AuthorizerKind, WebhookRules, read_authorization};
pub use escalation::{EscalationError, bind, escalate, only_collected};
pub use match_conditions::MatchConditions;
pub use rbac::aggregate;
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
    /// The label selector of a list, watch or deletecollection, as in the query.
    pub label_selector: &'a str,
}

/// A request's `fieldSelector` and `labelSelector` as a review has them.
pub fn selectors_of(attributes: &Attributes<'_>) -> [(&'static str, Option<Value>); 2] {
    match_conditions::selectors(attributes)
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
            label_selector: "",
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
    /// The policies of a file.
    Abac,
}

impl AuthorizationMode {
    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            AuthorizationMode::AlwaysAllow => "AlwaysAllow",
            AuthorizationMode::AlwaysDeny => "AlwaysDeny",
            AuthorizationMode::Node => "Node",
            AuthorizationMode::Rbac => "RBAC",
            AuthorizationMode::Abac => "ABAC",
        }
    }

    /// What an authorizer is called where nobody names it.
    pub fn default_name(self) -> &'static str {
        match self {
            AuthorizationMode::AlwaysAllow => "alwaysallow",
            AuthorizationMode::AlwaysDeny => "alwaysdeny",
            AuthorizationMode::Node => "node",
            AuthorizationMode::Rbac => "rbac",
            AuthorizationMode::Abac => "abac",
        }
    }

    /// The mode of this name: `RBAC`, `Node`, …
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "AlwaysAllow" => AuthorizationMode::AlwaysAllow,
            "AlwaysDeny" => AuthorizationMode::AlwaysDeny,
            "Node" => AuthorizationMode::Node,
            "RBAC" => AuthorizationMode::Rbac,
            "ABAC" => AuthorizationMode::Abac,
            _ => return None,
        })
    }
}

/// The whole chain.
pub struct Authorizer {
    modes: ArcSwap<Vec<AuthorizationMode>>,
    abac: ArcSwap<AbacPolicies>,
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
        Authorizer {
            modes: ArcSwap::from_pointee(modes),
            abac: ArcSwap::default(),
            rbac: Rbac::new(source.clone()),
            node: NodeAuthorizer::new(source),
            nothing: "".into(),
        }
    }

    /// Those that are asked, in order.
    pub fn modes(&self) -> Arc<Vec<AuthorizationMode>> {
        self.modes.load_full()
    }

    /// Goes by these modes from now on.
    pub fn set_modes(&self, modes: Vec<AuthorizationMode>) {
        self.modes.store(Arc::new(modes));
    }

    /// Goes by these policies from now on, where ABAC is among the modes.
    pub fn set_policies(&self, policies: AbacPolicies) {
        self.abac.store(Arc::new(policies));
    }

    /// Whether it may be done.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(UserInfo::MASTERS) {
            return Decision::Allow(self.nothing.clone());
        }
        let mut reasons: Vec<Arc<str>> = Vec::new();
        for mode in self.modes.load().iter() {
            match self.authorize_by(*mode, attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        match reasons.len() {
            0 => Decision::NoOpinion(self.nothing.clone()),
            1 => Decision::NoOpinion(reasons.remove(0)),
            _ => Decision::NoOpinion(reasons.join("\n").into()),
        }
    }

    /// What one mode alone says; members of `system:masters` are none of its business.
    pub fn authorize_by(&self, mode: AuthorizationMode, attributes: &Attributes<'_>) -> Decision {
        let yes = || Decision::Allow(self.nothing.clone());
        let no =
            |reason: &str| Decision::NoOpinion(if reason.is_empty() { self.nothing.clone() } else { reason.into() });
        match mode {
            AuthorizationMode::AlwaysAllow => yes(),
            AuthorizationMode::AlwaysDeny => no("Everything is forbidden."),
            AuthorizationMode::Node => match attributes.user.node().map(|n| self.node.authorize(n, attributes)) {
                Some(Ok(())) => yes(),
                Some(Err(reason)) => no(&reason),
                None => no(""),
            },
            AuthorizationMode::Rbac => match self.rbac.authorize(attributes) {
                Ok(reason) => Decision::Allow(reason),
                Err(reason) => no(&reason.unwrap_or_default()),
            },
            AuthorizationMode::Abac if self.abac.load().allow(attributes) => yes(),
            AuthorizationMode::Abac => no("No policy matched."),
        }
    }

    /// What one authorizer knows of all that `user` may in `namespace`.
    pub fn rules_by(&self, mode: AuthorizationMode, user: &UserInfo, namespace: &str) -> Resolved {
        let all = |rules| Resolved { rules, ..Resolved::default() };
        match mode {
            AuthorizationMode::Rbac => {
                let held = self.rbac.held(user, namespace);
                let errors: Vec<String> = held.missing.iter().map(|(kind, name)| rbac::not_found(kind, name)).collect();
                let error = (!errors.is_empty()).then(|| aggregate(errors));
                Resolved { rules: held.rules, incomplete: false, error }
            }
            AuthorizationMode::Abac => all(self.abac.load().rules_for(user, namespace)),
            AuthorizationMode::AlwaysAllow => all(PolicyRule::everything()),
            AuthorizationMode::Node if user.node().is_some() => {
                Resolved::unresolved("node authorizer does not support user rule resolution")
            }
            AuthorizationMode::AlwaysDeny | AuthorizationMode::Node => Resolved::default(),
        }
    }

    /// What the authorizers know of all that `user` may in `namespace`, in their order.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Resolved> {
        self.modes.load().iter().map(|mode| self.rules_by(*mode, user, namespace)).collect()
    }
}

/// What an authorizer knows of all that somebody may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The rules.
    pub rules: Vec<PolicyRule>,
    /// There may be more.
    pub incomplete: bool,
    /// What went wrong.
    pub error: Option<String>,
}

impl Resolved {
    /// Of an authorizer that cannot say.
    pub fn unresolved(why: &str) -> Self {
        Resolved { incomplete: true, error: Some(why.to_owned()), ..Resolved::default() }
    }
}
