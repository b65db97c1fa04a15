//! Undoing what the journal lists: processes first, then mounts from the innermost out, namespaces,
//! links, routes, tables, cgroups, files and sysctls.

use std::ffi::CString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Entry, Journal, JournalError};

/// How long killed processes may take to go away before reset gives up on them.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between looks at processes or cgroups that are on their way out.
const KILL_POLL: Duration = Duration::from_millis(5);

/// Removes links, routes and nftables tables; `netlink` does it, and this crate must not know it.
pub trait HostNetwork {
    /// Deletes a link of the host's namespace; `Ok` when it is not there.
    fn delete_link(&self, name: &str) -> Result<(), String>;
    /// Deletes a route of the main table through that gateway; `Ok` when it is not there.
    fn delete_route(&self, destination: &str, gateway: &str) -> Result<(), String>;
    /// Deletes an nftables table; `Ok` when it is not there.
    fn delete_table(&self, family: &str, name: &str) -> Result<(), String>;
}

/// What came of a reset.
#[derive(Debug, Default)]
pub struct UndoReport {
    /// Entries that are gone now.
    pub undone: Vec<Entry>,
    /// Entries that could not be undone, and why. They stay in the journal.
    pub failed: Vec<(Entry, String)>,
}

/// Undoes every entry of the journal and strikes it out. Goes on after a failure; a second call
/// takes up what is left.
pub fn undo_all(journal: &Journal, network: &dyn HostNetwork) -> Result<UndoReport, JournalError> {
    let mut entries = journal.entries();
    entries.sort_by_key(|e| (order(e), std::cmp::Reverse(depth(e))));
    let mut report = UndoReport::default();
    kill_all(&entries);
    for entry in entries {
        match undo(&entry, network) {
            Ok(()) => {
                journal.strike(&entry)?;
                report.undone.push(entry);
            }
            Err(reason) => report.failed.push((entry, reason)),
        }
    }
    Ok(report)
}

fn order(entry: &Entry) -> u8 {
    match entry {
        Entry::Process { .. } => 0,
        Entry::Cgroup { .. } => 1,
        Entry::Mount { .. } => 2,
        Entry::Namespace { .. } => 3,
        Entry::Link { .. } | Entry::Route { .. } => 4,
        Entry::NftTable { .. } => 5,
        Entry::File { .. } => 6,
        Entry::Tree { .. } => 7,
        Entry::Sysctl { .. } => 8,
    }
}

/// Deeper paths go first.
fn depth(entry: &Entry) -> usize {
    match entry {
        Entry::Mount { path }
        | Entry::Namespace { path }
        | Entry::File { path }
        | Entry::Tree { path }
        | Entry::Cgroup { path } => path.matches('/').count(),
        _ => 0,
    }
}

fn undo(entry: &Entry, network: &dyn HostNetwork) -> Result<(), String> {
    match entry {
        Entry::Link { name } => network.delete_link(name),
        Entry::Route { destination, gateway } => network.delete_route(destination, gateway),
        Entry::NftTable { family, name } => network.delete_table(family, name),
        Entry::Process { pid, start_time } => await_gone(*pid, *start_time),
        Entry::Mount { path } => unmount_below(Path::new(path)),
        Entry::Namespace { path } => {
            unmount_below(Path::new(path))?;
            gone(std::fs::remove_file(path))
        }
        Entry::Cgroup { path } => remove_cgroup(path),
        Entry::File { path } => match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => gone(std::fs::remove_dir(path)),
            _ => gone(std::fs::remove_file(path)),
        },
        Entry::Tree { path } => {
            unmount_below(Path::new(path))?;
            gone(std::fs::remove_dir_all(path))
        }
        Entry::Sysctl { name, previous } => {
            let file = format!("/proc/sys/{}", name.replace('.', "/"));
            gone(std::fs::OpenOptions::new().write(true).open(&file).and_then(|mut f| f.write_all(previous.as_bytes())))
        }
    }
}

fn gone(result: std::io::Result<()>) -> Result<(), String> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.to_string()),
        _ => Ok(()),
    }
}

/// Start time (field 22 of `/proc/<pid>/stat`, clock ticks since boot) of a living process;
/// `None` when it is gone or a zombie.
pub fn process_start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn kill_all(entries: &[Entry]) {
    for entry in entries {
        if let Entry::Process { pid, start_time } = entry
            && process_start_time(*pid) == Some(*start_time)
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn await_gone(pid: i32, start_time: u64) -> Result<(), String> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    while process_start_time(pid) == Some(start_time) {
        if Instant::now() > deadline {
            return Err(format!("process {pid} is still there after SIGKILL"));
        }
        std::thread::sleep(KILL_POLL);
    }
    Ok(())
}

/// Mount points at `root` and below it, innermost last.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let paths = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| PathBuf::from(unescape(p)));
    paths.filter(|p| p.starts_with(root)).collect()
}

/// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let digits: Vec<u8> = if b == b'\\' { bytes.by_ref().take(3).collect() } else { Vec::new() };
        let code = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 8).ok());
        out.push(code.unwrap_or(b));
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn unmount_below(root: &Path) -> Result<(), String> {
    for path in mounts_below(root).iter().rev() {
        let target = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
        nix::mount::umount2(target.as_c_str(), nix::mount::MntFlags::MNT_DETACH)
            .map_err(|e| format!("unmounting {}: {e}", path.display()))?;
    }
    Ok(())
}

/// Roots of every mounted cgroup hierarchy, v1 and v2.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.split(" - ").nth(1).is_some_and(|tail| tail.starts_with("cgroup")))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|p| PathBuf::from(unescape(p)))
        .collect()
}

fn remove_cgroup(path: &str) -> Result<(), String> {
    let relative = path.trim_start_matches('/');
    if relative.is_empty() {
        return Err("refusing to remove a root cgroup".into());
    }
    for root in cgroup_roots() {
        remove_cgroup_dir(&root.join(relative))?;
    }
    Ok(())
}

fn remove_cgroup_dir(dir: &Path) -> Result<(), String> {
    let Ok(children) = std::fs::read_dir(dir) else { return Ok(()) };
    for child in children.flatten().filter(|c| c.file_type().is_ok_and(|t| t.is_dir())) {
        remove_cgroup_dir(&child.path())?;
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|l| l.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if Instant::now() > deadline => return Err(format!("{}: {e}", dir.display())),
            Err(_) => std::thread::sleep(KILL_POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct NoNetwork;
    impl HostNetwork for NoNetwork {
        fn delete_link(&self, name: &str) -> Result<(), String> {
            Err(format!("{name} is stuck"))
        }
        fn delete_route(&self, _: &str, _: &str) -> Result<(), String> {
            Ok(())
        }
        fn delete_table(&self, _: &str, _: &str) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn undoes_processes_mounts_trees_and_cgroups_and_keeps_what_failed() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal")).unwrap();
        let tree = dir.path().join("tree with blank");
        let mount = tree.join("m");
        std::fs::create_dir_all(&mount).unwrap();
        nix::mount::mount(Some("t"), &mount, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let group = format!("/ironkeel-journal-test-{}", std::process::id());
        for root in cgroup_roots() {
            std::fs::create_dir_all(root.join(&group[1..]).join("inner")).unwrap();
        }
        let entries = [
            Entry::Tree { path: tree.display().to_string() },
            Entry::Mount { path: mount.display().to_string() },
            Entry::Process { pid, start_time: process_start_time(pid).unwrap() },
            Entry::Cgroup { path: group.clone() },
            Entry::Link { name: "stuck0".into() },
            Entry::File { path: "/nonexistent/file".into() },
        ];
        for entry in &entries {
            journal.record(entry.clone()).unwrap();
        }
        let report = undo_all(&journal, &NoNetwork).unwrap();
        child.wait().unwrap();
        assert_eq!(report.failed, [(Entry::Link { name: "stuck0".into() }, "stuck0 is stuck".to_owned())]);
        assert_eq!(report.undone.len(), 5);
        assert!(!tree.exists());
        assert!(cgroup_roots().iter().all(|r| !r.join(&group[1..]).exists()));
        assert_eq!(journal.entries(), [Entry::Link { name: "stuck0".into() }]);
    }

    #[test]
    fn a_recycled_pid_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal")).unwrap();
        let me = std::process::id() as i32;
        journal.record(Entry::Process { pid: me, start_time: 1 }).unwrap();
        assert!(undo_all(&journal, &NoNetwork).unwrap().failed.is_empty());
    }
}
