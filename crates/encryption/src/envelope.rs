//! What KMS v2 writes: the value beside its encrypted data-encryption key, as upstream's
//! `EncryptedObject` (`k8s:enc:kms:v2:<provider>:` and then this message).

use std::collections::BTreeMap;

use prost::Message;
use ring::digest::{SHA256, digest};

use crate::EncryptionError;
use crate::ciphers::{Gcm, Seed};

/// Most bytes of a key's id.
const KEY_ID_BYTES: usize = 1024;
/// Most bytes of an encrypted key.
const ENCRYPTED_KEY_BYTES: usize = 1024;
/// Most bytes of annotations, names and values together.
const ANNOTATION_BYTES: usize = 32 * 1024;
/// Most bytes of a DNS name, and of one label.
const DNS_BYTES: (usize, usize) = (253, 63);

/// The plugin holds the key of the value itself.
pub(crate) const PLAIN_KEY: i32 = 0;
/// The plugin holds a seed; each value's key is derived.
pub(crate) const SEED: i32 = 1;

/// The stored message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(crate) annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub(crate) key_type: i32,
}

/// What tells decrypted keys apart.
pub(crate) type KeyHash = [u8; 32];

impl EncryptedObject {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, EncryptionError> {
        let object = EncryptedObject::decode(bytes)
            .map_err(|_| EncryptionError::Decrypt("the stored data is no encrypted object"))?;
        if object.data.is_empty() {
            return Err(EncryptionError::Decrypt("encrypted data is empty"));
        }
        match object.check() {
            None => Ok(object),
            Some(_) => Err(EncryptionError::Decrypt("the encrypted object is not valid")),
        }
    }

    /// What does not fit: limits are upstream's.
    pub(crate) fn check(&self) -> Option<String> {
        if !matches!(self.key_type, PLAIN_KEY | SEED) {
            return Some(format!("unknown encryptedDEKSourceType: {}", self.key_type));
        }
        if self.key.is_empty() {
            return Some("failed to validate encrypted DEK source: encrypted DEK source is empty".to_owned());
        }
        if self.key.len() > ENCRYPTED_KEY_BYTES {
            return Some(format!(
                "failed to validate encrypted DEK source: encrypted DEK source is {} bytes, which exceeds the max size of {ENCRYPTED_KEY_BYTES}",
                self.key.len()
            ));
        }
        if let Some(why) = check_key_id(&self.key_id) {
            return Some(format!("failed to validate key id: {why}"));
        }
        let total: usize = self.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
        if let Some(bad) = self.annotations.keys().find(|k| !is_qualified_domain(k)) {
            return Some(format!(
                "failed to validate annotations: annotations: Invalid value: {bad:?}: should be a domain with at least two segments separated by dots"
            ));
        }
        (total > ANNOTATION_BYTES).then(|| {
            format!(
                "failed to validate annotations: total size of annotations is {total}, which exceeds the max size of {ANNOTATION_BYTES}"
            )
        })
    }

    /// Everything that decrypting the key depends on.
    pub(crate) fn key_hash(&self) -> KeyHash {
        let mut all = Vec::with_capacity(self.key.len() + self.key_id.len() + 16);
        let mut put = |bytes: &[u8]| {
            all.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            all.extend_from_slice(bytes);
        };
        put(&self.key_type.to_be_bytes());
        put(&self.key);
        put(self.key_id.as_bytes());
        for (name, value) in &self.annotations {
            put(name.as_bytes());
            put(value);
        }
        digest(&SHA256, &all).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Why a key's id is none.
pub(crate) fn check_key_id(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("keyID is empty".to_owned());
    }
    let length = id.len();
    (length > KEY_ID_BYTES).then(|| format!("keyID is {length} bytes, which exceeds the max size of {KEY_ID_BYTES}"))
}

/// `sha256:…` of a key's id, for logs.
pub(crate) fn id_hash(id: &str) -> String {
    if id.is_empty() {
        return String::new();
    }
    let hash: String = digest(&SHA256, id.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hash}")
}

fn is_qualified_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |l: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = l.as_bytes();
        bytes.len() <= DNS_BYTES.1
            && bytes.first().is_some_and(|b| plain(*b))
            && bytes.last().is_some_and(|b| plain(*b))
            && bytes.iter().all(|b| plain(*b) || *b == b'-')
    };
    name.len() <= DNS_BYTES.0 && name.contains('.') && name.split('.').all(label)
}

/// A decrypted data-encryption key.
pub(crate) enum DataKey {
    Plain(Gcm),
    Seed(Seed),
}

impl DataKey {
    pub(crate) fn new(key_type: i32, key: &[u8]) -> Option<DataKey> {
        match key_type {
            PLAIN_KEY => Gcm::new(key).map(DataKey::Plain),
            SEED => Seed::new(key).map(DataKey::Seed),
            _ => None,
        }
    }

    pub(crate) fn open(&self, aad: &[u8], stored: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        match self {
            DataKey::Plain(key) => key.open(aad, stored),
            DataKey::Seed(seed) => seed.open(aad, stored),
        }
    }
}
