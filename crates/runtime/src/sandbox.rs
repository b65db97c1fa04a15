//! Pod sandboxes: namespaces, a shim, an address, and the files that containers share.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use ironkeel_cni::{PodNetworkRequest, PortMapping};
use ironkeel_cri::v1::{ContainerEventType, NamespaceMode, NamespaceOption, PodSandboxConfig, Protocol};
use ironkeel_journal::Entry;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::error::{Error, blocking};
use crate::overlay;
use crate::records::{self, ProcessIdentity, SandboxRecord, Wire};
use crate::runtime::Runtime;
use crate::shim::READY;
use crate::shim::protocol::{Reply, Request, ShimConfig};
use crate::shim_client::{ShimClient, next_reply};
use crate::spec::{Namespaces, PidNamespace, hostname};

pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) record: Mutex<SandboxRecord>,
    /// Never changes after the sandbox was made.
    pub(crate) config: PodSandboxConfig,
    pub(crate) shim: ShimClient,
    pub(crate) pause_pid: Mutex<Option<i32>>,
    /// One stop or removal at a time.
    pub(crate) ending: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn new(runtime: &Runtime, record: SandboxRecord) -> Self {
        Sandbox {
            id: record.id.clone(),
            config: record.config.0.clone(),
            shim: ShimClient::new(runtime.sandbox_state_dir(&record.id).join("shim.sock")),
            record: Mutex::new(record),
            pause_pid: Mutex::new(None),
            ending: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn ready(&self) -> bool {
        let record = self.record.lock();
        record.complete && !record.stopped
    }

    pub(crate) fn options(&self) -> NamespaceOption {
        let linux = self.config.linux.clone().unwrap_or_default();
        linux.security_context.unwrap_or_default().namespace_options.unwrap_or_default()
    }

    pub(crate) fn host_network(&self) -> bool {
        self.options().network() == NamespaceMode::Node
    }

    pub(crate) fn host_ipc(&self) -> bool {
        self.options().ipc() == NamespaceMode::Node
    }

    pub(crate) fn netns(&self, runtime: &Runtime) -> Option<PathBuf> {
        (!self.host_network()).then(|| runtime.sandbox_state_dir(&self.id).join("netns"))
    }

    pub(crate) fn shm(&self, runtime: &Runtime) -> PathBuf {
        if self.host_ipc() { "/dev/shm".into() } else { runtime.sandbox_state_dir(&self.id).join("shm") }
    }

    /// Where a container of this pod lives.
    pub(crate) fn namespaces(&self, runtime: &Runtime, pid: PidNamespace) -> Namespaces {
        let state = runtime.sandbox_state_dir(&self.id);
        let file = |name: &str| Some(state.join(name).display().to_string());
        Namespaces {
            network: file("netns").filter(|_| !self.host_network()),
            uts: file("utsns").filter(|_| !self.host_network()),
            ipc: file("ipcns").filter(|_| !self.host_ipc()),
            pid,
        }
    }
}

impl Runtime {
    /// Makes a sandbox; leaves nothing behind when that fails.
    pub(crate) async fn run_sandbox(
        self: &Arc<Self>,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String, Error> {
        let metadata = config.metadata.clone().ok_or_else(|| Error::Invalid("the sandbox has no metadata".into()))?;
        if !handler.is_empty() {
            return Err(Error::Invalid(format!("runtime handler {handler} is not configured on this node")));
        }
        if metadata.name.is_empty() || metadata.uid.is_empty() {
            return Err(Error::Invalid("the sandbox's metadata has no name or no uid".into()));
        }
        let options = config.linux.clone().unwrap_or_default().security_context.unwrap_or_default().namespace_options;
        if options.unwrap_or_default().userns_options.is_some_and(|u| u.mode() == NamespaceMode::Pod) {
            return Err(Error::Unsupported("user namespaces"));
        }
        let record = SandboxRecord {
            id: records::new_id(),
            created_at: records::now(),
            config: Wire(config),
            runtime_handler: handler,
            complete: false,
            stopped: false,
            ips: Vec::new(),
            shim: None,
        };
        let sandbox = Arc::new(Sandbox::new(self, record));
        self.sandboxes.write().insert(sandbox.id.clone(), sandbox.clone());
        match self.make_sandbox(&sandbox).await {
            Ok(()) => {
                self.emit_sandbox(&sandbox, ContainerEventType::ContainerCreatedEvent);
                self.emit_sandbox(&sandbox, ContainerEventType::ContainerStartedEvent);
                Ok(sandbox.id.clone())
            }
            Err(error) => {
                self.tear_down(&sandbox).await;
                self.sandboxes.write().remove(&sandbox.id);
                let _ = std::fs::remove_dir_all(self.sandbox_dir(&sandbox.id));
                Err(error)
            }
        }
    }

    async fn make_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let (runtime, prepared) = (self.clone(), sandbox.clone());
        let config_file = blocking(move || runtime.prepare_sandbox(&prepared)).await?;
        self.spawn_shim(sandbox, &config_file).await?;
        if let Some(netns) = sandbox.netns(self) {
            let metadata = sandbox.config.metadata.clone().unwrap_or_default();
            let ports = port_mappings(&sandbox.config);
            let request = PodNetworkRequest {
                sandbox_id: &sandbox.id,
                namespace: &metadata.namespace,
                name: &metadata.name,
                uid: &metadata.uid,
                netns: &netns,
                port_mappings: &ports,
            };
            let addresses = self.config.network.set_up(request).await?;
            sandbox.record.lock().ips = addresses.iter().map(ToString::to_string).collect();
        }
        self.watch_shim(sandbox).await?;
        sandbox.record.lock().complete = true;
        self.save_sandbox(sandbox)
    }

    pub(crate) fn save_sandbox(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let record = sandbox.record.lock().clone();
        records::write(&self.sandbox_dir(&sandbox.id).join("sandbox.json"), &record)
    }

    /// Directories, files and mounts; answers the shim's configuration file.
    fn prepare_sandbox(&self, sandbox: &Sandbox) -> Result<PathBuf, Error> {
        let (dir, state) = (self.sandbox_dir(&sandbox.id), self.sandbox_state_dir(&sandbox.id));
        for path in [&dir, &state, &state.join("containers")] {
            std::fs::create_dir_all(path).map_err(Error::path("creating", path))?;
        }
        self.save_sandbox(sandbox)?;
        write_shared_files(&dir, &sandbox.config)?;
        if !sandbox.host_ipc() {
            let shm = state.join("shm");
            std::fs::create_dir_all(&shm).map_err(Error::path("creating", &shm))?;
            self.config.journal.record(Entry::Mount { path: shm.display().to_string() })?;
            overlay::mount_shm(&shm).map_err(Error::path("mounting", &shm))?;
        }
        let namespaces = sandbox.namespaces(self, PidNamespace::Container);
        for path in [&namespaces.network, &namespaces.ipc, &namespaces.uts].into_iter().flatten() {
            self.config.journal.record(Entry::Namespace { path: path.clone() })?;
        }
        let sysctls = sandbox.config.linux.clone().unwrap_or_default().sysctls;
        let shim = ShimConfig {
            sandbox_id: sandbox.id.clone(),
            socket: sandbox.shim.socket().display().to_string(),
            containers_dir: state.join("containers").display().to_string(),
            netns: namespaces.network,
            ipcns: namespaces.ipc,
            utsns: namespaces.uts,
            hostname: hostname(&sandbox.config),
            shared_pid: sandbox.options().pid() == NamespaceMode::Pod,
            sysctls: sysctls.into_iter().collect(),
        };
        let file = state.join("shim.json");
        records::write(&file, &shim)?;
        Ok(file)
    }

    async fn spawn_shim(&self, sandbox: &Sandbox, config: &Path) -> Result<(), Error> {
        let mut child = tokio::process::Command::new(&self.config.shim_exe)
            .arg0("ironkeel")
            .arg("shim")
            .arg(config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::path("starting the shim", &self.config.shim_exe))?;
        let pid = child.id().map_or(0, |p| p as i32);
        if let Some(identity) = ProcessIdentity::of(pid) {
            sandbox.record.lock().shim = Some(identity);
            self.config.journal.record(identity.journal_entry())?;
        }
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).await.map_err(Error::io("waiting for the shim"))?;
        }
        // It is nobody's child to wait for but ours, for as long as we live.
        tokio::spawn(async move { child.wait().await });
        match line.trim() {
            READY => Ok(()),
            "" => Err(Error::Shim("the shim died as it started".into())),
            words => Err(Error::Shim(words.to_owned())),
        }
    }

    /// Listens to a shim: first what its containers do now, then every change.
    pub(crate) async fn watch_shim(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let (reply, mut stream, _) = sandbox.shim.open(Request::Subscribe, Vec::new()).await?;
        let Reply::Sandbox { pause_pid, containers } = reply else {
            return Err(Error::Shim("the shim answered something else".into()));
        };
        *sandbox.pause_pid.lock() = pause_pid;
        for report in containers {
            if let Ok(container) = self.container(&report.id) {
                container.set_status(report.status);
            }
        }
        // What the records call running and the shim does not know, died before it was told.
        for container in self.containers_of(&sandbox.id) {
            let status = container.status();
            if status.pid != 0
                && status.finished_at == 0
                && crate::cgroup::processes(&container.record.cgroup).is_empty()
            {
                container.lost();
            }
        }
        let (runtime, sandbox) = (Arc::downgrade(self), sandbox.clone());
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            loop {
                let reply = tokio::select! {
                    reply = next_reply(&mut stream) => reply,
                    () = stopping.cancelled() => return,
                };
                let Some(runtime) = runtime.upgrade() else { return };
                match reply {
                    Some(Reply::Container(report)) => runtime.container_changed(&report.id, report.status),
                    Some(_) => {}
                    None => {
                        if sandbox.ready() {
                            runtime.shim_is_gone(&sandbox).await;
                        }
                        return;
                    }
                }
            }
        });
        Ok(())
    }

    /// Nobody is parent of the pod's processes any more: they are ended, and the kubelet is told.
    pub(crate) async fn shim_is_gone(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let _ending = sandbox.ending.lock().await;
        if !sandbox.ready() {
            return;
        }
        tracing::warn!(sandbox = sandbox.id, "the pod's shim is gone, ending the pod");
        sandbox.record.lock().stopped = true;
        for container in self.containers_of(&sandbox.id) {
            self.end_without_shim(&container);
        }
        self.tear_down(sandbox).await;
        let _ = self.save_sandbox(sandbox);
        self.emit_sandbox(sandbox, ContainerEventType::ContainerStoppedEvent);
    }

    /// Ends the pod's containers and gives back its address and namespaces. Can be repeated.
    pub(crate) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let sandbox = match self.sandbox(id) {
            Ok(sandbox) => sandbox,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let _ending = sandbox.ending.lock().await;
        if !sandbox.record.lock().complete {
            return Ok(());
        }
        // From here on no container is started; one that is being started is waited for.
        let first = sandbox.ready();
        sandbox.record.lock().stopped = true;
        for container in self.containers_of(&sandbox.id) {
            let _changing = container.changing.lock().await;
            self.stop_container(&container, 0).await?;
        }
        if !first && !self.sandbox_state_dir(&sandbox.id).exists() {
            return Ok(());
        }
        self.save_sandbox(&sandbox)?;
        self.tear_down(&sandbox).await;
        self.emit_sandbox(&sandbox, ContainerEventType::ContainerStoppedEvent);
        Ok(())
    }

    /// Undoes everything outside the sandbox's records. Can be repeated.
    async fn tear_down(&self, sandbox: &Arc<Sandbox>) {
        if let Err(error) = self.config.network.tear_down(&sandbox.id).await {
            tracing::warn!(sandbox = sandbox.id, %error, "giving back the pod's address");
        }
        let asked = sandbox.shim.call(Request::Shutdown).await.is_ok();
        let shim = sandbox.record.lock().shim;
        if let Some(shim) = shim {
            if !asked {
                shim.kill();
            }
            let _ = self.config.journal.strike(&shim.journal_entry());
        }
        let state = self.sandbox_state_dir(&sandbox.id);
        for name in ["netns", "ipcns", "utsns"] {
            let path = state.join(name);
            overlay::unmount(&path);
            let _ = self.config.journal.strike(&Entry::Namespace { path: path.display().to_string() });
        }
        let shm = state.join("shm");
        overlay::unmount(&shm);
        let _ = self.config.journal.strike(&Entry::Mount { path: shm.display().to_string() });
        if let Err(error) = std::fs::remove_dir_all(&state)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(sandbox = sandbox.id, %error, "removing the sandbox's state");
        }
    }

    /// Removes a sandbox with all its containers; an absent one is a success.
    pub(crate) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.record.id).await?;
        }
        // Never finished, or its stopping was cut short.
        if self.sandbox_state_dir(&sandbox.id).exists() {
            self.tear_down(&sandbox).await;
        }
        self.emit_sandbox(&sandbox, ContainerEventType::ContainerDeletedEvent);
        self.sandboxes.write().remove(&sandbox.id);
        let dir = self.sandbox_dir(&sandbox.id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::path("removing", &dir)(error)),
            _ => Ok(()),
        }
    }
}

fn port_mappings(config: &PodSandboxConfig) -> Vec<PortMapping> {
    let port = |p: i32| u16::try_from(p).unwrap_or(0);
    config
        .port_mappings
        .iter()
        .filter(|p| p.host_port > 0)
        .map(|p| PortMapping {
            protocol: match p.protocol() {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            }
            .into(),
            container_port: port(p.container_port),
            host_port: port(p.host_port),
            host_ip: p.host_ip.clone(),
        })
        .collect()
}

/// resolv.conf and hostname; without a DNS configuration the host's.
fn write_shared_files(dir: &Path, config: &PodSandboxConfig) -> Result<(), Error> {
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(Error::path("writing", &path))
    };
    write("hostname", format!("{}\n", hostname(config)))?;
    let resolv = match &config.dns_config {
        Some(dns) => {
            let mut text = String::new();
            if !dns.searches.is_empty() {
                text.push_str(&format!("search {}\n", dns.searches.join(" ")));
            }
            for server in &dns.servers {
                text.push_str(&format!("nameserver {server}\n"));
            }
            if !dns.options.is_empty() {
                text.push_str(&format!("options {}\n", dns.options.join(" ")));
            }
            text
        }
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    write("resolv.conf", resolv)?;
    write("hosts", std::fs::read_to_string("/etc/hosts").unwrap_or_default())
}
