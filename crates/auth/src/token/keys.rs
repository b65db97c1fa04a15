//! P-256 keys that sign and verify tokens (JWS ES256, RFC 7518).

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::{Claims, MAX_TOKEN_BYTES};
use crate::pki::write_private;
use crate::{AuthError, PkiError};

/// Length of an uncompressed point of P-256 (0x04, x, y).
const POINT_BYTES: usize = 65;

/// What stands before the point in a P-256 SubjectPublicKeyInfo.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// The key that signs.
#[derive(Clone)]
pub struct SigningKey {
    inner: Arc<EcdsaKeyPair>,
    public: PublicKey,
    public_pem: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.id)
    }
}

#[derive(Clone)]
struct PublicKey {
    id: String,
    point: [u8; POINT_BYTES],
}

impl PublicKey {
    fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        let point: [u8; POINT_BYTES] = spki.strip_prefix(&P256_SPKI_PREFIX)?.try_into().ok()?;
        Some(PublicKey { id: URL_SAFE_NO_PAD.encode(digest(&SHA256, spki)), point })
    }
}

impl SigningKey {
    /// Reads `sa.key` of `dir`, or makes it (and `sa.pub`).
    ///
    /// # Errors
    /// A file that cannot be read or written, or is not a P-256 key in PKCS #8.
    pub fn load_or_create(dir: &Path) -> Result<SigningKey, PkiError> {
        let path = dir.join("sa.key");
        let rejected = || PkiError::KeyRejected { path: path.clone() };
        let pair = match crate::pki::read_private_file(&path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|_| rejected())?,
            None => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                write_private(&path, pair.serialize_pem().as_bytes())?;
                pair
            }
        };
        let key = Self::from_pair(&pair).ok_or_else(rejected)?;
        let public = dir.join("sa.pub");
        if crate::pki::read_file(&public)?.as_deref() != Some(key.public_pem.as_str()) {
            crate::pki::write_public_file(&public, key.public_pem.as_bytes())?;
        }
        Ok(key)
    }

    /// A new key that is nowhere kept.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<SigningKey, PkiError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self::from_pair(&pair).expect("a P-256 key was asked for"))
    }

    fn from_pair(pair: &KeyPair) -> Option<SigningKey> {
        let random = SystemRandom::new();
        let inner = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random).ok()?;
        let public = PublicKey::from_spki(&pair.subject_public_key_info())?;
        Some(SigningKey { inner: Arc::new(inner), public, public_pem: pair.public_key_pem() })
    }

    /// The id of the key in token headers and the key set.
    pub fn id(&self) -> &str {
        &self.public.id
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, AuthError> {
        let header = serde_json::json!({ "alg": "ES256", "kid": self.public.id });
        let claims = serde_json::to_vec(claims).map_err(|_| AuthError::Signing)?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.inner.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| AuthError::Signing)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The keys that verify: the signing key's public half, and those of before a rotation.
#[derive(Clone, Default)]
pub struct KeySet(Vec<PublicKey>);

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|k| &k.id)).finish()
    }
}

impl KeySet {
    /// Adds the public half of a signing key.
    pub fn add_signing_key(&mut self, key: &SigningKey) {
        self.add(key.public.clone());
    }

    /// Adds a public key in PEM (`PUBLIC KEY`); `false` where it is not a P-256 key.
    pub fn add_pem(&mut self, pem: &str) -> bool {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok();
        let key = spki.and_then(|spki| PublicKey::from_spki(spki.as_ref()));
        key.map(|k| self.add(k)).is_some()
    }

    /// Adds each `sa-*.pub` of a directory.
    ///
    /// # Errors
    /// A file that cannot be read or is not a P-256 public key.
    pub fn add_directory(&mut self, dir: &Path) -> Result<(), PkiError> {
        let fail = |source| PkiError::File { path: dir.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            if name.to_str().is_some_and(|n| n.starts_with("sa-") && n.ends_with(".pub")) {
                paths.push(dir.join(name));
            }
        }
        paths.sort();
        for path in paths {
            if !crate::pki::read_file(&path)?.is_some_and(|pem| self.add_pem(&pem)) {
                return Err(PkiError::KeyRejected { path });
            }
        }
        Ok(())
    }

    fn add(&mut self, key: PublicKey) {
        if !self.0.iter().any(|k| k.id == key.id) {
            self.0.push(key);
        }
    }

    /// The JSON Web Key Set (RFC 7517), for `/openid/v1/jwks`.
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.0.iter().map(|key| {
            let (x, y) = key.point[1..].split_at(32);
            serde_json::json!({
                "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        });
        serde_json::json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// The claims of a token whose signature verifies. Times, audiences and accounts are not looked at.
    ///
    /// # Errors
    /// [`AuthError::TokenTooLong`], [`AuthError::MalformedToken`], [`AuthError::InvalidSignature`].
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TokenTooLong { limit_bytes: MAX_TOKEN_BYTES });
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::MalformedToken)?;
        let (header, payload) = signed.split_once('.').ok_or(AuthError::MalformedToken)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::MalformedToken);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| AuthError::MalformedToken)?;
        if header.alg != "ES256" {
            return Err(AuthError::InvalidSignature);
        }
        let signature = decode(signature)?;
        let good = self.0.iter().filter(|k| header.kid.is_empty() || k.id == header.kid).any(|k| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &k.point).verify(signed.as_bytes(), &signature).is_ok()
        });
        if !good {
            return Err(AuthError::InvalidSignature);
        }
        serde_json::from_slice(&decode(payload)?).map_err(|_| AuthError::MalformedToken)
    }

    /// Reads the issuer out of a token without verifying anything; tells whose token it is.
    pub(crate) fn unverified_issuer(token: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let mut parts = token.split('.');
        let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
        serde_json::from_slice::<Issuer>(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok().map(|i| i.iss)
    }
}
