//! Exec and attach, whatever carries their streams.
//!
//! A [`RemoteCommand`] makes the pipes between a transport (WebSocket or SPDY) and the [`Backend`]; the
//! transport moves bytes between [`TransportEnds`] and the wire, and [`RemoteCommand::run`] runs the backend.

use std::future::Future;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{AttachRequest, Backend, ExecRequest, SessionIo, TerminalSize, status};

/// How much of each stream may be between the backend and the client.
pub const PIPE_BYTES: usize = 64 * 1024;
/// How much of a stream is sent in one message or frame.
pub(crate) const CHUNK_BYTES: usize = 32 * 1024;

/// The longest terminal size that the resize stream may carry.
const MAX_RESIZE_BYTES: usize = 1024;

pub(crate) enum RemoteCommand {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

/// The transport's ends of the session's pipes.
pub(crate) struct TransportEnds {
    pub(crate) stdin: Option<DuplexStream>,
    pub(crate) stdout: Option<DuplexStream>,
    pub(crate) stderr: Option<DuplexStream>,
    pub(crate) resize: Resizer,
    /// The transport cancels it when the client has gone.
    pub(crate) disconnected: CancellationToken,
}

impl RemoteCommand {
    pub(crate) fn tty(&self) -> bool {
        match self {
            Self::Exec(request) => request.tty,
            Self::Attach(request) => request.tty,
        }
    }

    pub(crate) fn stdin(&self) -> bool {
        match self {
            Self::Exec(request) => request.stdin,
            Self::Attach(request) => request.stdin,
        }
    }

    pub(crate) fn stdout(&self) -> bool {
        match self {
            Self::Exec(request) => request.stdout,
            Self::Attach(request) => request.stdout,
        }
    }

    /// A terminal has one output.
    pub(crate) fn stderr(&self) -> bool {
        !self.tty()
            && match self {
                Self::Exec(request) => request.stderr,
                Self::Attach(request) => request.stderr,
            }
    }

    /// Makes the pipes that the request asks for.
    pub(crate) fn pipes(&self) -> (SessionIo, TransportEnds) {
        let (stdin, transport_stdin) = pipe(self.stdin());
        let (stdout, transport_stdout) = pipe(self.stdout());
        let (stderr, transport_stderr) = pipe(self.stderr());
        let (resize_tx, resize) = mpsc::channel(1);
        let disconnected = CancellationToken::new();
        let io = SessionIo {
            stdin: stdin.map(|stream| Box::new(stream) as _),
            stdout: stdout.map(|stream| Box::new(stream) as _),
            stderr: stderr.map(|stream| Box::new(stream) as _),
            resize,
            disconnected: disconnected.clone(),
        };
        let ends = TransportEnds {
            stdin: transport_stdin,
            stdout: transport_stdout,
            stderr: transport_stderr,
            resize: Resizer::new(resize_tx),
            disconnected,
        };
        (io, ends)
    }

    /// Runs the backend to its end and says how it went. An attach ends with its client too.
    pub(crate) async fn run(&self, backend: Arc<dyn Backend>, io: SessionIo) -> Value {
        match self {
            Self::Exec(request) => match backend.exec(request, io).await {
                Ok(code) => status::exited(&request.cmd, code),
                Err(error) => status::failed("error executing command in container", &error),
            },
            Self::Attach(request) => {
                let disconnected = io.disconnected.clone();
                tokio::select! {
                    result = backend.attach(request, io) => match result {
                        Ok(()) => status::success(),
                        Err(error) => status::failed("error attaching to container", &error),
                    },
                    () = disconnected.cancelled() => status::success(),
                }
            }
        }
    }
}

fn pipe(wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    if !wanted {
        return (None, None);
    }
    let (backend, transport) = tokio::io::duplex(PIPE_BYTES);
    (Some(backend), Some(transport))
}

/// Passes on the newest terminal size: a backend that is slow to read one never holds up the client.
pub(crate) struct Resizer {
    newest: watch::Sender<Option<TerminalSize>>,
}

impl Resizer {
    fn new(sizes: mpsc::Sender<TerminalSize>) -> Self {
        let (newest, mut changes) = watch::channel(None);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let size = *changes.borrow_and_update();
                let Some(size) = size else { continue };
                if sizes.send(size).await.is_err() {
                    return;
                }
            }
        });
        Self { newest }
    }

    /// Takes one message of the resize stream; what is not a size is ignored, as upstream does.
    pub(crate) fn message(&self, message: &[u8]) {
        if let Some(size) = parse_size(message) {
            self.newest.send_replace(Some(size));
        }
    }
}

fn parse_size(message: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(message).ok()?;
    let field = |name: &str| {
        let found = value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        u16::try_from(found.1.as_u64()?).ok()
    };
    Some(TerminalSize { width: field("Width")?, height: field("Height")? })
}

/// Cuts a byte stream of JSON objects (Go's `json.Encoder`) into messages.
#[derive(Default)]
pub(crate) struct SizeSplitter {
    pending: Vec<u8>,
}

impl SizeSplitter {
    /// Takes the stream's next bytes and passes on each object that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], resizer: &Resizer) {
        for &byte in bytes {
            self.pending.push(byte);
            if byte == b'}' {
                resizer.message(&self.pending);
                self.pending.clear();
            } else if self.pending.len() > MAX_RESIZE_BYTES {
                self.pending.clear();
            }
        }
    }
}

/// Runs `work` until it is done or the client has gone.
pub(crate) async fn until_gone(disconnected: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = disconnected.cancelled() => {}
    }
}
