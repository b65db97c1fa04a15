//! `ironkeel reset`: the host as it was before the first `up`.

use std::path::Path;

use ironkeel_journal::Entry;

use crate::instance::SHARED_RUN_DIR;
use crate::network::Netlink;
use crate::{Error, Instance, Progress, network, preflight};

/// Ends what still runs of the cluster's pods, undoes everything in its journal, and removes its
/// data directory. Volumes outside it stay. Can be repeated until nothing is left.
pub fn reset(instance: &Instance, progress: &Progress) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if !instance.exists() {
        return Err(Error::NoCluster(instance.dir.clone()));
    }
    let lock = preflight::lock(&instance.dir).map_err(|e| match e {
        Error::Locked { dir, pid } => Error::StillRunning { dir, pid },
        other => other,
    })?;
    let journal = ironkeel_journal::Journal::open(&instance.journal())?;
    let last = !network::other_clusters(&instance.tag)?;
    if !last {
        // They need forwarding too; the last one to go restores it.
        for entry in journal.entries().iter().filter(|e| matches!(e, Entry::Sysctl { .. })) {
            journal.strike(entry)?;
        }
    }
    let report = ironkeel_journal::undo_all(&journal, &Netlink)?;
    progress.done(format!("undone: {} links, mounts, namespaces, cgroups, tables and processes", report.undone.len()));
    if !report.failed.is_empty() {
        let lines = report.failed.iter().map(|(entry, why)| format!("  {entry:?}: {why}"));
        return Err(Error::Reset { count: report.failed.len(), list: lines.collect::<Vec<_>>().join("\n") });
    }
    let etcd_prefix = instance.etcd_prefix()?;
    drop(lock);
    std::fs::remove_dir_all(&instance.dir).map_err(Error::file("removing", &instance.dir))?;
    if last {
        // The common parent goes with the last cluster; absent is fine.
        let _ = std::fs::remove_file(Path::new(SHARED_RUN_DIR).join(ironkeel_cni::FORWARDING_BEFORE));
        let _ = std::fs::remove_dir(SHARED_RUN_DIR);
    }
    progress.done(format!("removed {}", instance.dir.display()));
    if let Some(prefix) = etcd_prefix {
        progress.done(format!("left alone: the cluster's objects in its etcd, under {prefix}"));
    }
    Ok(())
}
