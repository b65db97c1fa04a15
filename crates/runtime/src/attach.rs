//! What the streaming server asks of the runtime: exec, attach, port-forward.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use ironkeel_streaming::{
    AttachRequest, Backend, ExecRequest, ExitStatus, OutputStream, PortStream, SessionIo, StreamError, TerminalSize,
    tunnel,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;
use crate::process::{Exec, ExecIo, Terminal};
use crate::runtime::Runtime;
use crate::shim::protocol::{MAX_FRAME_BYTES, Request, Stream, stream_frame};

/// Read at once from a client's input, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// Output that comes after a process has ended, from children that inherited its pipes.
const DRAIN_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

pub(crate) struct RuntimeStreams(pub(crate) Weak<Runtime>);

impl RuntimeStreams {
    fn runtime(&self) -> Result<Arc<Runtime>, StreamError> {
        self.0.upgrade().ok_or_else(|| refused(Error::Precondition("the runtime is stopping".into())))
    }
}

fn refused(error: Error) -> StreamError {
    match error {
        Error::NotFound { kind, id } => StreamError::NotFound(format!("{kind} {id}")),
        error => StreamError::Backend { context: "container runtime".into(), source: Box::new(error) },
    }
}

#[async_trait]
impl Backend for RuntimeStreams {
    async fn exec(&self, request: &ExecRequest, io: SessionIo) -> Result<ExitStatus, StreamError> {
        let runtime = self.runtime()?;
        let container = runtime.container(&request.container_id).map_err(refused)?;
        let exec = runtime.exec(&container, &request.cmd, request.tty, request.stdin, false).await.map_err(refused)?;
        drop(runtime);
        let (process, mut connection) = exec.split();
        let code = match process {
            ExecIo::Terminal(terminal) => terminal_streams(terminal, io, Exec::wait(&mut connection)).await?,
            ExecIo::Pipes { stdin, stdout, stderr } => {
                let _input = AbortOnDropHandle::new(tokio::spawn(async move {
                    if let (Some(mut from), Some(mut to)) = (io.stdin, stdin) {
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                        // Dropping our end is the process's end of input.
                    }
                }));
                let output = async { tokio::join!(to_client(stdout, io.stdout), to_client(stderr, io.stderr)) };
                finish(output, Exec::wait(&mut connection)).await?
            }
        };
        Ok(ExitStatus(code))
    }

    async fn attach(&self, request: &AttachRequest, io: SessionIo) -> Result<(), StreamError> {
        let runtime = self.runtime()?;
        let container = runtime.container(&request.container_id).map_err(refused)?;
        let sandbox = runtime.sandbox(&container.record.sandbox_id).map_err(refused)?;
        let id = container.record.id.clone();
        let attach = Request::Attach { id: id.clone(), stdin: request.stdin };
        let (_, connection, _) = sandbox.shim.open(attach, Vec::new()).await.map_err(refused)?;
        drop(runtime);
        let (mut from_shim, mut to_shim) = connection.into_split();
        let SessionIo { stdin, stdout, stderr, mut resize, .. } = io;
        let _input = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                let mut buffer = vec![0; READ_BYTES];
                while let Ok(n) = stdin.read(&mut buffer).await {
                    // An empty frame is the end of input.
                    if to_shim.write_all(&stream_frame(Stream::Stdin, &buffer[..n])).await.is_err() || n == 0 {
                        break;
                    }
                }
            }
            // Dropping this half would tell the shim that nobody is attached.
            std::future::pending::<()>().await;
        }));
        let shim = sandbox.shim.clone();
        let _sizes = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(TerminalSize { width, height }) = resize.recv().await {
                let _ = shim.call(Request::Resize { id: id.clone(), width, height }).await;
            }
        }));
        attached_output(&mut from_shim, stdout, stderr).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16, stream: PortStream) -> Result<(), StreamError> {
        let runtime = self.runtime()?;
        let sandbox = runtime.sandbox(sandbox_id).map_err(refused)?;
        if !sandbox.ready() {
            return Err(refused(Error::Precondition(format!("sandbox {sandbox_id} is not ready"))));
        }
        let netns = sandbox.netns(&runtime);
        drop(runtime);
        let (send, receive) = tokio::sync::oneshot::channel();
        // A thread of its own: it never comes back from the pod's network namespace.
        std::thread::Builder::new().name("port-forward".into()).spawn(move || {
            let _ = send.send(connect_inside(netns, port));
        })?;
        let connected = receive.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()));
        let inside = connected.map_err(|source| StreamError::Connect { port, source })?;
        tunnel(stream, TcpStream::from_std(inside)?).await?;
        Ok(())
    }
}

fn connect_inside(netns: Option<PathBuf>, port: u16) -> std::io::Result<std::net::TcpStream> {
    if let Some(path) = netns {
        let file = std::fs::File::open(path)?;
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
    }
    let addresses = [
        std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)),
        std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
    ];
    let stream = std::net::TcpStream::connect(&addresses[..])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Waits for the exit code and the end of output. A child that keeps the output open does not keep
/// the session open.
async fn finish<T>(
    output: impl Future<Output = T>,
    wait: impl Future<Output = Result<i32, Error>>,
) -> Result<i32, StreamError> {
    tokio::pin!(output, wait);
    let code = tokio::select! {
        _ = &mut output => wait.await,
        code = &mut wait => {
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, output).await;
            code
        }
    };
    code.map_err(refused)
}

async fn to_client(mut from: impl AsyncRead + Unpin, to: Option<OutputStream>) {
    if let Some(mut to) = to {
        let copied = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
        if copied.is_ok() {
            return;
        }
    }
    // Nobody reads: the process must not block on a full pipe.
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

async fn terminal_streams(
    terminal: Terminal,
    io: SessionIo,
    wait: impl Future<Output = Result<i32, Error>>,
) -> Result<i32, StreamError> {
    let SessionIo { stdin, stdout, mut resize, disconnected, .. } = io;
    let (reader, mut writer) = (terminal.try_clone()?, terminal.try_clone()?);
    let _sizes = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(size) = resize.recv().await {
            terminal.resize(size.width, size.height);
        }
    }));
    let _input = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            let _ = tokio::io::copy(&mut stdin, &mut writer).await;
        }
        std::future::pending::<()>().await;
    }));
    tokio::select! {
        code = finish(to_client(reader, stdout), wait) => code,
        // Closing our side hangs up the terminal, as a user's closed window does.
        () = disconnected.cancelled() => Ok(libc::SIGHUP + 128),
    }
}

async fn attached_output(
    from: &mut tokio::net::unix::OwnedReadHalf,
    mut stdout: Option<OutputStream>,
    mut stderr: Option<OutputStream>,
) -> Result<(), StreamError> {
    let mut body = Vec::new();
    loop {
        // The shim's end is the container's end.
        let (Ok(kind), Ok(length)) = (from.read_u8().await, from.read_u32().await) else { return Ok(()) };
        if length as usize > MAX_FRAME_BYTES {
            return Err(refused(Error::Shim("the shim's frame is too long".into())));
        }
        body.resize(length as usize, 0);
        if from.read_exact(&mut body).await.is_err() {
            return Ok(());
        }
        let to = match Stream::from_byte(kind) {
            Some(Stream::Stdout) => &mut stdout,
            Some(Stream::Stderr) => &mut stderr,
            _ => return Ok(()),
        };
        if let Some(to) = to
            && to.write_all(&body).await.is_err()
        {
            return Ok(());
        }
    }
}
