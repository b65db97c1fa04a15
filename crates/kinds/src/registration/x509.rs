//! What is checked of certificates and requests for them: that they parse, and that whoever asks
//! has the key. Keys on curves that the crypto library does not know are taken at their word.

use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521};
use x509_parser::oid_registry::{OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Sizes of RSA keys that pods may have, in bits.
const RSA_SIZES_BITS: [usize; 2] = [3072, 4096];

/// The PEM blocks of a text; what stands between them does not count, nor what is cut off.
pub(super) fn blocks(text: &[u8]) -> impl Iterator<Item = Pem> + '_ {
    Pem::iter_from_buffer(text).map_while(Result::ok)
}

/// Whether the block says more than its label and contents.
pub(super) fn has_headers(text: &[u8]) -> bool {
    text.split(|b| *b == b'\n').any(|l| !l.starts_with(b"-----") && l.contains(&b':'))
}

/// A certificate that fills the octets.
pub(super) fn certificate(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, c)| c)
}

/// A request that fills the octets.
pub(super) fn request(der: &[u8]) -> Option<X509CertificationRequest<'_>> {
    X509CertificationRequest::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, r)| r)
}

/// Whether a request is signed with the key that it names.
pub(super) fn is_signed(request: &X509CertificationRequest<'_>) -> bool {
    matches!(request.verify_signature(), Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
}

/// What is wrong with a PEM certificate request, in upstream's words.
pub(super) fn signing_request_fault(pem: &[u8]) -> Option<&'static str> {
    let Some(block) = blocks(pem).next().filter(|b| b.label == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST");
    };
    match request(&block.contents) {
        None => Some("asn1: structure error: malformed certificate request"),
        Some(r) if !is_signed(&r) => {
            Some("x509: invalid signature: parent certificate cannot sign this kind of certificate")
        }
        Some(_) => None,
    }
}

/// What is wrong with the certificates of a signed request.
pub(super) fn issued_fault(pem: &[u8]) -> Option<String> {
    let mut found = false;
    for block in blocks(pem) {
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if certificate(&block.contents).is_none() {
            return Some("x509: malformed certificate".into());
        }
        found = true;
    }
    if !found {
        return Some("must contain at least one CERTIFICATE PEM block".into());
    }
    has_headers(pem).then(|| "no PEM block headers are permitted".into())
}

/// A pod's key, and why it will not do.
pub(super) enum KeyFault {
    /// A curve, by its name.
    Curve(&'static str),
    /// An RSA key of so many bits.
    Size(usize),
    /// Neither Ed25519 nor ECDSA nor RSA.
    Kind,
}

/// Whether a pod may have a key.
pub(super) fn key_fault(key: &SubjectPublicKeyInfo<'_>) -> Option<KeyFault> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return None;
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let known = curve.is_some_and(|c| c == OID_EC_P256 || c == OID_NIST_EC_P384 || c == OID_NIST_EC_P521);
        return (!known).then_some(KeyFault::Curve("P-224"));
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION
        && let Ok(PublicKey::RSA(rsa)) = key.parsed()
    {
        let bits = rsa.modulus.iter().skip_while(|b| **b == 0).count() * 8;
        return (!RSA_SIZES_BITS.contains(&bits)).then_some(KeyFault::Size(bits));
    }
    Some(KeyFault::Kind)
}

/// A public key that fills the octets.
pub(super) fn public_key(der: &[u8]) -> Option<SubjectPublicKeyInfo<'_>> {
    SubjectPublicKeyInfo::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, k)| k)
}

/// Whether the holder of the key signed these octets.
pub(super) fn proves(key: &SubjectPublicKeyInfo<'_>, message: &[u8], signature: &[u8]) -> bool {
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    let algorithm: &dyn VerificationAlgorithm = if key.algorithm.algorithm == OID_SIG_ED25519 {
        &ED25519
    } else if key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        &RSA_PSS_2048_8192_SHA256
    } else if curve.as_ref().is_some_and(|c| *c == OID_EC_P256) {
        &ECDSA_P256_SHA256_ASN1
    } else if curve.as_ref().is_some_and(|c| *c == OID_NIST_EC_P384) {
        &ECDSA_P384_SHA256_ASN1
    } else {
        return true;
    };
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data).verify(message, signature).is_ok()
}
