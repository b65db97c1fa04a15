//! How one value is encrypted: AES-GCM in upstream's envelope, or not at all.

use bytes::Bytes;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::EncryptionError;

/// What every encrypted value begins with, whoever encrypted it.
pub(crate) const ENVELOPE: &[u8] = b"k8s:enc:";

/// See the module.
pub enum Provider {
    /// Values stay as they are.
    Identity,
    /// AES-GCM with a random nonce (128 or 256 bits, by the length of the key).
    AesGcm {
        /// `k8s:enc:aesgcm:v1:<name>:`.
        prefix: Vec<u8>,
        /// The key.
        key: Box<LessSafeKey>,
    },
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Provider::Identity => f.write_str("identity"),
            Provider::AesGcm { prefix, .. } => f.write_str(&String::from_utf8_lossy(prefix)),
        }
    }
}

impl Provider {
    /// AES-GCM under a key's name; `None` where the secret has not 16 or 32 bytes.
    pub fn aes_gcm(name: &str, secret: &[u8]) -> Option<Provider> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = Box::new(LessSafeKey::new(UnboundKey::new(algorithm, secret).ok()?));
        Some(Provider::AesGcm { prefix: format!("k8s:enc:aesgcm:v1:{name}:").into_bytes(), key })
    }

    /// The value as it is stored under `key`.
    pub(crate) fn seal(&self, key: &[u8], value: &Bytes) -> Result<Bytes, EncryptionError> {
        let Provider::AesGcm { prefix, key: cipher } = self else { return Ok(value.clone()) };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| EncryptionError::Encrypt)?;
        let mut sealed = value.to_vec();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut sealed)
            .map_err(|_| EncryptionError::Encrypt)?;
        Ok(Bytes::from([prefix.as_slice(), &nonce, &sealed].concat()))
    }

    /// The value that was stored under `key`; `None` where this provider did not store it.
    pub(crate) fn open(&self, key: &[u8], stored: &Bytes) -> Option<Bytes> {
        match self {
            Provider::Identity => (!stored.starts_with(ENVELOPE)).then(|| stored.clone()),
            Provider::AesGcm { prefix, key: cipher } => {
                let sealed = stored.strip_prefix(prefix.as_slice())?;
                let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut value = sealed.to_vec();
                let length = cipher.open_in_place(nonce, Aad::from(key), &mut value).ok()?.len();
                value.truncate(length);
                Some(value.into())
            }
        }
    }
}
