//! Starting, asking and ending the processes that are compared, each by its pid.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;
use ironkeel_auth::{Identity, Pki, PkiConfig};
use serde_json::{Value, json};

use crate::api::{Client, Target};
use crate::etcd::{Etcd, free_port};

/// How long a cluster may take to be ready, in seconds.
const START_SECONDS: u64 = 60;
/// Between looks at something that is about to be ready, in milliseconds.
const POLL_MS: u64 = 2;
/// Both sides are left alone for so long before their figures at rest are taken, in seconds.
const SETTLE_SECONDS: u64 = 10;

pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_secs(SETTLE_SECONDS)).await;
}

/// What processes use.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_mib: f64,
    pub(crate) cpu_percent: f64,
}

/// Memory now, and CPU over `span`, of all processes together.
pub(crate) async fn usage(pids: &[i32], span: Duration) -> Result<Usage> {
    let before = cpu_ticks(pids)?;
    tokio::time::sleep(span).await;
    let ticks = cpu_ticks(pids)?.saturating_sub(before);
    let kib: u64 = pids.iter().map(|pid| rss_kib(*pid)).sum::<Result<u64>>()?;
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
    Ok(Usage { rss_mib: kib as f64 / 1024.0, cpu_percent: ticks as f64 / hertz / span.as_secs_f64() * 100.0 })
}

fn cpu_ticks(pids: &[i32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("a measured process is gone")?;
        let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, f)| f.split_whitespace().collect()).unwrap_or_default();
        sum += [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(sum)
}

fn rss_kib(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("a measured process is gone")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

async fn until<T, Fut: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> Fut) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not after {START_SECONDS} s");
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
}

fn kill(child: &mut Child, signal: nix::sys::signal::Signal) {
    // Gone already is fine.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal);
    let _ = child.wait();
}

/// Our cluster.
pub(crate) struct Ironkeel {
    child: Child,
    binary: PathBuf,
    dir: tempfile::TempDir,
    pub(crate) target: Target,
    pub(crate) api_ready_ms: f64,
    pub(crate) node_ready_ms: f64,
}

impl Drop for Ironkeel {
    fn drop(&mut self) {
        kill(&mut self.child, nix::sys::signal::Signal::SIGINT);
        // Also after a failure nothing stays on the host.
        let data = self.data_dir();
        let _ = Command::new(&self.binary).arg("reset").arg("--data-dir").arg(data).stderr(Stdio::null()).status();
    }
}

impl Ironkeel {
    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        vec![self.child.id() as i32]
    }

    pub(crate) async fn start(binary: &Path) -> Result<Ironkeel> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let started = Instant::now();
        let child = Command::new(binary)
            .arg("up")
            .arg("--data-dir")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log"))?)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let target = until("our kubeconfig", || async { target_of(&data).ok() }).await?;
        let mut client = until("our API server", || async {
            let mut client = target.connect().await.ok()?;
            client.get("/readyz").await.ok().map(|_| client)
        })
        .await?;
        let api_ready_ms = started.elapsed().as_secs_f64() * 1e3;
        let mut node_ready_ms = None;
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        while node_ready_ms.is_none() && Instant::now() < deadline {
            if node_ready(&mut client).await? {
                node_ready_ms = Some(started.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
        let node_ready_ms = node_ready_ms.context("our node is not Ready")?;
        Ok(Ironkeel { child, binary: binary.to_owned(), dir, target, api_ready_ms, node_ready_ms })
    }

    pub(crate) async fn stop(self) -> Result<()> {
        drop(self);
        Ok(())
    }
}

async fn node_ready(client: &mut Client) -> Result<bool> {
    let list: Value = serde_json::from_slice(&client.get("/api/v1/nodes").await?)?;
    let conditions = list["items"][0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// The administrator's way in, from the data directory's own files.
fn target_of(data: &Path) -> Result<Target> {
    let kubeconfig = std::fs::read_to_string(data.join("admin.kubeconfig"))?;
    let server = kubeconfig.split_whitespace().find_map(|word| word.trim_matches('"').strip_prefix("https://"));
    let address = server.context("no server in the kubeconfig")?.parse()?;
    let read = |name: &str| std::fs::read_to_string(data.join("pki").join(name)).context("the cluster's certificates");
    Target::new(address, &read("ca.crt")?, &read("admin.crt")?, &read("admin.key")?)
}

/// Upstream's API server on an etcd of its own, with certificates made for it here.
pub(crate) struct Upstream {
    etcd: Etcd,
    server: Child,
    _dir: tempfile::TempDir,
    pub(crate) target: Target,
    pub(crate) api_ready_ms: f64,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        kill(&mut self.server, nix::sys::signal::Signal::SIGKILL);
    }
}

impl Upstream {
    pub(crate) fn pids(&self) -> Vec<i32> {
        vec![self.etcd.pid(), self.server.id() as i32]
    }

    /// The API server's alone.
    pub(crate) fn server_pids(&self) -> Vec<i32> {
        vec![self.server.id() as i32]
    }

    pub(crate) async fn start(etcd: &Path, server: &Path) -> Result<Upstream> {
        let dir = tempfile::tempdir()?;
        let pki = Pki::load_or_create(
            &dir.path().join("pki"),
            PkiConfig {
                node_ips: vec![[127, 0, 0, 1].into()],
                service_ips: vec![[10, 254, 0, 1].into()],
                ..PkiConfig::default()
            },
        )?;
        let started = Instant::now();
        let etcd = Etcd::start(etcd).await?;
        let port = free_port()?;
        let at = |name: &str| pki.dir().join(name).display().to_string();
        let child = Command::new(server)
            .args(["--etcd-servers", &etcd.url, "--bind-address", "127.0.0.1", "--secure-port", &port.to_string()])
            .args(["--client-ca-file", &at("ca.crt"), "--tls-cert-file", &at("apiserver.crt")])
            .args(["--tls-private-key-file", &at("apiserver.key"), "--authorization-mode", "Node,RBAC"])
            .args([
                "--service-account-issuer",
                "https://kubernetes.default.svc",
                "--service-cluster-ip-range",
                "10.254.0.0/16",
            ])
            .args(["--service-account-key-file", &at("sa.pub"), "--service-account-signing-key-file", &at("sa.key")])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log"))?)
            .spawn()
            .with_context(|| format!("starting {}", server.display()))?;
        let admin = pki.client(Identity::Admin);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let target = Target::new(address, pki.ca_pem(), &admin.cert_pem, &admin.key_pem)?;
        until("the reference's API server", || async { target.connect().await.ok()?.get("/readyz").await.ok() })
            .await?;
        let api_ready_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Upstream { etcd, server: child, _dir: dir, target, api_ready_ms })
    }
}

/// What the workload rows came to.
pub(crate) struct Workload {
    pub(crate) deployment_ready_ms: f64,
    pub(crate) restarted_ms: f64,
}

/// A Deployment of three replicas, then one of its containers killed.
pub(crate) async fn workload(ours: &Ironkeel, binary: &Path, images: &[PathBuf]) -> Result<Workload> {
    let status = Command::new(binary)
        .arg("image")
        .arg("--data-dir")
        .arg(ours.data_dir())
        .arg("import")
        .args(images)
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("importing images failed");
    }
    let mut client = ours.target.connect().await?;
    let labels = json!({ "app": "bench" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "bench" },
        "spec": { "replicas": 3, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": { "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "c", "image": "docker.io/library/busybox:1", "command": ["sleep", "987654"],
            }] },
        } },
    });
    let started = Instant::now();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    client.call(Method::POST, path, "application/json", deployment.to_string()).await?;
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
    loop {
        let value: Value = serde_json::from_slice(&client.get(&format!("{path}/bench")).await?)?;
        if value["status"]["readyReplicas"] == 3 {
            break;
        }
        if Instant::now() > deadline {
            bail!("the Deployment is not ready: {}", value["status"]);
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
    let deployment_ready_ms = started.elapsed().as_secs_f64() * 1e3;
    let pids = sleepers();
    let victim = *pids.first().context("no container process")?;
    let killed = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL)?;
    until("the killed container's successor", || async { sleepers().iter().any(|p| !pids.contains(p)).then_some(()) })
        .await?;
    let restarted_ms = killed.elapsed().as_secs_f64() * 1e3;
    client.call(Method::DELETE, &format!("{path}/bench"), "application/json", "").await?;
    Ok(Workload { deployment_ready_ms, restarted_ms })
}

/// The containers' processes, known by their odd argument.
fn sleepers() -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c == b"sleep\0987654\0"))
        .collect()
}
