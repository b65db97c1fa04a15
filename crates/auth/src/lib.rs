//! Who is calling, and may they: certificates, tokens, impersonation, RBAC, node authorization.
//!
//! Everything here is synchronous and answers from memory; stored objects are read through
//! [`ironkeel_object::ObjectSource`]. What does not live here: HTTP (the API server turns refusals
//! into statuses), TokenReview and SubjectAccessReview bodies, the aggregation controller.

pub mod authenticate;
pub mod authorize;
pub mod bootstrap;
mod error;
pub mod impersonate;
pub mod pki;
pub mod token;
mod user;

pub use authenticate::{
    AuthRequest, Authenticated, Authenticator, AuthenticatorConfig, ClientCertificates, OidcConfig, Peer,
    RequestHeaderConfig, TokenUse, identity_of_certificate,
};
pub use authorize::{Attributes, AuthorizationMode, Authorizer, Decision, PolicyRule};
pub use bootstrap::{bootstrap_policy, reconcile};
pub use error::{AuthError, PkiError};
pub use pki::{Identity, Pki, PkiConfig};
pub use token::{BoundObject, KeySet, ServiceAccountIssuer, SigningKey, TokenRequest};
pub use user::UserInfo;
