//! Real etcd servers for tests: on loopback, in folders of their own, gone with their handle (and with
//! the test's process, however that ends).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ironkeel_etcd::{Config, Etcd};
use tempfile::TempDir;

use crate::free_port;

/// Ends etcd as soon as nobody holds the other end of its input.
const KEEPER: &str = r#"etcd "$@" >"$LOG" 2>&1 & pid=$!; read -r _; kill -9 $pid; wait $pid"#;

/// Whether this machine has an etcd; says so when not.
pub fn installed() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: needs etcd (Debian's etcd-server)");
    }
    found
}

/// One server, or one member of a cluster.
#[derive(Debug)]
pub struct Server {
    _dir: TempDir,
    arguments: Vec<String>,
    log: PathBuf,
    keeper: Option<Child>,
    /// Where clients find it.
    pub url: String,
}

impl Server {
    /// A cluster of one.
    pub fn start(more: &[&str]) -> Server {
        let [client, peer] = std::array::from_fn(|_| free_port());
        let url = format!("http://127.0.0.1:{client}");
        Server::member("one", &url, peer, &format!("one=http://127.0.0.1:{peer}"), more)
    }

    /// A cluster of one that speaks TLS.
    pub fn start_tls(ca: &Path, cert: &Path, key: &Path) -> Server {
        let [client, peer] = std::array::from_fn(|_| free_port());
        let url = format!("https://127.0.0.1:{client}");
        let text = |path: &Path| path.to_str().expect("a path").to_owned();
        let (ca, cert, key) = (text(ca), text(cert), text(key));
        let more = ["--trusted-ca-file", &ca, "--cert-file", &cert, "--key-file", &key, "--client-cert-auth"];
        Server::member("one", &url, peer, &format!("one=http://127.0.0.1:{peer}"), &more)
    }

    /// A cluster of three.
    pub fn start_three() -> [Server; 3] {
        let ports: [u16; 6] = std::array::from_fn(|_| free_port());
        let cluster: Vec<_> = (0..3).map(|i| format!("m{i}=http://127.0.0.1:{}", ports[i + 3])).collect();
        let cluster = cluster.join(",");
        std::array::from_fn(|i| {
            let url = format!("http://127.0.0.1:{}", ports[i]);
            Server::member(&format!("m{i}"), &url, ports[i + 3], &cluster, &[])
        })
    }

    fn member(name: &str, url: &str, peer: u16, cluster: &str, more: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let peer = format!("http://127.0.0.1:{peer}");
        let data = dir.path().join("data").to_str().expect("a path").to_owned();
        let fixed = [
            ("--name", name),
            ("--data-dir", &data),
            ("--listen-client-urls", url),
            ("--advertise-client-urls", url),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", cluster),
            ("--heartbeat-interval", "50"),
            ("--election-timeout", "500"),
            ("--logger", "zap"),
        ];
        let arguments = fixed.iter().flat_map(|(flag, value)| [*flag, *value]).chain(more.iter().copied());
        let log = dir.path().join("log");
        let arguments = arguments.map(str::to_owned).collect();
        let mut server = Server { _dir: dir, arguments, log, keeper: None, url: url.to_owned() };
        server.restart();
        server
    }

    /// Starts it again on its data.
    pub fn restart(&mut self) {
        self.kill();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "etcd"])
            .args(&self.arguments)
            .env("LOG", &self.log)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        self.keeper = Some(keeper);
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait().expect("the keeper's end");
        }
    }

    /// How an engine reaches it; nothing is compacted.
    pub fn config(&self) -> Config {
        Config { endpoints: vec![self.url.clone()], compaction_interval: Duration::ZERO, ..Config::default() }
    }

    /// An engine on it.
    pub async fn connect(&self) -> Arc<Etcd> {
        Etcd::connect(self.config()).await.unwrap_or_else(|error| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{error}\n{log}");
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
