//! Who is calling, and may they: certificates, tokens, impersonation, RBAC, node authorization.
//!
//! Everything here is synchronous and answers from memory; stored objects are read through
//! [`ironkeel_object::ObjectSource`]. What does not live here: HTTP (the API server turns refusals
//! into statuses), TokenReview and SubjectAccessReview bodies, the aggregation controller.

pub mod authenticate;
pub mod authorize;
pub mod bootstrap;
mod configuration;
mod error;
pub mod impersonate;
pub mod pki;
pub mod token;
mod user;

pub use authenticate::{
    AnonymousRule, AuthRequest, Authenticated, AuthenticationConfiguration, Authenticator, AuthenticatorConfig,
    ClaimMapping, ClientCertificates, DistributedClaim, OidcConfig, Peer, RequestHeaderConfig, TokenUse,
    identity_of_certificate, read_authentication,
};
pub use authorize::{
    AbacPolicies, Attributes, AuthorizationMode, Authorizer, AuthorizerEntry, AuthorizerKind, Decision,
    MatchConditions, PolicyRule, Resolved, WebhookRules, read_authorization, selectors_of,
};
pub use bootstrap::{bootstrap_policy, reconcile};
pub use configuration::{ConfigurationError, PolicyFileError};
pub use error::{AuthError, PkiError};
pub use pki::{Identity, Pki, PkiConfig};
pub use token::{BoundObject, KeySet, ServiceAccountIssuer, SigningKey, TokenRequest};
pub use user::UserInfo;
