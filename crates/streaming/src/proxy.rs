//! Forwarding: bytes both ways, and upgrade requests to another server.
//!
//! Answers to apimachinery's `UpgradeAwareHandler`. It makes no connection itself: the caller's connector
//! decides between TCP, TLS and a pipe in memory, and which certificates are believed.

use std::future::Future;
use std::io;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use crate::StreamError;

/// The body of a forwarded answer: empty after an upgrade, else what the upstream says.
pub type ProxyBody = BoxBody<Bytes, hyper::Error>;

/// Copies bytes both ways until both directions have ended. The end of one is passed on (a half close)
/// and the other goes on; an error ends both. Returns the bytes from `a` to `b`, and from `b` to `a`.
pub async fn tunnel<A, B>(mut a: A, mut b: B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional(&mut a, &mut b).await
}

/// Forwards an upgrade request to `target` over the connection that `connect` makes, and returns the
/// answer. After a `101` a task of its own tunnels the bytes until either connection breaks or both
/// directions end; serve the request with hyper's `with_upgrades`. Any other answer is returned with its body.
///
/// `target` gives the host and the path with its query; the request's headers are kept, but for `Host`.
/// Authentication headers are the caller's to remove before. The request's body is not sent: neither
/// protocol has one.
pub async fn proxy_upgrade<B, C, F, S>(
    mut request: Request<B>,
    target: &Uri,
    connect: C,
) -> Result<Response<ProxyBody>, StreamError>
where
    C: FnOnce() -> F,
    F: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = hyper::upgrade::on(&mut request);
    let mut forwarded = Request::builder()
        .method(request.method().clone())
        .uri(target.path_and_query().map_or("/", |path| path.as_str()))
        .body(Empty::<Bytes>::new())?;
    *forwarded.headers_mut() = request.headers().clone();
    forwarded.headers_mut().remove(CONTENT_LENGTH);
    forwarded.headers_mut().remove(TRANSFER_ENCODING);
    if let Some(authority) = target.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(http::Error::from)?;
        forwarded.headers_mut().insert(HOST, host);
    }

    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connect().await?)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let mut answer = sender.send_request(forwarded).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The connection must live for as long as the body is read.
        let (parts, body) = answer.into_parts();
        let body = body.map_frame(move |frame| {
            let _ = &connection;
            frame
        });
        return Ok(Response::from_parts(parts, body.boxed()));
    }
    let upstream = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "the upgrade was not taken up"),
        };
        drop(connection);
        if let Err(error) = tunnel(TokioIo::new(client), TokioIo::new(upstream)).await {
            tracing::debug!(%error, "a forwarded stream ended");
        }
    });
    Ok(answer.map(|_| Empty::new().map_err(|never| match never {}).boxed()))
}
