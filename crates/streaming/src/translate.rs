//! From a WebSocket client to a server that speaks only SPDY: what an API server does before a kubelet of
//! old.
//!
//! Answers to upstream's `StreamTranslatorHandler` (exec, attach: version 5's channels become SPDY's
//! streams) and `TunnelingHandler` (port-forward: the WebSocket carries SPDY's bytes as they are). Both
//! handshakes are the caller's work: [`requested`], [`accept`] and [`spdy_headers`] say what they hold.

use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};
use std::io;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::remote_command::until_gone;
use crate::spdy::{Connection, SpdyStream, StreamWriter};
use crate::websocket::channel::{self, Encoding, Incoming, OUTBOX_MESSAGES};
use crate::websocket::command::{ERROR, RESIZE, STDERR, STDIN, STDOUT};
use crate::websocket::{self, ByteTunnel};
use crate::{LINGER, STREAM_CREATION_TIMEOUT, StreamError, status, tunnel};

/// The WebSocket protocol of remote commands that is translated; older ones kubelets speak themselves.
const COMMAND: &str = "v5.channel.k8s.io";
/// The WebSocket protocol that carries port-forward's SPDY.
const PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
/// Longest status of a command, in bytes.
const STATUS_BYTES: u64 = 64 << 10;

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Exec and attach.
    Command(CommandStreams),
    /// Port-forward.
    PortForward,
}

/// The streams of a remote command that its client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandStreams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; without meaning with a terminal.
    pub stderr: bool,
    /// A terminal, whose sizes come too.
    pub tty: bool,
}

impl Translation {
    fn websocket_protocol(self) -> &'static str {
        match self {
            Translation::Command(_) => COMMAND,
            Translation::PortForward => PORT_FORWARD,
        }
    }
}

/// Whether a client asks for what can be translated.
pub fn requested(headers: &HeaderMap, translation: Translation) -> bool {
    let wanted = translation.websocket_protocol();
    websocket::is_requested(headers)
        && websocket::list(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).any(|offered| offered == wanted)
}

/// The 101 for the client; `None` where its handshake is malformed.
pub fn accept<B: Default>(headers: &HeaderMap, translation: Translation) -> Option<Response<B>> {
    websocket::accept(headers, translation.websocket_protocol()).ok()
}

/// The headers that ask a server for SPDY.
pub fn spdy_headers(translation: Translation) -> HeaderMap {
    let protocol = match translation {
        Translation::Command(_) => "v4.channel.k8s.io",
        Translation::PortForward => "portforward.k8s.io",
    };
    let mut out = HeaderMap::new();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    out.insert(HeaderName::from_static("x-stream-protocol-version"), HeaderValue::from_static(protocol));
    out
}

/// Translates between two connections whose handshakes are done, until either has ended.
///
/// # Errors
/// A tunnel that broke; what happens to a command its client is told.
pub async fn translate<C, S>(client: C, server: S, translation: Translation) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket::config())).await;
    match translation {
        Translation::Command(wanted) => command(socket, server, wanted).await,
        Translation::PortForward => _ = tunnel(ByteTunnel::new(socket), server).await?,
    }
    Ok(())
}

/// The server's streams, in the order in which clients open them.
struct Streams {
    error: SpdyStream,
    stdin: Option<SpdyStream>,
    stdout: Option<SpdyStream>,
    stderr: Option<SpdyStream>,
    resize: Option<SpdyStream>,
}

impl Streams {
    async fn open(connection: &mut Connection, wanted: CommandStreams) -> io::Result<Streams> {
        let mut open = async |kind: &str, wanted: bool| -> io::Result<Option<SpdyStream>> {
            if wanted { connection.open(&[("streamtype", kind)]).await.map(Some) } else { Ok(None) }
        };
        let error = open("error", true).await?.ok_or(io::ErrorKind::NotConnected)?;
        let stdin = open("stdin", wanted.stdin).await?;
        let stdout = open("stdout", wanted.stdout).await?;
        let stderr = open("stderr", wanted.stderr && !wanted.tty).await?;
        Ok(Streams { error, stdin, stdout, stderr, resize: open("resize", wanted.tty).await? })
    }
}

async fn command<C, S>(socket: WebSocketStream<C>, server: S, wanted: CommandStreams)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, messages) = socket.split();
    let (outbox, waiting) = mpsc::channel(OUTBOX_MESSAGES);
    let writer = AbortOnDropHandle::new(tokio::spawn(channel::write_messages(sink, waiting)));
    let mut connection = Connection::client(server);
    let opened = tokio::time::timeout(STREAM_CREATION_TIMEOUT, Streams::open(&mut connection, wanted));
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
    let disconnected = CancellationToken::new();
    let mut said = Vec::new();
    let mut reader = None;
    match opened.await.unwrap_or_else(late) {
        Ok(streams) => {
            let greeting = match (wanted.stdout, wanted.stderr) {
                (true, _) => STDOUT,
                (false, true) => STDERR,
                (false, false) => ERROR,
            };
            // A client that has gone is noticed by the reader below.
            let _ = outbox.send(Encoding::Binary.message(greeting, &[])).await;
            // While a stream's writer lives, so does the stream.
            let (stdin, to_stdin) = streams.stdin.map(SpdyStream::split).unzip();
            let (resize, to_resize) = streams.resize.map(SpdyStream::split).unzip();
            let (stdout, stdout_end) = streams.stdout.map(SpdyStream::split).unzip();
            let (stderr, stderr_end) = streams.stderr.map(SpdyStream::split).unzip();
            let (error, error_end) = streams.error.split();
            let inputs = Inputs { stdin: to_stdin, resize: to_resize };
            reader = Some(AbortOnDropHandle::new(tokio::spawn(inputs.read(messages, disconnected.clone()))));
            until_gone(&disconnected, async {
                let stdout = channel::send_output(stdout, STDOUT, Encoding::Binary, outbox.clone());
                let stderr = channel::send_output(stderr, STDERR, Encoding::Binary, outbox.clone());
                let ((), (), text) = tokio::join!(stdout, stderr, text_of(error));
                said = text;
            })
            .await;
            drop((stdin, resize, stdout_end, stderr_end, error_end));
            if said.is_empty() && !disconnected.is_cancelled() {
                let error = StreamError::Io(io::ErrorKind::UnexpectedEof.into());
                said = status::failed("the kubelet ended without a status", &error).to_string().into_bytes();
            }
        }
        Err(error) => {
            let failed = status::failed("opening streams to the kubelet", &StreamError::Io(error));
            said = failed.to_string().into_bytes();
        }
    }
    let _ = outbox.send(Encoding::Binary.message(ERROR, &said)).await;
    drop(outbox);
    until_gone(&disconnected, async {
        let _ = writer.await;
    })
    .await;
    if let Some(reader) = &mut reader {
        // A close with the client's data unread would be a reset, and could cost it the last messages.
        let _ = tokio::time::timeout(LINGER, reader).await;
    }
}

/// The status that the server ends with.
async fn text_of(error: DuplexStream) -> Vec<u8> {
    let mut text = Vec::new();
    // What came before it broke is still the best that is known.
    let _ = error.take(STATUS_BYTES).read_to_end(&mut text).await;
    text
}

/// Where the client's channels go.
struct Inputs {
    stdin: Option<StreamWriter>,
    resize: Option<StreamWriter>,
}

impl Inputs {
    async fn read<R>(self, mut messages: R, disconnected: CancellationToken)
    where
        R: futures::Stream<Item = Result<websocket::Message, websocket::WebSocketError>> + Unpin,
    {
        while let Some(incoming) = channel::next(&mut messages, Encoding::Binary, true).await {
            match (incoming, &self.stdin, &self.resize) {
                (Incoming::Data(STDIN, data), Some(stdin), _) => stdin.send(&data).await,
                (Incoming::End(STDIN), Some(stdin), _) => stdin.finish().await,
                (Incoming::Data(RESIZE, data), _, Some(resize)) => resize.send(&data).await,
                _ => {}
            }
        }
        disconnected.cancel();
    }
}
