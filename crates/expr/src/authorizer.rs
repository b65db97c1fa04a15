//! The door to the caller's authorizer: the variable `authorizer` of policies.

/// What an expression asks of the authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationCheck {
    /// `namespace` and `name` of the service account to ask for; `None`: the request's user.
    pub service_account: Option<(String, String)>,
    /// The verb.
    pub verb: String,
    /// A path, or attributes of a resource.
    pub target: CheckTarget,
}

/// Of what access is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTarget {
    /// A path that is no resource.
    Path(String),
    /// A resource.
    Resource(ResourceCheck),
}

impl Default for CheckTarget {
    fn default() -> Self {
        CheckTarget::Path(String::new())
    }
}

/// Attributes of a resource request; empty texts are unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    /// API group.
    pub group: String,
    /// Version; `*` where the expression cannot say one.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Object's name.
    pub name: String,
    /// Field selector as written.
    pub field_selector: String,
    /// Label selector as written.
    pub label_selector: String,
}

/// The authorizer's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationDecision {
    /// `allowed()`.
    pub allowed: bool,
    /// `reason()`.
    pub reason: String,
    /// `error()`; `errored()` tells whether it is there.
    pub error: Option<String>,
}

/// The caller's authorizer. Called while the expression runs, so it must answer from memory or be
/// called where blocking is allowed.
pub trait AuthorizerHook: Sync {
    /// Decides.
    fn authorize(&self, check: &AuthorizationCheck) -> AuthorizationDecision;
}
