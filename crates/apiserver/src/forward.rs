//! Passing a request on to a backend and its answer back, as upstream's UpgradeAwareHandler does:
//! hop-by-hop headers stay behind, `X-Forwarded-*` say where it came from, redirects and HTML links
//! are led back through the proxy, and an upgrade becomes a tunnel once the backend has agreed to it.

use std::io;
use std::net::SocketAddr;

use futures::TryStreamExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, LOCATION, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ironkeel_registry::{ApiError, Reason};

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::outbound::{self, Backend};
use crate::request_info::percent_decode;
use crate::rewrite::Rewrite;
use crate::translate;

/// Headers that are about one connection alone.
const HOP_HEADERS: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the client is told instead of where a kubelet or an extension API server would send it: it would
/// go there with its credentials (CVE-2022-3172).
const NO_REDIRECTS: &str = "the backend attempted to redirect this request, which is not permitted";

/// Where a client's socket is; an extension of requests that came over one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// What is to be passed on, and how.
pub(crate) struct Forward {
    /// To whom.
    pub(crate) backend: Backend,
    /// Path and query over there.
    pub(crate) path: String,
    /// Headers to set, after the client's credentials have been taken away.
    pub(crate) headers: HeaderMap,
    /// Leads redirects and links back through the proxy; without it there are no redirects.
    pub(crate) rewrite: Option<Rewrite>,
    /// Whether only an upgrade makes sense (exec, attach, port-forward).
    pub(crate) upgrade_required: bool,
}

/// hyper's body as ours.
pub(crate) fn body_of(body: Incoming) -> Body {
    Body::stream(body.into_data_stream().map_err(io::Error::other))
}

/// Whether the client wants another protocol on this connection.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
}

pub(crate) fn unreachable(why: String) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
}

/// The client's headers without credentials and without what is about its own connection.
pub(crate) fn request_headers(c: &Context, forward: &Forward, upgrade: bool) -> HeaderMap {
    let client = &c.parts.headers;
    let named: Vec<String> = client
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|w| w.trim().to_ascii_lowercase())
        .collect();
    let mut out = HeaderMap::new();
    for (name, value) in client {
        let text = name.as_str();
        let stays = text == "authorization"
            || text.starts_with("impersonate-")
            || text.starts_with("x-remote-")
            || HOP_HEADERS.contains(&text)
            || named.iter().any(|n| n == text)
            || name == HOST;
        if !stays {
            out.append(name.clone(), value.clone());
        }
    }
    c.server.certificates.strip_headers(&mut out);
    if upgrade {
        out.remove(CONTENT_LENGTH);
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(protocol) = client.get(UPGRADE) {
            out.insert(UPGRADE, protocol.clone());
        }
    }
    let authority = c.parts.uri.authority().map(|a| a.as_str().to_owned());
    let host = client.get(HOST).and_then(|h| h.to_str().ok()).map(str::to_owned).or(authority);
    if let Ok(host) = HeaderValue::from_str(&host.unwrap_or_else(|| forward.backend.host.authority())) {
        out.insert(HOST, host);
    }
    if let Some(PeerAddress(peer)) = c.parts.extensions.get::<PeerAddress>() {
        let name = HeaderName::from_static("x-forwarded-for");
        let before = client.get_all(&name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned);
        let hops: Vec<String> = before.chain([peer.ip().to_string()]).collect();
        if let Ok(hops) = HeaderValue::from_str(&hops.join(", ")) {
            out.insert(name, hops);
        }
    }
    if let Some(rewrite) = &forward.rewrite
        && let Ok(uri) = HeaderValue::from_str(&rewrite.forwarded_uri(&forward.path))
    {
        out.insert(HeaderName::from_static("x-forwarded-uri"), uri);
    }
    for (name, value) in &forward.headers {
        out.append(name.clone(), value.clone());
    }
    out
}

/// Passes the request on; the answer is the backend's own.
pub(crate) async fn forward(c: Context, forward: Forward) -> Result<Response<Body>, ApiError> {
    let upgrade = is_upgrade(&c.parts.headers);
    if forward.upgrade_required && !upgrade {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let uri: Uri = forward.path.parse().map_err(|_| {
        ApiError::bad_request(format!("the path {:?} cannot be forwarded", percent_decode(&forward.path, false)))
    })?;
    let body = match c.upload.lock().take() {
        Some(upload) if !upgrade => upload,
        _ => Body::whole(c.body.clone()),
    };
    let mut request = Request::new(body);
    *request.method_mut() = c.parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = request_headers(&c, &forward, upgrade);
    let sending = ironkeel_trace::span("pass on").outgoing();
    if let Some(value) = sending.traceparent().and_then(|t| HeaderValue::try_from(t).ok()) {
        request.headers_mut().insert(ironkeel_trace::TRACEPARENT, value);
    }
    let response = outbound::send(&forward.backend, request).await.map_err(unreachable)?;
    drop(sending);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrade {
            return Err(unreachable("the backend switched protocols unasked".to_owned()));
        }
        return Ok(tunnel(c, response));
    }
    if let Some(translation) = translate::wanted(&c, &response) {
        return translate::respond(c, forward, translation).await;
    }
    let status = response.status();
    if upgrade && !status.is_client_error() && !status.is_server_error() {
        return Err(ApiError::internal(format!("invalid upgrade response: status code {}", status.as_u16())));
    }
    plain(&c, &forward, response, upgrade).await
}

/// The backend's plain answer.
pub(crate) async fn plain(
    c: &Context,
    forward: &Forward,
    response: Response<Incoming>,
    upgrade: bool,
) -> Result<Response<Body>, ApiError> {
    let elsewhere = response.headers().get(LOCATION).is_some_and(|l| !l.is_empty());
    if forward.rewrite.is_none() && response.status().is_redirection() && elsewhere {
        return Ok(answer::with_type(StatusCode::BAD_GATEWAY.as_u16(), "text/plain; charset=utf-8", NO_REDIRECTS));
    }
    let (mut parts, body) = response.into_parts();
    for name in HOP_HEADERS {
        parts.headers.remove(*name);
    }
    parts.version = c.parts.version;
    parts.extensions.clear();
    let mut body = body_of(body);
    if upgrade && c.parts.version < http::Version::HTTP_2 {
        // A refused upgrade is the last thing that happens on the client's connection, too.
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(rewrite) = &forward.rewrite {
        let cross_origin: Vec<HeaderName> =
            parts.headers.keys().filter(|k| k.as_str().starts_with("access-control-")).cloned().collect();
        for name in cross_origin {
            parts.headers.remove(name);
        }
        let host = c.parts.headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
        let backend = forward.backend.host.authority();
        if let Some(location) = parts.headers.get(LOCATION).and_then(|l| l.to_str().ok()) {
            let location = rewrite.link(location, &backend, &host);
            if let Ok(location) = HeaderValue::from_str(&location) {
                parts.headers.insert(LOCATION, location);
            }
        } else {
            body = rewrite.page(&mut parts.headers, body, &backend, &host).await?;
        }
    }
    Ok(Response::from_parts(parts, body))
}

/// Joins both connections once the 101 has gone to the client.
fn tunnel(c: Context, mut response: Response<Incoming>) -> Response<Body> {
    let (tasks, draining) = (&c.server.tasks, &c.server.draining);
    let mut inbound = Request::from_parts(c.parts, ());
    let (client, backend) = (hyper::upgrade::on(&mut inbound), hyper::upgrade::on(&mut response));
    tasks.until(draining, async move {
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                    tracing::debug!(%error, "a tunnel ended early");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    let (parts, _) = response.into_parts();
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = parts.headers;
    answer
}
