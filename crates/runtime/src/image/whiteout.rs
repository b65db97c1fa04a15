//! Overlayfs' way to say "not here": a 0:0 device for a file, an attribute for a directory.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `.wh.name` in a layer's archive hides `name` of the layers below.
pub(super) const PREFIX: &[u8] = b".wh.";
/// `.wh..wh..opq` hides everything below its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

pub(super) fn c_path(path: &Path) -> std::io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

pub(super) fn hide(path: &Path) -> std::io::Result<()> {
    make_node(path, libc::S_IFCHR, 0)
}

pub(super) fn make_node(path: &Path, mode: libc::mode_t, device: libc::dev_t) -> std::io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is a terminated string.
    check(unsafe { libc::mknod(path.as_ptr(), mode, device) })
}

pub(super) fn make_opaque(dir: &Path) -> std::io::Result<()> {
    set_attribute(dir, c"trusted.overlay.opaque", b"y")
}

pub(super) fn set_attribute(path: &Path, name: &std::ffi::CStr, value: &[u8]) -> std::io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: strings are terminated, and the value's length is its own.
    check(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

/// Sets modification and access time without following a symbolic link.
pub(super) fn set_times(path: &Path, seconds: u64) -> std::io::Result<()> {
    let path = c_path(path)?;
    let time = libc::timespec { tv_sec: seconds.min(i64::MAX as u64) as libc::time_t, tv_nsec: 0 };
    let times = [time, time];
    // SAFETY: the path is a terminated string and the array has the two elements that the call reads.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) })
}

fn check(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
