//! Control groups as files: where the hierarchies are, and a few reads and writes that libcontainer
//! does not do for us. Knows version 1, version 2 and the hybrid of both.

use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// Version 1 controllers; empty for version 2 and for named hierarchies.
    pub(crate) controllers: Vec<String>,
    pub(crate) unified: bool,
}

const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
];

/// Every hierarchy mounted below /sys/fs/cgroup.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).filter(|m| m.starts_with("/sys/fs/cgroup")) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        if !matches!(kind, "cgroup" | "cgroup2") || found.iter().any(|h| h.mount == Path::new(mount)) {
            continue;
        }
        let controllers = options.split(',').filter(|o| CONTROLLERS.contains(o)).map(str::to_owned).collect();
        found.push(Hierarchy { mount: mount.into(), controllers, unified: kind == "cgroup2" });
    }
    found
}

/// Whether this host has only version 2.
pub(crate) fn unified() -> bool {
    let all = hierarchies();
    !all.is_empty() && all.iter().all(|h| h.unified)
}

/// The directory of a group that a controller rules. On version 2 there is one for all.
pub(crate) fn directory(controller: &str, group: &str) -> Option<PathBuf> {
    let all = hierarchies();
    let found = all
        .iter()
        .find(|h| h.controllers.iter().any(|c| c == controller))
        .or_else(|| all.iter().find(|h| h.unified && all.len() == 1))?;
    Some(found.mount.join(group.trim_start_matches('/')))
}

/// Every process in a group, in whichever hierarchy knows it.
pub(crate) fn processes(group: &str) -> Vec<i32> {
    let mut pids: Vec<i32> = Vec::new();
    for hierarchy in hierarchies() {
        let file = hierarchy.mount.join(group.trim_start_matches('/')).join("cgroup.procs");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Kills every process in a group.
pub(crate) fn kill_all(group: &str) {
    for pid in processes(group) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Removes a group from every hierarchy. An absent group is a success; one with processes stays.
pub(crate) fn remove(group: &str) {
    if group.trim_matches('/').is_empty() {
        return;
    }
    for hierarchy in hierarchies() {
        remove_tree(&hierarchy.mount.join(group.trim_start_matches('/')));
    }
}

fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// How many processes the kernel has killed in the group for want of memory.
pub(crate) fn oom_kills(group: &str) -> u64 {
    let Some(dir) = directory("memory", group) else { return 0 };
    ["memory.oom_control", "memory.events"]
        .into_iter()
        .find_map(|file| keyed(&dir.join(file), "oom_kill"))
        .unwrap_or_default()
}

/// The number behind `key ` in a flat keyed file.
pub(crate) fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The number that is a file's whole content; `max` has none.
pub(crate) fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}
