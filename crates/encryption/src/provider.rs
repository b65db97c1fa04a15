//! How one value is encrypted: a provider of the configuration with its key, in upstream's envelope.

use std::sync::Arc;

use bytes::Bytes;

use crate::ciphers::{Cbc, Gcm, Secretbox};
use crate::{EncryptionError, Kms};

/// What every encrypted value begins with, whoever encrypted it.
pub(crate) const ENVELOPE: &[u8] = ironkeel_store::SEALED;

enum Cipher {
    Identity,
    AesGcm(Gcm),
    AesCbc(Cbc),
    Secretbox(Secretbox),
    Kms(Arc<Kms>),
}

/// One way of keeping values: a cipher under the prefix that names it and its key.
pub struct Provider {
    /// `k8s:enc:aesgcm:v1:<name>:`; empty for identity.
    prefix: Vec<u8>,
    cipher: Cipher,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cipher {
            Cipher::Identity => f.write_str("identity"),
            _ => f.write_str(&String::from_utf8_lossy(&self.prefix)),
        }
    }
}

fn provider(kind: &str, name: &str, cipher: Cipher) -> Provider {
    Provider { prefix: format!("k8s:enc:{kind}:{name}:").into_bytes(), cipher }
}

impl Provider {
    /// Values stay as they are.
    pub fn identity() -> Provider {
        Provider { prefix: Vec::new(), cipher: Cipher::Identity }
    }

    /// AES-GCM under a key's name; `None` where the secret has not 16, 24 or 32 bytes.
    pub fn aes_gcm(name: &str, secret: &[u8]) -> Option<Provider> {
        Gcm::new(secret).map(|key| provider("aesgcm:v1", name, Cipher::AesGcm(key)))
    }

    /// AES-CBC under a key's name; `None` where the secret has not 16, 24 or 32 bytes.
    pub fn aes_cbc(name: &str, secret: &[u8]) -> Option<Provider> {
        Cbc::new(secret).map(|key| provider("aescbc:v1", name, Cipher::AesCbc(key)))
    }

    /// XSalsa20 and Poly1305 under a key's name; `None` where the secret has not 32 bytes.
    pub fn secretbox(name: &str, secret: &[u8]) -> Option<Provider> {
        Secretbox::new(secret).map(|key| provider("secretbox:v1", name, Cipher::Secretbox(key)))
    }

    /// Keys of a KMS v2 plugin.
    pub fn kms(plugin: Arc<Kms>) -> Provider {
        let name = plugin.name().to_owned();
        provider("kms:v2", &name, Cipher::Kms(plugin))
    }

    /// The value as it is stored under `key`.
    pub(crate) fn seal(&self, key: &[u8], value: &Bytes) -> Result<Bytes, EncryptionError> {
        let mut out = self.prefix.clone();
        match &self.cipher {
            Cipher::Identity => return Ok(value.clone()),
            Cipher::AesGcm(cipher) => cipher.seal(key, value, &mut out)?,
            Cipher::AesCbc(cipher) => cipher.seal(value, &mut out)?,
            Cipher::Secretbox(cipher) => cipher.seal(value, &mut out)?,
            Cipher::Kms(plugin) => plugin.seal(key, value, &mut out)?,
        }
        Ok(out.into())
    }

    /// The value that was stored under `key`, and whether this provider itself would write it anew;
    /// `None` where another provider stored it.
    pub(crate) async fn open(&self, key: &[u8], stored: &Bytes) -> Option<Result<(Bytes, bool), EncryptionError>> {
        let sealed = stored.strip_prefix(self.prefix.as_slice())?;
        let whole = |opened: Result<Vec<u8>, EncryptionError>| opened.map(|value| (value.into(), false));
        Some(match &self.cipher {
            Cipher::Identity if stored.starts_with(ENVELOPE) => return None,
            Cipher::Identity => Ok((stored.clone(), false)),
            Cipher::AesGcm(cipher) => whole(cipher.open(key, sealed)),
            Cipher::AesCbc(cipher) => whole(cipher.open(sealed)),
            Cipher::Secretbox(cipher) => whole(cipher.open(sealed)),
            Cipher::Kms(plugin) => plugin.open(key, sealed).await,
        })
    }
}
