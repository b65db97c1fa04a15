//! The last step in a container's process: system call filters, then execve.
//!
//! libcontainer's own executor knows no filters without a C library, and asks for the execute bit of
//! "others", which a file of the container's own user need not have.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::unistd::{AccessFlags, access};
use seccompiler::sock_filter;

/// Runs the process, filtered by the bundle's programs in their order.
#[derive(Clone)]
pub(crate) struct FilteredExecutor {
    programs: Vec<Vec<sock_filter>>,
}

/// `seccomp.json`: programs of (code, jt, jf, k).
pub(crate) type StoredPrograms = Vec<Vec<(u16, u8, u8, u32)>>;

impl FilteredExecutor {
    /// Reads the bundle's `seccomp.json`; no file means no filter.
    pub(crate) fn load(bundle: &Path) -> std::io::Result<Self> {
        let stored: StoredPrograms = match std::fs::read(bundle.join("seccomp.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let convert = |p: Vec<_>| p.into_iter().map(|(code, jt, jf, k)| sock_filter { code, jt, jf, k }).collect();
        Ok(FilteredExecutor { programs: stored.into_iter().map(convert).collect() })
    }
}

fn argument_zero(spec: &Spec) -> Option<&String> {
    spec.process().as_ref()?.args().as_ref()?.first()
}

fn find(spec: &Spec) -> Result<PathBuf, String> {
    let name = argument_zero(spec).ok_or("no command to run")?;
    if name.contains('/') {
        return executable(Path::new(name)).map_err(|e| format!("exec: \"{name}\": {e}"));
    }
    let env = spec.process().as_ref().and_then(|p| p.env().as_ref());
    let path = env.and_then(|env| env.iter().rev().find_map(|e| e.strip_prefix("PATH="))).unwrap_or_default();
    for dir in path.split(':') {
        if let Ok(found) = executable(&Path::new(if dir.is_empty() { "." } else { dir }).join(name)) {
            return Ok(found);
        }
    }
    Err(format!("exec: \"{name}\": executable file not found in $PATH"))
}

fn executable(path: &Path) -> Result<PathBuf, String> {
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => Err("is a directory".into()),
        Ok(_) => match access(path, AccessFlags::X_OK) {
            Ok(()) => Ok(path.to_path_buf()),
            Err(_) => Err("permission denied".into()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err("no such file or directory".into()),
        Err(e) => Err(e.to_string()),
    }
}

impl Executor for FilteredExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failed = |what: String| ExecutorError::Other(what);
        let path = find(spec).map_err(failed)?;
        let args = spec.process().as_ref().and_then(|p| p.args().as_ref()).ok_or(ExecutorError::InvalidArg)?;
        let args: Result<Vec<CString>, _> = args.iter().map(|a| CString::new(a.as_bytes())).collect();
        let args = args.map_err(|_| ExecutorError::InvalidArg)?;
        let path = CString::new(path.into_os_string().into_encoded_bytes()).map_err(|_| ExecutorError::InvalidArg)?;
        // SAFETY: plain system calls; this process has one thread and is about to become another program.
        unsafe {
            // Rust ignores SIGPIPE, and an ignored signal stays ignored across execve.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        for program in &self.programs {
            install(program).map_err(|e| failed(format!("installing the system call filter: {e}")))?;
        }
        let errno = nix::unistd::execv(&path, &args);
        Err(failed(format!(
            "exec {}: {}",
            path.to_string_lossy(),
            errno.err().map_or_else(String::new, |e| e.to_string())
        )))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        find(spec).map(|_| ()).map_err(ExecutorValidationError::ArgValidationError)
    }
}

/// seccompiler's own installer sets no_new_privs first, which a container that may gain privileges
/// must not have; it has CAP_SYS_ADMIN until execve instead.
fn install(program: &[sock_filter]) -> std::io::Result<()> {
    let filter =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>() };
    // SAFETY: the program outlives the call, and both sock_filter types are the kernel's layout.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
