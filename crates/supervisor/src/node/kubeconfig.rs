//! The one file that a host joins with: a kubeconfig with the kubelet's identity and the proxy's, and,
//! as an extension of its cluster, what every node has to know alike and the kubelet's serving pair.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use ipnet::Ipv4Net;
use ironkeel_auth::pki::{self, CertificateKey};
use ironkeel_client::Kubeconfig;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::up::CLUSTER_DOMAIN;
use crate::{Error, Instance};

/// Name of the context with the proxy's identity.
pub(crate) const PROXY_CONTEXT: &str = "kube-proxy";
/// Name of the context with the kubelet's identity, and of the cluster.
const NODE_CONTEXT: &str = "ironkeel";
/// Name of the extension.
const EXTENSION: &str = "ironkeel-node";

/// What the cluster tells a node.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeFacts {
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) pod_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    pub(crate) cluster_dns: IpAddr,
    pub(crate) cluster_domain: String,
    /// The cluster's authority, PEM: who may call the kubelet.
    pub(crate) client_ca: String,
    /// The kubelet's serving certificate, PEM.
    pub(crate) serving_certificate: String,
    /// Its key, PEM.
    pub(crate) serving_key: String,
}

impl std::fmt::Debug for NodeFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeFacts").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

/// Makes the kubeconfig of one more node of the cluster in `instance`, whether it runs or not.
///
/// # Errors
/// There is no cluster here, its API server listens on loopback alone, or the name is no node's.
pub fn node_kubeconfig(instance: &Instance, name: &str, node_ip: IpAddr) -> Result<String, Error> {
    if !is_node_name(name) {
        let reason = "a node's name consists of lower case letters, digits, '-' and '.', and begins and ends with a \
                      letter or digit";
        return Err(Error::NodeName { name: name.to_owned(), reason });
    }
    let Some((ranges, own)) = instance.recorded()? else { return Err(Error::NoCluster(instance.dir.clone())) };
    if name == own {
        let reason = "it is the name of the cluster's first node, which has its certificates";
        return Err(Error::NodeName { name: name.to_owned(), reason });
    }
    let path = instance.admin_kubeconfig();
    let wrong = |reason: String| Error::Record { path: path.clone(), reason };
    let admin = Kubeconfig::read_from(&path).map_err(|e| wrong(e.to_string()))?;
    let server = admin.server().ok_or_else(|| wrong("it names no server".to_owned()))?.to_owned();
    let host = server.trim_start_matches("https://").rsplit_once(':').map_or("", |(host, _)| host);
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return Err(Error::OnlyLocal { server });
    }
    let made = pki::issue_node(&instance.dir.join("pki"), name, &[node_ip], SystemTime::now())?;
    let facts = NodeFacts {
        node_name: name.to_owned(),
        node_ip,
        pod_cidr: ranges.pod_cidr,
        service_cidr: ranges.service_cidr,
        cluster_dns: ranges.dns_service().into(),
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        client_ca: made.ca_pem.clone(),
        serving_certificate: made.serving.cert_pem.clone(),
        serving_key: made.serving.key_pem.clone(),
    };
    document(&server, &made, &facts).map_err(|e| wrong(e.to_string()))
}

fn document(server: &str, made: &pki::NodeCertificates, facts: &NodeFacts) -> Result<String, serde_yaml_ng::Error> {
    use base64::Engine as _;
    let encoded = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let user = |name: &str, pair: &CertificateKey| {
        json!({ "name": name, "user": {
            "client-certificate-data": encoded(&pair.cert_pem), "client-key-data": encoded(&pair.key_pem),
        } })
    };
    let context = |name: &str| json!({ "name": name, "context": { "cluster": NODE_CONTEXT, "user": name } });
    let extensions = json!([{ "name": EXTENSION, "extension": facts }]);
    let cluster = json!({
        "server": server, "certificate-authority-data": encoded(&made.ca_pem), "extensions": extensions,
    });
    serde_yaml_ng::to_string(&json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{ "name": NODE_CONTEXT, "cluster": cluster }],
        "users": [user(NODE_CONTEXT, &made.kubelet), user(PROXY_CONTEXT, &made.proxy)],
        "contexts": [context(NODE_CONTEXT), context(PROXY_CONTEXT)],
        "current-context": NODE_CONTEXT,
    }))
}

/// Writes a file that its owner alone may read.
///
/// # Errors
/// What the file system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    Ok(pki::write_private(path, bytes)?)
}

/// Reads what a node's kubeconfig tells beyond identities; `None` for one that was made elsewhere.
pub(crate) fn facts(path: &Path) -> Result<Option<NodeFacts>, Error> {
    let wrong = |reason: String| Error::NodeKubeconfig { path: path.to_owned(), reason };
    let file = Kubeconfig::read_from(path).map_err(|e| wrong(e.to_string()))?;
    let found = file.extension(EXTENSION).cloned();
    found.map(|value| serde_json::from_value(value).map_err(|e| wrong(e.to_string()))).transpose()
}

/// A DNS subdomain (RFC 1123).
fn is_node_name(name: &str) -> bool {
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !l.is_empty() && inner && !l.starts_with('-') && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ironkeel_auth::pki::{Identity, Pki, PkiConfig};

    use super::*;
    use crate::UpOptions;

    #[test]
    fn a_node_joins_with_one_file_and_bad_asks_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::of(dir.path()).unwrap();
        let ip: IpAddr = [192, 0, 2, 3].into();
        assert!(matches!(node_kubeconfig(&instance, "b", ip), Err(Error::NoCluster(_))));
        let options = UpOptions {
            node_name: Some("a".into()),
            pod_cidr: Some("10.200.0.0/16".parse().unwrap()),
            service_cidr: Some("10.201.0.0/16".parse().unwrap()),
            ..UpOptions::new(dir.path())
        };
        instance.decide(&options).unwrap();
        let pki = Pki::load_or_create(&dir.path().join("pki"), PkiConfig::default()).unwrap();
        let at = |url: &str| pki.write_kubeconfig(&instance.admin_kubeconfig(), url, Identity::Admin).unwrap();
        at("https://127.0.0.1:6443");
        assert!(matches!(node_kubeconfig(&instance, "b", ip), Err(Error::OnlyLocal { .. })));
        at("https://192.0.2.2:6443");
        for bad in ["", "B", "a_b", "-a", "a..b", "a"] {
            assert!(matches!(node_kubeconfig(&instance, bad, ip), Err(Error::NodeName { .. })), "{bad:?}");
        }
        let path = dir.path().join("b.kubeconfig");
        std::fs::write(&path, node_kubeconfig(&instance, "b", ip).unwrap()).unwrap();
        let read = facts(&path).unwrap().unwrap();
        assert_eq!((read.node_name.as_str(), read.node_ip), ("b", ip));
        assert_eq!(read.cluster_dns, IpAddr::from([10, 201, 0, 10]));
        assert!(read.serving_key.contains("PRIVATE KEY") && !format!("{read:?}").contains("PRIVATE KEY"));
        assert!(facts(&instance.admin_kubeconfig()).unwrap().is_none());
    }
}
