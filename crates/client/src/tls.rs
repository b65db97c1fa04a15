//! TLS towards the API server: whom to believe, and the certificate to show.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::KubeconfigError;
use crate::kubeconfig::Identity;

/// The configuration of a connection. Without authorities, the system's are believed.
pub(crate) fn config(
    authorities: Option<&[u8]>,
    insecure: bool,
    identity: Option<&Identity>,
) -> Result<ClientConfig, KubeconfigError> {
    let provider = Arc::new(ring::default_provider());
    let wrong = |member| move |source| KubeconfigError::Tls { member, source };
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(wrong("TLS"))?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(authorities)?)
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let chain = certificates("client-certificate", &identity.certificate)?;
            let form = "a private key in PEM";
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|_| KubeconfigError::Form { member: "client-key", form })?;
            builder.with_client_auth_cert(chain, key).map_err(wrong("client-key"))
        }
    }
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

fn certificates(member: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
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
