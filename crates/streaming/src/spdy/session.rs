//! The reading side of a connection: what the peer's frames mean.
//!
//! A peer that breaks the rules gets a GOAWAY and nothing else; a stream that cannot be is reset.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::headers::HeaderReader;
use super::{
    Entry, FIN, GOAWAY, HEADERS, ID_MASK, MAX_CONTROL_BYTES, PING, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM,
    STREAM_BYTES, SYN_REPLY, SYN_STREAM, Shared, SpdyStream, StreamWriter, control, goodbye, reset,
};

/// How much of a data frame is taken from the socket at once; its length has no limit of its own.
const PIECE_BYTES: usize = 32 * 1024;

pub(super) struct Session<R> {
    reader: R,
    /// Weak: the connection's end is when everybody else has said everything.
    frames: mpsc::WeakSender<Bytes>,
    opened: mpsc::Sender<SpdyStream>,
    shared: Arc<Shared>,
    headers: HeaderReader,
    /// The remainder by two of the peer's stream numbers, and the last of them.
    parity: u32,
    last_id: u32,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl<R: AsyncRead + Unpin> Session<R> {
    pub(super) fn new(
        reader: R,
        frames: mpsc::WeakSender<Bytes>,
        opened: mpsc::Sender<SpdyStream>,
        shared: Arc<Shared>,
        parity: u32,
    ) -> Self {
        Self { reader, frames, opened, shared, headers: HeaderReader::new(), parity, last_id: 0 }
    }

    pub(super) async fn serve(mut self) {
        if let Err(error) = self.run().await {
            tracing::debug!(%error, "a SPDY connection ended");
            if error.kind() == io::ErrorKind::InvalidData {
                self.reply(goodbye(PROTOCOL_ERROR)).await;
            }
        }
        // Streams read end of file, and their tokens say why.
        self.shared.ended.cancel();
        self.shared.streams.lock().clear();
    }

    async fn run(&mut self) -> io::Result<()> {
        loop {
            let first = match self.reader.read_u32().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            let second = self.reader.read_u32().await?;
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if first & !ID_MASK == 0 {
                self.data(first, flags, length).await?;
                continue;
            }
            if (first >> 16) & 0x7fff != 3 {
                return Err(invalid("the frame's version is not 3"));
            }
            if length > MAX_CONTROL_BYTES {
                return Err(invalid("the control frame is too long"));
            }
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).await?;
            self.control(first as u16, flags, &body).await?;
        }
    }

    async fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> io::Result<()> {
        match kind {
            SYN_STREAM => self.open(flags, body).await?,
            SYN_REPLY => {
                let id = number(body)? & ID_MASK;
                self.headers.read(&body[4..])?;
                let replied = self.shared.streams.lock().get_mut(&id).and_then(|entry| entry.replied.take());
                if let Some(replied) = replied {
                    // Whoever opened it may have lost interest.
                    let _ = replied.send(());
                }
                self.end(id, flags);
            }
            RST_STREAM => {
                let removed = self.shared.streams.lock().remove(&(number(body)? & ID_MASK));
                if let Some(entry) = removed {
                    entry.aborted.cancel();
                }
            }
            HEADERS => {
                // They say nothing here, but the compression has to see them.
                let id = number(body)? & ID_MASK;
                self.headers.read(&body[4..])?;
                self.end(id, flags);
            }
            PING => {
                let id = number(body)?;
                // What comes back with our own parity answers a ping that nobody sent.
                if id % 2 == self.parity {
                    let mut frame = control(PING, 0, 4);
                    frame.put_u32(id);
                    self.reply(frame.freeze()).await;
                }
            }
            // GOAWAY announces an end that is seen when it comes; SETTINGS and WINDOW_UPDATE are about
            // flow control, which nobody does here; other kinds are to be ignored.
            GOAWAY => {}
            _ => {}
        }
        Ok(())
    }

    async fn reply(&mut self, frame: Bytes) {
        if let Some(frames) = self.frames.upgrade() {
            // Who has gone needs no reply.
            let _ = frames.send(frame).await;
        }
    }

    /// The peer's direction has ended, if the flags say so.
    fn end(&mut self, id: u32, flags: u8) {
        if flags & FIN != 0
            && let Some(entry) = self.shared.streams.lock().get_mut(&id)
        {
            entry.data = None;
        }
    }

    async fn data(&mut self, id: u32, flags: u8, length: usize) -> io::Result<()> {
        // Out of the table while it is written to, so that the lock is not held.
        let mut data = self.shared.streams.lock().get_mut(&id).and_then(|entry| entry.data.take());
        let mut left = length;
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        while left > 0 {
            let read = left.min(PIECE_BYTES);
            self.reader.read_exact(&mut piece[..read]).await?;
            left -= read;
            if let Some(open) = &mut data
                && open.write_all(&piece[..read]).await.is_err()
            {
                // Nobody reads it any more; the rest is dropped.
                data = None;
            }
        }
        if flags & FIN == 0
            && let Some(entry) = self.shared.streams.lock().get_mut(&id)
        {
            entry.data = data;
        }
        Ok(())
    }

    async fn open(&mut self, flags: u8, body: &[u8]) -> io::Result<()> {
        let id = number(body)? & ID_MASK;
        // Ten bytes: the id, an associated id, a priority and a slot.
        let headers = self.headers.read(body.get(10..).ok_or_else(|| invalid("a short SYN_STREAM"))?)?;
        if id % 2 != self.parity || id <= self.last_id {
            return Err(invalid("the stream's number is not the peer's next"));
        }
        self.last_id = id;
        let Some(frames) = self.frames.upgrade() else { return Ok(()) };
        let Ok(slot) = self.shared.slots.clone().try_acquire_owned() else {
            self.reply(reset(id, REFUSED_STREAM)).await;
            return Ok(());
        };
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        let aborted = self.shared.ended.child_token();
        let entry = Entry { data: (flags & FIN == 0).then_some(ours), replied: None, aborted: aborted.clone() };
        self.shared.streams.lock().insert(id, entry);
        let outgoing = StreamWriter { id, frames, shared: self.shared.clone(), _slot: Some(slot) };
        // A connection that takes no more streams is about to end.
        let _ = self.opened.send(SpdyStream { headers, incoming: theirs, outgoing, aborted }).await;
        Ok(())
    }
}

/// The number that a control frame begins with.
fn number(body: &[u8]) -> io::Result<u32> {
    let bytes = body.first_chunk().ok_or_else(|| invalid("a short control frame"))?;
    Ok(u32::from_be_bytes(*bytes))
}
