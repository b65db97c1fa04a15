//! The way of a request, from top to bottom. [`through`] is the list.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use ironkeel_auth::{Attributes, AuthError, AuthRequest, Decision, Peer, UserInfo, impersonate};
use ironkeel_object::FieldSelector;
use ironkeel_registry::{ApiError, Reason};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::sync::SemaphorePermit;

use crate::body::{self, Body};
use crate::context::Context;
use crate::dispatch::dispatch;
use crate::forward::PeerAddress;
use crate::negotiate::Output;
use crate::request_info::{Query, RequestInfo};
use crate::server::Server;
use crate::{answer, compress};

/// Longest wait for a place among the requests in flight, in seconds.
const QUEUE_SECONDS: u64 = 15;
/// Longest time for a request that is not long-running, in seconds (upstream's default).
pub(crate) const REQUEST_SECONDS: u64 = 60;
/// Most bytes of a request's path and query.
const URI_LIMIT_BYTES: usize = 64 << 10;

/// One TLS connection's peer.
#[derive(Debug)]
pub(crate) struct Connection {
    certificates: Vec<CertificateDer<'static>>,
    address: SocketAddr,
    /// What the certificates prove; `None` where they are nobody's.
    peer: OnceLock<Option<Peer>>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, certificates: Vec<CertificateDer<'static>>) -> Self {
        Connection { certificates, address, peer: OnceLock::new() }
    }
}

/// Where requests come from.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A socket; its requests bring credentials.
    Peer(Arc<Connection>),
    /// This process, with its identity stamped on.
    Stamped(Arc<UserInfo>),
}

/// Answers one request.
pub(crate) async fn respond<B>(server: Arc<Server>, caller: &Caller, request: Request<B>) -> Response<Body>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Display,
{
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    if let Caller::Peer(connection) = caller {
        parts.extensions.insert(PeerAddress(connection.address));
    }
    let query = Query::new(parts.uri.query());
    let info = Arc::new(RequestInfo::parse(&parts.method, parts.uri.path(), &query));
    let row = if info.is_resource {
        server.registry.row(&info.group, &info.version, &info.resource).map(|r| r.id)
    } else {
        None
    };
    let head = parts.method == http::Method::HEAD;
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let counted = info.clone();
    let takes_gzip = compress::accepts(&parts.headers);
    let mut output = Output::JSON;
    let outcome = through(&server, caller, parts, body, info, query, &warnings, &mut output).await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(e) => answer::error(&e, &output),
    };
    let warnings = warnings.lock();
    if !warnings.is_empty() {
        answer::add_warnings(&mut response, &warnings);
    }
    drop(warnings);
    let headers = response.headers_mut();
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    server.metrics.count(&counted, row, response.status().as_u16(), started.elapsed());
    if head {
        *response.body_mut() = Body::empty();
    } else if takes_gzip && counted.verb != "watch" && !counted.is_long_running() {
        response = compress::gzip(response);
    }
    response
}

/// The list of layers.
#[allow(clippy::too_many_arguments)]
async fn through<B>(
    server: &Arc<Server>,
    caller: &Caller,
    parts: Parts,
    body: B,
    info: Arc<RequestInfo>,
    query: Query,
    warnings: &Arc<Mutex<Vec<String>>>,
    output: &mut Output,
) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Display,
{
    *output = negotiate(&parts, &info, &query)?;
    let user = authenticate(server, caller, &parts).await?;
    let user = act_as(server, user, &parts).await?;
    let _place = limit(server, &info).await?;
    authorize(server, &user, &info, &query).await?;
    let long = info.is_long_running();
    let passed_on = info.subresource == "proxy" || server.aggregator.remote(&info.group, &info.version).is_some();
    let (body, upload) = if passed_on {
        (bytes::Bytes::new(), Some(body::pass(body)))
    } else if long && info.verb == "get" {
        (bytes::Bytes::new(), None)
    } else {
        (body::read(body).await?, None)
    };
    // Admission is part of the registry's write path, behind defaulting.
    let context = Context {
        server: server.clone(),
        user,
        info,
        query,
        parts,
        body,
        upload: Mutex::new(upload),
        output: *output,
        warnings: warnings.clone(),
        annotations: Arc::default(),
    };
    if long {
        return dispatch(context).await;
    }
    match tokio::time::timeout(server.request_timeout, dispatch(context)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::new(Reason::Timeout, "Timeout: request did not complete within requested timeout")),
    }
}

fn negotiate(parts: &Parts, info: &RequestInfo, query: &Query) -> Result<Output, ApiError> {
    if parts.uri.path().len() + query.as_str().len() > URI_LIMIT_BYTES {
        return Err(ApiError::new(Reason::RequestEntityTooLarge, "the request's path and query are too long"));
    }
    let own_types = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "log" | "proxy")
        || (!info.is_resource && !matches!(info.path.split('/').nth(1), Some("api" | "apis" | "version" | "")));
    if own_types {
        let pretty = query.get("pretty").is_some_and(|p| p != "false");
        return Ok(Output { pretty, ..Output::JSON });
    }
    Output::negotiate(&parts.headers, query.get("pretty").as_deref())
}

/// Paths that anonymous callers may ask for; empty for all.
pub(crate) struct AnonymousPaths(pub(crate) Vec<String>);

impl AnonymousPaths {
    fn allow(&self, path: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|p| p == path)
    }
}

fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// Who it is; 401 where nobody can tell.
async fn authenticate(server: &Server, caller: &Caller, parts: &Parts) -> Result<Arc<UserInfo>, ApiError> {
    let connection = match caller {
        Caller::Stamped(user) => return Ok(user.clone()),
        Caller::Peer(connection) => connection,
    };
    let peer = connection.peer.get_or_init(|| match server.certificates.identify(&connection.certificates) {
        Ok(peer) => Some(peer),
        Err(error) => {
            tracing::info!(%error, "a client certificate names nobody");
            None
        }
    });
    if let Some(peer) = peer {
        if peer.front_proxy
            && let Some(user) = server.certificates.named_in_headers(&parts.headers)
        {
            return Ok(Arc::new(user));
        }
        if let Some(user) = &peer.user {
            return Ok(user.clone());
        }
    }
    let bearer = parts.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
        let (scheme, token) = v.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let refused = match server.authenticator.authenticate(&AuthRequest { bearer, ..AuthRequest::default() }) {
        // Bad credentials never make an anonymous user.
        Ok(Some(who)) if peer.is_none() && who.user.name == UserInfo::ANONYMOUS => return Err(unauthorized()),
        Ok(Some(who)) if who.user.name == UserInfo::ANONYMOUS && !server.anonymous_paths.allow(parts.uri.path()) => {
            return Err(unauthorized());
        }
        Ok(Some(who)) => return Ok(Arc::new(who.user)),
        Ok(None) => return Err(unauthorized()),
        Err(error) => error,
    };
    let now = server.registry.clock().now().as_second();
    if let (AuthError::UnknownToken, Some(token)) = (&refused, bearer)
        && let Some(who) = server.delegates.authenticate(token, server.issuer.api_audiences(), now).await
    {
        return Ok(Arc::new(who.user));
    }
    tracing::info!(error = %refused, "credentials were refused");
    Err(unauthorized())
}

/// The `Impersonate-*` headers.
async fn act_as(server: &Server, user: Arc<UserInfo>, parts: &Parts) -> Result<Arc<UserInfo>, ApiError> {
    let wanted = impersonate::parse(&parts.headers).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let Some(wanted) = wanted else { return Ok(user) };
    for check in &wanted.checks {
        let attributes = Attributes {
            subresource: &check.subresource,
            namespace: &check.namespace,
            name: &check.name,
            ..Attributes::for_resource(&user, "impersonate", check.group, check.version, check.resource)
        };
        allow(server, &attributes).await?;
    }
    Ok(Arc::new(wanted.user))
}

/// A place among the requests in flight, and its gauge.
struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    gauge: &'a std::sync::atomic::AtomicI64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn limit<'a>(server: &'a Server, info: &RequestInfo) -> Result<Option<Place<'a>>, ApiError> {
    if info.is_long_running() {
        return Ok(None);
    }
    let (places, gauge) = if info.is_mutating() {
        (&server.mutating, &server.metrics.in_flight_mutating)
    } else {
        (&server.reading, &server.metrics.in_flight_reading)
    };
    let permit = match places.try_acquire() {
        Ok(permit) => Some(permit),
        Err(_) => {
            let waited = tokio::time::timeout(Duration::from_secs(QUEUE_SECONDS), places.acquire()).await;
            waited.ok().and_then(Result::ok)
        }
    };
    let Some(permit) = permit else {
        return Err(ApiError::too_many_requests("Too many requests, please try again later.", 1));
    };
    gauge.fetch_add(1, Ordering::Relaxed);
    Ok(Some(Place { _permit: permit, gauge }))
}

async fn allow(server: &Server, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let decision = decide(server, attributes).await;
    if decision.is_allowed() {
        return Ok(());
    }
    let why = attributes.refusal(decision.reason());
    if attributes.resource_request {
        return Err(ApiError::forbidden(attributes.group, attributes.resource, attributes.name, &why));
    }
    Err(ApiError { details: Some(Box::default()), ..ApiError::new(Reason::Forbidden, format!("forbidden: {why}")) })
}

/// What the authorizers say, the webhook in its place.
pub(crate) async fn decide(server: &Server, attributes: &Attributes<'_>) -> Decision {
    let masters = attributes.user.in_group(UserInfo::MASTERS);
    if server.delegates.access() == Some(true) && !masters {
        match server.delegates.authorize(attributes).await {
            Decision::NoOpinion(_) => {}
            decided => return decided,
        }
    }
    match server.authorizer.authorize(attributes) {
        Decision::NoOpinion(_) if server.delegates.access() == Some(false) => {
            server.delegates.authorize(attributes).await
        }
        decided => decided,
    }
}

/// May they.
async fn authorize(server: &Server, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), ApiError> {
    if !info.is_resource {
        return allow(server, &Attributes::for_path(user, info.verb, &info.path)).await;
    }
    let collection = matches!(info.verb, "list" | "watch" | "deletecollection");
    let selector = if collection { query.get("fieldSelector").unwrap_or_default() } else { "".into() };
    let selected = if selector.is_empty() {
        None
    } else {
        FieldSelector::parse(&selector).ok().and_then(|s| s.required("metadata.name").map(str::to_owned))
    };
    allow(
        server,
        &Attributes {
            subresource: &info.subresource,
            namespace: info.scope(),
            name: selected.as_deref().unwrap_or(&info.name),
            field_selector: &selector,
            ..Attributes::for_resource(user, info.verb, &info.group, &info.version, &info.resource)
        },
    )
    .await
}
