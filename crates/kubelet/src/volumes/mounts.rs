//! Kernel mounts of volumes: tmpfs for memory-backed ones, bind mounts for subPaths; both journalled. A subPath is
//! resolved by the kernel beneath its volume, so that no link planted in the volume leads out of it.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use ironkeel_journal::{Entry, Journal};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::Mode,
};

use crate::{Error, error::FileContext};

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let path = path.to_string_lossy();
    mounts_below(&path).iter().any(|mount| *mount == path)
}

/// Mount points at or below a path, deepest first.
pub(crate) fn mounts_below(path: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| mount.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        .filter(|mount| mount == path || mount.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
        .collect();
    found.sort_by_key(|mount| std::cmp::Reverse(mount.len()));
    found
}

/// Mounts a tmpfs of at most `size_bytes` (zero: the kernel's default).
pub(crate) fn mount_tmpfs(path: &Path, size_bytes: i64, journal: Option<&Journal>) -> Result<(), Error> {
    if is_mounted(path) {
        return Ok(());
    }
    record(path, journal)?;
    let options = (size_bytes > 0).then(|| format!("size={size_bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref()).file("mounting tmpfs on", path)
}

fn record(path: &Path, journal: Option<&Journal>) -> Result<(), Error> {
    if let Some(journal) = journal {
        journal.record(Entry::Mount { path: path.to_string_lossy().into_owned() })?;
    }
    Ok(())
}

/// Unmounts everything at or below the path.
pub(crate) fn unmount_below(path: &Path, journal: Option<&Journal>) -> Result<(), Error> {
    for mount in mounts_below(&path.to_string_lossy()) {
        umount2(mount.as_str(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).file("unmounting", &mount)?;
        if let Some(journal) = journal {
            journal.strike(&Entry::Mount { path: mount })?;
        }
    }
    Ok(())
}

/// Opens `sub_path` beneath `volume`, making missing directories.
fn open_beneath(volume: &Path, sub_path: &str) -> Result<OwnedFd, nix::Error> {
    let root = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = || {
        OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    };
    match openat2(&root, sub_path, how()) {
        Err(nix::Error::ENOENT) => {}
        other => return other,
    }
    let mut current = root;
    for part in sub_path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let next = match openat2(&current, part, how()) {
            Err(nix::Error::ENOENT) => {
                nix::sys::stat::mkdirat(&current, part, Mode::from_bits_truncate(0o750))?;
                openat2(&current, part, how())?
            }
            other => other?,
        };
        current = next;
    }
    Ok(current)
}

/// Binds `sub_path` of a volume to `target` and returns whether it is a directory.
pub(crate) fn bind_subpath(
    volume: &Path,
    sub_path: &str,
    target: &Path,
    journal: Option<&Journal>,
) -> Result<(), Error> {
    let source = open_beneath(volume, sub_path).file("opening the subPath", volume.join(sub_path))?;
    let link = format!("/proc/self/fd/{}", source.as_raw_fd());
    let metadata = fs::metadata(&link).file("reading", volume.join(sub_path))?;
    unmount_below(target, journal)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).file("creating", parent)?;
    }
    if metadata.is_dir() {
        fs::create_dir_all(target).file("creating", target)?;
    } else if !target.exists() {
        fs::write(target, "").file("creating", target)?;
    }
    record(target, journal)?;
    mount(Some(link.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .file("binding", target)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_subpath_cannot_leave_its_volume() {
        let volume = std::env::temp_dir().join(format!("ironkeel-subpath-{}", rand::random::<u64>()));
        fs::create_dir_all(volume.join("a")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("a", volume.join("in")).unwrap();
        assert!(open_beneath(&volume, "a").is_ok());
        assert!(open_beneath(&volume, "in").is_ok());
        assert!(open_beneath(&volume, "new/deep").is_ok());
        assert!(volume.join("new/deep").is_dir());
        for outside in ["out", "out/passwd", "../x", "a/../../x"] {
            assert!(open_beneath(&volume, outside).is_err(), "{outside}");
        }
        fs::remove_dir_all(&volume).unwrap();
    }

    #[test]
    fn memory_volumes_are_mounted_and_unmounted() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let path = std::env::temp_dir().join(format!("ironkeel-tmpfs-{}", rand::random::<u64>()));
        fs::create_dir_all(&path).unwrap();
        mount_tmpfs(&path, 1 << 20, None).unwrap();
        assert!(is_mounted(&path));
        unmount_below(&path, None).unwrap();
        assert!(!is_mounted(&path));
        fs::remove_dir(&path).unwrap();
    }
}
