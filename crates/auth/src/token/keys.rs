//! Keys that sign and verify tokens (JWS, RFC 7518): P-256 by our own making, RSA where a cluster
//! brings it.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::public_key::{PublicKey, der, rsa_spki};
use super::{Claims, MAX_TOKEN_BYTES};
use crate::pki::write_private;
use crate::{AuthError, PkiError};

/// `SEQUENCE { id-ecPublicKey, prime256v1 }`.
const P256_ALGORITHM: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11): none is.
    crit: Option<serde_json::Value>,
}

enum Signer {
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// The key that signs.
#[derive(Clone)]
pub struct SigningKey {
    signer: Arc<Signer>,
    public: PublicKey,
    public_pem: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

impl SigningKey {
    /// Reads `sa.key` of `dir`, or makes it (and `sa.pub`).
    ///
    /// # Errors
    /// A file that cannot be read or written, or is no key that signs.
    pub fn load_or_create(dir: &Path) -> Result<SigningKey, PkiError> {
        let path = dir.join("sa.key");
        let pem = match crate::pki::read_private_file(&path)? {
            Some(pem) => pem,
            None => {
                let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
                write_private(&path, pem.as_bytes())?;
                pem
            }
        };
        let key = Self::from_pem(&pem).ok_or_else(|| PkiError::KeyRejected { path: path.clone() })?;
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
        Ok(Self::from_pem(&pair.serialize_pem()).expect("a P-256 key was asked for"))
    }

    /// Of a private key in PEM: P-256 or RSA, in PKCS #8, PKCS #1 or SEC 1; `None` where it is none.
    pub fn from_pem(pem: &str) -> Option<SigningKey> {
        let blocks = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes());
        blocks.flatten().find_map(|block| Self::from_der(&block.label, &block.contents))
    }

    fn from_der(label: &str, contents: &[u8]) -> Option<SigningKey> {
        match label {
            "RSA PRIVATE KEY" => Self::rsa(RsaKeyPair::from_der(contents).ok()?),
            "EC PRIVATE KEY" => {
                let wrapped = [&der(0x02, &[0])[..], P256_ALGORITHM, &der(0x04, contents)].concat();
                Self::p256(&der(0x30, &wrapped))
            }
            "PRIVATE KEY" => match RsaKeyPair::from_pkcs8(contents) {
                Ok(pair) => Self::rsa(pair),
                Err(_) => Self::p256(contents),
            },
            _ => None,
        }
    }

    fn p256(pkcs8: &[u8]) -> Option<SigningKey> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).ok()?;
        let point = [&[0], pair.public_key().as_ref()].concat();
        let spki = der(0x30, &[P256_ALGORITHM, &der(0x03, &point)].concat());
        Self::with(Signer::P256(Box::new(pair)), &spki)
    }

    fn rsa(pair: RsaKeyPair) -> Option<SigningKey> {
        let spki = rsa_spki(pair.public_key().as_ref());
        Self::with(Signer::Rsa(Box::new(pair)), &spki)
    }

    fn with(signer: Signer, spki: &[u8]) -> Option<SigningKey> {
        let public = PublicKey::from_spki(spki)?;
        let body = base64::engine::general_purpose::STANDARD.encode(spki);
        let mut public_pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in body.as_bytes().chunks(64) {
            public_pem.push_str(&String::from_utf8_lossy(line));
            public_pem.push('\n');
        }
        public_pem.push_str("-----END PUBLIC KEY-----\n");
        Some(SigningKey { signer: Arc::new(signer), public, public_pem })
    }

    /// The id of the key in token headers and the key set.
    pub fn id(&self) -> &str {
        self.public.id()
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, AuthError> {
        let header = serde_json::json!({ "alg": self.public.algorithm(), "kid": self.public.id() });
        let claims = serde_json::to_vec(claims).map_err(|_| AuthError::Signing)?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let random = SystemRandom::new();
        let signature = match &*self.signer {
            Signer::P256(pair) => {
                pair.sign(&random, token.as_bytes()).map_err(|_| AuthError::Signing)?.as_ref().to_vec()
            }
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature)
                    .map_err(|_| AuthError::Signing)?;
                signature
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The keys that verify: the signing key's public half, and those of before a rotation.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// Adds the public half of a signing key.
    pub fn add_signing_key(&mut self, key: &SigningKey) {
        self.add(key.public.clone());
    }

    /// Adds every key of a PEM text: public keys, certificates', and private keys' public halves;
    /// `false` where there is none.
    pub fn add_pem(&mut self, pem: &str) -> bool {
        let mut found = PublicKey::all_from_pem(pem);
        for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).flatten() {
            found.extend(SigningKey::from_der(&block.label, &block.contents).map(|k| k.public));
        }
        let any = !found.is_empty();
        found.into_iter().for_each(|k| self.add(k));
        any
    }

    /// Adds each `sa-*.pub` of a directory.
    ///
    /// # Errors
    /// A file that cannot be read or is not a public key.
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

    /// Adds the keys of a JSON Web Key Set that can verify tokens.
    pub fn add_jwks(&mut self, jwks: &serde_json::Value) {
        let keys = jwks["keys"].as_array().into_iter().flatten();
        keys.filter_map(PublicKey::from_jwk).for_each(|k| self.add(k));
    }

    fn add(&mut self, key: PublicKey) {
        if !self.0.contains(&key) {
            self.0.push(key);
        }
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The algorithms of the keys, each once.
    pub(crate) fn algorithms(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.0.iter().map(PublicKey::algorithm).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The JSON Web Key Set (RFC 7517), for `/openid/v1/jwks`.
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::json!({ "keys": self.0.iter().map(PublicKey::jwk).collect::<Vec<_>>() })
    }

    /// The claims of a token whose signature verifies. Times, audiences and accounts are not looked at.
    ///
    /// # Errors
    /// [`AuthError::TokenTooLong`], [`AuthError::MalformedToken`], [`AuthError::InvalidSignature`].
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        self.verify_as(token)
    }

    /// As [`KeySet::verify`], with other claims.
    pub(crate) fn verify_as<C: DeserializeOwned>(&self, token: &str) -> Result<C, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TokenTooLong { limit_bytes: MAX_TOKEN_BYTES });
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::MalformedToken)?;
        let (header, payload) = signed.split_once('.').ok_or(AuthError::MalformedToken)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::MalformedToken);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| AuthError::MalformedToken)?;
        if header.crit.is_some() {
            return Err(AuthError::CriticalHeader);
        }
        let signature = decode(signature)?;
        let good = self
            .0
            .iter()
            .filter(|k| header.kid.is_empty() || k.id() == header.kid)
            .any(|k| k.verifies(&header.alg, signed.as_bytes(), &signature));
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
