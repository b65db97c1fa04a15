//! One cluster on this host: its directory, its names, and what was decided at its first start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Layout of the data directory; raised when an older ironkeel could not read it any more.
const LAYOUT: u32 = 1;
/// Where the data of a cluster lives when nothing else is said.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/ironkeel";
/// Below it, sockets and namespaces of every cluster of this host.
pub(crate) const SHARED_RUN_DIR: &str = "/run/ironkeel";
/// Candidates for the ranges: 10.(42+2i).0.0/16 for pods and 10.(43+2i).0.0/16 for Services.
const RANGE_CANDIDATES: u8 = 100;

/// What `ironkeel up` was asked for; `None` leaves the choice to us.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the API server listens.
    pub bind_address: IpAddr,
    /// Its port.
    pub secure_port: u16,
    /// Name of this node.
    pub node_name: Option<String>,
    /// Address of this node.
    pub node_ip: Option<IpAddr>,
    /// Pods' addresses.
    pub pod_cidr: Option<Ipv4Net>,
    /// Services' addresses.
    pub service_cidr: Option<Ipv4Net>,
    /// Leave pods running at the end.
    pub keep_pods: bool,
    /// (registry, mirror) pairs: pulls try the mirror first.
    pub registry_mirrors: Vec<(String, String)>,
    /// Versions that are served besides the stable ones, or not (`--runtime-config` of kube-apiserver).
    pub runtime_config: Vec<String>,
    /// The etcd that keeps the objects; `None` for the embedded store.
    pub etcd: Option<ironkeel_etcd::Config>,
}

impl UpOptions {
    /// Defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        UpOptions {
            data_dir: data_dir.into(),
            bind_address: Ipv4Addr::UNSPECIFIED.into(),
            secure_port: 6443,
            node_name: None,
            node_ip: None,
            pod_cidr: None,
            service_cidr: None,
            keep_pods: false,
            registry_mirrors: Vec::new(),
            runtime_config: Vec::new(),
            etcd: None,
        }
    }

    /// The API server's address and port.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.secure_port)
    }
}

/// Address ranges of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranges {
    /// Pods.
    pub pod_cidr: Ipv4Net,
    /// Services.
    pub service_cidr: Ipv4Net,
}

impl Ranges {
    /// The API's own Service.
    pub fn api_service(&self) -> Ipv4Addr {
        nth(self.service_cidr, 1)
    }

    /// The Service of cluster DNS.
    pub fn dns_service(&self) -> Ipv4Addr {
        nth(self.service_cidr, 10)
    }

    /// The pods of this, the first node.
    pub fn node_pod_cidr(&self) -> Ipv4Net {
        let prefix = self.pod_cidr.prefix_len().max(24);
        Ipv4Net::new_assert(self.pod_cidr.network(), prefix)
    }
}

fn nth(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + n)
}

/// `cluster.json`: what may not change once there is data.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    layout: u32,
    #[serde(flatten)]
    ranges: Ranges,
    node_name: String,
    /// Its objects' prefix in an etcd; absent when they are in the embedded store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etcd_prefix: Option<String>,
}

/// A cluster's directory and names.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The data directory, absolute.
    pub dir: PathBuf,
    /// Six characters that tell its links from other clusters'.
    pub tag: String,
    /// Name of its nftables table and cgroup.
    pub name: String,
}

impl Instance {
    /// The cluster in `dir`; the directory need not exist.
    pub fn of(dir: &Path) -> Result<Instance, Error> {
        let dir = std::path::absolute(dir).map_err(Error::file("resolving", dir))?;
        let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let tag: String = digest.iter().take(3).map(|b| format!("{b:02x}")).collect();
        let name = if dir == Path::new(DEFAULT_DATA_DIR) { "ironkeel".to_owned() } else { format!("ironkeel-{tag}") };
        Ok(Instance { dir, tag, name })
    }

    /// Sockets and namespaces; on a file system that a reboot empties.
    pub fn run_dir(&self) -> PathBuf {
        Path::new(SHARED_RUN_DIR).join(&self.tag)
    }

    /// The socket of `ironkeel image`.
    pub fn image_socket(&self) -> PathBuf {
        self.run_dir().join("image.sock")
    }

    /// The container runtime's CRI socket.
    pub fn cri_socket(&self) -> PathBuf {
        self.run_dir().join("cri.sock")
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// The journal of what was made on this host.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// Whether the directory holds a cluster.
    pub fn exists(&self) -> bool {
        self.record_path().is_file() || self.journal().is_file()
    }

    /// What was decided at the first start: ranges and the node's name; `None` when there was none.
    pub(crate) fn recorded(&self) -> Result<Option<(Ranges, String)>, Error> {
        Ok(self.record()?.map(|record| (record.ranges, record.node_name)))
    }

    /// Under which prefix of an etcd the objects are; `None` when the store is embedded.
    pub(crate) fn etcd_prefix(&self) -> Result<Option<String>, Error> {
        Ok(self.record()?.and_then(|record| record.etcd_prefix))
    }

    fn record(&self) -> Result<Option<Record>, Error> {
        let path = self.record_path();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, &e))?;
                let found = value["layout"].as_u64().unwrap_or(0) as u32;
                if found > LAYOUT {
                    return Err(Error::Newer { dir: self.dir.clone(), found, supported: LAYOUT });
                }
                Ok(Some(serde_json::from_value(value).map_err(|e| damaged(&path, &e))?))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("reading", &path)(e)),
        }
    }

    /// Reads what was decided at the first start, or decides it now. Ranges that differ from the
    /// recorded ones are refused: objects hold addresses of the old ones.
    pub fn decide(&self, options: &UpOptions) -> Result<(Ranges, String), Error> {
        let etcd_prefix = options.etcd.as_ref().map(|etcd| etcd.prefix.clone());
        if let Some(Record { ranges, node_name, etcd_prefix: recorded, .. }) = self.record()? {
            keep("--pod-cidr", options.pod_cidr, ranges.pod_cidr)?;
            keep("--service-cidr", options.service_cidr, ranges.service_cidr)?;
            if recorded != etcd_prefix {
                let said = |prefix: Option<String>| match prefix {
                    Some(prefix) => format!("an etcd under {prefix}"),
                    None => "the embedded store".to_owned(),
                };
                let (recorded, asked) = (said(recorded), said(etcd_prefix));
                return Err(Error::OtherStore { dir: self.dir.clone(), recorded, asked });
            }
            return Ok((ranges, options.node_name.clone().unwrap_or(node_name)));
        }
        let path = self.record_path();
        let ranges = choose_ranges(options)?;
        let node_name = options.node_name.clone().unwrap_or_else(host_name);
        let record = Record { layout: LAYOUT, ranges, node_name: node_name.clone(), etcd_prefix };
        let bytes = serde_json::to_vec_pretty(&record).map_err(|e| damaged(&path, &e))?;
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, bytes).map_err(Error::file("writing", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(Error::file("writing", &path))?;
        Ok((ranges, node_name))
    }
}

fn damaged(path: &Path, e: &serde_json::Error) -> Error {
    Error::Record { path: path.to_owned(), reason: e.to_string() }
}

fn keep(flag: &'static str, asked: Option<Ipv4Net>, recorded: Ipv4Net) -> Result<(), Error> {
    match asked {
        Some(asked) if asked.trunc() != recorded => Err(Error::Range {
            flag,
            value: asked.to_string(),
            reason: format!("this cluster was made with {recorded}, and its objects hold addresses of it"),
        }),
        _ => Ok(()),
    }
}

/// The host's name in lower case, as a Node may be called.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "node".to_owned() } else { name }
}

fn choose_ranges(options: &UpOptions) -> Result<Ranges, Error> {
    let check = |flag, net: Option<Ipv4Net>, longest| match net {
        Some(net) if net.prefix_len() > longest => Err(Error::Range {
            flag,
            value: net.to_string(),
            reason: format!("the range is too small: /{longest} is the least"),
        }),
        net => Ok(net.map(|n| n.trunc())),
    };
    let pods = check("--pod-cidr", options.pod_cidr, 28)?;
    let services = check("--service-cidr", options.service_cidr, 28)?;
    if let (Some(pods), Some(services)) = (pods, services) {
        if overlaps(pods, services) {
            let reason = format!("overlaps with --service-cidr {services}");
            return Err(Error::Range { flag: "--pod-cidr", value: pods.to_string(), reason });
        }
        return Ok(Ranges { pod_cidr: pods, service_cidr: services });
    }
    let taken = taken_ranges()?;
    let free = |net: Ipv4Net| !taken.iter().any(|t| overlaps(*t, net));
    let candidate = |i: u8, offset: u8| Ipv4Net::new_assert(Ipv4Addr::new(10, 42 + 2 * i + offset, 0, 0), 16);
    for i in 0..RANGE_CANDIDATES {
        let pod_cidr = pods.unwrap_or_else(|| candidate(i, 0));
        let service_cidr = services.unwrap_or_else(|| candidate(i, 1));
        let fits = (pods.is_some() || free(pod_cidr)) && (services.is_some() || free(service_cidr));
        if fits && !overlaps(pod_cidr, service_cidr) {
            return Ok(Ranges { pod_cidr, service_cidr });
        }
    }
    Err(Error::NoFreeRange)
}

fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// What this host routes already, other clusters' ranges included; not the default route.
fn taken_ranges() -> Result<Vec<Ipv4Net>, Error> {
    let mut socket = ironkeel_netlink::Socket::route()?;
    let routes = socket.routes()?.into_iter().map(|r| r.destination);
    let addresses = socket.addresses()?.into_iter().map(|(_, a)| a);
    Ok(routes
        .chain(addresses)
        .filter_map(|net| match net {
            ipnet::IpNet::V4(net) if net.prefix_len() > 0 => Some(net.trunc()),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(dir: &Path) -> UpOptions {
        UpOptions {
            pod_cidr: Some("10.200.0.0/16".parse().unwrap()),
            service_cidr: Some("10.201.0.0/16".parse().unwrap()),
            ..UpOptions::new(dir)
        }
    }

    #[test]
    fn ranges_are_decided_once_and_a_newer_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::of(dir.path()).unwrap();
        let first = options(dir.path());
        let (ranges, name) = instance.decide(&first).unwrap();
        assert_eq!(ranges.dns_service(), Ipv4Addr::new(10, 201, 0, 10));
        assert_eq!(ranges.node_pod_cidr().to_string(), "10.200.0.0/24");
        let silent = UpOptions { pod_cidr: None, service_cidr: None, ..first.clone() };
        assert_eq!(instance.decide(&silent).unwrap(), (ranges, name));
        let other = UpOptions { pod_cidr: Some("10.9.0.0/16".parse().unwrap()), ..first.clone() };
        let error = instance.decide(&other).unwrap_err().to_string();
        assert!(error.contains("--pod-cidr 10.9.0.0/16") && error.contains("10.200.0.0/16"), "{error}");
        let etcd = Some(ironkeel_etcd::Config::default());
        let elsewhere = instance.decide(&UpOptions { etcd, ..first.clone() }).unwrap_err().to_string();
        assert!(elsewhere.contains("the embedded store") && elsewhere.contains("/registry"), "{elsewhere}");
        let path = dir.path().join("cluster.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"layout\": 1", "\"layout\": 99");
        std::fs::write(&path, text).unwrap();
        assert!(matches!(instance.decide(&first), Err(Error::Newer { found: 99, .. })));
    }

    #[test]
    fn overlapping_and_tiny_ranges_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::of(dir.path()).unwrap();
        let with = |pods: &str| UpOptions { pod_cidr: Some(pods.parse().unwrap()), ..options(dir.path()) };
        assert!(matches!(instance.decide(&with("10.201.5.0/24")), Err(Error::Range { flag: "--pod-cidr", .. })));
        assert!(matches!(instance.decide(&with("10.202.5.0/30")), Err(Error::Range { flag: "--pod-cidr", .. })));
    }

    #[test]
    fn every_directory_has_names_of_its_own() {
        let default = Instance::of(Path::new(DEFAULT_DATA_DIR)).unwrap();
        assert_eq!(default.name, "ironkeel");
        let other = Instance::of(Path::new("/srv/two")).unwrap();
        assert_eq!(other.name, format!("ironkeel-{}", other.tag));
        assert_ne!(default.tag, other.tag);
    }
}
