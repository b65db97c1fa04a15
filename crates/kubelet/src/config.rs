//! The kubelet's configuration, as its caller gives it. Nothing here is read from files or flags: the
//! command line and KubeletConfiguration files are the caller's business.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ironkeel_journal::Journal;
use k8s_openapi::api::core::v1::Taint;

/// How the cgroup tree is laid out below the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Plain directories, written by the kubelet.
    #[default]
    Cgroupfs,
    /// Slices: the kubelet only names them, systemd makes them.
    Systemd,
}

/// The server's certificate and key, PEM or DER.
#[derive(Clone)]
pub struct ServingCertificate {
    /// Chain, leaf first.
    pub certificate: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1 private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServingCertificate(..)")
    }
}

/// When pods are evicted: available below the threshold.
#[derive(Clone, Copy, Debug)]
pub struct EvictionThresholds {
    /// Available memory, bytes.
    pub memory_available_bytes: u64,
    /// Available space of the node's file system, percent of its capacity.
    pub nodefs_available_percent: u64,
    /// Free inodes of the node's file system, percent.
    pub nodefs_inodes_free_percent: u64,
    /// Free process ids, percent of the kernel's limit.
    pub pid_available_percent: u64,
    /// How long a pressure condition stays after the pressure has gone.
    pub pressure_transition_period: Duration,
}

impl Default for EvictionThresholds {
    fn default() -> Self {
        Self {
            memory_available_bytes: 100 << 20,
            nodefs_available_percent: 10,
            nodefs_inodes_free_percent: 5,
            pid_available_percent: 5,
            pressure_transition_period: Duration::from_secs(300),
        }
    }
}

/// When images are deleted.
#[derive(Clone, Copy, Debug)]
pub struct ImageGcThresholds {
    /// Disk usage that starts a collection, percent.
    pub high_percent: u64,
    /// Disk usage that a collection aims for, percent.
    pub low_percent: u64,
    /// Images younger than this stay.
    pub minimum_age: Duration,
}

impl Default for ImageGcThresholds {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, minimum_age: Duration::from_secs(120) }
    }
}

/// Everything that the kubelet is told.
pub struct Config {
    /// The Node's name.
    pub node_name: String,
    /// The value of the hostname label and address; usually the node name.
    pub hostname: String,
    /// The node's addresses, the preferred one first.
    pub node_ips: Vec<IpAddr>,
    /// Where pods' directories and volumes live (`DIR/kubelet`).
    pub root_dir: PathBuf,
    /// Where containers' logs are written (`/var/log/pods`).
    pub pod_logs_dir: PathBuf,
    /// Directory of static pods' manifests.
    pub static_pods_dir: Option<PathBuf>,
    /// Name servers of pods with dnsPolicy ClusterFirst.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain, `cluster.local`.
    pub cluster_domain: String,
    /// The host's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Root of pods' cgroups, for example `/ironkeel-1a2b3c`; a sub-tree `kubepods` is not added.
    pub cgroup_root: String,
    /// Layout of the cgroup tree.
    pub cgroup_driver: CgroupDriver,
    /// Pods that fit.
    pub max_pods: u32,
    /// Address and port of the HTTPS server; port 0 takes any free one.
    pub listen: SocketAddr,
    /// A listener that is bound already; `listen` is ignored then.
    pub listener: Option<std::net::TcpListener>,
    /// Certificate and key of the server; a self-signed one is made when absent.
    pub serving: Option<ServingCertificate>,
    /// Certificates (PEM) of the authority whose client certificates are accepted.
    pub client_ca: Option<Vec<u8>>,
    /// Eviction thresholds.
    pub eviction: EvictionThresholds,
    /// Image garbage collection thresholds.
    pub image_gc: ImageGcThresholds,
    /// Resources that pods do not get (system and kube reserved), as quantities.
    pub reserved: BTreeMap<String, String>,
    /// Whether the Node is made when it is not there; otherwise it is waited for.
    pub register_node: bool,
    /// Taints that the Node is registered with.
    pub register_with_taints: Vec<Taint>,
    /// Labels that the Node is registered with.
    pub labels: BTreeMap<String, String>,
    /// Image pulls at the same time.
    pub max_parallel_image_pulls: usize,
    /// Size at which a container's log is rotated, bytes.
    pub container_log_max_bytes: u64,
    /// Files kept for a container's log, the current one included.
    pub container_log_max_files: usize,
    /// What is written down of things made on the host.
    pub journal: Option<Arc<Journal>>,
    /// `v1.36.x`, reported in the Node's status.
    pub version: String,
    /// `spec.providerID` of a new Node.
    pub provider_id: Option<String>,
    /// Scheme of container ids in statuses; `None` takes the runtime's name.
    pub container_id_scheme: Option<String>,
}

impl Config {
    /// Upstream's defaults for a node named `node_name` that keeps its state in `root_dir`.
    pub fn new(node_name: impl Into<String>, root_dir: impl Into<PathBuf>) -> Self {
        let node_name = node_name.into();
        Self {
            hostname: node_name.clone(),
            node_name,
            node_ips: Vec::new(),
            root_dir: root_dir.into(),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            static_pods_dir: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cgroup_root: "/kubepods".into(),
            cgroup_driver: CgroupDriver::default(),
            max_pods: 110,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10250),
            listener: None,
            serving: None,
            client_ca: None,
            eviction: EvictionThresholds::default(),
            image_gc: ImageGcThresholds::default(),
            reserved: BTreeMap::new(),
            register_node: true,
            register_with_taints: Vec::new(),
            labels: BTreeMap::new(),
            max_parallel_image_pulls: 4,
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            journal: None,
            version: "v1.36.2".into(),
            provider_id: None,
            container_id_scheme: None,
        }
    }
}
