//! What must hold before anything is made.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::Error;

/// Checks privileges and the kernel.
pub(crate) fn check_host() -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let module = |name: &str| Path::new("/sys/module").join(name).exists();
    if !filesystems.contains("\toverlay") && !module("overlay") {
        return Err(Error::Kernel {
            feature: "overlayfs",
            mend: "load the module `overlay`, or use a kernel with CONFIG_OVERLAY_FS",
        });
    }
    if ironkeel_journal::cgroup_roots().is_empty() {
        return Err(Error::Kernel { feature: "mounted cgroups", mend: "mount cgroup2 at /sys/fs/cgroup" });
    }
    let tables = ironkeel_netlink::Socket::netfilter().and_then(|mut s| s.tables(ironkeel_netlink::nft::Family::Inet));
    if tables.is_err() {
        return Err(Error::Kernel {
            feature: "nftables",
            mend: "load the module `nf_tables`, or use a kernel with CONFIG_NF_TABLES",
        });
    }
    Ok(())
}

/// Held while a cluster runs; the file holds the process id.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// Takes the directory for this process; a second `up` is told who has it.
pub(crate) fn lock(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(Error::file("opening", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            let write = |f: &mut File| {
                f.set_len(0).and_then(|()| f.rewind()).and_then(|()| write!(f, "{}", std::process::id()))
            };
            write(&mut file).map_err(Error::file("writing", &path))?;
            Ok(Lock { _file: file })
        }
        Err((mut file, _)) => {
            let mut pid = String::new();
            // Whoever has the lock may be writing its id just now; the message does without then.
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
            Err(Error::Locked { dir: dir.to_owned(), pid })
        }
    }
}
