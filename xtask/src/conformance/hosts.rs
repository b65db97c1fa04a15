//! Hosts for the cluster under test: network namespaces around a hub, each with a data directory of its own.
//!
//! The hub is a namespace too, with a bridge: nothing of the host's own network is touched. Whatever was made
//! goes when [`Hosts`] is dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::must;

/// How long the cluster may take until its nodes are Ready, in seconds.
const READY_SECONDS: u64 = 60;
/// Hosts that fit into the hub's network.
const MAX_NODES: usize = 200;
/// Pause between two looks at the nodes.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Where the etcd of a run listens, on the first host.
const ETCD: &str = "http://127.0.0.1:2379";

/// A host's address in the hub's network.
fn address(node: usize) -> String {
    format!("10.250.0.{}", node + 2)
}

/// The hosts of one run.
pub(crate) struct Hosts {
    work: PathBuf,
    binary: PathBuf,
    prefix: String,
    nodes: usize,
    running: Vec<Child>,
}

impl Hosts {
    /// Makes the network and starts the cluster.
    pub(crate) fn start(work: &Path, logs: &Path, binary: &Path, nodes: usize, etcd: Option<&Path>) -> Result<Hosts> {
        if !(1..=MAX_NODES).contains(&nodes) {
            bail!("a cluster has 1 to {MAX_NODES} hosts here, not {nodes}");
        }
        // A copy: a build may replace the file in the midst of the run.
        let own = work.join("ironkeel");
        fs::copy(binary, &own)?;
        let prefix = format!("ikc{}", std::process::id());
        let mut hosts = Hosts { work: work.to_owned(), binary: own, prefix, nodes, running: Vec::new() };
        hosts.network()?;
        let address_0 = address(0);
        let mut flags = vec!["--node-name", "node-1", "--node-ip", &address_0];
        if let Some(program) = etcd {
            hosts.etcd(program, &logs.join("etcd.log"))?;
            flags.extend(["--etcd-servers", ETCD]);
        }
        hosts.run(0, "up", &flags, &logs.join("up.log"))?;
        must(hosts.on_node(0, "status").args(["--wait", &READY_SECONDS.to_string()]))?;
        for node in 1..nodes {
            let name = format!("node-{}", node + 1);
            let kubeconfig = work.join(format!("{name}.kubeconfig"));
            let mut certificate = hosts.on_node(0, "certificate");
            certificate.args(["node", &name, "--node-ip", &address(node), "--out"]).arg(&kubeconfig);
            must(&mut certificate)?;
            let kubeconfig = kubeconfig.display().to_string();
            hosts.run(node, "node", &["--kubeconfig", &kubeconfig], &logs.join(format!("{name}.log")))?;
        }
        hosts.await_nodes()?;
        Ok(hosts)
    }

    /// Starts an etcd on the first host.
    fn etcd(&mut self, program: &Path, log: &Path) -> Result<()> {
        let log = File::create(log)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.node(0))).arg(program);
        command.arg("--data-dir").arg(self.work.join("etcd")).args(["--log-level", "warn"]);
        command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--quota-backend-bytes", "8589934592"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.running.push(command.spawn().with_context(|| format!("starting {}", program.display()))?);
        Ok(())
    }

    /// Starts a command on a host that runs until the end.
    fn run(&mut self, node: usize, verb: &str, flags: &[&str], log: &Path) -> Result<()> {
        let log = File::create(log)?;
        let mut command = self.on_node(node, verb);
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting host {}", node + 1))?;
        self.running.push(child);
        Ok(())
    }

    /// Waits until every node is Ready.
    fn await_nodes(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS);
        loop {
            let status = self.on_node(0, "status").output()?;
            let words = String::from_utf8_lossy(&status.stdout).into_owned();
            let ready = words.lines().filter(|line| line.starts_with("node ") && line.ends_with(": Ready")).count();
            if ready == self.nodes {
                return Ok(());
            }
            for (node, child) in self.running.iter_mut().enumerate() {
                if let Some(ended) = child.try_wait()? {
                    bail!("process {} of the cluster has ended: {ended}; see the logs", node + 1);
                }
            }
            if Instant::now() > deadline {
                bail!("{ready} of {} nodes are Ready after {READY_SECONDS} s:\n{words}", self.nodes);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn network(&self) -> Result<()> {
        let ip = |words: &str| must(Command::new("ip").args(words.split(' ')));
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} link add br0 type bridge"))?;
        ip(&format!("-n {hub} addr add 10.250.0.1/24 dev br0"))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        for node in 0..self.nodes {
            let name = self.node(node);
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {hub} link add node{node} type veth peer name eth0 netns {name}"))?;
            ip(&format!("-n {hub} link set node{node} master br0 up"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", address(node)))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} route add default via 10.250.0.1"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn node(&self, node: usize) -> String {
        format!("{}-{}", self.prefix, node + 1)
    }

    fn data_dir(&self, node: usize) -> PathBuf {
        self.work.join(format!("node-{}", node + 1))
    }

    /// A program in the hub: it reaches every node by its address.
    pub(crate) fn in_hub(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.hub())).arg(program);
        command
    }

    fn on_node(&self, node: usize, verb: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.node(node))).arg(&self.binary);
        command.arg(verb).arg("--data-dir").arg(self.data_dir(node));
        command
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir(0).join("admin.kubeconfig")
    }

    /// Imports an archive on every host.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        (0..self.nodes).try_for_each(|node| must(self.on_node(node, "image").arg("import").arg(archive)))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // The first host last: the others tell it that they go.
        for child in self.running.iter_mut().rev() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
        for node in 0..self.nodes {
            if let Err(error) = must(&mut self.on_node(node, "reset")) {
                eprintln!("resetting node {}: {error:#}", node + 1);
            }
            let _ = Command::new("ip").args(["netns", "del", &self.node(node)]).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.hub()]).status();
    }
}
