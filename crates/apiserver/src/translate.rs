//! Exec, attach and port-forward of a WebSocket client on a kubelet that speaks only SPDY, as kubelets did
//! before upstream's ExtendWebSocketsToKubelet: it refuses the client's protocol, and is asked for its own.

use http::header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ironkeel_registry::ApiError;
use ironkeel_streaming::translate::{self, CommandStreams, Translation};

use crate::body::Body;
use crate::context::Context;
use crate::forward::{self, Forward};
use crate::outbound;

/// What an answer of the kubelet leaves to do: nothing, where it is not the refusal of a protocol that
/// can be translated.
pub(crate) fn wanted(c: &Context, answer: &Response<Incoming>) -> Option<Translation> {
    let flag = |name| c.query.flag(name);
    let translation = match c.info.subresource.as_str() {
        "exec" | "attach" => Translation::Command(CommandStreams {
            stdin: flag("stdin"),
            stdout: flag("stdout"),
            stderr: flag("stderr"),
            tty: flag("tty"),
        }),
        "portforward" => Translation::PortForward,
        _ => return None,
    };
    let refused = matches!(answer.status(), StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN);
    (refused && translate::requested(&c.parts.headers, translation)).then_some(translation)
}

/// Asks the kubelet for SPDY, and translates.
pub(crate) async fn respond(c: Context, to: Forward, translation: Translation) -> Result<Response<Body>, ApiError> {
    let malformed = || ApiError::bad_request("the WebSocket handshake is malformed");
    let accepted = translate::accept::<()>(&c.parts.headers, translation).ok_or_else(malformed)?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = to.path.parse().map_err(ApiError::internal)?;
    let mut headers = forward::request_headers(&c, &to, true);
    for name in [SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION] {
        headers.remove(name);
    }
    for (name, value) in &translate::spdy_headers(translation) {
        headers.insert(name, value.clone());
    }
    *request.headers_mut() = headers;
    let mut response = outbound::send(&to.backend, request).await.map_err(forward::unreachable)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return forward::plain(&c, &to, response, true).await;
    }
    let (tasks, draining) = (c.server.tasks.clone(), c.server.draining.clone());
    let mut inbound = Request::from_parts(c.parts, ());
    let (client, kubelet) = (hyper::upgrade::on(&mut inbound), hyper::upgrade::on(&mut response));
    tasks.until(&draining, async move {
        match tokio::try_join!(client, kubelet) {
            Ok((client, kubelet)) => {
                let translating = translate::translate(TokioIo::new(client), TokioIo::new(kubelet), translation);
                if let Err(error) = translating.await {
                    tracing::debug!(%error, "a translated stream ended early");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    Ok(accepted.map(|()| Body::empty()))
}
