//! Requests without sockets, and their upgrades (exec, attach, port-forward): hyper on both ends of a duplex pipe.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::error::Error;
use crate::forward::body_of;
use crate::layers::{self, Caller};
use crate::server::{Server, serve_stream};

/// Bytes that the pipe holds in each direction.
const PIPE_BYTES: usize = 64 << 10;

/// The body of a request, whatever its type was. All that answers a request is made for each type of body.
pub(crate) type Erased = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Hides the type of a body.
pub(crate) fn erased<B>(body: B) -> Erased
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
    bytes.map_err(Into::into).boxed_unsync()
}

/// Answers a request of this process.
pub(crate) fn answer(
    server: Arc<Server>,
    caller: Caller,
    request: Request<Erased>,
) -> BoxFuture<'static, Result<Response<Body>, Error>> {
    Box::pin(async move {
        if request.headers().contains_key(http::header::UPGRADE) {
            return upgraded(server, caller, request).await;
        }
        Ok(layers::respond(server, &caller, request).await)
    })
}

/// Sends the request through a pipe of its own, so that it can be upgraded.
async fn upgraded(server: Arc<Server>, caller: Caller, request: Request<Erased>) -> Result<Response<Body>, Error> {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (tasks, draining) = (server.tasks.clone(), server.draining.clone());
    tasks.until(&draining, serve_stream(server, TokioIo::new(theirs), caller, CancellationToken::new()));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await?;
    tasks.until(&draining, async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an in-process upgrade ended early");
        }
    });
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = path.parse().unwrap_or_default();
    parts.version = http::Version::HTTP_11;
    parts.headers.insert(http::header::HOST, http::HeaderValue::from_static("in-process"));
    let response = sender.send_request(Request::from_parts(parts, body)).await?;
    Ok(response.map(body_of))
}
