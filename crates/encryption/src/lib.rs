//! Encryption at rest: a store around a store, whose values are encrypted as upstream's API server
//! encrypts them (`k8s:enc:aesgcm:v1:<key>:…`), so that both read each other's.
//!
//! [`Encrypted`] encrypts what is written under the prefixes that a [`Rule`] names, with the first of
//! its providers, and decrypts with whichever provider a value names. The key in the store is bound
//! into each value, so that one value cannot stand in another's place. What does not live here: which
//! resources stand under which prefix (the caller says), and keys' rotation (put the new key first,
//! write every object again).

mod config;
mod provider;
mod store;

pub use config::{Configuration, ResourceRule};
pub use provider::Provider;
pub use store::{Encrypted, Rule};

/// Whether a stored value is in an envelope of encryption, whatever its key.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.starts_with(provider::ENVELOPE)
}

/// Why values cannot be encrypted or decrypted. Keys are never shown.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The configuration cannot be read.
    #[error("the EncryptionConfiguration cannot be read: {0}")]
    Malformed(String),
    /// Something in it that does not fit.
    #[error("{path}: {reason}")]
    Invalid {
        /// Where, as a field path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A provider that is not here.
    #[error("{path}: the {provider} provider is not supported; use aesgcm or identity")]
    Provider {
        /// Where, as a field path.
        path: String,
        /// Which.
        provider: &'static str,
    },
    /// The system gives no random bytes, or a value is too long.
    #[error("encrypting failed")]
    Encrypt,
}
