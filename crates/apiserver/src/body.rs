//! Bodies: what goes out (whole or as a stream of shared chunks), and reading what comes in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use ironkeel_registry::{ApiError, Reason};

use crate::ending::Ending;

/// Largest request body, in bytes.
pub const BODY_LIMIT_BYTES: usize = 3 << 20;

/// The body of an answer.
pub struct Body(Inner);

enum Inner {
    Whole(Option<Bytes>),
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Inner::Whole(_) => "Body::Whole",
            Inner::Stream(_) => "Body::Stream",
        })
    }
}

impl Body {
    /// Nothing.
    pub fn empty() -> Self {
        Body(Inner::Whole(None))
    }

    /// One piece.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Body(Inner::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// Piece by piece.
    pub fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Body(Inner::Stream(Box::pin(chunks)))
    }

    /// The piece, where this is one.
    pub fn as_whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Whole(bytes) => bytes.as_ref(),
            Inner::Stream(_) => None,
        }
    }

    /// Shows every piece to `ending`, which is dropped with the body.
    pub(crate) fn observed(self, mut ending: Ending) -> Self {
        match self.0 {
            Inner::Whole(bytes) => {
                if let Some(bytes) = &bytes {
                    ending.chunk(bytes);
                }
                Body(Inner::Whole(bytes))
            }
            Inner::Stream(stream) => Body::stream(stream.inspect(move |piece| {
                if let Ok(bytes) = piece {
                    ending.chunk(bytes);
                }
            })),
        }
    }

    /// As a stream, whatever it was.
    pub fn into_stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        match self.0 {
            Inner::Whole(bytes) => Box::pin(futures::stream::iter(bytes.map(Ok))),
            Inner::Stream(stream) => stream,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Inner::Stream(stream) => stream.as_mut().poll_next(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

/// Reads a whole request body; 413 above [`BODY_LIMIT_BYTES`].
pub(crate) async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body + Send,
    B::Data: Send,
    B::Error: std::fmt::Display,
{
    let too_large = || {
        ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {BODY_LIMIT_BYTES}"))
    };
    let announced = body.size_hint().lower() > BODY_LIMIT_BYTES as u64;
    let mut body = std::pin::pin!(body);
    if announced {
        drain(body).await;
        return Err(too_large());
    }
    let mut first: Option<Bytes> = None;
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("reading the request body failed: {e}")))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let length = data.remaining();
        let have = first.as_ref().map_or(0, Bytes::len) + rest.as_ref().map_or(0, BytesMut::len);
        if have + length > BODY_LIMIT_BYTES {
            drain(body).await;
            return Err(too_large());
        }
        let chunk = data.copy_to_bytes(length);
        match (&first, &mut rest) {
            (None, None) => first = Some(chunk),
            (_, Some(rest)) => rest.extend_from_slice(&chunk),
            (Some(_), None) => {
                let mut all = BytesMut::with_capacity(have + length);
                all.extend_from_slice(&first.take().unwrap_or_default());
                all.extend_from_slice(&chunk);
                rest = Some(all);
            }
        }
    }
    Ok(rest.map(BytesMut::freeze).or(first).unwrap_or_default())
}

/// Most bytes of a body that is too large that are read for nothing.
const DRAIN_LIMIT_BYTES: usize = 16 << 20;

/// Reads on for a while: a client that is still sending would lose the connection before it reads the answer.
async fn drain<B>(mut body: std::pin::Pin<&mut B>)
where
    B: http_body::Body,
{
    let mut left = DRAIN_LIMIT_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Buf::remaining);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A request body as it is passed on, unread.
pub(crate) fn pass<B>(body: B) -> Body
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Display,
{
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::stream(http_body_util::BodyDataStream::new(Box::pin(body)).map(|chunk| match chunk {
        Ok(mut data) => Ok(data.copy_to_bytes(data.remaining())),
        Err(e) => Err(io::Error::other(e.to_string())),
    }))
}
