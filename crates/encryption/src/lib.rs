//! Encryption at rest: a store around a store, whose values are encrypted as upstream's API server
//! encrypts them (`k8s:enc:<provider>:v1:<key>:…`), so that both read each other's.
//!
//! [`Encrypted`] encrypts what is written under the prefixes that a [`Rule`] names, with the first of
//! its providers, and decrypts with whichever provider a value names. Which providers there are is
//! said by an EncryptionConfiguration ([`Configuration`]); [`Encrypted::replace`] puts another one in
//! its place while the store is used. With AES-GCM and KMS the key in the store is bound into each
//! value, so that one value cannot stand in another's place.
//!
//! What does not live here: which resources stand under which prefix (the caller says), watching the
//! file, and keys' rotation (put the new key first, write every object again).

mod ciphers;
mod config;
mod envelope;
mod kms;
mod provider;
mod store;
mod validation;

/// KMS v2: messages, client and server of `v2.KeyManagementService`.
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, unreachable_pub)]
#[path = "generated/v2.rs"]
pub mod v2;

pub use config::{Configuration, ResourceRule};
pub use kms::Kms;
pub use provider::Provider;
pub use store::{Encrypted, Rule};

/// Whether a stored value is in an envelope of encryption, whatever its key.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.starts_with(provider::ENVELOPE)
}

/// Why values cannot be encrypted or decrypted. Keys are never shown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The configuration cannot be read.
    #[error("the EncryptionConfiguration cannot be read: {0}")]
    Malformed(String),
    /// What in it does not fit, all of it.
    #[error("{}", one_or_many(.0))]
    Invalid(Vec<String>),
    /// A resource that an earlier rule has taken already.
    #[error("error while building transformers: resource {resource:?} is masked by earlier rule {earlier:?}")]
    Masked {
        /// The later one.
        resource: String,
        /// The earlier one.
        earlier: String,
    },
    /// The system gives no random bytes, or a value is too long.
    #[error("encrypting failed")]
    Encrypt,
    /// A value that is damaged, or was encrypted with another key.
    #[error("{0}")]
    Decrypt(&'static str),
    /// The KMS plugin did not do it.
    #[error("kms provider {name:?}: {reason}")]
    Kms {
        /// The provider's name.
        name: String,
        /// Why not.
        reason: String,
    },
}

fn one_or_many(all: &[String]) -> String {
    match all {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
