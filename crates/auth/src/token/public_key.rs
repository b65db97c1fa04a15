//! Public keys that verify signatures of JSON Web Tokens: P-256, P-384 and RSA (RFC 7518), from PEM,
//! certificates and JSON Web Keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// `SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING` as far as it does not depend on lengths.
const RSA_ALGORITHM: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// What stands before the point in a P-256 SubjectPublicKeyInfo.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What stands before the point in a P-384 SubjectPublicKeyInfo.
const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];

#[derive(Clone, PartialEq, Eq)]
enum Material {
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: String,
    material: Material,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

/// One DER value of this tag.
pub(super) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    out.extend_from_slice(content);
    out
}

pub(super) fn rsa_spki(pkcs1: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = [&[0], pkcs1].concat();
    der(0x30, &[RSA_ALGORITHM, &der(0x03, &bits)].concat())
}

fn unsigned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|b| *b == 0).collect()
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let plain = unsigned(bytes);
    let padded = if plain.first().is_none_or(|b| b & 0x80 != 0) { [&[0], &plain[..]].concat() } else { plain };
    der(0x02, &padded)
}

impl PublicKey {
    /// Of a SubjectPublicKeyInfo in DER; `None` where it is of another kind.
    pub fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, spki));
        if let Some(point) = spki.strip_prefix(P256_PREFIX).filter(|p| p.len() == 65) {
            return Some(PublicKey { id, material: Material::P256(point.to_vec()) });
        }
        if let Some(point) = spki.strip_prefix(P384_PREFIX).filter(|p| p.len() == 97) {
            return Some(PublicKey { id, material: Material::P384(point.to_vec()) });
        }
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        match parsed.parsed().ok()? {
            x509_parser::public_key::PublicKey::RSA(key) => {
                let material = Material::Rsa { n: unsigned(key.modulus), e: unsigned(key.exponent) };
                Some(PublicKey { id, material })
            }
            _ => None,
        }
    }

    /// Of a PKCS #1 RSAPublicKey in DER.
    pub fn from_rsa(pkcs1: &[u8]) -> Option<PublicKey> {
        Self::from_spki(&rsa_spki(pkcs1))
    }

    /// Every public key in a PEM text: `PUBLIC KEY`, `RSA PUBLIC KEY`, and certificates'.
    pub fn all_from_pem(pem: &str) -> Vec<PublicKey> {
        let mut out: Vec<PublicKey> = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes())
            .filter_map(|spki| Self::from_spki(spki.ok()?.as_ref()))
            .collect();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            if let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&certificate) {
                out.extend(Self::from_spki(parsed.public_key().raw));
            }
        }
        for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).flatten() {
            if block.label == "RSA PUBLIC KEY" {
                out.extend(Self::from_rsa(&block.contents));
            }
        }
        out
    }

    /// Of a JSON Web Key (RFC 7517); `None` where it is for something else.
    pub fn from_jwk(jwk: &serde_json::Value) -> Option<PublicKey> {
        let part = |key: &str| URL_SAFE_NO_PAD.decode(jwk[key].as_str()?.trim_end_matches('=')).ok();
        if jwk["use"].as_str().is_some_and(|u| u != "sig") {
            return None;
        }
        let spki = match (jwk["kty"].as_str()?, jwk["crv"].as_str().unwrap_or_default()) {
            ("RSA", _) => rsa_spki(&der(0x30, &[integer(&part("n")?), integer(&part("e")?)].concat())),
            ("EC", "P-256") => [P256_PREFIX, &[4], &part("x")?, &part("y")?].concat(),
            ("EC", "P-384") => [P384_PREFIX, &[4], &part("x")?, &part("y")?].concat(),
            _ => return None,
        };
        let mut key = Self::from_spki(&spki)?;
        if let Some(id) = jwk["kid"].as_str() {
            key.id = id.to_owned();
        }
        Some(key)
    }

    /// The id that tokens name it by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The algorithm that its tokens are signed with, unless they say another that fits.
    pub fn algorithm(&self) -> &'static str {
        match self.material {
            Material::P256(_) => "ES256",
            Material::P384(_) => "ES384",
            Material::Rsa { .. } => "RS256",
        }
    }

    /// As a JSON Web Key.
    pub(super) fn jwk(&self) -> serde_json::Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let curve = |name: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            serde_json::json!({
                "use": "sig", "kty": "EC", "kid": self.id, "crv": name, "alg": self.algorithm(),
                "x": text(x), "y": text(y),
            })
        };
        match &self.material {
            Material::P256(point) => curve("P-256", point),
            Material::P384(point) => curve("P-384", point),
            Material::Rsa { n, e } => serde_json::json!({
                "use": "sig", "kty": "RSA", "kid": self.id, "alg": self.algorithm(), "n": text(n), "e": text(e),
            }),
        }
    }

    /// Whether `signature` over `message` by the algorithm `alg` is this key's.
    pub fn verifies(&self, alg: &str, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, alg) {
            (Material::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Material::P384(point), "ES384") => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            (Material::Rsa { n, e }, alg) => {
                let parameters = match alg {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &RSA_PSS_2048_8192_SHA256,
                    "PS384" => &RSA_PSS_2048_8192_SHA384,
                    "PS512" => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                PublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            _ => false,
        }
    }
}
