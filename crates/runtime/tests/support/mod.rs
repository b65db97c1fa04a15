//! A node for tests: a runtime in a directory of its own, a network of loopback only, an image.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ironkeel_cni::{PodNetwork, PodNetworkError, PodNetworkRequest};
use ironkeel_cri::CriClient;
use ironkeel_cri::v1::*;
use ironkeel_journal::Journal;
use ironkeel_runtime::{RegistryConfig, Runtime, RuntimeConfig};
use sha2::{Digest, Sha256};

/// The image that every node has.
pub(crate) const IMAGE: &str = "docker.io/library/test-busybox:1";
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Sandboxes have lo, and an address that nobody uses.
struct LoopbackOnly;

#[async_trait]
impl PodNetwork for LoopbackOnly {
    async fn set_up(&self, request: PodNetworkRequest<'_>) -> Result<Vec<IpAddr>, PodNetworkError> {
        assert!(request.netns.exists());
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
    async fn tear_down(&self, _: &str) -> Result<(), PodNetworkError> {
        Ok(())
    }
    async fn ready(&self) -> Result<(), PodNetworkError> {
        Ok(())
    }
}

pub(crate) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A static busybox, installed when it is missing and can be.
pub(crate) fn busybox() -> Option<PathBuf> {
    let found = || ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from).find(|p| p.exists());
    found().or_else(|| {
        let _ = std::process::Command::new("apt-get").args(["install", "-y", "-q", "busybox-static"]).output();
        found()
    })
}

pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, wait).await.expect("it did not happen");
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// An OCI archive with busybox and its names.
fn pack(busybox: &Path, archive: &Path) {
    let mut layer = tar::Builder::new(Vec::new());
    let add = |layer: &mut tar::Builder<Vec<u8>>, name: &str, kind, mode, data: &[u8], link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        if link.is_empty() {
            layer.append_data(&mut header, name, data).unwrap();
        } else {
            layer.append_link(&mut header, name, link).unwrap();
        }
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    for dir in ["bin", "etc", "tmp", "home"] {
        add(&mut layer, dir, Directory, 0o755, b"", "");
    }
    add(&mut layer, "bin/busybox", Regular, 0o755, &std::fs::read(busybox).unwrap(), "");
    let tools =
        ["sh", "sleep", "echo", "cat", "true", "ls", "ps", "grep", "hostname", "touch", "id", "tr", "mount", "unshare"];
    for tool in tools.into_iter().chain(["mknod", "nc", "stty", "printf"]) {
        add(&mut layer, &format!("bin/{tool}"), Symlink, 0o777, b"", "busybox");
    }
    add(&mut layer, "etc/passwd", Regular, 0o644, b"root:x:0:0::/:/bin/sh\n", "");
    let layer = layer.into_inner().unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&layer).unwrap();
    let zipped = zipped.finish().unwrap();
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    })
    .to_string();
    let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()});
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar+gzip", &zipped)],
    })
    .to_string();
    let mut top = describe("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    top["annotations"] = serde_json::json!({"io.containerd.image.name": IMAGE});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]}).to_string();
    let mut out = tar::Builder::new(std::fs::File::create(archive).unwrap());
    let blobs = [zipped.as_slice(), config.as_bytes(), manifest.as_bytes()];
    let named = blobs.iter().map(|b| (format!("blobs/sha256/{}", digest(b)), *b));
    let rest = [
        ("index.json".to_owned(), index.as_bytes()),
        ("oci-layout".to_owned(), &b"{\"imageLayoutVersion\":\"1.0.0\"}"[..]),
    ];
    for (name, bytes) in named.chain(rest) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes).unwrap();
    }
    out.finish().unwrap();
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) archive: PathBuf,
    pub(crate) cri: CriClient,
    runtime: Arc<Guard>,
    /// After the runtime, which has mounts below it until its pods are gone.
    pub(crate) dir: Arc<tempfile::TempDir>,
}

/// Removes every pod and group when the last user is gone.
struct Guard {
    runtime: parking_lot::Mutex<Option<Arc<Runtime>>>,
    cgroup: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.lock().take() else { return };
        let cgroup = self.cgroup.clone();
        tokio::task::block_in_place(move || {
            tokio::runtime::Handle::current().block_on(async {
                let removed = runtime.remove_all().await;
                runtime.stop();
                for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
                    let _ = std::fs::remove_dir(hierarchy.path().join(cgroup.trim_start_matches('/')));
                }
                let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')));
                if !std::thread::panicking() {
                    removed.unwrap();
                }
            });
        });
    }
}

/// What is left on the host of a node that was kept in `dir`: files, mounts, cgroups, processes.
fn leftovers(dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    if dir.exists() {
        left.push(dir.display().to_string());
    }
    let within = |text: &str| text.contains(&*dir.to_string_lossy());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| within(line)).map(|line| format!("mount {line}")));
    let groups = Path::new("/sys/fs/cgroup");
    let own = cgroup_of(dir);
    let hierarchies = std::fs::read_dir(groups).unwrap().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([groups.to_owned()]) {
        let group = hierarchy.join(own.trim_start_matches('/'));
        if group.exists() {
            left.push(format!("cgroup {}", group.display()));
        }
    }
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if pid != std::process::id() && within(&words) {
            left.push(format!("process {pid} {words}"));
        }
    }
    left
}

/// Waits until nothing is left of a node, and says what stays.
pub(crate) async fn gone(dir: &Path) -> Result<(), Vec<String>> {
    let begun = std::time::Instant::now();
    loop {
        let left = leftovers(dir);
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > READY_TIMEOUT {
            return Err(left);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn cgroup_of(dir: &Path) -> String {
    format!("/ironkeel-test-{}", dir.file_name().unwrap().to_string_lossy().trim_start_matches('.'))
}

async fn open(dir: &Path) -> Arc<Runtime> {
    let config = RuntimeConfig {
        root_dir: dir.join("root"),
        state_dir: dir.join("run"),
        cgroup_root: cgroup_of(dir),
        network: Arc::new(LoopbackOnly),
        journal: Arc::new(Journal::open(&dir.join("journal")).unwrap()),
        shim_exe: std::env::current_exe().unwrap(),
        registries: RegistryConfig::default(),
        seccomp_default: true,
    };
    Runtime::start(config).await.unwrap()
}

impl Node {
    pub(crate) async fn new(busybox: &Path) -> Node {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let archive = dir.path().join("image.tar");
        pack(busybox, &archive);
        let runtime = open(dir.path()).await;
        let images = runtime.images().import(&archive).await.unwrap();
        assert_eq!(images[0].tags.first().unwrap(), IMAGE);
        let cri = runtime.cri_client();
        let guard = Guard { runtime: parking_lot::Mutex::new(Some(runtime)), cgroup: cgroup_of(dir.path()) };
        Node { archive, cri, runtime: Arc::new(guard), dir }
    }

    /// The same node without its runtime.
    pub(crate) fn stopped(self) -> Node {
        if let Some(runtime) = self.runtime.runtime.lock().take() {
            runtime.stop();
        }
        self
    }

    pub(crate) async fn start(&mut self) {
        let runtime = open(self.dir.path()).await;
        self.cri = runtime.cri_client();
        *self.runtime.runtime.lock() = Some(runtime);
    }

    pub(crate) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.runtime.lock().clone().unwrap()
    }

    pub(crate) async fn run_sandbox(&mut self, mut config: PodSandboxConfig) -> String {
        config.log_directory = self.dir.path().join("logs").display().to_string();
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        self.cri.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    pub(crate) async fn create(&mut self, pod: &str, config: ContainerConfig) -> String {
        let request = CreateContainerRequest { pod_sandbox_id: pod.into(), config: Some(config), sandbox_config: None };
        self.cri.runtime.create_container(request).await.unwrap().into_inner().container_id
    }

    pub(crate) async fn run(&mut self, pod: &str, config: ContainerConfig) -> String {
        let id = self.create(pod, config).await;
        self.cri.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
        id
    }

    pub(crate) async fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.cri.runtime.clone().container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    pub(crate) async fn pid(&self, id: &str) -> i32 {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.cri.runtime.clone().container_status(request).await.unwrap().into_inner().info;
        serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["pid"].as_i64().unwrap() as i32
    }

    pub(crate) async fn wait_exit(&self, id: &str) -> ContainerStatus {
        let wait = async {
            loop {
                let status = self.status(id).await;
                if status.state() == ContainerState::ContainerExited {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(READY_TIMEOUT, wait).await.expect("the container did not end")
    }

    pub(crate) async fn exec(&self, id: &str, command: &[&str]) -> ExecSyncResponse {
        let cmd = command.iter().map(|w| (*w).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.into(), cmd, timeout: 20 };
        self.cri.runtime.clone().exec_sync(request).await.unwrap().into_inner()
    }

    pub(crate) async fn stop(&mut self, id: &str, timeout: i64) {
        let request = StopContainerRequest { container_id: id.into(), timeout };
        self.cri.runtime.stop_container(request).await.unwrap();
    }
}

pub(crate) fn sandbox(name: &str) -> PodSandboxConfig {
    let options = NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        dns_config: Some(DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        }),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn container(name: &str, command: &[&str]) -> ContainerConfig {
    let options = NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources { oom_score_adj: -997, ..Default::default() }),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// The other process of the adoption test: runs a pod, says its ids, and waits to be killed.
pub(crate) fn own(dir: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let opened = open(Path::new(dir)).await;
        let mut cri = opened.cri_client();
        let mut config = sandbox("kept");
        config.log_directory = format!("{dir}/logs");
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        let pod = cri.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        let script = "echo kept > /marker; trap 'echo stopping; exit 5' TERM; while true; do sleep 0.05; done";
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(container("c", &["sh", "-c", script])),
            sandbox_config: None,
        };
        let id = cri.runtime.create_container(request).await.unwrap().into_inner().container_id;
        cri.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
        let marked = opened.clone();
        until(|| Path::new(dir).join("root/containers").join(&id).join("upper/marker").exists()).await;
        drop(marked);
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let info = cri.runtime.container_status(request).await.unwrap().into_inner().info;
        let pid = serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["pid"].clone();
        println!("{pod}\n{id}\n{pid}");
        std::future::pending::<()>().await;
    });
}

/// A real registry with the test's image in it.
pub(crate) struct Registry {
    pub(crate) address: String,
    child: std::process::Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(crate) async fn start(dir: &Path, archive: &Path) -> Option<Registry> {
        let binary = ["/usr/bin/docker-registry", "/usr/bin/registry"].into_iter().find(|p| Path::new(p).exists())?;
        let port = ironkeel_testkit::free_port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        fill(&dir.join("registry"), archive);
        let child = std::process::Command::new(binary)
            .arg("serve")
            .arg(&config)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { address, child };
        until(|| std::net::TcpStream::connect(&registry.address).is_ok()).await;
        Some(registry)
    }
}

/// Puts the archive's image into the registry's own layout on disk: test/busybox:1.
fn fill(root: &Path, archive: &Path) {
    let base = root.join("docker/registry/v2");
    let mut manifest = String::new();
    let mut others = Vec::new();
    let mut tar = tar::Archive::new(std::fs::File::open(archive).unwrap());
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let Some(hex) = path.strip_prefix("blobs/sha256/").map(str::to_owned) else { continue };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let dir = base.join("blobs/sha256").join(&hex[..2]).join(&hex);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("data"), &bytes).unwrap();
        if bytes.starts_with(b"{") && String::from_utf8_lossy(&bytes).contains("\"layers\":[{") {
            manifest = hex;
        } else {
            others.push(hex);
        }
    }
    let repository = base.join("repositories/test/busybox");
    let link = |path: PathBuf, hex: &str| {
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("link"), format!("sha256:{hex}")).unwrap();
    };
    for hex in &others {
        link(repository.join("_layers/sha256").join(hex), hex);
    }
    link(repository.join("_manifests/revisions/sha256").join(&manifest), &manifest);
    link(repository.join("_manifests/tags/1/current"), &manifest);
    link(repository.join("_manifests/tags/1/index/sha256").join(&manifest), &manifest);
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A WebSocket client of a streaming URL.
pub(crate) struct Session {
    socket: Socket,
    received: Received,
}

/// What came, by channel.
#[derive(Clone, Default)]
pub(crate) struct Received(std::collections::BTreeMap<u8, Vec<u8>>);

impl Received {
    pub(crate) fn bytes(&self, channel: u8) -> Vec<u8> {
        self.0.get(&channel).cloned().unwrap_or_default()
    }

    pub(crate) fn of(&self, channel: u8) -> String {
        String::from_utf8_lossy(&self.bytes(channel)).into_owned()
    }
}

impl Session {
    pub(crate) async fn open(url: &str) -> Session {
        Session::open_with(url, "v5.channel.k8s.io").await
    }

    pub(crate) async fn open_with(url: &str, protocol: &'static str) -> Session {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
        let value = tokio_tungstenite::tungstenite::http::HeaderValue::from_static(protocol);
        request.headers_mut().insert("Sec-WebSocket-Protocol", value);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Session { socket, received: Received::default() }
    }

    pub(crate) async fn send(&mut self, channel: u8, data: &[u8]) {
        let mut bytes = vec![channel];
        bytes.extend_from_slice(data);
        let message = tokio_tungstenite::tungstenite::Message::Binary(bytes.into());
        futures::SinkExt::send(&mut self.socket, message).await.unwrap();
    }

    pub(crate) async fn close_input(&mut self) {
        self.send(255, &[0]).await;
    }

    async fn receive(&mut self) -> bool {
        let next = tokio::time::timeout(READY_TIMEOUT, futures::StreamExt::next(&mut self.socket));
        match next.await.expect("nothing came") {
            Some(Ok(tokio_tungstenite::tungstenite::Message::Binary(bytes))) if !bytes.is_empty() => {
                self.received.0.entry(bytes[0]).or_default().extend_from_slice(&bytes[1..]);
                true
            }
            Some(Ok(tokio_tungstenite::tungstenite::Message::Close(_)) | Err(_)) | None => false,
            Some(Ok(_)) => true,
        }
    }

    pub(crate) async fn finish(&mut self) -> Received {
        while self.receive().await {}
        self.received.clone()
    }

    pub(crate) async fn until(&mut self, done: impl Fn(&Received) -> bool) -> Received {
        while !done(&self.received) {
            assert!(self.receive().await, "the session ended early");
        }
        self.received.clone()
    }
}
