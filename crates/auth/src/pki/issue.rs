//! Making certificates, and judging whether one that is there still fits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::files::{cert_path, key_path, read, read_private, write_private, write_public};
use super::{AUTHORITY_VALIDITY, CertificateKey, LEAF_VALIDITY, RENEW_BEFORE};
use crate::PkiError;

/// Certificates are valid from this long before they are made: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What a certificate below an authority is for.
pub(super) struct Leaf {
    common_name: String,
    organization: Option<String>,
    sans: Vec<String>,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf {
    pub(super) fn server(common_name: &str, organization: Option<&str>, sans: Vec<String>) -> Leaf {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Leaf { common_name: common_name.to_owned(), organization: organization.map(str::to_owned), sans, usages }
    }

    pub(super) fn client(common_name: &str, organization: Option<&str>) -> Leaf {
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Leaf {
            common_name: common_name.to_owned(),
            organization: organization.map(str::to_owned),
            sans: Vec::new(),
            usages,
        }
    }
}

/// A certificate authority with its key.
pub(super) struct Authority {
    pub(super) cert_pem: String,
    pub(super) cert_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key_identifier: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

fn serial() -> SerialNumber {
    // 128 random bits, positive.
    let mut bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

fn base_params(
    common_name: &str,
    organization: Option<&str>,
    now: SystemTime,
    validity: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
    params.not_after = OffsetDateTime::from(now + validity);
    params.serial_number = Some(serial());
    params
}

fn authority_params(common_name: &str, now: SystemTime) -> CertificateParams {
    let mut params = base_params(common_name, None, now, AUTHORITY_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    params
}

impl Authority {
    pub(super) fn load_or_create(dir: &Path, file: &str, name: &str, now: SystemTime) -> Result<Authority, PkiError> {
        let (cert_file, key_file) = (cert_path(dir, file), key_path(dir, file));
        let params = authority_params(name, now);
        let (key, cert_pem) = match (read(&cert_file)?, read_private(&key_file)?) {
            (Some(_), None) => return Err(PkiError::KeyMissing { path: key_file }),
            (Some(cert), Some(key)) => {
                let key = KeyPair::from_pem(&key).map_err(|_| PkiError::Malformed { path: key_file, what: "key" })?;
                (key, cert)
            }
            (None, Some(key)) => {
                // A start was cut short between the two files: the key stays, nothing was signed yet.
                let key = KeyPair::from_pem(&key).map_err(|_| PkiError::Malformed { path: key_file, what: "key" })?;
                let pem = params.self_signed(&key)?.pem();
                write_public(&cert_file, pem.as_bytes())?;
                (key, pem)
            }
            (None, None) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                let pem = params.self_signed(&key)?.pem();
                write_private(&key_file, key.serialize_pem().as_bytes())?;
                write_public(&cert_file, pem.as_bytes())?;
                (key, pem)
            }
        };
        let malformed = || PkiError::Malformed { path: cert_file.clone(), what: "certificate" };
        let cert_der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| malformed())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&cert_der).map_err(|_| malformed())?;
        if parsed.validity().not_after.timestamp() < unix(now) {
            return Err(PkiError::AuthorityExpired { path: cert_file });
        }
        if parsed.public_key().raw != key.subject_public_key_info().as_slice() {
            return Err(malformed());
        }
        // The issuer's name is copied from the certificate, which may be one that a user brought.
        let common_name = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or(name);
        let issuer_params = authority_params(common_name, now);
        let key_identifier = issuer_params.key_identifier(&key);
        Ok(Authority { cert_pem, cert_der, issuer: Issuer::new(issuer_params, key), key_identifier })
    }

    pub(super) fn issue(&self, leaf: &Leaf, now: SystemTime) -> Result<CertificateKey, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = base_params(&leaf.common_name, leaf.organization.as_deref(), now, LEAF_VALIDITY);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = leaf.usages.clone();
        params.use_authority_key_identifier_extension = true;
        for san in wanted_sans(leaf) {
            params.subject_alt_names.push(match san.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(san.as_str().try_into().map_err(|_| PkiError::Name(san.clone()))?),
            });
        }
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(CertificateKey {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            cert_der: cert.der().clone(),
            key_der: key.serialize_der(),
        })
    }

    pub(super) fn load_or_issue(
        &self,
        dir: &Path,
        file: &str,
        leaf: &Leaf,
        now: SystemTime,
    ) -> Result<CertificateKey, PkiError> {
        let (cert_file, key_file) = (cert_path(dir, file), key_path(dir, file));
        if let (Some(cert_pem), Some(key_pem)) = (read(&cert_file)?, read_private(&key_file)?)
            && let Some(found) = self.still_fits(cert_pem, key_pem, leaf, now)
        {
            return Ok(found);
        }
        tracing::info!(certificate = %cert_file.display(), "making a certificate");
        let made = self.issue(leaf, now)?;
        write_private(&key_file, made.key_pem.as_bytes())?;
        write_public(&cert_file, made.cert_pem.as_bytes())?;
        Ok(made)
    }

    /// The pair, unless it expires soon, is another authority's, does not belong together, or
    /// carries other names.
    fn still_fits(&self, cert_pem: String, key_pem: String, leaf: &Leaf, now: SystemTime) -> Option<CertificateKey> {
        let cert_der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
        let key = KeyPair::from_pem(&key_pem).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&cert_der).ok()?;
        let subject = parsed.subject();
        let text = |a: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            a.and_then(|a| a.as_str().ok()).map(str::to_owned)
        };
        let fits = parsed.validity().not_after.timestamp() >= unix(now + RENEW_BEFORE)
            && parsed.validity().not_before.timestamp() <= unix(now)
            && parsed.public_key().raw == key.subject_public_key_info().as_slice()
            && authority_of(&parsed) == Some(self.key_identifier.as_slice())
            && text(subject.iter_common_name().next()).as_deref() == Some(leaf.common_name.as_str())
            && text(subject.iter_organization().next()) == leaf.organization
            && sans_of(&parsed) == wanted_sans(leaf);
        fits.then(|| CertificateKey { key_der: key.serialize_der(), cert_pem, key_pem, cert_der: cert_der.clone() })
    }
}

fn unix(t: SystemTime) -> i64 {
    OffsetDateTime::from(t).unix_timestamp()
}

fn wanted_sans(leaf: &Leaf) -> BTreeSet<String> {
    let canonical = |s: &String| s.parse::<IpAddr>().map_or_else(|_| s.clone(), |ip| ip.to_string());
    leaf.sans.iter().map(canonical).collect()
}

fn sans_of(cert: &X509Certificate<'_>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return out };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                out.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                if let Ok(four) = <[u8; 4]>::try_from(*bytes) {
                    out.insert(IpAddr::from(four).to_string());
                } else if let Ok(sixteen) = <[u8; 16]>::try_from(*bytes) {
                    out.insert(IpAddr::from(sixteen).to_string());
                }
            }
            _ => {}
        }
    }
    out
}

fn authority_of<'a>(cert: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    cert.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0),
        _ => None,
    })
}
