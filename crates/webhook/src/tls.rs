//! Whom to believe: the bundle's authorities, or a certificate that is in the bundle itself, as Go's
//! verifier allows (self-signed certificates of webhooks are common).

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{Credentials, TargetError};

/// Where Linux distributions keep the system's authorities.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

fn system_bundle() -> Vec<u8> {
    SYSTEM_BUNDLES.iter().find_map(|p| std::fs::read(Path::new(p)).ok()).unwrap_or_default()
}

/// The TLS side of one target.
pub(crate) fn config(ca_bundle_pem: &[u8], credentials: &Credentials) -> Result<ClientConfig, TargetError> {
    let trusted = if ca_bundle_pem.is_empty() { certificates(&system_bundle()) } else { certificates(ca_bundle_pem) };
    if trusted.is_empty() && !ca_bundle_pem.is_empty() {
        return Err(TargetError::CaBundle);
    }
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let inner = if roots.is_empty() {
        None
    } else {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
    };
    let verifier = Arc::new(Verifier { inner, trusted, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TargetError::Credentials(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = if credentials.certificate_pem.is_empty() {
        builder.with_no_client_auth()
    } else {
        let bad = |e: &dyn std::fmt::Display| TargetError::Credentials(e.to_string());
        let key = PrivateKeyDer::from_pem_slice(&credentials.key_pem).map_err(|e| bad(&e))?;
        builder.with_client_auth_cert(certificates(&credentials.certificate_pem), key).map_err(|e| bad(&e))?
    };
    // One connection a request at a time: HTTP/2 would pin all requests to one backend (upstream's issue 75791).
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    /// None where there is no authority at all.
    inner: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Verifier {
    /// A certificate that is in the bundle: its name and its time must hold.
    fn pinned(&self, cert: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        rustls::client::verify_server_name(&ParsedCertificate::try_from(cert)?, name)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(cert)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if seconds < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if seconds > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trusted.iter().any(|t| t.as_ref() == end_entity.as_ref()) {
            return self.pinned(end_entity, server_name, now).map(|()| ServerCertVerified::assertion());
        }
        match &self.inner {
            Some(inner) => inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A failed handshake in Go's words.
pub(crate) fn handshake_text(e: &io::Error) -> String {
    let Some(tls) = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return if e.kind() == io::ErrorKind::UnexpectedEof { "EOF".into() } else { e.to_string() };
    };
    let verify = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    match tls {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                verify("certificate signed by unknown authority")
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => verify("certificate has expired or is not yet valid"),
            CertificateError::NotValidForNameContext { expected, presented } => verify(&format!(
                "certificate is valid for {}, not {}",
                presented.iter().map(|p| bare_name(p)).collect::<Vec<_>>().join(", "),
                expected.to_str()
            )),
            other => verify(&format!("{other:?}")),
        },
        other => format!("tls: {other}"),
    }
}

/// `DnsName("a")` as `a`.
fn bare_name(shown: &str) -> &str {
    shown.split_once('(').map_or(shown, |(_, rest)| rest.trim_end_matches(')')).trim_matches('"')
}
