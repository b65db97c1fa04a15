//! Channels within a WebSocket: the first byte of a message says which stream the rest belongs to.
//!
//! Answers to apimachinery's `wsstream.Conn`: binary messages, or text messages with a digit and base64;
//! from version 5 on, a message of 255 and a channel ends that channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::remote_command::CHUNK_BYTES;

/// How many messages may wait for the writer.
pub(crate) const OUTBOX_MESSAGES: usize = 8;
/// Version 5: the channel named by the next byte has ended.
const CLOSE_SIGNAL: u8 = 255;

/// How channels are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    /// The message that carries `data` on `channel`.
    pub(crate) fn message(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = Vec::with_capacity(data.len() + 1);
                message.push(channel);
                message.extend_from_slice(data);
                Message::Binary(message.into())
            }
            Self::Base64 => {
                let mut message = String::with_capacity(data.len() / 3 * 4 + 5);
                message.push(char::from(b'0' + channel));
                STANDARD.encode_string(data, &mut message);
                Message::Text(message.into())
            }
        }
    }

    /// The channel and data of a client's message; `None` when it has neither.
    fn open(self, mut message: Bytes) -> Option<(u8, Bytes)> {
        if message.is_empty() {
            return None;
        }
        let data = message.split_off(1);
        match self {
            Self::Binary => Some((message[0], data)),
            Self::Base64 => Some((message[0].checked_sub(b'0')?, STANDARD.decode(&data).ok()?.into())),
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Data(u8, Bytes),
    /// The channel has ended (version 5).
    End(u8),
}

/// The next thing that the client says; `None` when it has gone. Messages without meaning are skipped.
pub(crate) async fn next<R>(messages: &mut R, encoding: Encoding, half_close: bool) -> Option<Incoming>
where
    R: futures::Stream<Item = Result<Message, super::WebSocketError>> + Unpin,
{
    loop {
        let message = match messages.next().await?.ok()? {
            Message::Binary(message) => message,
            Message::Text(message) => message.into(),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match encoding.open(message) {
            Some((CLOSE_SIGNAL, data)) if half_close => match data[..] {
                [channel] => return Some(Incoming::End(channel)),
                _ => return None,
            },
            Some((channel, data)) => return Some(Incoming::Data(channel, data)),
            None => {}
        }
    }
}

/// Writes messages until every sender is gone, then says goodbye.
pub(crate) async fn write_messages<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut outbox: mpsc::Receiver<Message>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = outbox.recv().await {
        let mut sent = sink.feed(message).await;
        while sent.is_ok()
            && let Ok(message) = outbox.try_recv()
        {
            sent = sink.feed(message).await;
        }
        if sent.is_err() || sink.flush().await.is_err() {
            return;
        }
    }
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    if sink.send(Message::Close(Some(goodbye))).await.is_ok() {
        // The peer may have closed already, which is as good.
        let _ = sink.flush().await;
    }
}

/// Sends what `output` says on `channel` until either has ended.
pub(crate) async fn send_output(
    output: Option<impl AsyncRead + Unpin>,
    channel: u8,
    encoding: Encoding,
    outbox: mpsc::Sender<Message>,
) {
    let Some(mut output) = output else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = output.read(&mut chunk).await {
        if outbox.send(encoding.message(channel, &chunk[..length])).await.is_err() {
            return;
        }
    }
}
