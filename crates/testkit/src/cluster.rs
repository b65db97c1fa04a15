//! A cluster as a user has one: the real binary, in a network namespace and with a data directory of
//! its own. Dropping it stops it and resets what it made.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::namespace::HOST_ADDRESS;
use crate::run::{self, Background, Output};
use crate::tools::{self, Tool, say};
use crate::{Error, NetworkNamespace, Outcome, expect, http};

/// How long a cluster may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Free disk that a cluster needs to keep its pods, percent: below 10 the kubelet evicts them.
const FREE_DISK_PERCENT: u64 = 12;
/// Variables that would lead the commands elsewhere.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `ironkeel` binary: `env!("CARGO_BIN_EXE_ironkeel")` in its own tests.
    pub binary: PathBuf,
    /// Where it runs; a new one by default.
    pub namespace: Option<NetworkNamespace>,
    /// The API server's port.
    pub secure_port: u16,
    /// More flags of `up`.
    pub flags: Vec<String>,
    /// Variables in the environment of `up`.
    pub environment: Vec<(String, OsString)>,
    /// Whether the images of `cargo xtask images` are imported.
    pub images: bool,
}

impl Options {
    /// The usual cluster, with images. `IRONKEEL_TEST_BINARY` names another build to test.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let binary = std::env::var_os("IRONKEEL_TEST_BINARY").map_or_else(|| binary.into(), PathBuf::from);
        Options { binary, namespace: None, secure_port: 6443, flags: Vec::new(), environment: Vec::new(), images: true }
    }
}

/// Whether pods would stay: an eviction looks like anything but a full disk to who waits for a rollout.
fn enough_disk(dir: &Path) -> Outcome {
    let disk = statvfs(dir).map_err(|e| Error::io("the free disk")(e.into()))?;
    let free = disk.blocks_available().saturating_mul(100) / disk.blocks().max(1);
    let needed = format!("{FREE_DISK_PERCENT}% at least, or the kubelet evicts the tests' pods");
    expect("free disk", needed, format!("{free}% under {}", dir.display()), free >= FREE_DISK_PERCENT)
}

/// A cluster that runs, or will again.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    namespace: NetworkNamespace,
    process: Option<Child>,
    /// From the start of the process until `status` called it ready.
    ready_after: Duration,
    dir: TempDir,
}

impl Cluster {
    /// Starts one and waits until it is ready.
    pub fn start(options: Options) -> Outcome<Cluster> {
        let namespace = match &options.namespace {
            Some(namespace) => namespace.clone(),
            None => NetworkNamespace::new()?,
        };
        let dir = tempfile::Builder::new().prefix("ironkeel-test-").tempdir().map_err(Error::io("a folder"))?;
        enough_disk(dir.path())?;
        std::fs::create_dir(dir.path().join("home")).map_err(Error::io("a folder"))?;
        let images = options.images;
        let mut cluster = Cluster { options, namespace, process: None, ready_after: Duration::ZERO, dir };
        cluster.restart()?;
        if images {
            let archives = tools::images()?;
            let archives: Vec<&str> = archives.iter().filter_map(|p| p.to_str()).collect();
            cluster.ironkeel(&[&["image", "import"], archives.as_slice()].concat())?.ok()?;
        }
        Ok(cluster)
    }

    /// The binary that it runs.
    pub fn binary(&self) -> &Path {
        &self.options.binary
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &NetworkNamespace {
        &self.namespace
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A folder of the test's own, gone with the cluster.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// The main process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// From the last start until ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// An address of the node.
    pub fn node(&self, port: u16) -> SocketAddr {
        (HOST_ADDRESS, port).into()
    }

    /// What the main process has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|l| String::from_utf8_lossy(&l).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("up.log")
    }

    /// The binary with a subcommand, on this cluster's data directory.
    pub fn ironkeel_command(&self, args: &[&str]) -> Command {
        let (verb, rest) = args.split_first().unwrap_or((&"--help", &[]));
        let mut command = self.clean(self.namespace.command(&self.options.binary));
        command.arg(verb).arg("--data-dir").arg(self.data_dir()).args(rest);
        command
    }

    /// Runs the binary with a subcommand.
    pub fn ironkeel(&self, args: &[&str]) -> Outcome<Output> {
        run::finish(self.ironkeel_command(args), None, run::LONG)
    }

    /// A command of a tool in the namespace, as the administrator.
    pub fn tool(&self, tool: Tool, args: &[&str]) -> Command {
        let program = tool.path().unwrap_or_else(|| "no-such-tool".into());
        let mut command = self.clean(self.namespace.command(program));
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path().join("home"));
        command
    }

    pub(crate) fn clean(&self, mut command: Command) -> Command {
        for variable in PROXIES {
            command.env_remove(variable);
        }
        command
    }

    /// kubectl, not yet started.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        self.tool(Tool::Kubectl, args)
    }

    /// Runs kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Outcome<Output> {
        run::finish(self.kubectl_command(args), None, run::LONG)
    }

    /// Runs kubectl with standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Outcome<Output> {
        run::finish(self.kubectl_command(args), Some(input.as_bytes()), run::LONG)
    }

    /// Starts kubectl beside the test.
    pub fn kubectl_beside(&self, args: &[&str]) -> Outcome<Background> {
        Background::start(self.kubectl_command(args))
    }

    /// Runs helm.
    pub fn helm(&self, args: &[&str]) -> Outcome<Output> {
        run::finish(self.tool(Tool::Helm, args), None, run::LONG)
    }

    /// A field of an object, as `kubectl get -o jsonpath` prints it.
    pub fn field(&self, what: &str, path: &str) -> Outcome<String> {
        let path = format!("jsonpath={{{path}}}");
        let args: Vec<&str> = ["get"].into_iter().chain(what.split(' ')).chain(["-o", &path]).collect();
        self.kubectl(&args)?.ok()
    }

    /// Applies the example and waits until it is rolled out.
    pub fn deploy_guestbook(&self) -> Outcome {
        let manifest = tools::repository().join("examples/guestbook/guestbook.yaml");
        self.kubectl(&["apply", "-f", &manifest.display().to_string()])?.done()?;
        for deployment in ["deployment/store", "deployment/web"] {
            self.kubectl(&["-n", "guestbook", "rollout", "status", deployment, "--timeout=60s"])?.ok()?;
        }
        Ok(())
    }

    /// Asks an HTTP server from the namespace.
    pub fn get(&self, server: SocketAddr, path: &str) -> Outcome<http::Answer> {
        let answer = self.namespace.enter(|| http::get(server, path))?;
        answer.map_err(Error::io(format!("GET {path} from {server}")))
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
                Err(Error::Timeout { what: "the end of `up`".into(), limit: STOP_LIMIT, last: self.log_tail() })
            }
        }
    }

    /// Starts it on the same data, and kills it `after` so long: the fault comes wherever it then is.
    pub fn kill9_while_starting(&mut self, after: Duration) -> Outcome {
        self.kill9()?;
        self.spawn()?;
        std::thread::sleep(after);
        self.kill9()
    }

    fn spawn(&mut self) -> Outcome {
        let log = File::options().create(true).append(true).open(self.log_path()).map_err(Error::io("up.log"))?;
        let mut up = self.clean(self.namespace.command_ended_by(&self.options.binary, libc::SIGINT));
        up.arg("up").arg("--data-dir").arg(self.data_dir());
        up.args(["--secure-port", &self.options.secure_port.to_string()]).args(&self.options.flags);
        up.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        up.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(log);
        self.process = Some(up.spawn().map_err(Error::io("starting `ironkeel up`"))?);
        Ok(())
    }

    /// Starts it on the same data, and waits until it is ready.
    pub fn restart(&mut self) -> Outcome {
        self.stop()?;
        let start = Instant::now();
        self.spawn()?;
        loop {
            let status = self.ironkeel(&["status", "--wait", "2"])?;
            if status.code == 0 {
                self.ready_after = start.elapsed();
                return Ok(());
            }
            if let Some(ended) = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                self.process = None;
                let what = "`ironkeel up`".to_owned();
                return Err(Error::Ended { what, status: ended.to_string(), words: self.log_tail() });
            }
            if start.elapsed() > READY_LIMIT {
                let last = format!("{}\n{}{}", self.log_tail(), status.stdout, status.stderr);
                return Err(Error::Timeout { what: "a ready cluster".into(), limit: READY_LIMIT, last });
            }
        }
    }

    fn log_tail(&self) -> String {
        const LINES: usize = 40;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("the cluster's last words:\n{}", self.log_tail()));
        }
        if let Err(error) = self.stop() {
            say(&format!("stopping the cluster: {error}"));
        }
        if !self.data_dir().exists() {
            return;
        }
        if let Err(error) = self.ironkeel(&["reset"]).and_then(Output::ok) {
            say(&format!("resetting the cluster: {error}"));
        }
    }
}
