//! Exec and attach over WebSocket channels.
//!
//! Answers to the kubelet's `remotecommand/websocket.go`: stdin 0, stdout 1, stderr 2, error 3, resize 4.
//! The first message is an empty one, so that the client knows that the streams are open.

use std::sync::Arc;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, Encoding, Incoming, OUTBOX_MESSAGES};
use crate::remote_command::{RemoteCommand, Resizer, until_gone};
use crate::{Backend, LINGER, status};

pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const RESIZE: u8 = 4;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    encoding: Encoding,
    /// Version 4 and later end with a `Status`.
    json_status: bool,
    /// Version 5 ends stdin without ending the connection.
    half_close: bool,
}

/// The version that a subprotocol names.
pub(crate) fn protocol(name: &str) -> Option<Protocol> {
    let (encoding, json_status, half_close) = match name {
        "v5.channel.k8s.io" => (Encoding::Binary, true, true),
        "v4.channel.k8s.io" => (Encoding::Binary, true, false),
        "v4.base64.channel.k8s.io" => (Encoding::Base64, true, false),
        "" | "channel.k8s.io" => (Encoding::Binary, false, false),
        "base64.channel.k8s.io" => (Encoding::Base64, false, false),
        _ => return None,
    };
    Some(Protocol { encoding, json_status, half_close })
}

/// Serves one remote command until it, or for an attach its client, has ended.
pub(crate) async fn serve<S>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    command: RemoteCommand,
    backend: Arc<dyn Backend>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let encoding = protocol.encoding;
    let (sink, messages) = socket.split();
    let (outbox, waiting) = mpsc::channel(OUTBOX_MESSAGES);
    let writer = AbortOnDropHandle::new(tokio::spawn(channel::write_messages(sink, waiting)));

    let (io, ends) = command.pipes();
    let greeting = match (command.stdout(), command.stderr()) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        (false, false) => ERROR,
    };
    // A client that has gone is noticed by the reader below.
    let _ = outbox.send(encoding.message(greeting, &[])).await;

    let disconnected = ends.disconnected.clone();
    let inputs = Inputs { stdin: ends.stdin, resize: ends.resize };
    let mut reader = AbortOnDropHandle::new(tokio::spawn(inputs.read(messages, protocol, disconnected.clone())));

    let outputs = until_gone(&disconnected, async {
        let stdout = channel::send_output(ends.stdout, STDOUT, encoding, outbox.clone());
        let stderr = channel::send_output(ends.stderr, STDERR, encoding, outbox.clone());
        tokio::join!(stdout, stderr);
    });
    let (status, ()) = tokio::join!(command.run(backend, io), outputs);
    if let Some(status) = status::encode(&status, protocol.json_status) {
        let _ = outbox.send(encoding.message(ERROR, &status)).await;
    }
    drop(outbox);
    until_gone(&disconnected, async {
        let _ = writer.await;
    })
    .await;
    // A close with the client's data unread would be a reset, and could cost it the last messages.
    let _ = tokio::time::timeout(LINGER, &mut reader).await;
}

/// Where the client's channels go.
struct Inputs {
    stdin: Option<tokio::io::DuplexStream>,
    resize: Resizer,
}

impl Inputs {
    async fn read<R>(mut self, mut messages: R, protocol: Protocol, disconnected: CancellationToken)
    where
        R: futures::Stream<Item = Result<super::Message, super::WebSocketError>> + Unpin,
    {
        while let Some(incoming) = channel::next(&mut messages, protocol.encoding, protocol.half_close).await {
            match incoming {
                Incoming::Data(STDIN, data) => {
                    if let Some(stdin) = &mut self.stdin
                        && stdin.write_all(&data).await.is_err()
                    {
                        self.stdin = None;
                    }
                }
                Incoming::End(STDIN) => self.stdin = None,
                Incoming::Data(RESIZE, data) => self.resize.message(&data),
                Incoming::Data(..) | Incoming::End(_) => {}
            }
        }
        disconnected.cancel();
    }
}
