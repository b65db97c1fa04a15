//! TLS configurations out of the cluster's certificates. The provider is always named (`ring`);
//! the process default, which a dependency may set, is never asked.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

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

impl Pki {
    /// The API server's TLS: client certificates are asked for, may be absent, and are verified
    /// against the cluster authority; HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn api_server_tls(&self) -> Result<Arc<ServerConfig>, PkiError> {
        self.server_tls(&self.api_server)
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
