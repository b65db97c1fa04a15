//! The streaming server: a loopback listener whose URLs work once.
//!
//! Answers to the kubelet's `cri/streaming`: 404 for a token that is unknown, used or too old, 400 for a
//! request without an upgrade, 403 for protocols that are not known.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use crate::remote_command::RemoteCommand;
use crate::token::{Pending, Tokens};
use crate::websocket::{self, ByteTunnel, Refusal};
use crate::{AttachRequest, Backend, ExecRequest, PortForwardRequest, StreamError, port_forward, spdy_command};

/// How many connections may be open; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take to send its request.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a SPDY client may take to open a session's streams.
pub const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an ended session waits for the client to close the connection.
pub const LINGER: Duration = Duration::from_secs(5);

const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
const ACCEPTED_PROTOCOL_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

type Answer = Response<Full<Bytes>>;
type Io = TokioIo<Upgraded>;

/// Gives out URLs for streams and serves them on loopback until its token is cancelled.
pub struct StreamingServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    tokens: Tokens,
    shutdown: CancellationToken,
}

impl StreamingServer {
    /// Listens on a free port of 127.0.0.1. Cancelling `shutdown` closes the listener and every session.
    pub async fn start(backend: Arc<dyn Backend>, shutdown: CancellationToken) -> Result<Self, StreamError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(StreamError::Listen)?;
        let address = listener.local_addr().map_err(StreamError::Listen)?;
        let shared = Arc::new(Shared { backend, tokens: Tokens::default(), shutdown });
        tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL for the CRI's `Exec`.
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, StreamError> {
        if request.container_id.is_empty() {
            return Err(StreamError::Missing("container_id"));
        }
        self.url(Pending::Exec(request))
    }

    /// A URL for the CRI's `Attach`.
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, StreamError> {
        if request.container_id.is_empty() {
            return Err(StreamError::Missing("container_id"));
        }
        self.url(Pending::Attach(request))
    }

    /// A URL for the CRI's `PortForward`.
    pub fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, StreamError> {
        if request.sandbox_id.is_empty() {
            return Err(StreamError::Missing("pod_sandbox_id"));
        }
        self.url(Pending::PortForward(request))
    }

    fn url(&self, request: Pending) -> Result<String, StreamError> {
        let verb = request.verb();
        let token = self.shared.tokens.insert(Instant::now(), request)?;
        Ok(format!("http://{}/{verb}/{token}", self.address))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shared.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    serve_connection(stream, shared, Arc::new(permit)).await;
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: one of the open connections has to end first.
                tracing::warn!(%error, "accept a stream's connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// How long to wait after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// `permit` is one of the open connections; a session keeps it after the HTTP connection has ended.
async fn serve_connection<P: Send + Sync + 'static>(stream: TcpStream, shared: Arc<Shared>, permit: Arc<P>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a stream's connection will batch small writes");
    }
    let shutdown = shared.shutdown.clone();
    let service = service_fn(move |request| {
        let answer = answer(request, &shared, permit.clone());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::debug!(%error, "a stream's connection ended");
        },
        () = shutdown.cancelled() => {}
    }
}

fn answer<P: Send + Sync + 'static>(mut request: Request<Incoming>, shared: &Arc<Shared>, permit: P) -> Answer {
    if request.method() != Method::GET && request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let mut segments = request.uri().path().trim_start_matches('/').split('/');
    let (Some(verb), Some(token), None) = (segments.next(), segments.next(), segments.next()) else {
        return refuse(StatusCode::NOT_FOUND, "404 page not found");
    };
    let Some(pending) = shared.tokens.take(Instant::now(), token).filter(|pending| pending.verb() == verb) else {
        return refuse(StatusCode::NOT_FOUND, "404 page not found");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let headers = request.headers();
    let (answer, session) = match prepare(headers, pending, shared.backend.clone()) {
        Ok(prepared) => prepared,
        Err(answer) => return *answer,
    };
    tokio::spawn(serve_session(upgrade, session, shared.shutdown.clone(), permit));
    answer
}

async fn serve_session<P>(upgrade: OnUpgrade, session: Session, shutdown: CancellationToken, _permit: P) {
    let serve = async {
        match upgrade.await {
            Ok(upgraded) => session(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "the upgrade was not taken up"),
        }
    };
    tokio::select! {
        () = serve => {}
        () = shutdown.cancelled() => {}
    }
}

/// What happens with the connection after the 101.
type Session = Box<dyn FnOnce(Io) -> futures::future::BoxFuture<'static, ()> + Send>;

fn session<F>(serve: impl FnOnce(Io) -> F + Send + 'static) -> Session
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |io| Box::pin(serve(io)))
}

/// Finds the protocol of a request that may be served, and its 101.
fn prepare(headers: &HeaderMap, pending: Pending, backend: Arc<dyn Backend>) -> Result<(Answer, Session), Box<Answer>> {
    let command = match pending {
        Pending::PortForward(request) => return prepare_port_forward(headers, request, backend),
        Pending::Exec(request) => RemoteCommand::Exec(request),
        Pending::Attach(request) => RemoteCommand::Attach(request),
    };
    if websocket::is_requested(headers) {
        let (name, protocol) = websocket::negotiate(headers, websocket::command::protocol).map_err(refuse_websocket)?;
        let answer = websocket::accept(headers, &name).map_err(refuse_websocket)?;
        let serve = move |io| async move {
            websocket::command::serve(server_socket(io).await, protocol, command, backend).await;
        };
        return Ok((answer, session(serve)));
    }
    let (answer, protocol) = accept_spdy(headers, spdy_command::PROTOCOLS)?;
    let serve = move |io| async move { spdy_command::serve(io, protocol, command, backend).await };
    Ok((answer, session(serve)))
}

fn prepare_port_forward(
    headers: &HeaderMap,
    request: PortForwardRequest,
    backend: Arc<dyn Backend>,
) -> Result<(Answer, Session), Box<Answer>> {
    if !websocket::is_requested(headers) {
        let (answer, _) = accept_spdy(headers, port_forward::PROTOCOLS)?;
        let serve = move |io| async move { port_forward::serve(io, request.sandbox_id, backend).await };
        return Ok((answer, session(serve)));
    }
    let choose = |name: &str| match name {
        port_forward::TUNNEL_PROTOCOL => Some(None),
        name => websocket::port_forward::protocol(name).map(Some),
    };
    let (name, protocol) = websocket::negotiate(headers, choose).map_err(refuse_websocket)?;
    let answer = websocket::accept(headers, &name).map_err(refuse_websocket)?;
    let Some(encoding) = protocol else {
        let serve = move |io| async move {
            let tunnel = ByteTunnel::new(server_socket(io).await);
            port_forward::serve(tunnel, request.sandbox_id, backend).await;
        };
        return Ok((answer, session(serve)));
    };
    if request.ports.is_empty() || request.ports.len() > websocket::port_forward::MAX_PORTS {
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, "between 1 and 100 ports must be named")));
    }
    let serve = move |io| async move {
        websocket::port_forward::serve(server_socket(io).await, encoding, request, backend).await;
    };
    Ok((answer, session(serve)))
}

async fn server_socket(io: Io) -> WebSocketStream<Io> {
    WebSocketStream::from_raw_socket(io, Role::Server, Some(websocket::config())).await
}

/// SPDY's handshake: `Upgrade: SPDY/3.1`, and the first of the client's protocols that is in `known`.
fn accept_spdy(headers: &HeaderMap, known: &[&'static str]) -> Result<(Answer, &'static str), Box<Answer>> {
    let upgrades = websocket::has_token(headers, "connection", "upgrade");
    if !upgrades || !websocket::has_token(headers, "upgrade", "spdy/3.1") {
        let message = "unable to upgrade: missing upgrade headers in request";
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, message)));
    }
    let mut offered = websocket::list(headers, PROTOCOL_VERSION).peekable();
    if offered.peek().is_none() {
        let message = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, message)));
    }
    let Some(protocol) = offered.find_map(|name| known.iter().find(|known| **known == name)) else {
        let mut answer = refuse(StatusCode::FORBIDDEN, "unable to upgrade: unable to negotiate protocol");
        for known in known {
            answer.headers_mut().append(ACCEPTED_PROTOCOL_VERSIONS, HeaderValue::from_static(known));
        }
        return Err(Box::new(answer));
    };
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    Ok((answer, protocol))
}

fn refuse_websocket(refusal: Refusal) -> Box<Answer> {
    Box::new(refuse(refusal.status(), "the WebSocket handshake is not one that can be accepted"))
}

fn refuse(status: StatusCode, message: &'static str) -> Answer {
    let mut answer = Answer::new(Full::new(Bytes::from_static(message.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
