//! ServiceAccount tokens: keys, issuing, OIDC discovery, and verification of signatures.
//!
//! Whether the account behind a token still exists is asked in [`crate::authenticate`].

mod claims;
mod issuer;
mod keys;
mod public_key;

pub use claims::{Claims, KubernetesClaims, Reference};
pub use issuer::{BoundObject, MAX_EXPIRATION_SECONDS, MIN_EXPIRATION_SECONDS, ServiceAccountIssuer, TokenRequest};
pub use keys::{KeySet, SigningKey};
pub use public_key::PublicKey;

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
