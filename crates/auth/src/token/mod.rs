//! ServiceAccount tokens: ES256 keys, issuing, OIDC discovery, and verification of signatures.
//!
//! Whether the account behind a token still exists is asked in [`crate::authenticate`].

mod claims;
mod issuer;
mod keys;

pub use claims::{Claims, KubernetesClaims, Reference};
pub use issuer::{BoundObject, MAX_EXPIRATION_SECONDS, MIN_EXPIRATION_SECONDS, ServiceAccountIssuer, TokenRequest};
pub use keys::{KeySet, SigningKey};

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
