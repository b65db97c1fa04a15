//! Upgrades (exec, attach, port-forward) without sockets: hyper on both ends of a duplex pipe.

use std::sync::Arc;

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::error::Error;
use crate::forward::body_of;
use crate::layers::Caller;
use crate::server::{Server, serve_stream};

/// Bytes that the pipe holds in each direction.
const PIPE_BYTES: usize = 64 << 10;

/// Sends the request through a pipe of its own, so that it can be upgraded.
pub(crate) async fn upgraded<B>(
    server: Arc<Server>,
    caller: Caller,
    request: Request<B>,
) -> Result<Response<Body>, Error>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
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
