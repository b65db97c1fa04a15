//! TLS configurations out of the cluster's certificates. The provider is always named (`ring`);
//! the process default, which a dependency may set, is never asked.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{CertificateKey, Identity, Pki};
use crate::PkiError;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, PkiError> {
    let mut store = RootCertStore::empty();
    store.add(ca.clone())?;
    Ok(Arc::new(store))
}

fn http_protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// Has the peer prove that it owns the certificate that it shows, whosever that is. As a server's, it asks
/// for a client certificate: chains are verified by [`crate::ClientCertificates`], so that a certificate of
/// nobody is answered 401, not cut off. As a client's, it believes any server.
#[derive(Debug)]
pub struct AnyCertificate(WebPkiSupportedAlgorithms);

impl Default for AnyCertificate {
    fn default() -> Self {
        AnyCertificate(provider().signature_verification_algorithms)
    }
}

/// What both kinds of verifier have in common.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_schemes()
        }
    };
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for AnyCertificate {
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

    signatures!();
}

/// An API server's TLS with one serving certificate.
///
/// # Errors
/// A certificate that rustls refuses.
pub fn api_server_tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, PkiError> {
    let single = rustls::sign::CertifiedKey::from_der(chain, key, &provider())?;
    api_server_tls_with(Arc::new(rustls::sign::SingleCertAndKey::from(single)), rustls::ALL_VERSIONS, &[])
}

/// An API server's TLS with certificates by server name, of these TLS versions; cipher suites of TLS
/// 1.2 only as named (IANA names; all where empty).
///
/// # Errors
/// A suite that is not known, or no version that fits the suites.
pub fn api_server_tls_with(
    certificates: Arc<dyn rustls::server::ResolvesServerCert>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    cipher_suites: &[String],
) -> Result<Arc<ServerConfig>, PkiError> {
    let mut provider = CryptoProvider::clone(&provider());
    if !cipher_suites.is_empty() {
        // rustls writes suites of TLS 1.3 as `TLS13_…`; Go knows two of 1.2 by short names besides.
        let is = |s: &rustls::SupportedCipherSuite, wanted: &str| {
            let name = format!("{:?}", s.suite()).replacen("TLS13_", "TLS_", 1);
            name == wanted || (wanted.ends_with("_CHACHA20_POLY1305") && name == format!("{wanted}_SHA256"))
        };
        for wanted in cipher_suites {
            if !provider.cipher_suites.iter().any(|s| is(s, wanted)) {
                return Err(PkiError::CipherSuite(wanted.clone()));
            }
        }
        // Those of TLS 1.3 cannot be chosen, as in upstream.
        let chosen = |s: &rustls::SupportedCipherSuite| cipher_suites.iter().any(|wanted| is(s, wanted));
        provider.cipher_suites.retain(|s| s.tls13().is_some() || chosen(s));
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(AnyCertificate::default()))
        .with_cert_resolver(certificates);
    config.alpn_protocols = http_protocols();
    Ok(Arc::new(config))
}

impl Pki {
    /// The API server's TLS: client certificates are asked for and may be absent; whose they are is
    /// told afterwards by [`crate::ClientCertificates`]. HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn api_server_tls(&self) -> Result<Arc<ServerConfig>, PkiError> {
        api_server_tls(vec![self.api_server.cert_der.clone()], self.api_server.key_der())
    }

    /// The kubelet's serving TLS; client certificates as for the API server.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn kubelet_tls(&self) -> Result<Arc<ServerConfig>, PkiError> {
        self.server_tls(&self.kubelet_serving)
    }

    fn server_tls(&self, serving: &CertificateKey) -> Result<Arc<ServerConfig>, PkiError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(self.ca_der())?, provider())
            .allow_unauthenticated()
            .build()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![serving.cert_der.clone()], serving.key_der())?;
        config.alpn_protocols = http_protocols();
        Ok(Arc::new(config))
    }

    /// A client's TLS towards the API server or a kubelet, with `identity`'s certificate.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn client_tls(&self, identity: Identity) -> Result<Arc<ClientConfig>, PkiError> {
        self.client_tls_with(Some(self.client(identity)))
    }

    /// A client's TLS with any certificate, or none.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn client_tls_with(&self, client: Option<&CertificateKey>) -> Result<Arc<ClientConfig>, PkiError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(self.ca_der())?);
        let mut config = match client {
            Some(pair) => builder.with_client_auth_cert(vec![pair.cert_der.clone()], pair.key_der())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = http_protocols();
        Ok(Arc::new(config))
    }
}
