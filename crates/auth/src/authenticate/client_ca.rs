//! Whose client certificate it is: the cluster authority's (a user), or the front-proxy authority's
//! (a proxy that vouches for a user in headers).
//!
//! The handshake only proves that the peer has the key; chains are verified here, once a connection,
//! against each authority apart. A certificate that the front-proxy authority alone signed never names a user,
//! and one that the cluster authority alone signed never vouches for another.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::x509::{end_of_certificate, identity_of_certificate};
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
    /// When the certificate ends, in seconds since 1970; 0 without one.
    pub expires: i64,
}

#[derive(Default)]
struct Authorities {
    client: Option<(Arc<dyn ClientCertVerifier>, String)>,
    front_proxy: Option<(Arc<dyn ClientCertVerifier>, RequestHeaderConfig)>,
    generation: u64,
}

/// Tells peers apart by their certificates. Clones share the authorities, which may be replaced.
#[derive(Clone, Default)]
pub struct ClientCertificates(Arc<ArcSwap<Authorities>>);

impl std::fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = self.0.load();
        f.debug_struct("ClientCertificates")
            .field("client", &now.client.is_some())
            .field("front_proxy", &now.front_proxy.as_ref().map(|(_, config)| config))
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

/// When the first certificate of a chain ends: each must hold on each request, as in upstream.
fn end_of_chain(chain: &[CertificateDer<'_>]) -> i64 {
    chain.iter().map(|c| end_of_certificate(c)).min().unwrap_or(0)
}

impl ClientCertificates {
    /// Of the authority for users (PEM; empty for none) and the front proxies' configuration.
    ///
    /// # Errors
    /// A bundle that holds no certificate or a broken one.
    pub fn new(client_ca_pem: &str, front_proxy: Option<RequestHeaderConfig>) -> Result<Self, PkiError> {
        let client = (!client_ca_pem.is_empty()).then(|| verifier(client_ca_pem)).transpose()?;
        let client = client.map(|verifier| (verifier, client_ca_pem.to_owned()));
        let front_proxy =
            front_proxy.map(|config| Ok::<_, PkiError>((verifier(&config.ca_pem)?, config))).transpose()?;
        Ok(ClientCertificates(Arc::new(ArcSwap::from_pointee(Authorities { client, front_proxy, generation: 0 }))))
    }

    /// Believes another authority for users from now on.
    ///
    /// # Errors
    /// As [`ClientCertificates::new`]; the one of before stays.
    pub fn replace_client_ca(&self, pem: &str) -> Result<(), PkiError> {
        let client = Some((verifier(pem)?, pem.to_owned()));
        self.0.rcu(|now| Authorities {
            client: client.clone(),
            front_proxy: now.front_proxy.clone(),
            generation: now.generation + 1,
        });
        Ok(())
    }

    /// Believes another authority of front proxies from now on; names and headers stay. Nothing where
    /// there are no front proxies.
    ///
    /// # Errors
    /// As [`ClientCertificates::new`]; the one of before stays.
    pub fn replace_front_proxy_ca(&self, pem: &str) -> Result<(), PkiError> {
        let verifier = verifier(pem)?;
        self.0.rcu(|now| Authorities {
            client: now.client.clone(),
            front_proxy: now.front_proxy.as_ref().map(|(_, config)| {
                (verifier.clone(), RequestHeaderConfig { ca_pem: pem.to_owned(), ..config.clone() })
            }),
            generation: now.generation + 1,
        });
        Ok(())
    }

    /// The authority for users in PEM; empty where there is none.
    pub fn client_ca_pem(&self) -> String {
        self.0.load().client.as_ref().map(|(_, pem)| pem.clone()).unwrap_or_default()
    }

    /// Grows with each replacement: what was told of a connection's certificates before must be asked
    /// again.
    pub fn generation(&self) -> u64 {
        self.0.load().generation
    }

    /// Who the owner of a chain (leaf first) is.
    ///
    /// # Errors
    /// A certificate that is not of any authority, or names nobody properly; 401.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, AuthError> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(Peer::default()) };
        let now = UnixTime::now();
        let authorities = self.0.load();
        let mut front_proxy = false;
        if let Some((verifier, config)) = &authorities.front_proxy
            && verifier.verify_client_cert(leaf, intermediates, now).is_ok()
        {
            let name = identity_of_certificate(leaf)?.map(|u| u.name).unwrap_or_default();
            front_proxy = config.allowed_names.is_empty() || config.allowed_names.contains(&name);
        }
        // Where one authority signs both, a proxy that names nobody is itself.
        let known = authorities.client.as_ref().map(|(verifier, _)| {
            verifier.verify_client_cert(leaf, intermediates, now).map_err(|_| AuthError::UntrustedCertificate)
        });
        let user = match known {
            None if !front_proxy => return Ok(Peer::default()),
            Some(Err(error)) if !front_proxy => return Err(error),
            Some(Ok(_)) => identity_of_certificate(leaf)?.map(Arc::new),
            None | Some(Err(_)) => None,
        };
        Ok(Peer { user, front_proxy, expires: end_of_chain(chain) })
    }

    /// The user that a front proxy's headers name; ask only for such a peer.
    pub fn named_in_headers(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let authorities = self.0.load();
        let (_, config) = authorities.front_proxy.as_ref()?;
        let text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned);
        let first = |names: &[String]| names.iter().filter_map(|n| text(headers.get(n)?)).find(|v| !v.is_empty());
        let name = first(&config.username_headers)?;
        let groups: Vec<String> =
            config.group_headers.iter().flat_map(|n| headers.get_all(n).iter().filter_map(text)).collect();
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
        let authorities = self.0.load();
        let Some((_, config)) = &authorities.front_proxy else { return };
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
    pub fn request_header(&self) -> Option<RequestHeaderConfig> {
        self.0.load().front_proxy.as_ref().map(|(_, config)| config.clone())
    }
}
