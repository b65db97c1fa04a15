//! What can go wrong, in words for whoever typed the command.

use std::path::PathBuf;

/// Why the cluster did not start, or a command about it failed. Each says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error("this needs root: it makes network links, mounts and cgroups; run it with sudo")]
    NotRoot,
    /// The kernel lacks something.
    #[error("this kernel lacks {feature}: {mend}")]
    Kernel {
        /// What.
        feature: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// Another `up` runs here.
    #[error("{dir} is in use by another ironkeel (pid {pid}); stop it, or choose another --data-dir")]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Its process.
        pid: String,
    },
    /// The directory was written by a newer version.
    #[error(
        "{dir} was written by a newer ironkeel (layout {found}, this one knows {supported}); run that version, or choose another --data-dir"
    )]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// Its layout.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// The cluster's objects are in another store.
    #[error(
        "the objects of the cluster in {dir} are in {recorded}, not in {asked}; start it with the --etcd-servers and --etcd-prefix of before, or choose another --data-dir"
    )]
    OtherStore {
        /// The data directory.
        dir: PathBuf,
        /// Where they are.
        recorded: String,
        /// Where they were looked for.
        asked: String,
    },
    /// The key of stored Secrets is gone.
    #[error(
        "{path} is missing, and Secrets in the store are encrypted with it; put the file back from a backup, or begin anew with `ironkeel reset`"
    )]
    KeyLost {
        /// Where the key belongs.
        path: PathBuf,
    },
    /// A port is taken.
    #[error(
        "cannot listen on {address}: {source}; stop what listens there, or choose another --secure-port or --bind-address"
    )]
    Port {
        /// Where.
        address: std::net::SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// A range given on the command line cannot be used.
    #[error("{flag} {value}: {reason}")]
    Range {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A version that is to be served, or not, cannot be.
    #[error("--runtime-config {0}; names are as in `kubectl api-versions`, or api/all, api/beta, api/alpha")]
    RuntimeConfig(#[from] ironkeel_apiserver::RuntimeConfigError),
    /// No range is free.
    #[error("every default pod and service range is routed on this host already; choose --pod-cidr and --service-cidr")]
    NoFreeRange,
    /// The host has no address.
    #[error("this host has no IPv4 address besides loopback; choose one with --node-ip")]
    NoAddress,
    /// A file of the data directory.
    #[error("{step} {path}: {source}")]
    File {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The record of the cluster cannot be read.
    #[error("{path} is damaged: {reason}; put it back from a backup, or `ironkeel reset` and start anew")]
    Record {
        /// Where.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Not a name for a node, or not for this one.
    #[error("node {name:?}: {reason}")]
    NodeName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Other hosts cannot reach the API server.
    #[error("other hosts cannot reach the API server at {server}; start `ironkeel up` with another --bind-address")]
    OnlyLocal {
        /// Its URL.
        server: String,
    },
    /// Not a file that a node can join with.
    #[error("{path} is no node's kubeconfig: {reason}")]
    NodeKubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The directory belongs to something else.
    #[error("{dir} holds {role}; choose another --data-dir")]
    OtherRole {
        /// The data directory.
        dir: PathBuf,
        /// What it holds.
        role: &'static str,
    },
    /// The directory belongs to another node.
    #[error("{dir} holds node {name}; choose another --data-dir, or `ironkeel reset` it first")]
    OtherNode {
        /// The data directory.
        dir: PathBuf,
        /// Its node.
        name: String,
    },
    /// The cluster gave the node another range.
    #[error(
        "the range of this node's pods was {known} and is {told} now: its Node was deleted and made anew; \
         run `ironkeel reset --data-dir {dir}` and start the node again"
    )]
    RangeChanged {
        /// The data directory.
        dir: PathBuf,
        /// What pods here have addresses of.
        known: ipnet::Ipv4Net,
        /// What the Node says.
        told: ipnet::Ipv4Net,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] ironkeel_embedded::EmbeddedError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] ironkeel_auth::PkiError),
    /// The API server could not start.
    #[error("API server: {0}")]
    ApiServer(String),
    /// A flag.
    #[error(transparent)]
    Flag(#[from] crate::flags::FlagError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] ironkeel_journal::JournalError),
    /// The pod network.
    #[error("pod network: {0}")]
    Network(#[from] ironkeel_cni::PodNetworkError),
    /// Links and routes.
    #[error(transparent)]
    Netlink(#[from] ironkeel_netlink::NetlinkError),
    /// The container runtime.
    #[error("container runtime: {0}")]
    Runtime(#[from] ironkeel_runtime::Error),
    /// Cluster DNS.
    #[error(transparent)]
    Dns(#[from] ironkeel_dns::Error),
    /// A component ended by itself.
    #[error("{component} stopped: {reason}")]
    Component {
        /// Which.
        component: &'static str,
        /// Its last words.
        reason: String,
    },
    /// A client of the cluster could not be made.
    #[error(transparent)]
    Client(#[from] ironkeel_client::Error),
    /// The cluster's answer.
    #[error("the API server at {server} does not answer: {reason}; is the cluster up?")]
    Unreachable {
        /// Its URL.
        server: String,
        /// What happened.
        reason: String,
    },
    /// Reset left something.
    #[error("{count} things could not be undone; run `ironkeel reset` again:\n{list}")]
    Reset {
        /// How many.
        count: usize,
        /// Each on a line.
        list: String,
    },
    /// Reset while it runs.
    #[error("the cluster in {dir} is still running (pid {pid}); stop it first")]
    StillRunning {
        /// The data directory.
        dir: PathBuf,
        /// Its process.
        pid: String,
    },
    /// Reset of a directory that is not a cluster's.
    #[error("{0} holds no ironkeel cluster; nothing was changed")]
    NoCluster(PathBuf),
    /// An image command failed.
    #[error("image {name}: {reason}")]
    Image {
        /// Image or archive.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { step, path, source }
    }
}
