//! Serving certificates that were brought: a default one, others by server name; or one of our own,
//! signed by itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files::{create_private_dir, write_private, write_public};
use crate::PkiError;

/// Certificates by server name.
#[derive(Debug)]
pub struct ServingCertificates {
    default: Arc<CertifiedKey>,
    named: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

fn certified(certificate_pem: &str, key_pem: &str) -> Result<(Arc<CertifiedKey>, Vec<String>), PkiError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| PkiError::Bundle)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| PkiError::Bundle)?;
    let leaf = chain.first().ok_or(PkiError::Bundle)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| PkiError::Bundle)?;
    let mut names: Vec<String> =
        parsed.subject().iter_common_name().filter_map(|n| n.as_str().ok()).map(str::to_owned).collect();
    if let Ok(Some(sans)) = parsed.subject_alternative_name() {
        names.extend(sans.value.general_names.iter().filter_map(|n| match n {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
    Ok((Arc::new(key), names))
}

impl ServingCertificates {
    /// The certificate for names that no other has; both in PEM.
    ///
    /// # Errors
    /// PEM that cannot be read, or a key of another certificate.
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        Ok(ServingCertificates { default: certified(certificate_pem, key_pem)?.0, named: Vec::new() })
    }

    /// One for these names (`*.example.com` stands for one label); its own where empty.
    ///
    /// # Errors
    /// As [`ServingCertificates::new`].
    pub fn add(&mut self, certificate_pem: &str, key_pem: &str, names: Vec<String>) -> Result<(), PkiError> {
        let (key, own) = certified(certificate_pem, key_pem)?;
        self.named.push((if names.is_empty() { own } else { names }, key));
        Ok(())
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let (Some(suffix), Some((_, rest))) = (pattern.strip_prefix("*."), name.split_once('.')) else { return false };
    suffix.eq_ignore_ascii_case(rest)
}

/// Serving certificates that may be replaced: connections that are there keep theirs, new ones get
/// the new ones.
#[derive(Debug)]
pub struct ReplaceableCertificates(ArcSwap<ServingCertificates>);

impl ReplaceableCertificates {
    /// These, for now.
    pub fn new(certificates: ServingCertificates) -> Self {
        ReplaceableCertificates(ArcSwap::from_pointee(certificates))
    }

    /// Serves these from now on.
    pub fn replace(&self, certificates: ServingCertificates) {
        self.0.store(Arc::new(certificates));
    }
}

impl ResolvesServerCert for ReplaceableCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().resolve(hello)
    }
}

impl ResolvesServerCert for ServingCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello
            .server_name()
            .and_then(|name| self.named.iter().find(|(names, _)| names.iter().any(|pattern| matches(pattern, name))));
        Some(named.map_or_else(|| self.default.clone(), |(_, key)| key.clone()))
    }
}

/// The paths of a certificate signed by itself for these names, made where it is not there yet.
///
/// # Errors
/// What the file system says; names that cannot stand in a certificate.
pub fn self_signed(dir: &Path, file: &str, names: Vec<String>) -> Result<(PathBuf, PathBuf), PkiError> {
    let (certificate, key) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    create_private_dir(dir)?;
    let (made, pair) = self_signed_pem(file, names)?;
    write_private(&key, pair.as_bytes())?;
    write_public(&certificate, made.as_bytes())?;
    Ok((certificate, key))
}

/// A serving certificate that nobody vouches for, with its key, both in PEM.
///
/// # Errors
/// A name that cannot stand in a certificate.
pub fn self_signed_pem(common_name: &str, names: Vec<String>) -> Result<(String, String), PkiError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => rcgen::SanType::IpAddress(ip),
            Err(_) => rcgen::SanType::DnsName(name.as_str().try_into().map_err(|_| PkiError::Name(name.clone()))?),
        });
    }
    let made = params.self_signed(&pair)?;
    Ok((made.pem(), pair.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(matches("api.example.com", "API.example.com"));
        assert!(matches("*.example.com", "a.example.com"));
        assert!(!matches("*.example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
    }
}
