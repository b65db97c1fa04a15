//! SPDY/3.1, as far as Kubernetes' streams need it: frames, compressed headers, streams.
//!
//! Draft 3.1 of the protocol. Flow control is announced by nobody in this use: upstream's library
//! neither counts nor grants, so windows are ignored here, too; back-pressure is TCP's.

mod dictionary;
mod headers;

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use headers::{HeaderReader, HeaderWriter};

/// A frame's longest payload that is accepted, in bytes.
const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Payload of the data frames that are sent, in bytes.
const DATA_BYTES: usize = 16 * 1024;
/// Bytes of one stream that wait for their reader.
const STREAM_BYTES: usize = 256 * 1024;
/// Frames that wait for the socket.
const QUEUED_FRAMES: usize = 32;
/// Streams that a connection may open, all told.
const MAX_STREAMS: usize = 4096;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// RST_STREAM's "the stream cannot be".
const REFUSED_STREAM: u32 = 3;

/// A stream that the client has opened.
pub(crate) struct SpdyStream {
    headers: HashMap<String, String>,
    incoming: DuplexStream,
    outgoing: StreamWriter,
}

impl SpdyStream {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn split(self) -> (DuplexStream, StreamWriter) {
        (self.incoming, self.outgoing)
    }
}

/// Our direction of a stream.
pub(crate) struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Bytes>,
}

impl StreamWriter {
    async fn data(&self, data: &[u8], flags: u8) -> bool {
        let mut frame = BytesMut::with_capacity(8 + data.len());
        frame.put_u32(self.id & 0x7fff_ffff);
        frame.put_u32(u32::from(flags) << 24 | data.len() as u32);
        frame.put_slice(data);
        self.frames.send(frame.freeze()).await.is_ok()
    }

    pub(crate) async fn send(&self, data: &[u8]) {
        for part in data.chunks(DATA_BYTES) {
            if !self.data(part, 0).await {
                return;
            }
        }
    }

    /// Ends our direction.
    pub(crate) async fn finish(&self) {
        self.data(&[], FIN).await;
    }

    /// Sends everything and ends our direction.
    pub(crate) async fn copy_from(&self, from: &mut (impl AsyncRead + Unpin)) {
        let mut buffer = vec![0; DATA_BYTES];
        while let Ok(n) = from.read(&mut buffer).await {
            if n == 0 || !self.data(&buffer[..n], 0).await {
                break;
            }
        }
        self.finish().await;
    }
}

/// The server's side of a connection.
pub(crate) struct Connection {
    streams: mpsc::Receiver<SpdyStream>,
    frames: Option<mpsc::Sender<Bytes>>,
    ended: watch::Receiver<bool>,
    work: JoinHandle<()>,
}

impl Connection {
    /// The next stream that the client opens; none when it is gone.
    pub(crate) async fn accept(&mut self) -> Option<SpdyStream> {
        self.streams.recv().await
    }

    /// Waits until the client is gone.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|e| *e).await;
    }

    /// Sends what is queued, says goodbye and waits a moment for the client to close.
    pub(crate) async fn close(mut self) {
        if let Some(frames) = self.frames.take() {
            let mut frame = control(GOAWAY, 0, 8);
            frame.put_u32(0);
            frame.put_u32(0);
            let _ = frames.send(frame.freeze()).await;
        }
        self.streams.close();
        let _ = (&mut self.work).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // After `close` the work is done and this does nothing.
        self.work.abort();
    }
}

fn control(kind: u16, flags: u8, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(8 + length);
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u32(u32::from(flags) << 24 | length as u32);
    frame
}

/// Speaks SPDY on a socket.
pub(crate) fn serve(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
    let (reader, writer) = tokio::io::split(socket);
    let (frames, queued) = mpsc::channel(QUEUED_FRAMES);
    let (opened, streams) = mpsc::channel(QUEUED_FRAMES);
    let (gone, ended) = watch::channel(false);
    let replies = frames.downgrade();
    let work = tokio::spawn(async move {
        let read = tokio::spawn(async move {
            let mut session = Session {
                reader,
                frames: replies,
                opened,
                streams: HashMap::new(),
                seen: 0,
                read_headers: HeaderReader::new(),
                write_headers: HeaderWriter::new(),
            };
            if let Err(error) = session.run().await {
                tracing::debug!(%error, "a SPDY connection ended");
            }
            let _ = gone.send(true);
            session.reader
        });
        let abort = AbortOnDrop(read.abort_handle());
        let writer = write(writer, queued).await;
        // Everything is sent. The reader ends when the client closes, or after a while.
        /// A client has so long to close after everything was said.
        const LINGER: std::time::Duration = std::time::Duration::from_secs(2);
        let _ = tokio::time::timeout(LINGER, read).await;
        drop((abort, writer));
    });
    Connection { streams, frames: Some(frames), ended, work }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queued: mpsc::Receiver<Bytes>) -> W {
    while let Some(frame) = queued.recv().await {
        if writer.write_all(&frame).await.is_err() {
            queued.close();
            return writer;
        }
        if queued.is_empty() {
            let _ = writer.flush().await;
        }
    }
    let _ = writer.shutdown().await;
    writer
}

struct Session<R> {
    reader: R,
    /// Weak: the connection's end is when everybody else has said everything.
    frames: mpsc::WeakSender<Bytes>,
    opened: mpsc::Sender<SpdyStream>,
    streams: HashMap<u32, DuplexStream>,
    seen: usize,
    read_headers: HeaderReader,
    write_headers: HeaderWriter,
}

fn invalid(why: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned())
}

impl<R: AsyncRead + Unpin> Session<R> {
    async fn run(&mut self) -> std::io::Result<()> {
        loop {
            let first = match self.reader.read_u32().await {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            let second = self.reader.read_u32().await?;
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if length > MAX_FRAME_BYTES {
                return Err(invalid("the frame is too long"));
            }
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).await?;
            if first & 0x8000_0000 == 0 {
                self.data(first, flags, &body).await;
                continue;
            }
            if (first >> 16) & 0x7fff != 3 {
                return Err(invalid("the frame's version is not 3"));
            }
            match first as u16 {
                SYN_STREAM => self.open(flags, &body).await?,
                RST_STREAM => {
                    if let Some(id) = number(&body, 0) {
                        self.streams.remove(&id);
                    }
                }
                PING if body.len() == 4 => {
                    let mut frame = control(PING, 0, 4);
                    frame.put_slice(&body);
                    self.reply(frame).await;
                }
                GOAWAY => {}
                // SETTINGS, WINDOW_UPDATE and HEADERS say nothing that matters here; HEADERS would,
                // to the compression, but nobody sends it.
                _ => {}
            }
        }
    }

    async fn reply(&mut self, frame: BytesMut) {
        if let Some(frames) = self.frames.upgrade() {
            let _ = frames.send(frame.freeze()).await;
        }
    }

    async fn data(&mut self, id: u32, flags: u8, body: &[u8]) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.write_all(body).await.is_err()
        {
            // Nobody reads it any more; the rest is dropped.
            self.streams.remove(&id);
        }
        if flags & FIN != 0 {
            self.streams.remove(&id);
        }
    }

    async fn open(&mut self, flags: u8, body: &[u8]) -> std::io::Result<()> {
        let id = number(body, 0).ok_or_else(|| invalid("a short SYN_STREAM"))? & 0x7fff_ffff;
        // Ten bytes: the id, an associated id, a priority and a slot.
        let headers = self.read_headers.read(body.get(10..).ok_or_else(|| invalid("a short SYN_STREAM"))?)?;
        self.seen += 1;
        let frames = self.frames.upgrade().filter(|_| self.seen <= MAX_STREAMS && !self.streams.contains_key(&id));
        let Some(frames) = frames else {
            let mut frame = control(RST_STREAM, 0, 8);
            frame.put_u32(id);
            frame.put_u32(REFUSED_STREAM);
            self.reply(frame).await;
            return Ok(());
        };
        let block = self.write_headers.write(&[])?;
        let mut frame = control(SYN_REPLY, 0, 4 + block.len());
        frame.put_u32(id);
        frame.put_slice(&block);
        let _ = frames.send(frame.freeze()).await;
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        if flags & FIN == 0 {
            self.streams.insert(id, ours);
        }
        let outgoing = StreamWriter { id, frames };
        let _ = self.opened.send(SpdyStream { headers, incoming: theirs, outgoing }).await;
        Ok(())
    }
}

fn number(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?))
}
