//! The cluster's certificates: two authorities, the servers' and the components' certificates, and
//! the ServiceAccount key, kept in one directory under kubeadm's names.
//!
//! Made once; at each start what would expire soon, belongs to another authority, or names other
//! addresses than the host has now is made again. What does not live here: signing of
//! CertificateSigningRequests (a controller's work).

mod files;
mod issue;
mod kubeconfig;
mod node;
mod serving;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use files::{create_private_dir, write_private};
pub(crate) use files::{read as read_file, read_private as read_private_file, write_public as write_public_file};
pub use kubeconfig::{kubeconfig, kubeconfig_with_token};
pub use node::{NodeCertificates, issue_node};
pub use serving::{ReplaceableCertificates, ServingCertificates, self_signed, self_signed_pem};
pub use tls::{AnyCertificate, api_server_tls, api_server_tls_with};

use crate::PkiError;
use crate::token::{KeySet, SigningKey};
use issue::{Authority, Leaf};

/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long any other certificate is valid.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate that expires sooner than this is made again at start.
pub const RENEW_BEFORE: Duration = Duration::from_secs(90 * 24 * 3600);

/// What the certificates are for.
#[derive(Clone, Debug)]
pub struct PkiConfig {
    /// This host's Node name.
    pub node_name: String,
    /// This host's addresses.
    pub node_ips: Vec<IpAddr>,
    /// Where the API server listens; an unspecified address is left out.
    pub bind_address: Option<IpAddr>,
    /// The first address of each Service range (`kubernetes.default`).
    pub service_ips: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// More DNS names or addresses for the API server's certificate.
    pub extra_sans: Vec<String>,
    /// The time that validity is counted from.
    pub now: SystemTime,
}

impl Default for PkiConfig {
    fn default() -> Self {
        PkiConfig {
            node_name: "localhost".to_owned(),
            node_ips: Vec::new(),
            bind_address: None,
            service_ips: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            extra_sans: Vec::new(),
            now: SystemTime::now(),
        }
    }
}

/// Who a client certificate stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// `kubernetes-admin` in `system:masters`.
    Admin,
    /// `system:kube-scheduler`.
    Scheduler,
    /// `system:kube-controller-manager`.
    ControllerManager,
    /// `system:kube-proxy`.
    Proxy,
    /// The cluster DNS: ServiceAccount `kube-system/coredns`.
    Dns,
    /// `system:node:<name>` in `system:nodes`.
    Kubelet,
    /// The API server towards the kubelet: `kube-apiserver-kubelet-client` in `system:masters`.
    ApiServerKubeletClient,
}

impl Identity {
    /// All of them.
    pub const ALL: [Identity; 7] = [
        Identity::Admin,
        Identity::Scheduler,
        Identity::ControllerManager,
        Identity::Proxy,
        Identity::Dns,
        Identity::Kubelet,
        Identity::ApiServerKubeletClient,
    ];

    /// Name of the files, without the ending.
    pub fn file_name(self) -> &'static str {
        match self {
            Identity::Admin => "admin",
            Identity::Scheduler => "scheduler",
            Identity::ControllerManager => "controller-manager",
            Identity::Proxy => "proxy",
            Identity::Dns => "dns",
            Identity::Kubelet => "kubelet-client",
            Identity::ApiServerKubeletClient => "apiserver-kubelet-client",
        }
    }

    /// User name.
    pub fn user_name(self, node_name: &str) -> String {
        match self {
            Identity::Admin => "kubernetes-admin".to_owned(),
            Identity::Scheduler => "system:kube-scheduler".to_owned(),
            Identity::ControllerManager => "system:kube-controller-manager".to_owned(),
            Identity::Proxy => "system:kube-proxy".to_owned(),
            Identity::Dns => "system:serviceaccount:kube-system:coredns".to_owned(),
            Identity::Kubelet => format!("system:node:{node_name}"),
            Identity::ApiServerKubeletClient => "kube-apiserver-kubelet-client".to_owned(),
        }
    }

    /// Group, where it has one.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Identity::Admin | Identity::ApiServerKubeletClient => Some(crate::UserInfo::MASTERS),
            Identity::Kubelet => Some("system:nodes"),
            Identity::Dns => Some("system:serviceaccounts"),
            _ => None,
        }
    }

    /// The user that the API server sees; for the in-process transport, which stamps it.
    pub fn user(self, node_name: &str) -> crate::UserInfo {
        crate::UserInfo::new(self.user_name(node_name), self.group())
    }
}

/// A certificate and its key.
pub struct CertificateKey {
    /// The certificate in PEM.
    pub cert_pem: String,
    /// The key in PEM (PKCS #8). Never log it.
    pub key_pem: String,
    /// The certificate in DER.
    pub cert_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl CertificateKey {
    /// The key in DER.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key_der.clone().into())
    }
}

impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateKey(..)")
    }
}

/// The cluster's certificates and keys.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    node_name: String,
    now: SystemTime,
    authority: Authority,
    front_proxy: Authority,
    api_server: CertificateKey,
    kubelet_serving: CertificateKey,
    front_proxy_client: CertificateKey,
    clients: Vec<(Identity, CertificateKey)>,
    service_account: SigningKey,
    service_account_public: KeySet,
}

impl Pki {
    /// Reads the certificates of `dir`, and makes those that are missing or no longer fit.
    /// Directories get mode 0700, keys 0600.
    ///
    /// # Errors
    /// A file that cannot be read, parsed or written; an authority that has expired.
    pub fn load_or_create(dir: &Path, config: PkiConfig) -> Result<Pki, PkiError> {
        create_private_dir(dir)?;
        let now = config.now;
        let authority = Authority::load_or_create(dir, "ca", "kubernetes-ca", now)?;
        let front_proxy = Authority::load_or_create(dir, "front-proxy-ca", "kubernetes-front-proxy-ca", now)?;
        let server = Leaf::server("kube-apiserver", None, config.api_server_sans());
        let api_server = authority.load_or_issue(dir, "apiserver", &server, now)?;
        let node = format!("system:node:{}", config.node_name);
        let serving = Leaf::server(&node, Some("system:nodes"), config.kubelet_sans());
        let kubelet_serving = authority.load_or_issue(dir, "kubelet", &serving, now)?;
        let front_client = Leaf::client("front-proxy-client", None);
        let front_proxy_client = front_proxy.load_or_issue(dir, "front-proxy-client", &front_client, now)?;
        let mut clients = Vec::with_capacity(Identity::ALL.len());
        for identity in Identity::ALL {
            let leaf = Leaf::client(&identity.user_name(&config.node_name), identity.group());
            clients.push((identity, authority.load_or_issue(dir, identity.file_name(), &leaf, now)?));
        }
        let service_account = SigningKey::load_or_create(dir)?;
        let mut service_account_public = KeySet::default();
        service_account_public.add_signing_key(&service_account);
        service_account_public.add_directory(dir)?;
        Ok(Pki {
            dir: dir.to_owned(),
            node_name: config.node_name,
            now,
            authority,
            front_proxy,
            api_server,
            kubelet_serving,
            front_proxy_client,
            clients,
            service_account,
            service_account_public,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The Node's name that the kubelet's certificates carry.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The cluster authority's certificate, PEM (`kube-root-ca.crt`).
    pub fn ca_pem(&self) -> &str {
        &self.authority.cert_pem
    }

    /// The cluster authority's certificate, DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.authority.cert_der
    }

    /// The front-proxy authority's certificate, PEM (`requestheader-client-ca-file`).
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy.cert_pem
    }

    /// The API server's serving certificate.
    pub fn api_server(&self) -> &CertificateKey {
        &self.api_server
    }

    /// The kubelet's serving certificate.
    pub fn kubelet_serving(&self) -> &CertificateKey {
        &self.kubelet_serving
    }

    /// The aggregator's client certificate towards extension API servers.
    pub fn front_proxy_client(&self) -> &CertificateKey {
        &self.front_proxy_client
    }

    /// A component's client certificate.
    pub fn client(&self, identity: Identity) -> &CertificateKey {
        let found = self.clients.iter().find(|(i, _)| *i == identity);
        &found.expect("load_or_create makes one for each identity").1
    }

    /// Makes a client certificate for anyone; it is not kept.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn issue_client(&self, user: &str, group: Option<&str>) -> Result<CertificateKey, PkiError> {
        self.authority.issue(&Leaf::client(user, group), self.now)
    }

    /// The key that signs ServiceAccount tokens.
    pub fn service_account_key(&self) -> &SigningKey {
        &self.service_account
    }

    /// The keys that verify ServiceAccount tokens: the signing key's and each `sa-*.pub` of the
    /// directory (keys of before a rotation).
    pub fn service_account_public_keys(&self) -> &KeySet {
        &self.service_account_public
    }

    /// A kubeconfig for `identity`.
    pub fn kubeconfig(&self, server_url: &str, identity: Identity) -> String {
        let client = self.client(identity);
        kubeconfig(server_url, self.ca_pem(), &client.cert_pem, &client.key_pem)
    }

    /// Writes a kubeconfig for `identity` with mode 0600.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_kubeconfig(&self, path: &Path, server_url: &str, identity: Identity) -> Result<(), PkiError> {
        write_private(path, self.kubeconfig(server_url, identity).as_bytes())
    }
}

impl PkiConfig {
    fn api_server_sans(&self) -> Vec<String> {
        let mut sans: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
        sans.push(format!("kubernetes.default.svc.{}", self.cluster_domain));
        sans.push("localhost".to_owned());
        sans.push(self.node_name.clone());
        sans.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        let bind = self.bind_address.filter(|ip| !ip.is_unspecified());
        sans.extend(self.node_ips.iter().chain(&self.service_ips).chain(&bind).map(IpAddr::to_string));
        sans.extend(self.extra_sans.iter().cloned());
        sans
    }

    fn kubelet_sans(&self) -> Vec<String> {
        let mut sans = vec![self.node_name.clone(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        sans.extend(self.node_ips.iter().map(IpAddr::to_string));
        sans
    }
}
