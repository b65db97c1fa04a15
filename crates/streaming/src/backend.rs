//! What a session asks of the container runtime, and the streams that it is given.
//!
//! The requests are the CRI's `ExecRequest`, `AttachRequest` and `PortForwardRequest`.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::StreamError;

/// Run a command in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container's id.
    pub container_id: String,
    /// The command and its arguments; no shell is added.
    pub cmd: Vec<String>,
    /// Whether the process gets a terminal. Its stderr is then part of stdout.
    pub tty: bool,
    /// Whether the client sends stdin.
    pub stdin: bool,
    /// Whether the client wants stdout.
    pub stdout: bool,
    /// Whether the client wants stderr; without meaning when `tty` is set.
    pub stderr: bool,
}

/// Attach to a container's main process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container's id.
    pub container_id: String,
    /// Whether the container's process has a terminal.
    pub tty: bool,
    /// Whether the client sends stdin.
    pub stdin: bool,
    /// Whether the client wants stdout.
    pub stdout: bool,
    /// Whether the client wants stderr; without meaning when `tty` is set.
    pub stderr: bool,
}

/// Forward connections to ports of a pod sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// The sandbox's id.
    pub sandbox_id: String,
    /// The ports. Only a client of the older WebSocket protocol needs them named here; over SPDY every
    /// stream names its own port, and the list is then not looked at, as upstream does.
    pub ports: Vec<u16>,
}

/// How a process ended: its exit code, 128 + the signal's number when a signal ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub i32);

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What a process reads.
pub type InputStream = Box<dyn AsyncRead + Send + Unpin>;
/// What a process writes.
pub type OutputStream = Box<dyn AsyncWrite + Send + Unpin>;
/// One forwarded connection.
pub type PortStream = Box<dyn ByteStream>;

/// The streams of one exec or attach.
pub struct SessionIo {
    /// What the client types, if it asked for stdin.
    pub stdin: Option<InputStream>,
    /// Where stdout goes, if it asked for it.
    pub stdout: Option<OutputStream>,
    /// Where stderr goes, if it asked for it and there is no terminal.
    pub stderr: Option<OutputStream>,
    /// The terminal's sizes; ends when the client leaves.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Cancelled when the client has gone, whatever the streams are doing.
    pub disconnected: CancellationToken,
}

/// The container runtime's part of a session. See the crate's documentation for the rules.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Runs `request.cmd` and returns its exit status after its output has been written.
    async fn exec(&self, request: &ExecRequest, io: SessionIo) -> Result<ExitStatus, StreamError>;

    /// Connects the streams to the container's main process until it ends.
    async fn attach(&self, request: &AttachRequest, io: SessionIo) -> Result<(), StreamError>;

    /// Connects `stream` to `port` on the sandbox's loopback until either side ends.
    async fn port_forward(&self, sandbox_id: &str, port: u16, stream: PortStream) -> Result<(), StreamError>;
}
