//! Certificates of one more node: what its kubelet and proxy show the API server, and what its kubelet
//! serves with. Signed by the cluster's authority; nothing of them is kept here.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use super::files::{cert_path, key_path};
use super::issue::{Authority, Leaf};
use super::{CertificateKey, Identity};
use crate::PkiError;

/// What one more node needs.
#[derive(Debug)]
pub struct NodeCertificates {
    /// The cluster authority's certificate, PEM.
    pub ca_pem: String,
    /// `system:node:<name>` in `system:nodes`.
    pub kubelet: CertificateKey,
    /// `system:kube-proxy`.
    pub proxy: CertificateKey,
    /// The kubelet's own server.
    pub serving: CertificateKey,
}

/// Signs the certificates of a node with the authority in `dir`, which is not changed.
///
/// # Errors
/// No authority there, one that has expired, or a name that cannot stand in a certificate.
pub fn issue_node(dir: &Path, name: &str, addresses: &[IpAddr], now: SystemTime) -> Result<NodeCertificates, PkiError> {
    for path in [cert_path(dir, "ca"), key_path(dir, "ca")] {
        std::fs::metadata(&path).map_err(|source| PkiError::File { path, source })?;
    }
    let authority = Authority::load_or_create(dir, "ca", "kubernetes-ca", now)?;
    let client = |identity: Identity| {
        let leaf = Leaf::client(&identity.user_name(name), identity.group());
        authority.issue(&leaf, now)
    };
    let mut sans = vec![name.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    sans.extend(addresses.iter().map(IpAddr::to_string));
    let serving = Leaf::server(&Identity::Kubelet.user_name(name), Identity::Kubelet.group(), sans);
    Ok(NodeCertificates {
        kubelet: client(Identity::Kubelet)?,
        proxy: client(Identity::Proxy)?,
        serving: authority.issue(&serving, now)?,
        ca_pem: authority.cert_pem.clone(),
    })
}
