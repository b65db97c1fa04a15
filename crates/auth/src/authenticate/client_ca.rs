//! Whose client certificate it is: the cluster authority's (a user), or the front-proxy authority's
//! (a proxy that vouches for a user in headers).
//!
//! The handshake only proves that the peer has the key; chains are verified here, once a connection,
//! against each authority apart. A certificate of the front-proxy authority never names a user, and
//! one of the cluster authority never vouches for another.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::x509::identity_of_certificate;
use crate::{AuthError, PkiError, UserInfo};

/// Which header names a front proxy uses; upstream's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeaderConfig {
    /// The front-proxy authority in PEM.
    pub ca_pem: String,
    /// Common names that may vouch; empty for any that the authority has signed.
    pub allowed_names: Vec<String>,
    /// Headers for the user's name, in order.
    pub username_headers: Vec<String>,
    /// Headers for the user's uid, in order.
    pub uid_headers: Vec<String>,
    /// Headers for groups.
    pub group_headers: Vec<String>,
    /// Prefixes of headers for extra values.
    pub extra_header_prefixes: Vec<String>,
}

impl RequestHeaderConfig {
    /// The usual headers, with this authority and these names.
    pub fn new(ca_pem: impl Into<String>, allowed_names: Vec<String>) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        RequestHeaderConfig {
            ca_pem: ca_pem.into(),
            allowed_names,
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}

/// What a connection's certificates prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user that the cluster authority vouches for.
    pub user: Option<Arc<UserInfo>>,
    /// Whether the peer may name users in headers.
    pub front_proxy: bool,
}

/// Tells peers apart by their certificates.
#[derive(Clone, Default)]
pub struct ClientCertificates {
    client: Option<Arc<dyn ClientCertVerifier>>,
    front_proxy: Option<(Arc<dyn ClientCertVerifier>, RequestHeaderConfig)>,
}

impl std::fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("client", &self.client.is_some())
            .field("front_proxy", &self.front_proxy.as_ref().map(|(_, config)| config))
            .finish()
    }
}

fn verifier(pem: &str) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| PkiError::Bundle)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

impl ClientCertificates {
    /// Of the authority for users (PEM; empty for none) and the front proxies' configuration.
    ///
    /// # Errors
    /// A bundle that holds no certificate or a broken one.
    pub fn new(client_ca_pem: &str, front_proxy: Option<RequestHeaderConfig>) -> Result<Self, PkiError> {
        let client = (!client_ca_pem.is_empty()).then(|| verifier(client_ca_pem)).transpose()?;
        let front_proxy =
            front_proxy.map(|config| Ok::<_, PkiError>((verifier(&config.ca_pem)?, config))).transpose()?;
        Ok(ClientCertificates { client, front_proxy })
    }

    /// Who the owner of a chain (leaf first) is.
    ///
    /// # Errors
    /// A certificate that is not of any authority, or names nobody properly; 401.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, AuthError> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(Peer::default()) };
        let now = UnixTime::now();
        if let Some((verifier, config)) = &self.front_proxy
            && verifier.verify_client_cert(leaf, intermediates, now).is_ok()
        {
            let name = identity_of_certificate(leaf)?.map(|u| u.name).unwrap_or_default();
            if config.allowed_names.is_empty() || config.allowed_names.contains(&name) {
                return Ok(Peer { user: None, front_proxy: true });
            }
        }
        let Some(verifier) = &self.client else { return Ok(Peer::default()) };
        verifier.verify_client_cert(leaf, intermediates, now).map_err(|_| AuthError::UntrustedCertificate)?;
        Ok(Peer { user: identity_of_certificate(leaf)?.map(Arc::new), front_proxy: false })
    }

    /// The user that a front proxy's headers name; ask only for such a peer.
    pub fn named_in_headers(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let (_, config) = self.front_proxy.as_ref()?;
        let text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned);
        let first =
            |names: &[String]| names.iter().filter_map(|n| text(headers.get(n)?)).find(|v| !v.is_empty());
        let name = first(&config.username_headers)?;
        let groups: Vec<String> = config
            .group_headers
            .iter()
            .flat_map(|n| headers.get_all(n).iter().filter_map(text))
            .collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &config.extra_header_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (key, value) in headers {
                if let (Some(key), Some(value)) = (key.as_str().strip_prefix(&prefix), text(value)) {
                    extra.entry(crate::impersonate::unescape(key)).or_default().push(value);
                }
            }
        }
        let mut user = UserInfo { name, uid: first(&config.uid_headers).unwrap_or_default(), groups, extra };
        user.mark_authenticated();
        Some(user)
    }

    /// Takes the proxies' headers away, so that nothing behind believes them again.
    pub fn strip_headers(&self, headers: &mut HeaderMap) {
        let Some((_, config)) = &self.front_proxy else { return };
        for name in config.username_headers.iter().chain(&config.uid_headers).chain(&config.group_headers) {
            headers.remove(name);
        }
        let prefixes: Vec<String> = config.extra_header_prefixes.iter().map(|p| p.to_ascii_lowercase()).collect();
        let extra: Vec<_> =
            headers.keys().filter(|k| prefixes.iter().any(|p| k.as_str().starts_with(p))).cloned().collect();
        for name in extra {
            headers.remove(name);
        }
    }

    /// The front proxies' configuration.
    pub fn request_header(&self) -> Option<&RequestHeaderConfig> {
        self.front_proxy.as_ref().map(|(_, config)| config)
    }
}
