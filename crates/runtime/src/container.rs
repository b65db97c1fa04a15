//! Containers: root file system, specification, life and end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ironkeel_cri::v1::{
    ContainerConfig, ContainerEventType, ContainerState, LinuxContainerResources, NamespaceMode, PodSandboxConfig,
    Signal,
};
use ironkeel_journal::Entry;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, blocking};
use crate::image::{ImageConfig, ImageName, ImageRecord};
use crate::overlay::{self, Overlay};
use crate::records::{self, ContainerRecord, Wire};
use crate::rootfs;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::shim::protocol::{ContainerStatusRecord, Reply, Request, RunContainer};
use crate::spec::{self, Generated, PidNamespace, SpecInput};

/// Exit code of a container whose end nobody saw.
const LOST_EXIT_CODE: i32 = 137;
/// Exit code of a container that could not start, as upstream's runtimes report it.
const START_ERROR_EXIT_CODE: i32 = 128;
/// How long a killed container may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    status: watch::Sender<ContainerStatusRecord>,
    /// What UpdateContainerResources changed.
    pub(crate) resources: Mutex<Option<LinuxContainerResources>>,
    /// Last CPU sample: when, and nanoseconds used.
    pub(crate) last_cpu: Mutex<Option<(i64, u64)>>,
    /// Last size of the writable layer: when, bytes, files.
    pub(crate) last_disk: Mutex<Option<(i64, u64, u64)>>,
    /// One start, stop or removal step at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Held while a change is taken over and told: the answer to a start and the shim's reports tell the same, and each
    /// event is told once, in order.
    telling: Mutex<()>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, status: ContainerStatusRecord) -> Self {
        Container {
            record,
            status: watch::channel(status).0,
            resources: Mutex::default(),
            last_cpu: Mutex::default(),
            last_disk: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            telling: Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &ContainerConfig {
        &self.record.config.0
    }

    pub(crate) fn status(&self) -> ContainerStatusRecord {
        self.status.borrow().clone()
    }

    /// The end is final: a late report of the start does not undo it.
    pub(crate) fn set_status(&self, status: ContainerStatusRecord) {
        self.status.send_if_modified(|known| {
            let changes = known.finished_at == 0 && *known != status;
            if changes {
                *known = status;
            }
            changes
        });
    }

    pub(crate) fn lost(&self) {
        let status = self.status();
        self.set_status(ContainerStatusRecord { finished_at: records::now(), exit_code: LOST_EXIT_CODE, ..status });
    }

    pub(crate) fn state(&self) -> ContainerState {
        state_of(&self.status.borrow())
    }

    /// Waits for the end; false when the time is up first.
    pub(crate) async fn wait(&self, timeout: Duration) -> bool {
        let mut watch = self.status.subscribe();
        tokio::time::timeout(timeout, watch.wait_for(|s| s.finished_at != 0)).await.is_ok_and(|r| r.is_ok())
    }
}

/// The state that a status means. Who tells both takes them from one look: between two, the container may end.
pub(crate) fn state_of(status: &ContainerStatusRecord) -> ContainerState {
    match (status.pid, status.finished_at) {
        (_, end) if end != 0 => ContainerState::ContainerExited,
        (0, _) => ContainerState::ContainerCreated,
        _ => ContainerState::ContainerRunning,
    }
}

impl Runtime {
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        sandbox_id: &str,
        config: ContainerConfig,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String, Error> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready() {
            return Err(Error::Precondition(format!("sandbox {sandbox_id} is not ready")));
        }
        if config.metadata.as_ref().is_none_or(|m| m.name.is_empty()) {
            return Err(Error::Invalid("the container has no name".into()));
        }
        let pid = self.pid_namespace(&sandbox, &config)?;
        let (runtime, made) = (self.clone(), sandbox.clone());
        let record = blocking(move || runtime.make_container(&made, config, sandbox_config, pid)).await?;
        let container = Arc::new(Container::new(record, ContainerStatusRecord::default()));
        let id = container.record.id.clone();
        self.containers.write().insert(id.clone(), container);
        self.emit(&id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    fn pid_namespace(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<PidNamespace, Error> {
        let security = config.linux.clone().unwrap_or_default().security_context.unwrap_or_default();
        let options = security.namespace_options.unwrap_or_default();
        Ok(match options.pid() {
            NamespaceMode::Container => PidNamespace::Container,
            NamespaceMode::Node => PidNamespace::Host,
            NamespaceMode::Pod => match *sandbox.pause_pid.lock() {
                Some(pid) => PidNamespace::Join(format!("/proc/{pid}/ns/pid")),
                None => PidNamespace::Container,
            },
            NamespaceMode::Target => {
                let target = self.container(&options.target_id)?;
                if target.record.sandbox_id != sandbox.id || target.state() != ContainerState::ContainerRunning {
                    return Err(Error::Precondition(format!(
                        "container {} is not running in this pod",
                        options.target_id
                    )));
                }
                PidNamespace::Join(format!("/proc/{}/ns/pid", target.status().pid))
            }
        })
    }

    fn make_container(
        &self,
        sandbox: &Sandbox,
        config: ContainerConfig,
        sandbox_config: Option<PodSandboxConfig>,
        pid: PidNamespace,
    ) -> Result<ContainerRecord, Error> {
        let id = records::new_id();
        let dir = self.container_dir(&id);
        let mut image_mounts = Vec::new();
        let made = self.make_container_in(&id, &dir, sandbox, config, sandbox_config, pid, &mut image_mounts);
        if made.is_err() {
            self.clear_container_dir(&dir, &image_mounts);
        }
        made
    }

    #[allow(clippy::too_many_arguments)]
    fn make_container_in(
        &self,
        id: &str,
        dir: &Path,
        sandbox: &Sandbox,
        config: ContainerConfig,
        sandbox_config: Option<PodSandboxConfig>,
        pid: PidNamespace,
        image_mounts: &mut Vec<String>,
    ) -> Result<ContainerRecord, Error> {
        let name = config.image.clone().unwrap_or_default().image;
        let image = self.images.find(&name).ok_or_else(|| Error::NotFound { kind: "image", id: name.clone() })?;
        let image_config = image.config();
        let root = dir.join("rootfs");
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for path in [&root, &upper, &work] {
            std::fs::create_dir_all(path).map_err(Error::path("creating", path))?;
        }
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755))
            .map_err(Error::path("changing", &upper))?;
        self.config.journal.record(Entry::Mount { path: root.display().to_string() })?;
        let lower = self.images.lower_dirs(&image);
        let overlay = Overlay { lower: &lower, upper: Some((&upper, &work)), target: &root };
        overlay.mount().map_err(Error::path("mounting", &root))?;
        let image_volumes = self.mount_image_volumes(dir, &config, image_mounts)?;
        let pod = sandbox_config.as_ref().unwrap_or(&sandbox.config);
        let parent = pod.linux.as_ref().map(|l| l.cgroup_parent.as_str()).filter(|p| !p.is_empty());
        let cgroup = format!("{}/{id}", parent.unwrap_or(&self.config.cgroup_root).trim_end_matches('/'));
        let cgroup = if cgroup.starts_with('/') { cgroup } else { format!("/{cgroup}") };
        let generated = spec::generate(&SpecInput {
            config: &config,
            sandbox: &sandbox.config,
            image: &image_config,
            rootfs: &root,
            sandbox_dir: &self.sandbox_dir(&sandbox.id),
            shm: &sandbox.shm(self),
            namespaces: sandbox.namespaces(self, pid.clone()),
            cgroup: &cgroup,
            image_volumes: &image_volumes,
            seccomp_default: self.config.seccomp_default,
        })?;
        write_bundle(dir, &generated)?;
        make_working_directory(&root, &generated)?;
        let log_directory = &sandbox.config.log_directory;
        let log_path = match (log_directory.is_empty(), config.log_path.is_empty()) {
            (false, false) => format!("{}/{}", log_directory.trim_end_matches('/'), config.log_path),
            _ => String::new(),
        };
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox_id: sandbox.id.clone(),
            created_at: records::now(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            image_name: shown_name(&image, &config),
            cgroup,
            log_path,
            stop_signal: stop_signal(&config, &image_config),
            own_pid_namespace: pid == PidNamespace::Container,
            uid: generated.user.uid,
            gid: generated.user.gid,
            groups: generated.user.groups,
            image_mounts: image_mounts.clone(),
            config: Wire(config),
        };
        records::write(&dir.join("container.json"), &record)?;
        Ok(record)
    }

    /// Images mounted as volumes, read-only.
    fn mount_image_volumes(
        &self,
        dir: &Path,
        config: &ContainerConfig,
        mounted: &mut Vec<String>,
    ) -> Result<Vec<(usize, PathBuf)>, Error> {
        let mut volumes = Vec::new();
        for (index, mount) in config.mounts.iter().enumerate() {
            let Some(spec) = mount.image.as_ref().filter(|i| !i.image.is_empty()) else { continue };
            let image = self.images.find(&spec.image);
            let image = image.ok_or_else(|| Error::NotFound { kind: "image", id: spec.image.clone() })?;
            let target = dir.join(format!("image-volume-{index}"));
            std::fs::create_dir_all(&target).map_err(Error::path("creating", &target))?;
            let path = target.display().to_string();
            self.config.journal.record(Entry::Mount { path: path.clone() })?;
            mounted.push(path);
            let lower = self.images.lower_dirs(&image);
            Overlay { lower: &lower, upper: None, target: &target }
                .mount()
                .map_err(Error::path("mounting", &target))?;
            volumes.push((index, target));
        }
        Ok(volumes)
    }

    pub(crate) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        if container.state() != ContainerState::ContainerCreated {
            return Err(Error::Precondition(format!("container {id} has been started already")));
        }
        let sandbox = self.sandbox(&container.record.sandbox_id)?;
        if !sandbox.ready() {
            return Err(Error::Precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let config = container.config();
        let request = Request::Run(RunContainer {
            id: container.record.id.clone(),
            bundle: self.container_dir(&container.record.id).display().to_string(),
            log_path: Some(container.record.log_path.clone()).filter(|p| !p.is_empty()),
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            tty: config.tty,
            cgroup: container.record.cgroup.clone(),
            own_pid_namespace: container.record.own_pid_namespace,
        });
        match sandbox.shim.call(request).await {
            Ok(Reply::Started { pid }) => {
                // The subscription tells the same, and perhaps the end already.
                let started = ContainerStatusRecord { pid, started_at: records::now(), ..Default::default() };
                if container.status().pid == 0 {
                    self.container_changed(&container.record.id, started);
                }
                Ok(())
            }
            Ok(_) => Err(Error::Shim("the shim answered something else".into())),
            Err(error) => {
                let now = records::now();
                let failed = ContainerStatusRecord {
                    finished_at: now,
                    exit_code: START_ERROR_EXIT_CODE,
                    start_error: Some(error.to_string()),
                    ..Default::default()
                };
                records::write(&self.container_dir(&container.record.id).join("status.json"), &failed)?;
                container.set_status(failed);
                Err(error)
            }
        }
    }

    /// A shim told of a change, or a start succeeded.
    pub(crate) fn container_changed(&self, id: &str, status: ContainerStatusRecord) {
        let Ok(container) = self.container(id) else { return };
        let _telling = container.telling.lock();
        let before = container.state();
        container.set_status(status);
        let after = container.state();
        if before == ContainerState::ContainerCreated && after != before {
            self.emit(id, &container.record.sandbox_id, ContainerEventType::ContainerStartedEvent);
        }
        if after == ContainerState::ContainerExited && before != after {
            self.emit(id, &container.record.sandbox_id, ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// Asks, waits, kills. An ended container is a success.
    pub(crate) async fn stop_container(&self, container: &Container, timeout_seconds: i64) -> Result<(), Error> {
        if container.state() != ContainerState::ContainerRunning {
            return Ok(());
        }
        let sandbox = self.sandbox(&container.record.sandbox_id)?;
        if !self.sandbox_state_dir(&sandbox.id).exists() {
            // The sandbox was torn down: there is no shim to ask.
            self.end_without_shim(container);
            return Ok(());
        }
        let signal = |signal: i32, all: bool| {
            sandbox.shim.call(Request::Signal { id: container.record.id.clone(), signal, all })
        };
        if timeout_seconds > 0 {
            signal(container.record.stop_signal, false).await?;
            if container.wait(Duration::from_secs(timeout_seconds.unsigned_abs())).await {
                return Ok(());
            }
        }
        signal(libc::SIGKILL, true).await?;
        if container.wait(KILL_TIMEOUT).await {
            Ok(())
        } else {
            Err(Error::Timeout(format!("container {} did not end after SIGKILL", container.record.id)))
        }
    }

    /// Ends a container whose shim is gone.
    pub(crate) fn end_without_shim(&self, container: &Container) {
        crate::cgroup::kill_all(&container.record.cgroup);
        let _telling = container.telling.lock();
        let status = container.status();
        if status.pid == 0 || status.finished_at != 0 {
            return;
        }
        container.lost();
        let path = self.container_dir(&container.record.id).join("status.json");
        if let Err(error) = records::write(&path, &container.status()) {
            tracing::warn!(container = container.record.id, %error, "keeping a container's end");
        }
        self.emit(&container.record.id, &container.record.sandbox_id, ContainerEventType::ContainerStoppedEvent);
    }

    /// Removes a container, by force; an absent one is a success.
    pub(crate) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(&container, 0).await?;
        let _changing = container.changing.lock().await;
        let id = container.record.id.clone();
        if let Ok(sandbox) = self.sandbox(&container.record.sandbox_id)
            && sandbox.ready()
        {
            // A container that never started is not known there, which is as good.
            sandbox.shim.call(Request::Delete { id: id.clone() }).await?;
        }
        let (runtime, removed) = (self.clone(), container.clone());
        blocking(move || {
            crate::cgroup::kill_all(&removed.record.cgroup);
            crate::cgroup::remove(&removed.record.cgroup);
            runtime.clear_container_dir(&runtime.container_dir(&removed.record.id), &removed.record.image_mounts);
            Ok(())
        })
        .await?;
        if self.containers.write().remove(&id).is_some() {
            self.emit(&id, &container.record.sandbox_id, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    /// Unmounts and removes a container's directory.
    pub(crate) fn clear_container_dir(&self, dir: &Path, image_mounts: &[String]) {
        let mut mounts: Vec<PathBuf> = image_mounts.iter().map(PathBuf::from).collect();
        mounts.push(dir.join("rootfs"));
        for path in mounts {
            overlay::unmount(&path);
            let _ = self.config.journal.strike(&Entry::Mount { path: path.display().to_string() });
        }
        if let Err(error) = std::fs::remove_dir_all(dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "removing a container's directory");
        }
    }

    pub(crate) async fn update_container(&self, id: &str, change: LinuxContainerResources) -> Result<(), Error> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let dir = self.container_dir(&container.record.id);
        match container.state() {
            ContainerState::ContainerRunning => {
                let (group, wanted) = (container.record.cgroup.clone(), change.clone());
                blocking(move || spec::apply_update(&group, &wanted)).await?;
            }
            ContainerState::ContainerCreated => {
                let wanted = change.clone();
                blocking(move || change_bundle(&dir, &wanted)).await?;
            }
            _ => return Err(Error::Precondition(format!("container {id} is not running"))),
        }
        let mut known = container.resources.lock();
        let before = known.clone().or_else(|| container.config().linux.as_ref()?.resources.clone());
        *known = Some(merged(before.unwrap_or_default(), change));
        Ok(())
    }
}

/// The tag that the pod asked for, any tag, a digest: upstream's runtimes show a name rather than an id.
fn shown_name(image: &ImageRecord, config: &ContainerConfig) -> String {
    let asked = config.image.as_ref().and_then(|i| ImageName::parse(&i.user_specified_image).ok()?.tagged());
    asked
        .filter(|name| image.tags.contains(name))
        .or_else(|| image.tags.first().cloned())
        .or_else(|| image.digests.first().cloned())
        .unwrap_or_else(|| image.id.clone())
}

/// Zero and empty leave a value as it was.
fn merged(mut base: LinuxContainerResources, change: LinuxContainerResources) -> LinuxContainerResources {
    let number = |to: &mut i64, from: i64| {
        if from != 0 {
            *to = from;
        }
    };
    number(&mut base.cpu_period, change.cpu_period);
    number(&mut base.cpu_quota, change.cpu_quota);
    number(&mut base.cpu_shares, change.cpu_shares);
    number(&mut base.memory_limit_in_bytes, change.memory_limit_in_bytes);
    number(&mut base.memory_swap_limit_in_bytes, change.memory_swap_limit_in_bytes);
    number(&mut base.oom_score_adj, change.oom_score_adj);
    if !change.cpuset_cpus.is_empty() {
        base.cpuset_cpus = change.cpuset_cpus;
    }
    if !change.cpuset_mems.is_empty() {
        base.cpuset_mems = change.cpuset_mems;
    }
    base.unified.extend(change.unified);
    base
}

/// The specification of a container that has not started takes the change instead.
fn change_bundle(dir: &Path, change: &LinuxContainerResources) -> Result<(), Error> {
    let path = dir.join("config.json");
    let mut document: serde_json::Value = records::read(&path)?;
    let devices = document["linux"]["resources"]["devices"].take();
    let wanted = spec::linux_resources(change, devices.clone());
    let resources = &mut document["linux"]["resources"];
    resources["devices"] = devices;
    for section in ["cpu", "memory"] {
        for (key, value) in wanted[section].as_object().into_iter().flatten() {
            resources[section][key] = value.clone();
        }
    }
    records::write(&path, &document)
}

fn write_bundle(dir: &Path, generated: &Generated) -> Result<(), Error> {
    let write = |name: &str, bytes: Vec<u8>| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(Error::path("writing", &path))
    };
    write("config.json", serde_json::to_vec(&generated.spec).map_err(Error::format("config.json"))?)?;
    if let Some(programs) = &generated.seccomp {
        write("seccomp.json", serde_json::to_vec(programs).map_err(Error::format("seccomp.json"))?)?;
    }
    Ok(())
}

/// An image's working directory need not exist; upstream's runtimes make it.
fn make_working_directory(root: &Path, generated: &Generated) -> Result<(), Error> {
    let cwd = generated.spec["process"]["cwd"].as_str().unwrap_or("/");
    let path = rootfs::resolve(root, Path::new(cwd)).map_err(Error::io(format!("finding {cwd}")))?;
    if !path.exists() {
        std::fs::create_dir_all(&path).map_err(Error::path("creating", &path))?;
    }
    Ok(())
}

fn stop_signal(config: &ContainerConfig, image: &ImageConfig) -> i32 {
    use std::str::FromStr;
    let parse = |name: &str| {
        let name = name.to_ascii_uppercase();
        let full = if name.starts_with("SIG") { name.clone() } else { format!("SIG{name}") };
        if let Some(offset) = full.strip_prefix("SIGRTMIN") {
            let plus = offset.trim_start_matches(['+', 'P', 'L', 'U', 'S']).parse::<i32>().unwrap_or(0);
            return Some(libc::SIGRTMIN() + plus);
        }
        if let Some(offset) = full.strip_prefix("SIGRTMAX") {
            let minus = offset.trim_start_matches(['-', 'M', 'I', 'N', 'U', 'S']).parse::<i32>().unwrap_or(0);
            return Some(libc::SIGRTMAX() - minus);
        }
        nix::sys::signal::Signal::from_str(&full).ok().map(|s| s as i32).or_else(|| name.parse().ok())
    };
    let chosen = config.stop_signal();
    if chosen != Signal::RuntimeDefault {
        return parse(chosen.as_str_name()).unwrap_or(libc::SIGTERM);
    }
    image.stop_signal.as_deref().and_then(parse).unwrap_or(libc::SIGTERM)
}
