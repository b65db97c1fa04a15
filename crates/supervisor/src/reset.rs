//! `ironkeel reset`: the host as it was before the first `up`.

use crate::network::Netlink;
use crate::{Error, Instance, Progress, preflight};

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
    let report = ironkeel_journal::undo_all(&journal, &Netlink)?;
    progress.done(format!("undone: {} links, mounts, namespaces, cgroups, tables and processes", report.undone.len()));
    if !report.failed.is_empty() {
        let lines = report.failed.iter().map(|(entry, why)| format!("  {entry:?}: {why}"));
        return Err(Error::Reset { count: report.failed.len(), list: lines.collect::<Vec<_>>().join("\n") });
    }
    drop(lock);
    std::fs::remove_dir_all(&instance.dir).map_err(Error::file("removing", &instance.dir))?;
    // The common parent goes with the last cluster.
    let _ = std::fs::remove_dir("/run/ironkeel");
    progress.done(format!("removed {}", instance.dir.display()));
    Ok(())
}
