//! What there is on a host, for comparing before and after.

use std::collections::BTreeSet;
use std::path::Path;

use crate::run;
use crate::tools::Tool;
use crate::{NetworkNamespace, Outcome};

/// Levels of cgroups and files that are looked at. What is left of a cluster shows here; what other
/// clusters of the host do within their own folders does not.
const DEPTH: usize = 2;

/// Links, addresses, routes, rules, nftables, mounts, cgroups, namespaces, sockets and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the namespace's network and the host's rest; files below `folders`.
    pub fn take(namespace: &NetworkNamespace, folders: &[&Path]) -> Outcome<Self> {
        let mut lines = BTreeSet::new();
        for args in [
            "-o link",
            "-o address",
            "route show table all",
            "-6 route show table all",
            "rule",
            "neigh show nud permanent",
        ] {
            let mut ip = namespace.command("ip");
            ip.args(args.split(' '));
            let text = run::finish(ip, None, run::SHORT)?.ok()?;
            // IPv6's own addresses come a moment after a link; they are the kernel's.
            let kept =
                text.lines().filter(|l| !l.contains("fe80") && !l.contains("ff00::") && !l.contains("tentative"));
            lines.extend(kept.map(|l| format!("ip {args}: {}", l.split(" valid_lft").next().unwrap_or(l).trim())));
        }
        let mut nft = namespace.command(Tool::Nft.path().unwrap_or_else(|| "nft".into()));
        nft.args(["list", "ruleset"]);
        lines.extend(run::finish(nft, None, run::SHORT)?.ok()?.lines().map(|l| format!("nft: {}", l.trim())));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for mount in mounts.lines() {
            let fields: Vec<&str> = mount.split(' ').collect();
            lines.insert(format!("mount: {} {}", fields.get(3).unwrap_or(&""), fields.get(4).unwrap_or(&"")));
        }
        lines.extend(namespaces().into_iter().map(|n| format!("namespace: {n}")));
        walk("cgroup", Path::new("/sys/fs/cgroup"), DEPTH, false, &mut lines);
        for folder in folders {
            walk("file", folder, DEPTH, true, &mut lines);
        }
        Ok(Snapshot { lines })
    }

    /// What is only in one of the two; nothing when they are alike.
    pub fn differences(&self, later: &Snapshot) -> Vec<String> {
        let gone = self.lines.difference(&later.lines).map(|l| format!("gone: {l}"));
        let left = later.lines.difference(&self.lines).map(|l| format!("left: {l}"));
        gone.chain(left).collect()
    }
}

/// Every namespace that a process is in.
fn namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !process.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        for entry in std::fs::read_dir(process.path().join("ns")).into_iter().flatten().flatten() {
            // A process may end meanwhile.
            found.extend(std::fs::read_link(entry.path()).ok().map(|l| l.display().to_string()));
        }
    }
    found
}

fn walk(what: &str, folder: &Path, depth: usize, files: bool, lines: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_folder || files {
            lines.insert(format!("{what}: {}", entry.path().display()));
        }
        if is_folder && depth > 1 {
            walk(what, &entry.path(), depth - 1, files, lines);
        }
    }
}
