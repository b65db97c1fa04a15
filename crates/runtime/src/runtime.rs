//! The runtime as a whole: its configuration, what it knows, and how it finds pods again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use ironkeel_cni::PodNetwork;
use ironkeel_cri::CriClient;
use ironkeel_cri::v1::ContainerEventResponse;
use ironkeel_journal::{Entry, Journal};
use ironkeel_streaming::StreamingServer;
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::error::{Error, blocking};
use crate::image::{ImageStore, Puller, RegistryConfig};
use crate::records::{self, ContainerRecord, SandboxRecord};
use crate::sandbox::Sandbox;
use crate::service::Service;
use crate::shim::protocol::ContainerStatusRecord;

/// Events that a slow watcher may lag behind by; beyond it the watch ends, and the watcher lists again.
const EVENT_BACKLOG: usize = 1024;

/// How to run.
pub struct RuntimeConfig {
    /// Images, root file systems and records; below the data directory.
    pub root_dir: PathBuf,
    /// Sockets and namespace files; on a file system that a reboot empties. At most 70 bytes long,
    /// because socket paths are short.
    pub state_dir: PathBuf,
    /// Group of containers whose pod names none, for example `/ironkeel`.
    pub cgroup_root: String,
    /// Gives sandboxes their addresses.
    pub network: Arc<dyn PodNetwork>,
    /// Where everything made on the host is written first.
    pub journal: Arc<Journal>,
    /// The program to run as `<shim_exe> shim <file>`; its `main` calls [`shim_main`](crate::shim_main).
    pub shim_exe: PathBuf,
    /// How registries are reached.
    pub registries: RegistryConfig,
    /// Whether pods that name no seccomp profile get the runtime's default one.
    pub seccomp_default: bool,
}

/// The embedded container runtime.
pub struct Runtime {
    pub(crate) config: RuntimeConfig,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) puller: Puller,
    pub(crate) sandboxes: RwLock<HashMap<String, Arc<Sandbox>>>,
    pub(crate) containers: RwLock<HashMap<String, Arc<Container>>>,
    pub(crate) events: broadcast::Sender<ContainerEventResponse>,
    pub(crate) streaming: tokio::sync::OnceCell<StreamingServer>,
    pub(crate) stopping: CancellationToken,
}

impl Runtime {
    /// Opens the store, finds pods that a former process left, and clears away what is half-made.
    pub fn start(config: RuntimeConfig) -> BoxFuture<'static, Result<Arc<Runtime>, Error>> {
        // Boxed (as below), so that the code of it all is made in this crate, not once more where it is awaited.
        Box::pin(Self::open(config))
    }

    async fn open(config: RuntimeConfig) -> Result<Arc<Runtime>, Error> {
        config.journal.record(Entry::Cgroup { path: config.cgroup_root.clone() })?;
        config.journal.record(Entry::Tree { path: config.state_dir.display().to_string() })?;
        for dir in [&config.state_dir, &config.root_dir.join("sandboxes"), &config.root_dir.join("containers")] {
            std::fs::create_dir_all(dir).map_err(Error::path("creating", dir))?;
        }
        let root = config.root_dir.clone();
        let images = Arc::new(blocking(move || ImageStore::open(&root)).await?);
        let puller = Puller::new(config.registries.clone());
        let runtime = Arc::new(Runtime {
            config,
            images,
            puller,
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
            streaming: tokio::sync::OnceCell::new(),
            stopping: CancellationToken::new(),
        });
        let backend = Arc::new(crate::attach::RuntimeStreams(Arc::downgrade(&runtime)));
        let streaming = StreamingServer::start(backend, runtime.stopping.child_token()).await?;
        let _ = runtime.streaming.set(streaming);
        runtime.adopt().await?;
        Ok(runtime)
    }

    /// A client that calls this runtime without a wire.
    pub fn cri_client(self: &Arc<Self>) -> CriClient {
        CriClient::in_process(Service(self.clone()), Service(self.clone()))
    }

    /// Serves the CRI on a unix socket (mode 0600) until cancelled; for crictl and other kubelets.
    pub fn serve_socket<'a>(
        self: &'a Arc<Self>,
        path: &'a Path,
        shutdown: CancellationToken,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(crate::service::serve_socket(self, path, shutdown))
    }

    /// The images; for importing archives.
    pub fn images(&self) -> &Arc<ImageStore> {
        &self.images
    }

    /// Stops watching and serving; pods go on. A new [`Runtime::start`] finds them again.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Stops and removes every pod.
    pub fn remove_all(self: &Arc<Self>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.remove_every_sandbox())
    }

    async fn remove_every_sandbox(self: &Arc<Self>) -> Result<(), Error> {
        let ids: Vec<String> = self.sandboxes.read().keys().cloned().collect();
        let removals = ids.into_iter().map(|id| {
            let runtime = self.clone();
            async move { runtime.remove_sandbox(&id).await }
        });
        futures::future::join_all(removals).await.into_iter().collect()
    }

    pub(crate) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("sandboxes").join(id)
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("containers").join(id)
    }

    /// Short, because a socket lies in it.
    pub(crate) fn sandbox_state_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(id.get(..24).unwrap_or(id))
    }

    /// Finds a sandbox by its id, or a unique beginning of it.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        find(&self.sandboxes.read(), id).ok_or_else(|| Error::NotFound { kind: "sandbox", id: id.into() })
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        find(&self.containers.read(), id).ok_or_else(|| Error::NotFound { kind: "container", id: id.into() })
    }

    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let all = self.containers.read();
        let mut found: Vec<_> = all.values().filter(|c| c.record.sandbox_id == sandbox_id).cloned().collect();
        found.sort_by_key(|c| c.record.created_at);
        found
    }

    async fn adopt(self: &Arc<Self>) -> Result<(), Error> {
        for dir in directories(&self.config.root_dir.join("sandboxes"))? {
            let record: SandboxRecord = match records::read(&dir.join("sandbox.json")) {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "removing a sandbox without a record");
                    let _ = std::fs::remove_dir_all(&dir);
                    continue;
                }
            };
            let sandbox = Arc::new(Sandbox::new(self, record));
            self.sandboxes.write().insert(sandbox.id.clone(), sandbox);
        }
        for dir in directories(&self.config.root_dir.join("containers"))? {
            let record = records::read::<ContainerRecord>(&dir.join("container.json")).ok();
            let Some(record) = record.filter(|r| self.sandboxes.read().contains_key(&r.sandbox_id)) else {
                self.clear_container_dir(&dir, &[]);
                continue;
            };
            let status: ContainerStatusRecord = records::read(&dir.join("status.json")).unwrap_or_default();
            let container = Arc::new(Container::new(record, status));
            self.containers.write().insert(container.record.id.clone(), container);
        }
        let sandboxes: Vec<Arc<Sandbox>> = self.sandboxes.read().values().cloned().collect();
        let all = sandboxes.iter().map(|sandbox| async {
            if !sandbox.record.lock().complete {
                tracing::warn!(sandbox = sandbox.id, "removing a sandbox that was never finished");
                let _ = self.remove_sandbox(&sandbox.id).await;
            } else if !sandbox.record.lock().stopped && self.watch_shim(sandbox).await.is_err() {
                self.shim_is_gone(sandbox).await;
            }
        });
        futures::future::join_all(all).await;
        Ok(())
    }
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::path("reading", dir))?;
    Ok(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
}

fn find<T>(all: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = all.get(id) {
        return Some(found.clone());
    }
    if id.is_empty() {
        return None;
    }
    let mut matching = all.iter().filter(|(known, _)| known.starts_with(id));
    let (_, first) = matching.next()?;
    matching.next().is_none().then(|| first.clone())
}
