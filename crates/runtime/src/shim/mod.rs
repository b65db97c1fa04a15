//! The shim: one small process a pod, which outlives the runtime.
//!
//! It keeps the sandbox's namespaces, is the parent of the containers' first processes, pumps their
//! output into logs, and tells whoever subscribes when one ends. It has one thread: containers are
//! made by forked children of it, because libcontainer changes the process that calls it and clones
//! without exec. Everything the runtime needs to find it again lies in the state directory.

mod create;
mod executor;
mod log;
mod namespaces;
pub(crate) mod protocol;
mod server;
mod streams;

pub(crate) use executor::StoredPrograms;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::net::UnixListener;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use protocol::ShimConfig;

/// What the shim's standard output says when it listens.
pub(crate) const READY: &str = "ready";

/// Runs the shim; `args` follow the word `shim` and are one: the path of its configuration, a file
/// that the runtime has written. Call it first thing in `main`, before any thread exists; the answer
/// is the exit code.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let Some(path) = args.into_iter().next() else {
        eprintln!("shim: this command is run by the container runtime, with the path of a configuration");
        return 2;
    };
    match run(&path) {
        Ok(()) => 0,
        Err(error) => {
            println!("{error}");
            1
        }
    }
}

fn run(path: &OsString) -> Result<(), String> {
    let config = std::fs::read(path).map_err(|e| format!("reading {}: {e}", path.to_string_lossy()))?;
    let config: ShimConfig = serde_json::from_slice(&config).map_err(|e| format!("the shim's configuration: {e}"))?;
    // A session of its own: no terminal's hang-up reaches the containers.
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    protect_from_oom();
    // SAFETY: prctl with integers only.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"ironkeel-shim".as_ptr());
    }
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).map_err(|e| format!("blocking SIGCHLD: {e}"))?;
    make_namespaces(&config)?;
    let pause = if config.shared_pid {
        Some(namespaces::pause().map_err(|e| format!("making the shared process namespace: {e}"))?)
    } else {
        None
    };
    let listener = UnixListener::bind(&config.socket).map_err(|e| format!("listening on {}: {e}", config.socket))?;
    let mut server = server::Server::new(config, listener, pause).map_err(|e| format!("starting the shim: {e}"))?;
    println!("{READY}");
    let _ = std::io::stdout().flush();
    detach_stdio().map_err(|e| format!("leaving the runtime's output: {e}"))?;
    server.serve().map_err(|e| e.to_string())
}

/// In a child, so that the shim itself stays in the host's namespaces.
fn make_namespaces(config: &ShimConfig) -> Result<(), String> {
    let (helper, mut result) =
        create::fork_helper(|| namespaces::make(config).map(|()| 0)).map_err(|e| e.to_string())?;
    let answer = create::read_result(&mut result);
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(helper), None);
    answer.map(|_| ())
}

/// As upstream's shims; refused without CAP_SYS_RESOURCE, which costs only protection.
fn protect_from_oom() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
}

fn detach_stdio() -> nix::Result<()> {
    let null = nix::fcntl::open("/dev/null", nix::fcntl::OFlag::O_RDWR, nix::sys::stat::Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}
