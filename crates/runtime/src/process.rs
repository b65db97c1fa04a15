//! Processes in running containers: the CRI's exec calls.

use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ironkeel_cri::v1::{ContainerState, ExecSyncResponse};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::container::Container;
use crate::error::Error;
use crate::records;
use crate::runtime::Runtime;
use crate::shim::protocol::{Reply, Request};
use crate::shim_client::next_reply;

/// Output of one stream of an ExecSync at most, in bytes; the rest is dropped, as upstream does.
const MAX_EXEC_SYNC_OUTPUT_BYTES: usize = 16 * 1024 * 1024;
/// Output that comes after the process has ended, from children that inherited its pipes.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// A process that was started in a container, with our ends of its streams.
pub(crate) struct Exec {
    pub(crate) io: ExecIo,
    connection: UnixStream,
}

pub(crate) enum ExecIo {
    Pipes { stdin: Option<pipe::Sender>, stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(Terminal),
}

impl Exec {
    /// Waits for its exit code.
    pub(crate) async fn wait(connection: &mut UnixStream) -> Result<i32, Error> {
        match next_reply(connection).await {
            Some(Reply::Exited { code }) => Ok(code),
            _ => Err(Error::Shim("the shim ended before the process did".into())),
        }
    }

    pub(crate) fn split(self) -> (ExecIo, UnixStream) {
        (self.io, self.connection)
    }
}

impl Runtime {
    /// Starts a process in a container.
    pub(crate) async fn exec(
        &self,
        container: &Container,
        command: &[String],
        tty: bool,
        stdin: bool,
        kill_on_hangup: bool,
    ) -> Result<Exec, Error> {
        if command.is_empty() {
            return Err(Error::Invalid("no command to execute".into()));
        }
        if container.state() != ContainerState::ContainerRunning {
            return Err(Error::Precondition(format!("container {} is not running", container.record.id)));
        }
        let sandbox = self.sandbox(&container.record.sandbox_id)?;
        let path = self.container_dir(&container.record.id).join("config.json");
        let mut document: serde_json::Value = records::read(&path)?;
        let mut process = document["process"].take();
        process["args"] = serde_json::json!(command);
        process["terminal"] = serde_json::json!(tty);
        if tty && let Some(env) = process["env"].as_array_mut() {
            env.push("TERM=xterm".into());
        }
        let request = Request::Exec { id: container.record.id.clone(), process, tty, kill_on_hangup };
        if tty {
            let (_, connection, mut fds) = sandbox.shim.open(request, Vec::new()).await?;
            let terminal = fds.pop().ok_or_else(|| Error::Shim("the shim sent no terminal".into()))?;
            let terminal = Terminal::new(terminal).map_err(Error::io("opening the terminal"))?;
            return Ok(Exec { io: ExecIo::Terminal(terminal), connection });
        }
        let failed = || Error::io("making pipes");
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(std::io::Error::from).map_err(failed());
        let (out, child_out) = pipe()?;
        let (err, child_err) = pipe()?;
        let (child_in, input) = if stdin {
            let (child, ours) = pipe()?;
            (child, Some(ours))
        } else {
            (OwnedFd::from(std::fs::File::open("/dev/null").map_err(failed())?), None)
        };
        let io = ExecIo::Pipes {
            stdin: input.map(pipe::Sender::from_owned_fd).transpose().map_err(failed())?,
            stdout: pipe::Receiver::from_owned_fd(out).map_err(failed())?,
            stderr: pipe::Receiver::from_owned_fd(err).map_err(failed())?,
        };
        let (_, connection, _) = sandbox.shim.open(request, vec![child_in, child_out, child_err]).await?;
        Ok(Exec { io, connection })
    }

    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout_seconds: i64,
    ) -> Result<ExecSyncResponse, Error> {
        let container = self.container(id)?;
        let work = async {
            let (io, mut connection) = self.exec(&container, command, false, false, true).await?.split();
            let ExecIo::Pipes { mut stdout, mut stderr, .. } = io else {
                return Err(Error::Shim("a terminal was not asked for".into()));
            };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = {
                let output = async {
                    tokio::join!(read_limited(&mut stdout, &mut out), read_limited(&mut stderr, &mut err));
                };
                tokio::pin!(output);
                let wait = Exec::wait(&mut connection);
                tokio::pin!(wait);
                tokio::select! {
                    () = &mut output => wait.await?,
                    code = &mut wait => {
                        let _ = tokio::time::timeout(DRAIN_TIMEOUT, output).await;
                        code?
                    }
                }
            };
            Ok(ExecSyncResponse { stdout: out, stderr: err, exit_code: code })
        };
        if timeout_seconds <= 0 {
            return work.await;
        }
        let limit = Duration::from_secs(timeout_seconds.unsigned_abs());
        // Dropping the work closes the connection, and the shim kills the process.
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout(format!("command {command:?} timed out after {limit:?}"))))
    }
}

async fn read_limited(source: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n) = source.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        let room = MAX_EXEC_SYNC_OUTPUT_BYTES.saturating_sub(into.len());
        into.extend_from_slice(&buffer[..n.min(room)]);
    }
}

/// Our end of a pseudo terminal.
pub(crate) struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(fd: OwnedFd) -> std::io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an OwnedFd keeps its descriptor open and the same for as long as it is registered.
        Ok(Terminal(unsafe { AsyncFd::register(fd) }?))
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is a terminal and the size lives through the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }

    /// A second handle, so that one side can be read while the other is written.
    pub(crate) fn try_clone(&self) -> std::io::Result<Terminal> {
        // SAFETY: as above.
        Ok(Terminal(unsafe { AsyncFd::register(self.0.get_ref().try_clone()?) }?))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let mut data = [0; 8192];
            let room = buf.remaining().min(data.len());
            match guard.try_io(|fd| nix::unistd::read(fd.get_ref(), &mut data[..room]).map_err(Into::into)) {
                Ok(Ok(n)) => {
                    buf.put_slice(&data[..n]);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed its side: the end, for a terminal.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| nix::unistd::write(fd.get_ref(), data).map_err(Into::into)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
