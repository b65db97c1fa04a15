//! Port forward over WebSocket channels, as it was before SPDY was tunnelled.
//!
//! Answers to the kubelet's `portforward/websocket.go`: every port of the request has two channels, data
//! and error, and the first message on each is the port, two bytes, little endian. A connection is made
//! for each port at once; there can be no second one.

use std::sync::Arc;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, Encoding, Incoming, OUTBOX_MESSAGES};
use crate::remote_command::PIPE_BYTES;
use crate::{Backend, LINGER, PortForwardRequest};

/// How many ports one request may name: a channel's number is a byte below version 5's close signal, and
/// a digit in base64.
pub(crate) const MAX_PORTS: usize = 100;

/// The encoding that a subprotocol names.
pub(crate) fn protocol(name: &str) -> Option<Encoding> {
    match name {
        "" | "v4.channel.k8s.io" => Some(Encoding::Binary),
        "v4.base64.channel.k8s.io" => Some(Encoding::Base64),
        _ => None,
    }
}

/// Serves the request's ports until every connection, or the client, has ended.
pub(crate) async fn serve<S>(
    socket: WebSocketStream<S>,
    encoding: Encoding,
    request: PortForwardRequest,
    backend: Arc<dyn Backend>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, mut messages) = socket.split();
    let (outbox, waiting) = mpsc::channel(OUTBOX_MESSAGES);
    let writer = AbortOnDropHandle::new(tokio::spawn(channel::write_messages(sink, waiting)));
    let mut inputs = Vec::new();
    let mut connections = tokio::task::JoinSet::new();
    for (channel, &port) in (0..).step_by(2).zip(request.ports.iter().take(MAX_PORTS)) {
        let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
        let (output, input) = tokio::io::split(ours);
        inputs.push(Some(input));
        let (backend, sandbox, outbox) = (backend.clone(), request.sandbox_id.clone(), outbox.clone());
        connections.spawn(async move {
            for channel in [channel, channel + 1] {
                let _ = outbox.send(encoding.message(channel, &port.to_le_bytes())).await;
            }
            let forward = backend.port_forward(&sandbox, port, Box::new(theirs));
            let output = channel::send_output(Some(output), channel, encoding, outbox.clone());
            if let (Err(error), ()) = tokio::join!(forward, output) {
                let message = format!("error forwarding port {port} to pod {sandbox}: {error}");
                let _ = outbox.send(encoding.message(channel + 1, message.as_bytes())).await;
            }
        });
    }
    drop(outbox);
    let mut reader = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(incoming) = channel::next(&mut messages, encoding, false).await {
            let Incoming::Data(channel, data) = incoming else { continue };
            let Some(input) = inputs.get_mut(usize::from(channel / 2)) else { continue };
            if channel % 2 == 0
                && let Some(open) = input
                && open.write_all(&data).await.is_err()
            {
                *input = None;
            }
        }
    }));
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        _ = &mut reader => return,
    }
    let _ = tokio::time::timeout(LINGER, writer).await;
    let _ = tokio::time::timeout(LINGER, reader).await;
}
