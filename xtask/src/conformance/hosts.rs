//! Hosts for the cluster under test: network namespaces around a hub, each with a data directory of its own.
//!
//! The hub is a namespace too, with a bridge: nothing of the host's own network is touched. Whatever was made
//! goes when [`Hosts`] is dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::must;

/// How long the cluster may take until its node is Ready, in seconds.
const READY_SECONDS: &str = "60";

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
    pub(crate) fn start(work: &Path, logs: &Path, binary: &Path, nodes: usize) -> Result<Hosts> {
        if nodes != 1 {
            bail!(
                "a cluster of {nodes} hosts cannot be made yet: the binary has no command that joins one; say --nodes 1"
            );
        }
        // A copy: a build may replace the file in the midst of the run.
        let own = work.join("ironkeel");
        fs::copy(binary, &own)?;
        let prefix = format!("ikc{}", std::process::id());
        let mut hosts = Hosts { work: work.to_owned(), binary: own, prefix, nodes, running: Vec::new() };
        hosts.network()?;
        let log = File::create(logs.join("up.log"))?;
        let up = hosts
            .on_node(0, "up")
            .args(["--node-name", "node-1", "--node-ip", "10.250.0.2"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the cluster")?;
        hosts.running.push(up);
        must(hosts.on_node(0, "status").args(["--wait", READY_SECONDS]))?;
        Ok(hosts)
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
            ip(&format!("-n {name} addr add 10.250.0.{}/24 dev eth0", node + 2))?;
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
        for child in &mut self.running {
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
