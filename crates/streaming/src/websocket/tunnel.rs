//! A byte stream in a WebSocket's binary messages.
//!
//! What `SPDY/3.1+portforward.k8s.io` (KEP 4006) carries: the messages' borders mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Bytes;

use super::{Message, WebSocketError};
use crate::remote_command::CHUNK_BYTES;

/// A WebSocket read and written as bytes. Shutting it down sends the close message; a received one reads
/// as end of file.
pub struct ByteTunnel<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
}

impl<S> ByteTunnel<S> {
    /// Makes a byte stream of a WebSocket whose handshake is done.
    pub fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, unread: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteTunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(data))) => self.unread = data,
                Some(Ok(Message::Text(data))) => self.unread = data.into(),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(end_of_file(error)),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteTunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io::Error::other)?;
        let length = data.len().min(CHUNK_BYTES);
        let message = Message::Binary(Bytes::copy_from_slice(&data[..length]));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.socket).poll_close(context)).or_else(end_of_file))
    }
}

/// A connection that is closed already has ended as it should.
fn end_of_file(error: WebSocketError) -> io::Result<()> {
    match error {
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => Ok(()),
        WebSocketError::Io(error) => Err(error),
        error => Err(io::Error::other(error)),
    }
}
