//! gzip for large answers, as upstream: from 128 KiB on, at the fastest level.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};

use crate::body::Body;

/// Smaller answers go out as they are.
const THRESHOLD_BYTES: usize = 128 << 10;

/// Whether the client takes gzip.
pub(crate) fn accepts(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| {
        v.split(',').any(|e| {
            let mut parts = e.split(';').map(str::trim);
            parts.next() == Some("gzip") && parts.next() != Some("q=0")
        })
    })
}

struct Zipping {
    source: BoxStream<'static, io::Result<Bytes>>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Zipping {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.source.next().await {
                Some(Ok(chunk)) => {
                    if let Err(e) = encoder.write_all(&chunk) {
                        self.encoder = None;
                        return Some(Err(e));
                    }
                    if encoder.get_ref().len() >= 8 << 10 {
                        return Some(Ok(std::mem::take(encoder.get_mut()).into()));
                    }
                }
                Some(Err(e)) => {
                    self.encoder = None;
                    return Some(Err(e));
                }
                None => return self.encoder.take().map(|e| e.finish().map(Bytes::from)),
            }
        }
    }
}

/// Compresses an answer that is large, or whose size is not known.
pub(crate) fn gzip(response: Response<Body>) -> Response<Body> {
    let small = response.body().as_whole().is_some_and(|b| b.len() < THRESHOLD_BYTES);
    let empty = http_body::Body::is_end_stream(response.body());
    if small || empty || response.status() != http::StatusCode::OK || response.headers().contains_key(CONTENT_ENCODING)
    {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    let zipping =
        Zipping { source: body.into_stream(), encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) };
    let chunks = stream::unfold(zipping, |mut z| async move { z.next().await.map(|item| (item, z)) });
    Response::from_parts(parts, Body::stream(chunks))
}
