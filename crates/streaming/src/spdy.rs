//! SPDY/3.1, as far as Kubernetes' streams need it: frames, compressed headers, streams.
//!
//! Draft 3.1 of the protocol, both sides. Flow control is announced by nobody in this use: upstream's
//! library neither counts nor grants windows, and a side that waited for a grant would wait for ever. So
//! windows are ignored here, too; back-pressure is TCP's, and a stream that is not read holds up its
//! connection once [`STREAM_BYTES`] wait in it, as upstream's does.

mod dictionary;
mod headers;
mod session;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex as Lock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::LINGER;
use headers::HeaderWriter;
use session::Session;

/// A control frame's longest payload that is accepted, in bytes.
pub const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Bytes of one stream that wait for their reader.
pub const STREAM_BYTES: usize = 256 * 1024;
/// Streams that the peer may have open at a time.
pub const MAX_STREAMS: usize = 1024;
/// Payload of the data frames that are sent, in bytes.
const DATA_BYTES: usize = 16 * 1024;
/// Frames that wait for the socket.
const QUEUED_FRAMES: usize = 32;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
/// The bits of a stream's number.
const ID_MASK: u32 = 0x7fff_ffff;
/// RST_STREAM's "the stream cannot be".
const REFUSED_STREAM: u32 = 3;
/// GOAWAY's "the peer broke the protocol's rules".
const PROTOCOL_ERROR: u32 = 1;

/// What the two directions of a connection and its streams share.
struct Shared {
    /// Compression has one state for the connection: blocks are sent in the order in which they are made.
    headers: Mutex<HeaderWriter>,
    streams: Lock<HashMap<u32, Entry>>,
    slots: Arc<Semaphore>,
    /// Cancelled when the peer has gone or broke the rules.
    ended: CancellationToken,
}

/// The reading side of an open stream.
struct Entry {
    /// Where the peer's data goes; none after its end.
    data: Option<DuplexStream>,
    /// Tells the opener that the peer has agreed.
    replied: Option<oneshot::Sender<()>>,
    aborted: CancellationToken,
}

/// One stream of a connection.
pub struct SpdyStream {
    headers: HashMap<String, String>,
    incoming: DuplexStream,
    outgoing: StreamWriter,
    aborted: CancellationToken,
}

impl SpdyStream {
    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.outgoing.id
    }

    /// A header that the opener gave, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Cancelled when the peer resets the stream or the connection ends.
    pub fn aborted(&self) -> CancellationToken {
        self.aborted.clone()
    }

    /// Agrees to a stream that the peer has opened.
    pub async fn accept(&self) -> io::Result<()> {
        let id = self.outgoing.id;
        let mut writer = self.outgoing.shared.headers.lock().await;
        let block = writer.write(&[])?;
        let mut frame = control(SYN_REPLY, 0, 4 + block.len());
        frame.put_u32(id);
        frame.put_slice(&block);
        self.outgoing.frames.send(frame.freeze()).await.map_err(|_| gone())
    }

    /// Refuses a stream that the peer has opened.
    pub async fn refuse(self) {
        self.outgoing.shared.streams.lock().remove(&self.outgoing.id);
        // Who has gone needs no refusal.
        let _ = self.outgoing.frames.send(reset(self.outgoing.id, REFUSED_STREAM)).await;
    }

    /// What the peer sends (it reads end of file at the peer's end, or when the stream is aborted), and
    /// our direction.
    pub fn split(self) -> (DuplexStream, StreamWriter) {
        (self.incoming, self.outgoing)
    }
}

/// Our direction of a stream.
pub struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
    /// One of the peer's [`MAX_STREAMS`].
    _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.shared.streams.lock().remove(&self.id);
    }
}

impl StreamWriter {
    async fn data(&self, data: &[u8], flags: u8) -> bool {
        let mut frame = BytesMut::with_capacity(8 + data.len());
        frame.put_u32(self.id & ID_MASK);
        frame.put_u32(u32::from(flags) << 24 | data.len() as u32);
        frame.put_slice(data);
        self.frames.send(frame.freeze()).await.is_ok()
    }

    /// Sends data; it is lost when the peer has gone.
    pub async fn send(&self, data: &[u8]) {
        for part in data.chunks(DATA_BYTES) {
            if !self.data(part, 0).await {
                return;
            }
        }
    }

    /// Ends our direction.
    pub async fn finish(&self) {
        self.data(&[], FIN).await;
    }

    /// Sends everything and ends our direction.
    pub async fn copy_from(&self, from: &mut (impl AsyncRead + Unpin)) {
        let mut buffer = vec![0; DATA_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if !self.data(&buffer[..length], 0).await {
                break;
            }
        }
        self.finish().await;
    }
}

/// A connection; dropping it closes the socket at once.
pub struct Connection {
    opened: mpsc::Receiver<SpdyStream>,
    frames: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
    next_id: u32,
    work: AbortOnDropHandle<()>,
}

impl Connection {
    /// Speaks SPDY on a socket as the server.
    pub fn server(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::new(socket, 2)
    }

    /// Speaks SPDY on a socket as the client.
    pub fn client(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::new(socket, 1)
    }

    fn new(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, next_id: u32) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        let (frames, queued) = mpsc::channel(QUEUED_FRAMES);
        let (opened_tx, opened) = mpsc::channel(QUEUED_FRAMES);
        let shared = Arc::new(Shared {
            headers: Mutex::new(HeaderWriter::new()),
            streams: Lock::default(),
            slots: Arc::new(Semaphore::new(MAX_STREAMS)),
            ended: CancellationToken::new(),
        });
        let session = Session::new(reader, frames.downgrade(), opened_tx, shared.clone(), (next_id + 1) % 2);
        let ended = shared.ended.clone();
        let work = tokio::spawn(async move {
            let mut read = AbortOnDropHandle::new(tokio::spawn(session.serve()));
            let writer = write(writer, queued, ended).await;
            // Everything is sent. The reader ends when the peer closes, or after a while: a close with
            // unread data would be a reset, and could cost the peer what it has not read.
            let _ = tokio::time::timeout(LINGER, &mut read).await;
            drop(writer);
        });
        Self { opened, frames, shared, next_id, work: AbortOnDropHandle::new(work) }
    }

    /// The next stream that the peer opens; none when it is gone. Accept or refuse it.
    pub async fn next_stream(&mut self) -> Option<SpdyStream> {
        self.opened.recv().await
    }

    /// Cancelled when the peer has gone, or broke the protocol's rules.
    pub fn ended(&self) -> CancellationToken {
        self.shared.ended.clone()
    }

    /// Opens a stream and waits until the peer agrees. Header names are lower case.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> io::Result<SpdyStream> {
        let id = self.next_id;
        self.next_id += 2;
        let (replied, reply) = oneshot::channel();
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        let aborted = self.shared.ended.child_token();
        let entry = Entry { data: Some(ours), replied: Some(replied), aborted: aborted.clone() };
        self.shared.streams.lock().insert(id, entry);
        let outgoing = StreamWriter { id, frames: self.frames.clone(), shared: self.shared.clone(), _slot: None };
        {
            let mut writer = self.shared.headers.lock().await;
            let block = writer.write(headers)?;
            let mut frame = control(SYN_STREAM, 0, 10 + block.len());
            frame.put_u32(id);
            frame.put_u32(0);
            frame.put_u16(0);
            frame.put_slice(&block);
            self.frames.send(frame.freeze()).await.map_err(|_| gone())?;
        }
        tokio::select! {
            // A peer that agrees, says all that it has to say and closes has agreed.
            biased;
            replied = reply => replied.map_err(|_| refused())?,
            () = aborted.cancelled() => return Err(refused()),
        }
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(SpdyStream { headers, incoming: theirs, outgoing, aborted })
    }

    /// Sends what is queued, says goodbye and waits a moment for the peer to close. Drop the streams
    /// first: while one can still be written, the connection stays.
    pub async fn close(self) {
        let Self { opened, frames, work, .. } = self;
        // Who has gone needs no goodbye.
        let _ = frames.send(goodbye(0)).await;
        drop((frames, opened));
        let _ = work.await;
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the SPDY connection has ended")
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the SPDY stream was reset")
}

fn control(kind: u16, flags: u8, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(8 + length);
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u32(u32::from(flags) << 24 | length as u32);
    frame
}

fn reset(id: u32, status: u32) -> Bytes {
    let mut frame = control(RST_STREAM, 0, 8);
    frame.put_u32(id);
    frame.put_u32(status);
    frame.freeze()
}

/// GOAWAY; the last stream's number is nothing that anybody here looks at.
fn goodbye(status: u32) -> Bytes {
    let mut frame = control(GOAWAY, 0, 8);
    frame.put_u32(0);
    frame.put_u32(status);
    frame.freeze()
}

/// Writes frames until every sender is gone, or the peer has been for a while.
async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queued: mpsc::Receiver<Bytes>, ended: CancellationToken) -> W {
    let send = async {
        while let Some(frame) = queued.recv().await {
            writer.write_all(&frame).await?;
            if queued.is_empty() {
                writer.flush().await?;
            }
        }
        writer.shutdown().await
    };
    let sent = tokio::select! {
        sent = send => sent,
        // What was queued before the end, a GOAWAY with the reason mostly, is still worth a moment.
        () = async {
            ended.cancelled().await;
            tokio::time::sleep(LINGER).await;
        } => Err(gone()),
    };
    if sent.is_err() {
        ended.cancel();
        queued.close();
    }
    writer
}
