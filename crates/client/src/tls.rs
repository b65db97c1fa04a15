//! TLS towards the API server: whom to believe, and the certificate to show.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::KubeconfigError;
use crate::identity::Shown;

/// The configuration of connections. Without authorities, the system's are believed.
pub(crate) fn config(
    authorities: Option<&[u8]>,
    insecure: bool,
    shown: Arc<Shown>,
) -> Result<ClientConfig, KubeconfigError> {
    let provider = Arc::new(ring::default_provider());
    let wrong = |member| move |source| KubeconfigError::Tls { member, source };
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(wrong("TLS"))?;
    let builder = match (insecure, authorities) {
        (true, None) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        (true, Some(_)) => {
            let form = "absent where a certificate authority is given";
            return Err(KubeconfigError::Form { member: "insecure-skip-tls-verify", form });
        }
        (false, authorities) => builder.with_root_certificates(roots(authorities)?),
    };
    let mut config = builder.with_client_cert_resolver(shown);
    // A session that is resumed is its first connection's: the server would go on seeing a certificate that is gone.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, KubeconfigError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for authority in certificates("certificate-authority", pem)? {
                let wrong = |source| KubeconfigError::Tls { member: "certificate-authority", source };
                roots.add(authority).map_err(wrong)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

pub(crate) fn certificates(member: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let form = "certificates in PEM";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(KubeconfigError::Form { member, form })
}

/// Believes anyone: `insecure-skip-tls-verify`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
