//! The shim's loop: one thread, one `poll`.

mod requests;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::{
    ContainerReport, MAX_FRAME_BYTES, Reply, Request, ShimConfig, Stream, frame, receive, send, stream_frame,
};
use super::streams::{Container, MAX_PENDING_INPUT_BYTES};
use crate::cgroup;

/// Output that an attached client has not read yet; beyond it the container waits. In bytes.
const MAX_PENDING_OUTPUT_BYTES: usize = 256 * 1024;
/// Exit code of what a signal ended, plus the signal.
const SIGNALLED: i32 = 128;

enum Role {
    /// Sends requests.
    Client,
    /// Wants to know of every exit.
    Subscriber,
    /// Carries a container's streams.
    Attached { id: String },
    /// Waits for a process to end.
    Exec { pid: i32, kill_on_hangup: bool },
}

struct Connection {
    socket: UnixStream,
    role: Role,
    input: Vec<u8>,
    fds: Vec<OwnedFd>,
    output: Vec<u8>,
    gone: bool,
}

/// A child that makes a container or a process.
struct Helper {
    pid: i32,
    result: File,
    bytes: Vec<u8>,
    console: Option<Console>,
    purpose: Purpose,
    connection: u64,
}

enum Purpose {
    Run(String),
    Exec { kill_on_hangup: bool },
}

/// Where libcontainer hands over a new terminal.
struct Console {
    listener: UnixListener,
    path: String,
    terminal: Option<OwnedFd>,
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Connection(u64),
    Helper(usize),
    Console(usize),
    Output(usize, Stream),
    Input(usize),
}

pub(super) struct Server {
    config: ShimConfig,
    listener: UnixListener,
    signals: SignalFd,
    pause: Option<i32>,
    connections: HashMap<u64, Connection>,
    next: u64,
    helpers: Vec<Helper>,
    containers: Vec<Container>,
    /// Exits of processes that no helper has announced yet.
    unclaimed: HashMap<i32, i32>,
    stop: bool,
}

impl Server {
    pub(super) fn new(config: ShimConfig, listener: UnixListener, pause: Option<i32>) -> std::io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        listener.set_nonblocking(true)?;
        Ok(Server {
            config,
            listener,
            signals,
            pause,
            connections: HashMap::new(),
            next: 0,
            helpers: Vec::new(),
            containers: Vec::new(),
            unclaimed: HashMap::new(),
            stop: false,
        })
    }

    pub(super) fn serve(&mut self) -> std::io::Result<()> {
        while !self.stop || self.connections.values().any(|c| !c.output.is_empty() && !c.gone) {
            let (sources, wanted) = self.sources();
            let mut fds: Vec<PollFd<'_>> = wanted
                .iter()
                // SAFETY: every descriptor is owned by self, which nothing changes until poll returns.
                .map(|(fd, flags)| PollFd::new(unsafe { BorrowedFd::borrow_raw(*fd) }, *flags))
                .collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                result => result.map(|_| ())?,
            }
            let ready: Vec<(Source, PollFlags)> = sources
                .iter()
                .zip(&fds)
                .filter_map(|(s, fd)| fd.revents().filter(|r| !r.is_empty()).map(|r| (*s, r)))
                .collect();
            for (source, flags) in ready {
                self.handle(source, flags);
            }
            self.sweep();
        }
        Ok(())
    }

    fn sources(&self) -> (Vec<Source>, Vec<(RawFd, PollFlags)>) {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut wanted =
            vec![(self.signals.as_raw_fd(), PollFlags::POLLIN), (self.listener.as_raw_fd(), PollFlags::POLLIN)];
        for (key, connection) in &self.connections {
            let mut flags = PollFlags::empty();
            if !self.input_is_full(connection) {
                flags |= PollFlags::POLLIN;
            }
            if !connection.output.is_empty() {
                flags |= PollFlags::POLLOUT;
            }
            sources.push(Source::Connection(*key));
            wanted.push((connection.socket.as_raw_fd(), flags));
        }
        for (i, helper) in self.helpers.iter().enumerate() {
            sources.push(Source::Helper(i));
            wanted.push((helper.result.as_raw_fd(), PollFlags::POLLIN));
            if let Some(console) = helper.console.as_ref().filter(|c| c.terminal.is_none()) {
                sources.push(Source::Console(i));
                wanted.push((console.listener.as_raw_fd(), PollFlags::POLLIN));
            }
        }
        for (i, container) in self.containers.iter().enumerate() {
            let full = self.connections.values().any(|c| {
                matches!(&c.role, Role::Attached { id } if *id == container.run.id)
                    && c.output.len() > MAX_PENDING_OUTPUT_BYTES
            });
            if !full {
                for (stream, file) in [(Stream::Stdout, &container.stdout), (Stream::Stderr, &container.stderr)] {
                    if let Some(file) = file {
                        sources.push(Source::Output(i, stream));
                        wanted.push((file.as_raw_fd(), PollFlags::POLLIN));
                    }
                }
            }
            if let Some(fd) = container.stdin_fd() {
                sources.push(Source::Input(i));
                wanted.push((fd, PollFlags::POLLOUT));
            }
        }
        (sources, wanted)
    }

    fn input_is_full(&self, connection: &Connection) -> bool {
        let Role::Attached { id } = &connection.role else { return false };
        self.find(id).is_some_and(|i| self.containers[i].pending_input.len() > MAX_PENDING_INPUT_BYTES)
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.containers.iter().position(|c| c.run.id == id)
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Signals => self.reap(),
            Source::Listener => self.accept(),
            Source::Connection(key) => {
                if flags.contains(PollFlags::POLLOUT) {
                    self.write_out(key);
                }
                if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                    self.read_in(key);
                }
            }
            Source::Console(i) => self.accept_terminal(i),
            Source::Helper(i) => self.read_helper(i),
            Source::Output(i, stream) => self.pump(i, stream),
            Source::Input(i) => {
                if let Some(container) = self.containers.get_mut(i) {
                    container.drain_input();
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if socket.set_nonblocking(true).is_ok() {
                let connection = Connection {
                    socket,
                    role: Role::Client,
                    input: Vec::new(),
                    fds: Vec::new(),
                    output: Vec::new(),
                    gone: false,
                };
                self.connections.insert(self.next, connection);
                self.next += 1;
            }
        }
    }

    fn read_in(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let mut buffer = vec![0; 64 * 1024];
        match receive(connection.socket.as_raw_fd(), &mut buffer, &mut connection.fds) {
            Ok(0) => connection.gone = true,
            Ok(n) => connection.input.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => return,
            Err(_) => connection.gone = true,
        }
        self.parse(key);
    }

    fn parse(&mut self, key: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&key) else { return };
            let attached = matches!(connection.role, Role::Attached { .. });
            let head = if attached { 5 } else { 4 };
            if connection.input.len() < head {
                return;
            }
            let length = connection.input[head - 4..head].try_into().map_or(0, u32::from_be_bytes) as usize;
            if length > MAX_FRAME_BYTES {
                connection.gone = true;
                return;
            }
            if connection.input.len() < head + length {
                return;
            }
            let kind = connection.input[0];
            let body: Vec<u8> = connection.input.drain(..head + length).skip(head).collect();
            if attached {
                self.stream_input(key, kind, &body);
            } else {
                match serde_json::from_slice::<Request>(&body) {
                    Ok(request) => self.request(key, request),
                    Err(e) => self.reply(key, &Reply::Error { message: format!("not a request: {e}") }, &[]),
                }
            }
        }
    }

    fn stream_input(&mut self, key: u64, kind: u8, body: &[u8]) {
        let Some(Role::Attached { id }) = self.connections.get(&key).map(|c| &c.role) else { return };
        let Some(i) = self.find(id) else { return };
        if Stream::from_byte(kind) == Some(Stream::Stdin) {
            if body.is_empty() { self.containers[i].end_input() } else { self.containers[i].write_input(body) }
        }
    }

    fn accept_terminal(&mut self, index: usize) {
        let Some(console) = self.helpers.get_mut(index).and_then(|h| h.console.as_mut()) else { return };
        if let Ok((socket, _)) = console.listener.accept() {
            let _ = socket.set_nonblocking(false);
            let mut fds = Vec::new();
            let mut buffer = [0; 4096];
            let _ = receive(socket.as_raw_fd(), &mut buffer, &mut fds);
            console.terminal = fds.pop();
        }
    }

    fn read_helper(&mut self, index: usize) {
        use std::io::Read;
        let Some(helper) = self.helpers.get_mut(index) else { return };
        let mut buffer = [0; 8192];
        match helper.result.read(&mut buffer) {
            Ok(0) => {}
            Ok(n) => return helper.bytes.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => return,
            Err(_) => {}
        }
        if helper.console.as_ref().is_some_and(|c| c.terminal.is_none()) {
            self.accept_terminal(index);
        }
        let helper = self.helpers.swap_remove(index);
        if let Some(console) = &helper.console {
            let _ = std::fs::remove_file(&console.path);
        }
        // The helper ends now; waiting for it makes its child ours before the answer goes out.
        let _ = waitpid(Pid::from_raw(helper.pid), None);
        let answer =
            serde_json::from_slice(&helper.bytes).unwrap_or_else(|_| Err("the helper process died".to_owned()));
        match helper.purpose {
            Purpose::Run(id) => self.started(helper.connection, &id, answer, helper.console),
            Purpose::Exec { kill_on_hangup } => {
                self.exec_started(helper.connection, answer, helper.console, kill_on_hangup)
            }
        }
        self.reap();
    }

    fn started(&mut self, key: u64, id: &str, answer: Result<i32, String>, console: Option<Console>) {
        let Some(index) = self.find(id) else { return };
        let container = &mut self.containers[index];
        let terminal = console.and_then(|c| c.terminal).map(|t| container.set_terminal(t)).transpose();
        let reply = match answer.and_then(|pid| terminal.map(|_| pid).map_err(|e| e.to_string())) {
            Ok(pid) => {
                container.status.pid = pid;
                container.status.started_at = now();
                container.save();
                Reply::Started { pid }
            }
            Err(message) => {
                let container = self.containers.remove(index);
                cgroup::kill_all(&container.run.cgroup);
                cgroup::remove(&container.run.cgroup);
                let _ = std::fs::remove_dir_all(format!("{}/{id}", self.config.containers_dir));
                Reply::Error { message }
            }
        };
        if let Reply::Started { pid } = reply {
            self.report(index);
            if let Some(code) = self.unclaimed.remove(&pid) {
                self.exited(index, code);
            }
        }
        self.reply(key, &reply, &[]);
    }

    fn exec_started(&mut self, key: u64, answer: Result<i32, String>, console: Option<Console>, kill_on_hangup: bool) {
        match answer {
            Ok(pid) => {
                let terminal = console.and_then(|c| c.terminal);
                let fds: Vec<RawFd> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
                if let Some(connection) = self.connections.get_mut(&key).filter(|c| !c.gone) {
                    connection.role = Role::Exec { pid, kill_on_hangup };
                } else if kill_on_hangup {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                self.reply(key, &Reply::Started { pid }, &fds);
                if let Some(code) = self.unclaimed.remove(&pid) {
                    self.exec_ended(key, code);
                }
            }
            Err(message) => self.reply(key, &Reply::Error { message }, &[]),
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), SIGNALLED + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => continue,
            };
            if let Some(index) = self.containers.iter().position(|c| c.running() && c.status.pid == pid) {
                self.exited(index, code);
            } else if let Some(key) = self.exec_of(pid) {
                self.exec_ended(key, code);
            } else if !self.helpers.is_empty() {
                self.unclaimed.insert(pid, code);
            }
        }
        if self.helpers.is_empty() {
            self.unclaimed.clear();
        }
    }

    fn exec_ended(&mut self, key: u64, code: i32) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.role = Role::Client;
        }
        self.reply(key, &Reply::Exited { code }, &[]);
    }

    fn exec_of(&self, wanted: i32) -> Option<u64> {
        self.connections
            .iter()
            .find(|(_, c)| matches!(c.role, Role::Exec { pid, .. } if pid == wanted))
            .map(|(k, _)| *k)
    }

    /// A container's first process has ended: so has the container.
    fn exited(&mut self, index: usize, code: i32) {
        let cgroup = self.containers[index].run.cgroup.clone();
        if !self.containers[index].run.own_pid_namespace {
            cgroup::kill_all(&cgroup);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            while !self.pump_once(index, stream).is_empty() {}
        }
        let container = &mut self.containers[index];
        container.flush_lines();
        container.status.oom_killed = cgroup::oom_kills(&cgroup) > 0;
        container.status.exit_code = code;
        container.status.finished_at = now();
        container.stdin = None;
        container.save();
        self.send_attached(index, Stream::End, &[]);
        self.report(index);
    }

    fn report(&mut self, index: usize) {
        let container = &self.containers[index];
        let report =
            Reply::Container(ContainerReport { id: container.run.id.clone(), status: container.status.clone() });
        let subscribers: Vec<u64> =
            self.connections.iter().filter(|(_, c)| matches!(c.role, Role::Subscriber)).map(|(k, _)| *k).collect();
        for key in subscribers {
            self.reply(key, &report, &[]);
        }
    }

    fn pump(&mut self, index: usize, stream: Stream) {
        if index < self.containers.len() {
            self.pump_once(index, stream);
        }
    }

    fn pump_once(&mut self, index: usize, stream: Stream) -> Vec<u8> {
        let data = self.containers[index].pump(stream);
        if !data.is_empty() {
            self.send_attached(index, stream, &data);
        }
        data
    }

    fn send_attached(&mut self, index: usize, stream: Stream, data: &[u8]) {
        let wanted = self.containers[index].run.id.clone();
        let keys: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| matches!(&c.role, Role::Attached { id } if *id == wanted))
            .map(|(k, _)| *k)
            .collect();
        for key in keys {
            if let Some(connection) = self.connections.get_mut(&key) {
                connection.output.extend_from_slice(&stream_frame(stream, data));
            }
            self.write_out(key);
        }
    }

    fn reply(&mut self, key: u64, reply: &Reply, fds: &[RawFd]) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Ok(bytes) = frame(reply) else { return };
        if fds.is_empty() {
            connection.output.extend_from_slice(&bytes);
            self.write_out(key);
        } else {
            // Descriptors ride on the frame's first byte, so it is sent at once; it is short.
            let _ = connection.socket.set_nonblocking(false);
            connection.gone |= send(&mut connection.socket, &bytes, fds).is_err();
            let _ = connection.socket.set_nonblocking(true);
        }
    }

    fn write_out(&mut self, key: u64) {
        use std::io::Write;
        let Some(connection) = self.connections.get_mut(&key) else { return };
        while !connection.output.is_empty() {
            match connection.socket.write(&connection.output) {
                Ok(n) => drop(connection.output.drain(..n)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.gone = true;
                    connection.output.clear();
                }
            }
        }
    }

    /// Drops connections whose other side is gone.
    fn sweep(&mut self) {
        let gone: Vec<u64> = self.connections.iter().filter(|(_, c)| c.gone).map(|(k, _)| *k).collect();
        for key in gone {
            match self.connections.remove(&key).map(|c| c.role) {
                Some(Role::Attached { id }) => {
                    let others =
                        self.connections.values().any(|c| matches!(&c.role, Role::Attached { id: i } if *i == id));
                    if let Some(index) = self.find(&id).filter(|_| !others) {
                        self.containers[index].end_input();
                    }
                }
                Some(Role::Exec { pid, kill_on_hangup: true }) => {
                    // Our child and not reaped, unless its exit was sent: then nobody has the role any more.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                _ => {}
            }
        }
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
