//! Mounts that the runtime makes on the host: a container's root, a sandbox's /dev/shm.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Longest option string that mount(2) takes, with room for its end, in bytes.
const MAX_OPTIONS_BYTES: usize = 4000;

/// The directories of one overlay.
pub(crate) struct Overlay<'a> {
    /// The uppermost first.
    pub(crate) lower: &'a [PathBuf],
    /// Where changes go; without it the mount is read-only.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
    pub(crate) target: &'a Path,
}

impl Overlay<'_> {
    pub(crate) fn mount(&self) -> std::io::Result<()> {
        let lower: Vec<&str> = self.lower.iter().filter_map(|l| l.to_str()).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = self.upper {
            // "volatile": no syncing of what dies with the container.
            options = format!("{options},upperdir={},workdir={},volatile", upper.display(), work.display());
        } else if lower.len() == 1 {
            // Overlayfs wants two lower directories when there is no upper one.
            return bind_read_only(&self.lower[0], self.target);
        }
        if options.len() > MAX_OPTIONS_BYTES {
            return self.mount_by_descriptor();
        }
        let flags = if self.upper.is_some() { MsFlags::empty() } else { MsFlags::MS_RDONLY };
        mount(Some("overlay"), self.target, Some("overlay"), flags, Some(options.as_str()))?;
        Ok(())
    }

    /// Many layers do not fit in a page of options; the newer calls take them one by one.
    fn mount_by_descriptor(&self) -> std::io::Result<()> {
        const FSCONFIG_SET_FLAG: libc::c_uint = 0;
        const FSCONFIG_SET_STRING: libc::c_uint = 1;
        const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
        const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
        // SAFETY: strings are terminated and outlive their calls; new descriptors are owned at once.
        unsafe {
            let fs = owned(libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), 1))?;
            let set = |key: &std::ffi::CStr, value: &Path| -> std::io::Result<()> {
                let value = CString::new(value.as_os_str().as_bytes())?;
                check(libc::syscall(
                    libc::SYS_fsconfig,
                    fs.as_raw_fd(),
                    FSCONFIG_SET_STRING,
                    key.as_ptr(),
                    value.as_ptr(),
                    0,
                ))
            };
            for lower in self.lower {
                set(c"lowerdir+", lower)?;
            }
            let none = std::ptr::null::<libc::c_char>();
            if let Some((upper, work)) = self.upper {
                set(c"upperdir", upper)?;
                set(c"workdir", work)?;
                check(libc::syscall(
                    libc::SYS_fsconfig,
                    fs.as_raw_fd(),
                    FSCONFIG_SET_FLAG,
                    c"volatile".as_ptr(),
                    none,
                    0,
                ))?;
            } else {
                check(libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_FLAG, c"ro".as_ptr(), none, 0))?;
            }
            check(libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0))?;
            let mounted = owned(libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, 0))?;
            let target = CString::new(self.target.as_os_str().as_bytes())?;
            check(libc::syscall(
                libc::SYS_move_mount,
                mounted.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            ))
        }
    }
}

fn bind_read_only(source: &Path, target: &Path) -> std::io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    mount(none, target, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    Ok(())
}

fn check(result: libc::c_long) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn owned(result: libc::c_long) -> std::io::Result<OwnedFd> {
    check(result)?;
    // SAFETY: a system call has just returned this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

pub(crate) fn mount_shm(target: &Path) -> std::io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), target, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))?;
    Ok(())
}

/// Unmounts whatever is mounted there; nothing is a success.
pub(crate) fn unmount(target: &Path) {
    while umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
}
