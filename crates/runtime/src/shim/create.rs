//! Making containers and processes in them: each in a forked child of the shim.
//!
//! The child may change its directory, its OOM score and its dumpable flag as libcontainer likes; it
//! answers over a pipe and ends, and the new process becomes the shim's own child (it is a subreaper).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, fork, pipe2};

use crate::error::with_causes;

use super::executor::FilteredExecutor;
use super::protocol::RunContainer;

/// Standard streams of a new process: three descriptors, or the path of a console socket.
pub(super) enum Stdio {
    Fds([OwnedFd; 3]),
    Console(String),
}

/// Forks; the child runs `work` and sends its answer. The parent gets the child's pid and the pipe.
pub(super) fn fork_helper(work: impl FnOnce() -> Result<i32, String>) -> std::io::Result<(i32, File)> {
    let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: the shim has one thread, so the child may allocate and call anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child.as_raw(), File::from(read))),
        ForkResult::Child => {
            drop(read);
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            let answer: Result<i32, String> = work();
            let bytes = serde_json::to_vec(&answer).unwrap_or_default();
            let _ = File::from(write).write_all(&bytes);
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Reads a helper's answer to the end of its pipe.
pub(super) fn read_result(pipe: &mut File) -> Result<i32, String> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).unwrap_or_else(|_| Err("the helper process died".into()))
}

/// Creates and starts a container; answers its first process.
pub(super) fn run_container(containers_dir: &str, run: &RunContainer, stdio: Stdio) -> Result<i32, String> {
    let bundle = Path::new(&run.bundle);
    let executor = FilteredExecutor::load(bundle).map_err(|e| format!("reading the system call filter: {e}"))?;
    let builder = builder(&run.id, containers_dir, executor, stdio)?;
    let mut container =
        builder.as_init(bundle).with_systemd(false).with_detach(true).build().map_err(|e| with_causes(&e))?;
    let pid = container.pid().ok_or("the container has no process")?.as_raw();
    container.start().map_err(|e| with_causes(&e))?;
    Ok(pid)
}

/// Starts a process in a running container.
pub(super) fn exec(
    containers_dir: &str,
    id: &str,
    bundle: &str,
    process: &serde_json::Value,
    stdio: Stdio,
) -> Result<i32, String> {
    let executor =
        FilteredExecutor::load(Path::new(bundle)).map_err(|e| format!("reading the system call filter: {e}"))?;
    // A view of the container's folder for this exec alone: libcontainer leaves a socket behind in it.
    let view = Path::new(containers_dir).join(format!("exec-{}", std::process::id()));
    let made = view_of(&Path::new(containers_dir).join(id), &view.join(id))
        .map_err(|e| format!("preparing {}: {e}", view.display()));
    // A file, because libcontainer reads the process from one.
    let file = view.join("process.json");
    let built = made.and_then(|()| {
        std::fs::write(&file, process.to_string()).map_err(|e| format!("writing {}: {e}", file.display()))?;
        let root = view.to_str().ok_or("a path that is not text")?;
        let builder = builder(id, root, executor, stdio)?.as_tenant().with_process(Some(&file)).with_detach(true);
        builder.build().map_err(|e| with_causes(&e))
    });
    let _ = std::fs::remove_dir_all(&view);
    built.map(|pid| pid.as_raw())
}

/// Makes `view` with links to the files of `folder`; sockets stay out.
fn view_of(folder: &Path, view: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(view)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::hard_link(entry.path(), view.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn builder(id: &str, dir: &str, executor: FilteredExecutor, stdio: Stdio) -> Result<ContainerBuilder, String> {
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(dir)
        .map_err(|e| with_causes(&e))?
        .with_executor(executor);
    let builder = match stdio {
        Stdio::Fds([stdin, stdout, stderr]) => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
        Stdio::Console(path) => builder.with_console_socket(Some(path)),
    };
    builder.validate_id().map_err(|e| with_causes(&e))
}
