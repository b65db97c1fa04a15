//! One more host of a [`Cluster`]: `ironkeel node`, in a network namespace and with a data directory of
//! its own. Dropping it stops it and resets what it made.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::run::{self, Output};
use crate::tools::say;
use crate::{Cluster, Error, NetworkNamespace, Outcome, tools};

/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A node that runs, or will again.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    namespace: NetworkNamespace,
    process: Option<Child>,
    dir: TempDir,
}

impl Node {
    /// Makes the node's kubeconfig on the first host, imports the images here, and starts the node. Does
    /// not wait until it is Ready.
    pub fn join(cluster: &Cluster, name: &str, namespace: &NetworkNamespace) -> Outcome<Node> {
        let dir = tempfile::Builder::new().prefix("ironkeel-test-").tempdir().map_err(Error::io("a folder"))?;
        let mut node = Node { binary: cluster.binary().to_owned(), namespace: namespace.clone(), process: None, dir };
        let address = namespace.address().to_string();
        let kubeconfig = node.kubeconfig().display().to_string();
        cluster.ironkeel(&["certificate", "node", name, "--node-ip", &address, "--out", &kubeconfig])?.done()?;
        let archives = tools::images()?;
        let archives: Vec<&str> = archives.iter().filter_map(|p| p.to_str()).collect();
        node.ironkeel(&[&["image", "import"], archives.as_slice()].concat())?.done()?;
        node.start(cluster)?;
        Ok(node)
    }

    /// Starts it on the same data.
    pub fn start(&mut self, cluster: &Cluster) -> Outcome {
        let log = File::options().create(true).append(true).open(self.log_path()).map_err(Error::io("node.log"))?;
        let mut command = cluster.clean(self.namespace.command_ended_by(&self.binary, libc::SIGINT));
        command.arg("node").arg("--data-dir").arg(self.data_dir()).arg("--kubeconfig").arg(self.kubeconfig());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().map_err(Error::io("starting `ironkeel node`"))?);
        Ok(())
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &NetworkNamespace {
        &self.namespace
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The file that it joins with.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("node.kubeconfig")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("node.log")
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|l| String::from_utf8_lossy(&l).into_owned()).unwrap_or_default()
    }

    /// Runs the binary with a subcommand, on this node's data directory.
    pub fn ironkeel(&self, args: &[&str]) -> Outcome<Output> {
        let (verb, rest) = args.split_first().unwrap_or((&"--help", &[]));
        let mut command: Command = self.namespace.command(&self.binary);
        command.arg(verb).arg("--data-dir").arg(self.data_dir()).args(rest);
        run::finish(command, None, run::LONG)
    }

    /// Kills the main process without a word.
    pub fn kill9(&mut self) -> Outcome {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.kill().map_err(Error::io("kill -9"))?;
        process.wait().map(drop).map_err(Error::io("reaping"))
    }

    /// Stops it as Ctrl-C does; the exit code.
    pub fn stop(&mut self) -> Outcome<i32> {
        let Some(mut process) = self.process.take() else { return Ok(0) };
        // When it has ended by itself, its exit code tells.
        let _ = kill(Pid::from_raw(process.id() as i32), Signal::SIGINT);
        match run::wait(&mut process, STOP_LIMIT) {
            Some(status) => Ok(status.code().unwrap_or(-1)),
            None => {
                process.kill().and_then(|()| process.wait()).map_err(Error::io("kill -9"))?;
                Err(Error::Timeout { what: "the end of `node`".into(), limit: STOP_LIMIT, last: self.log() })
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("the node's words:\n{}", self.log()));
        }
        if let Err(error) = self.stop() {
            say(&format!("stopping the node: {error}"));
        }
        if !self.data_dir().exists() {
            return;
        }
        if let Err(error) = self.ironkeel(&["reset"]).and_then(Output::ok) {
            say(&format!("resetting the node: {error}"));
        }
    }
}
