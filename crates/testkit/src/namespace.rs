//! A network namespace of a test's own: loopback, one uplink, a default route, nothing beyond.
//!
//! It has no name and lives as long as a descriptor or a process of it does, so that nothing is left
//! behind however a test ends.
#![allow(unsafe_code)]

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Outcome, run};

/// The (first) host's address in every namespace (RFC 5737's documentation range).
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// A network namespace.
#[derive(Clone, Debug)]
pub struct NetworkNamespace {
    namespace: Arc<File>,
    /// The namespace whose bridge joins it with others; kept while one of them lives.
    _hub: Option<Arc<File>>,
    address: Ipv4Addr,
}

impl NetworkNamespace {
    /// Makes one. Needs root.
    pub fn new() -> Outcome<Self> {
        let namespace = NetworkNamespace { namespace: empty()?, _hub: None, address: HOST_ADDRESS };
        namespace.ip(&[
            "link set lo up",
            // Both ends stay here: what leaves by the default route goes nowhere.
            "link add uplink0 type veth peer name uplink1",
            &format!("address add {HOST_ADDRESS}/24 dev uplink0"),
            "link set uplink0 up",
            "link set uplink1 up",
            "route add default via 192.0.2.1 dev uplink0",
        ])?;
        Ok(namespace)
    }

    /// Makes several hosts of one network, joined by a bridge in a namespace of its own. The first has
    /// [`HOST_ADDRESS`], each other one the address after its neighbour's. Needs root.
    pub fn joined(count: u8) -> Outcome<Vec<Self>> {
        let hub = NetworkNamespace { namespace: empty()?, _hub: None, address: Ipv4Addr::new(192, 0, 2, 1) };
        hub.ip(&[
            "link set lo up",
            "link add hub type bridge",
            &format!("address add {}/24 dev hub", hub.address),
            "link set hub up",
        ])?;
        let host = |index: u8| {
            let address = Ipv4Addr::from(u32::from(HOST_ADDRESS) + u32::from(index));
            let namespace = NetworkNamespace { namespace: empty()?, _hub: Some(hub.namespace.clone()), address };
            let file = format!("/proc/{}/fd/{}", std::process::id(), namespace.namespace.as_raw_fd());
            hub.ip(&[
                &format!("link add host{index} type veth peer name uplink0 netns {file}"),
                &format!("link set host{index} master hub"),
                &format!("link set host{index} up"),
            ])?;
            namespace.ip(&[
                "link set lo up",
                &format!("address add {address}/24 dev uplink0"),
                "link set uplink0 up",
                "route add default via 192.0.2.1 dev uplink0",
            ])?;
            Ok(namespace)
        };
        (0..count).map(host).collect()
    }

    /// Its address in the network beyond it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn ip(&self, lines: &[&str]) -> Outcome {
        lines.iter().try_for_each(|line| {
            let mut ip = self.command("ip");
            ip.args(line.split(' '));
            run::finish(ip, None, run::SHORT)?.done()
        })
    }

    /// A command that will run in it, and be killed when the thread that started it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_ended_by(program, libc::SIGKILL)
    }

    /// The same, with the signal that ends it.
    pub(crate) fn command_ended_by(&self, program: impl AsRef<std::ffi::OsStr>, signal: libc::c_int) -> Command {
        let namespace = self.namespace.clone();
        let mut command = Command::new(program);
        let enter = move || {
            setns(&*namespace, CloneFlags::CLONE_NEWNET)?;
            end_with_parent(signal)
        };
        // SAFETY: two system calls on values that were made before the fork; nothing is allocated.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `work` on a thread in the namespace: what sockets it opens belong there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Outcome<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&*self.namespace, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            let outcome: std::io::Result<T> = match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            outcome.map_err(Error::io("entering the network namespace"))
        })
    }
}

/// A namespace with nothing in it.
fn empty() -> Outcome<Arc<File>> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    });
    let namespace = made.join().map_err(|_| std::io::Error::other("the thread panicked")).and_then(|made| made);
    namespace.map(Arc::new).map_err(Error::io("a network namespace"))
}

/// Asks the kernel for `signal` when the thread that started this process ends.
fn end_with_parent(signal: libc::c_int) -> std::io::Result<()> {
    // SAFETY: a system call with plain integers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
