//! Cgroups of pods and QoS classes, with the cgroupfs driver: `<root>/pod<uid>`, `<root>/burstable/pod<uid>`,
//! `<root>/besteffort/pod<uid>`, in every v1 hierarchy that matters or in the unified one. Containers' own cgroups
//! below are the runtime's.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ironkeel_journal::{Entry, Journal};
use ironkeel_semantics::{QosClass, qos_class};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    Error, names,
    resources::{self, CPU_PERIOD_US},
};

/// v2 controllers that pods' cgroups have, where the host has them.
const CONTROLLERS_V2: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];
/// v1 controllers that pods are placed in.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];
/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// Which of a pod's limits are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limits {
    /// Those that are lower than they should be.
    Raised,
    /// All.
    All,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// A directory a controller.
    V1(Vec<PathBuf>),
    /// One tree.
    V2(PathBuf),
    /// Someone else makes the cgroups.
    Absent,
}

/// The cgroup tree of this kubelet's pods.
pub(crate) struct Cgroups {
    root: String,
    layout: Layout,
}

impl Cgroups {
    /// Finds out how the host's tree is laid out and makes the root and the QoS classes.
    pub(crate) fn prepare(root: &str, managed: bool, journal: Option<&Arc<Journal>>) -> Result<Self, Error> {
        let layout = if managed { detect(Path::new(MOUNT)) } else { Layout::Absent };
        let cgroups = Self { root: root.trim_end_matches('/').to_owned(), layout };
        if cgroups.layout != Layout::Absent {
            if let Some(journal) = journal {
                journal.record(Entry::Cgroup { path: cgroups.root.clone() })?;
            }
            for path in
                [cgroups.root.clone(), format!("{}/burstable", cgroups.root), format!("{}/besteffort", cgroups.root)]
            {
                cgroups.create(&path)?;
            }
            cgroups.set_shares(&format!("{}/besteffort", cgroups.root), 2);
        }
        Ok(cgroups)
    }

    /// The pod's cgroup, relative to the hierarchies: what CRI calls the cgroup parent.
    pub(crate) fn pod_path(&self, pod: &Pod) -> String {
        self.path(names::uid(pod), qos_class(pod))
    }

    fn path(&self, uid: &str, qos: QosClass) -> String {
        match qos {
            QosClass::Guaranteed => format!("{}/pod{uid}", self.root),
            QosClass::Burstable => format!("{}/burstable/pod{uid}", self.root),
            QosClass::BestEffort => format!("{}/besteffort/pod{uid}", self.root),
        }
    }

    /// Makes the pod's cgroup, or what a kubelet that was killed has left to do of it, and sets its limits; those of one
    /// that is there only when they are `settled`, and not about to be changed.
    pub(crate) fn create_pod(&self, pod: &Pod, settled: bool) -> Result<(), Error> {
        let path = self.pod_path(pod);
        let missing = !self.directories(&path).iter().all(|directory| directory.is_dir());
        self.create(&path)?;
        if (missing || settled)
            && let Err(error) = self.limit_pod(pod, Limits::All)
        {
            tracing::warn!(pod = names::name(pod), %error, "limits not set");
        }
        Ok(())
    }

    /// Sets the limits of the pod's cgroup, where they are not as they should be.
    pub(crate) fn limit_pod(&self, pod: &Pod, which: Limits) -> Result<(), Error> {
        let Some(spec) = &pod.spec else { return Ok(()) };
        let path = self.pod_path(pod);
        if which == Limits::All {
            self.set_shares(&path, resources::cpu_shares(resources::pod_request_milli(spec, "cpu")));
        }
        if let Some(limit) = resources::pod_limit_milli(spec, "cpu").filter(|limit| *limit > 0) {
            let quota = resources::cpu_quota_us(limit);
            let text = match &self.layout {
                Layout::V2(_) => format!("{quota} {CPU_PERIOD_US}"),
                _ => quota.to_string(),
            };
            if matches!(self.layout, Layout::V1(_)) {
                self.write_v1("cpu", &path, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string());
            }
            self.set_limit("cpu", &path, ["cpu.cfs_quota_us", "cpu.max"], quota, &text, which)?;
        }
        if let Some(limit) = resources::pod_limit_milli(spec, "memory").filter(|limit| *limit > 0) {
            let bytes = i64::try_from(limit / 1000).unwrap_or(i64::MAX);
            let files = ["memory.limit_in_bytes", "memory.max"];
            self.set_limit("memory", &path, files, bytes, &bytes.to_string(), which)?;
        }
        Ok(())
    }

    /// Writes a limit, whose file has a name in v1 and one in v2, when it is another than it was.
    fn set_limit(
        &self,
        controller: &str,
        path: &str,
        [v1, v2]: [&str; 2],
        limit: i64,
        text: &str,
        which: Limits,
    ) -> Result<(), Error> {
        let (directory, file, usage) = match &self.layout {
            Layout::V1(_) => (below(&Path::new(MOUNT).join(controller), path), v1, "memory.usage_in_bytes"),
            Layout::V2(mount) => (below(mount, path), v2, "memory.current"),
            Layout::Absent => return Ok(()),
        };
        let first = |file: &str| -> Option<i64> {
            std::fs::read_to_string(directory.join(file)).ok()?.split_whitespace().next()?.parse().ok()
        };
        // None and negative: no limit.
        let now = first(file).filter(|now| *now >= 0).unwrap_or(i64::MAX);
        if now == limit || (which == Limits::Raised && limit < now) {
            return Ok(());
        }
        if controller == "memory" && limit < now {
            // The kernel would kill for it.
            let used = first(usage).unwrap_or_default();
            if used >= limit {
                return Err(Error::PodMemoryInUse { limit_bytes: limit, used_bytes: used });
            }
        }
        std::fs::write(directory.join(file), text).map_err(|source| Error::Cgroup { path: path.to_owned(), source })
    }

    /// Gives the burstable class the weight of what its pods ask for.
    pub(crate) fn set_burstable_request(&self, milli: i128) {
        self.set_shares(&format!("{}/burstable", self.root), resources::cpu_shares(milli));
    }

    /// Removes the pod's cgroup, whatever its class was.
    pub(crate) fn remove_pod(&self, uid: &str) {
        for qos in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for directory in self.directories(&self.path(uid, qos)) {
                if let Err(error) = remove_tree(&directory) {
                    tracing::debug!(path = %directory.display(), %error, "cgroup not removed yet");
                }
            }
        }
    }

    /// The directories of a cgroup.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        match &self.layout {
            Layout::V1(mounts) => mounts.iter().map(|mount| below(mount, path)).collect(),
            Layout::V2(mount) => vec![below(mount, path)],
            Layout::Absent => Vec::new(),
        }
    }

    /// Makes a cgroup where it is not there, with the controllers of those above it.
    fn create(&self, path: &str) -> Result<(), Error> {
        let failed = |source| Error::Cgroup { path: path.to_owned(), source };
        if let Layout::V2(mount) = &self.layout {
            let mut directory = mount.clone();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                give_controllers(&directory);
                directory.push(part);
                std::fs::create_dir_all(&directory).map_err(failed)?;
            }
            return Ok(());
        }
        for directory in self.directories(path) {
            std::fs::create_dir_all(&directory).map_err(failed)?;
            inherit_cpuset(&directory);
        }
        Ok(())
    }

    fn set_shares(&self, path: &str, shares: i64) {
        match &self.layout {
            Layout::V1(_) => self.write_v1("cpu", path, "cpu.shares", &shares.to_string()),
            Layout::V2(mount) => {
                let weight = 1 + ((shares - 2) * 9999) / 262_142;
                write(&below(mount, path).join("cpu.weight"), &weight.to_string());
            }
            Layout::Absent => {}
        }
    }

    fn write_v1(&self, controller: &str, path: &str, file: &str, text: &str) {
        let mount = Path::new(MOUNT).join(controller);
        write(&below(&mount, path).join(file), text);
    }
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn detect(mount: &Path) -> Layout {
    if mount.join("cgroup.controllers").exists() {
        return Layout::V2(mount.to_owned());
    }
    let mounts: Vec<_> = CONTROLLERS.iter().map(|name| mount.join(name)).filter(|path| path.exists()).collect();
    if mounts.is_empty() { Layout::Absent } else { Layout::V1(mounts) }
}

/// Gives the cgroups below one in v2 the controllers that they lack.
fn give_controllers(directory: &Path) {
    let list = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let (available, given) = (list("cgroup.controllers"), list("cgroup.subtree_control"));
    let has = |list: &str, controller: &str| list.split_whitespace().any(|name| name == controller);
    for controller in CONTROLLERS_V2.iter().filter(|name| has(&available, name) && !has(&given, name)) {
        write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"));
    }
}

/// A v1 cpuset starts empty and takes no process until it is given its parent's processors and memory.
fn inherit_cpuset(directory: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let Ok(text) = std::fs::read_to_string(&own) else { continue };
        if !text.trim().is_empty() {
            continue;
        }
        if let Some(parent) = directory.parent().and_then(|p| std::fs::read_to_string(p.join(file)).ok()) {
            write(&own, parent.trim());
        }
    }
}

fn write(path: &Path, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        tracing::debug!(path = %path.display(), text, %error, "cgroup setting refused");
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(directory)
}
