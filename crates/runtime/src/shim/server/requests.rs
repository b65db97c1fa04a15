//! What the runtime can ask of a shim.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::{Console, Helper, Purpose, Role, Server};
use crate::cgroup;
use crate::shim::create::{self, Stdio};
use crate::shim::log::LogFile;
use crate::shim::protocol::{ContainerReport, Reply, Request, RunContainer};
use crate::shim::streams::{Container, nonblocking};

impl Server {
    pub(super) fn request(&mut self, key: u64, request: Request) {
        let answer = match request {
            Request::Run(run) => self.run(key, run),
            Request::Exec { id, process, tty, kill_on_hangup } => self.exec(key, &id, &process, tty, kill_on_hangup),
            Request::Signal { id, signal, all } => self.signal(&id, signal, all).map(|()| Some(Reply::Ok)),
            Request::Attach { id, stdin: _ } => self.attach(key, id),
            Request::Resize { id, width, height } => self.container(&id).and_then(|i| {
                self.containers[i].resize(width, height).map_err(|e| e.to_string()).map(|()| Some(Reply::Ok))
            }),
            Request::ReopenLog { id } => self.container(&id).and_then(|i| match &mut self.containers[i].log {
                Some(log) => log.reopen().map_err(|e| e.to_string()).map(|()| Some(Reply::Ok)),
                None => Ok(Some(Reply::Ok)),
            }),
            Request::Delete { id } => self.delete(&id).map(|()| Some(Reply::Ok)),
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.role = Role::Subscriber;
                }
                Ok(Some(Reply::Sandbox { pause_pid: self.pause, containers: self.reports() }))
            }
            Request::Shutdown => self.shutdown(),
        };
        match answer {
            Ok(Some(reply)) => self.reply(key, &reply, &[]),
            Ok(None) => {}
            Err(message) => self.reply(key, &Reply::Error { message }, &[]),
        }
    }

    fn container(&self, id: &str) -> Result<usize, String> {
        self.find(id).ok_or_else(|| format!("container {id} is not in this pod"))
    }

    fn reports(&self) -> Vec<ContainerReport> {
        let report = |c: &Container| ContainerReport { id: c.run.id.clone(), status: c.status.clone() };
        self.containers.iter().map(report).collect()
    }

    fn console(&mut self) -> Result<Console, String> {
        let path = format!("{}/console-{}", self.config.containers_dir, self.next);
        self.next += 1;
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|e| format!("listening on {path}: {e}"))?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        Ok(Console { listener, path, terminal: None })
    }

    fn run(&mut self, key: u64, run: RunContainer) -> Result<Option<Reply>, String> {
        if self.find(&run.id).is_some() {
            return Err(format!("container {} exists", run.id));
        }
        let io = |e: nix::errno::Errno| format!("making the container's pipes: {e}");
        let log =
            run.log_path.as_ref().map(|path| LogFile::open(path.as_ref()).map_err(|e| format!("opening {path}: {e}")));
        let mut container = Container::new(run.clone(), log.transpose()?);
        let mut console = None;
        let stdio = if run.tty {
            let made = self.console()?;
            let path = made.path.clone();
            console = Some(made);
            Stdio::Console(path)
        } else {
            let cloexec = nix::fcntl::OFlag::O_CLOEXEC;
            let (stdout, child_stdout) = pipe2(cloexec).map_err(io)?;
            let (stderr, child_stderr) = pipe2(cloexec).map_err(io)?;
            let child_stdin = if run.stdin {
                let (child, stdin) = pipe2(cloexec).map_err(io)?;
                nonblocking(&stdin).map_err(io)?;
                container.stdin = Some(File::from(stdin));
                child
            } else {
                OwnedFd::from(File::open("/dev/null").map_err(|e| e.to_string())?)
            };
            nonblocking(&stdout).and_then(|()| nonblocking(&stderr)).map_err(io)?;
            container.stdout = Some(File::from(stdout));
            container.stderr = Some(File::from(stderr));
            Stdio::Fds([child_stdin, child_stdout, child_stderr])
        };
        let dir = self.config.containers_dir.clone();
        let (pid, result) =
            create::fork_helper(|| create::run_container(&dir, &run, stdio)).map_err(|e| format!("forking: {e}"))?;
        self.containers.push(container);
        self.add_helper(pid, result, console, Purpose::Run(run.id), key)
    }

    fn exec(
        &mut self,
        key: u64,
        id: &str,
        process: &serde_json::Value,
        tty: bool,
        kill_on_hangup: bool,
    ) -> Result<Option<Reply>, String> {
        let index = self.container(id)?;
        if !self.containers[index].running() {
            return Err(format!("container {id} is not running"));
        }
        let mut console = None;
        let stdio = if tty {
            let made = self.console()?;
            let path = made.path.clone();
            console = Some(made);
            Stdio::Console(path)
        } else {
            let fds = self.connections.get_mut(&key).map(|c| std::mem::take(&mut c.fds)).unwrap_or_default();
            Stdio::Fds(fds.try_into().map_err(|_| "exec needs three descriptors")?)
        };
        let dir = self.config.containers_dir.clone();
        let bundle = self.containers[index].run.bundle.clone();
        let work = || create::exec(&dir, id, &bundle, process, stdio);
        let (pid, result) = create::fork_helper(work).map_err(|e| format!("forking: {e}"))?;
        self.add_helper(pid, result, console, Purpose::Exec { kill_on_hangup }, key)
    }

    fn add_helper(
        &mut self,
        pid: i32,
        result: File,
        console: Option<Console>,
        purpose: Purpose,
        connection: u64,
    ) -> Result<Option<Reply>, String> {
        nonblocking(&result).map_err(|e| e.to_string())?;
        self.helpers.push(Helper { pid, result, bytes: Vec::new(), console, purpose, connection });
        Ok(None)
    }

    fn attach(&mut self, key: u64, id: String) -> Result<Option<Reply>, String> {
        let index = self.container(&id)?;
        if !self.containers[index].running() {
            return Err(format!("container {id} is not running"));
        }
        self.reply(key, &Reply::Ok, &[]);
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.role = Role::Attached { id };
        }
        Ok(None)
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<(), String> {
        let index = self.container(id)?;
        let container = &self.containers[index];
        if !container.running() {
            return Ok(());
        }
        // SAFETY: a plain system call; the first process is our child and not reaped, so its pid is its own.
        unsafe { libc::kill(container.status.pid, signal) };
        if all && !container.run.own_pid_namespace {
            for pid in cgroup::processes(&container.run.cgroup) {
                // SAFETY: as above; the kernel has just listed the process in the container's group.
                unsafe { libc::kill(pid, signal) };
            }
        }
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<(), String> {
        if let Some(index) = self.find(id) {
            if self.containers[index].running() {
                return Err(format!("container {id} is running"));
            }
            let container = self.containers.remove(index);
            cgroup::kill_all(&container.run.cgroup);
            cgroup::remove(&container.run.cgroup);
        }
        let _ = std::fs::remove_dir_all(format!("{}/{id}", self.config.containers_dir));
        Ok(())
    }

    fn shutdown(&mut self) -> Result<Option<Reply>, String> {
        if let Some(container) = self.containers.iter().find(|c| c.running()) {
            return Err(format!("container {} is running", container.run.id));
        }
        if let Some(pid) = self.pause {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = std::fs::remove_file(&self.config.socket);
        self.stop = true;
        Ok(Some(Reply::Ok))
    }
}
