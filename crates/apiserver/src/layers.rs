//! The way of a request, from top to bottom. [`through`] is the list.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use ironkeel_audit::Stage;
use ironkeel_auth::{Attributes, AuthError, AuthRequest, ClientCertificates, Decision, Peer, UserInfo};
use ironkeel_fairness::{Classified, Watched};
use ironkeel_object::FieldSelector;
use ironkeel_registry::{ApiError, Reason};
use ironkeel_trace::Trace;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

use crate::audit::{AUDIT_ID, Found, Recording};
use crate::body::{self, Body};
use crate::cbor::Exchange;
use crate::context::Context;
use crate::credentials::Bearer;
use crate::dispatch::dispatch;
use crate::ending::{Ending, Told};
use crate::forward::PeerAddress;
use crate::metrics::Labels;
use crate::negotiate::Output;
use crate::request_info::{Query, RequestInfo};
use crate::server::Server;
use crate::{acting, answer, audit, compress, flow, stalled};

/// Longest time for a request that is not long-running, in seconds (upstream's default).
pub(crate) const REQUEST_SECONDS: u64 = 60;
/// The stage that answers the request.
const HANDLE: &str = "handle";
/// What the audit log says of a request whose client did not wait for the answer.
const CLIENT_HUNG_UP: u16 = 499;
/// Most bytes of a request's path and query.
const URI_LIMIT_BYTES: usize = 64 << 10;

/// One TLS connection's peer.
#[derive(Debug)]
pub(crate) struct Connection {
    certificates: Vec<CertificateDer<'static>>,
    address: SocketAddr,
    /// What the certificates prove, `None` where they are nobody's; and by which authorities.
    peer: Mutex<Option<(u64, Option<Peer>)>>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, certificates: Vec<CertificateDer<'static>>) -> Self {
        Connection { certificates, address, peer: Mutex::default() }
    }

    /// Whose the certificates are. It is found out once, and again when the authorities have changed or
    /// the certificate has ended meanwhile.
    fn peer(&self, known: &ClientCertificates, now: i64) -> Option<Peer> {
        let generation = known.generation();
        let mut found = self.peer.lock();
        if let Some((seen, peer)) = &*found
            && *seen == generation
            && peer.as_ref().is_none_or(|p| p.expires == 0 || p.expires >= now)
        {
            return peer.clone();
        }
        let peer = known.identify(&self.certificates).map_err(|error| {
            tracing::info!(%error, "a client certificate names nobody");
        });
        *found = Some((generation, peer.ok().filter(|p| p.expires == 0 || p.expires >= now)));
        found.as_ref().and_then(|(_, peer)| peer.clone())
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
    if !parts.headers.contains_key(&AUDIT_ID)
        && let Ok(id) = HeaderValue::try_from(audit::new_id())
    {
        parts.headers.insert(AUDIT_ID.clone(), id);
    }
    let query = Query::new(parts.uri.query());
    let info = Arc::new(RequestInfo::parse(&parts.method, parts.uri.path(), &query));
    let row = if info.is_resource { server.registry.row(&info.group, &info.version, &info.resource) } else { None };
    let labels = Labels::new(&info, row.as_deref(), &parts.method, &parts.headers, &query);
    let trace = Trace::new(started);
    let told = Told::new(&parts);
    let head = parts.method == http::Method::HEAD;
    let takes_gzip = compress::accepts(&parts.headers);
    let cbor = Exchange::begin(&server, &mut parts, &info);
    let long = info.is_long_running();
    let limit = deadline(&server, &query);
    let mut seen = Seen::new(&parts);
    seen.cbor = cbor;
    let way = through(&server, caller, parts, body, info.clone(), query.clone(), &trace, &mut seen);
    let outcome = AssertUnwindSafe(trace.follow(way)).catch_unwind().await;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => {
            if matches!(e.reason, Reason::TooManyRequests | Reason::Timeout) {
                server.metrics.terminated(&labels, e.code());
            }
            answer::error(&e, &seen.output)
        }
        Err(_) => {
            tracing::error!(verb = info.verb, path = %info.path, "a request caused a panic");
            server.metrics.panics.inc();
            if let Some(recording) = &seen.recording {
                recording.record(Stage::Panic).await;
            }
            let why = "This request caused apiserver to panic. Look in the logs for details.";
            answer::error(&ApiError::new(Reason::InternalError, why), &seen.output)
        }
    };
    let warnings = std::mem::take(&mut *seen.warnings.lock());
    if !warnings.is_empty() {
        answer::add_warnings(&mut response, &warnings);
    }
    flow::mark(response.headers_mut(), seen.classified.as_ref());
    response.headers_mut().entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let code = response.status().as_u16();
    let size = response.body().as_whole().map(Bytes::len);
    server.metrics.answered(&labels, code, started.elapsed(), seen.waited, size, long);
    if !long {
        server.metrics.body(&labels, seen.body.len());
        if info.is_mutating() && info.is_resource {
            server.metrics.field_validation(&query, started.elapsed());
        }
    }
    if let Some(id) = seen.audit_id.take() {
        response.headers_mut().insert(AUDIT_ID.clone(), id);
    }
    tracing::debug!(
        verb = info.verb,
        uri = %told.uri,
        latency = ?started.elapsed(),
        resp = code,
        agent = told.agent(),
        audit_id = told.audit_id(),
        "HTTP"
    );
    let mut ending = Ending::default();
    ending.watched = seen.watched.take();
    let told = told.with(trace, info.clone(), code);
    if response.body().as_whole().is_some() || http_body::Body::is_end_stream(response.body()) {
        told.finish();
    } else {
        ending.told = Some(told);
    }
    if long && response.status().is_success() {
        ending.long = Some(server.metrics.long_running(&labels));
    }
    if server.auditor.is_some() {
        ending.audit = seen.answered(&mut response, long).await;
    }
    if !ending.is_empty() {
        response = response.map(|body| body.observed(ending));
    }
    if seen.nobody {
        response.extensions_mut().insert(Nobody);
    }
    if let Some(cbor) = cbor {
        response = cbor.answer(response);
    }
    if head {
        *response.body_mut() = Body::empty();
    } else if takes_gzip && !long {
        response = compress::gzip(response);
    }
    if !long {
        let limit = limit.unwrap_or(server.request_timeout);
        response = stalled::bound(response, started + limit);
    }
    response
}

/// On answers to callers that nobody knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nobody;

/// What is found out about a request on its way, for those who tell of it afterwards.
struct Seen {
    output: Output,
    warnings: Arc<Mutex<Vec<String>>>,
    annotations: Arc<Mutex<Vec<(String, String)>>>,
    classified: Option<Classified>,
    watched: Option<Watched>,
    waited: Duration,
    /// Whether nobody knows the caller, or it gave no name.
    nobody: bool,
    body: Bytes,
    body_type: Option<HeaderValue>,
    audit_id: Option<HeaderValue>,
    /// As whom, where somebody is impersonated.
    acting: Option<(Arc<UserInfo>, Option<String>)>,
    decision: Option<(bool, Arc<str>)>,
    recording: Option<Recording>,
    cbor: Option<Exchange>,
}

impl Seen {
    fn new(parts: &Parts) -> Self {
        Seen {
            output: Output::JSON,
            warnings: Arc::default(),
            annotations: Arc::default(),
            classified: None,
            watched: None,
            waited: Duration::ZERO,
            nobody: false,
            body: Bytes::new(),
            body_type: parts.headers.get(http::header::CONTENT_TYPE).cloned(),
            audit_id: parts.headers.get(&AUDIT_ID).cloned(),
            acting: None,
            decision: None,
            recording: None,
            cbor: None,
        }
    }

    /// The record in the making, with what was found out.
    fn recorded(&mut self) -> Option<Recording> {
        let mut recording = self.recording.take()?;
        recording.learn(&Found {
            acting: self.acting.as_ref().map(|(user, by)| (&**user, by.as_deref())),
            decision: self.decision.as_ref(),
            body: &self.body,
            body_type: self.body_type.as_ref().and_then(|t| t.to_str().ok()).unwrap_or_default(),
            annotations: Some(&self.annotations),
        });
        Some(recording)
    }

    /// Tells the audit log of the answer; what it still waits for comes back.
    async fn answered(&mut self, response: &mut Response<Body>, long: bool) -> Option<audit::Ending> {
        let mut recording = self.recorded()?;
        recording.answered(response.status().as_u16());
        let media_type = audit::media_type(response.headers()).to_owned();
        let whole = response.body().as_whole().cloned();
        if let Some(bytes) = &whole
            && (recording.wants_body() || !response.status().is_success())
        {
            recording.body(bytes, &media_type);
        }
        if long {
            recording.record(Stage::ResponseStarted).await;
        }
        if whole.is_none() && !http_body::Body::is_end_stream(response.body()) {
            return Some(audit::Ending::new(recording, &media_type));
        }
        recording.record(Stage::ResponseComplete).await;
        None
    }
}

impl Drop for Seen {
    /// A request whose client hung up is dropped where it stands, while its write goes on: it must be in
    /// the audit log all the same.
    fn drop(&mut self) {
        let Some(mut recording) = self.recorded() else { return };
        recording.answered(CLIENT_HUNG_UP);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { recording.record(Stage::ResponseComplete).await });
        }
    }
}

/// The list of layers.
#[allow(clippy::too_many_arguments)]
async fn through<B>(
    server: &Arc<Server>,
    caller: &Caller,
    mut parts: Parts,
    body: B,
    info: Arc<RequestInfo>,
    query: Query,
    trace: &Trace,
    seen: &mut Seen,
) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Display,
{
    // Whether there is a form that the client takes is said behind authorization, and where the path is known.
    let mut unacceptable = None;
    seen.output = match negotiate(&parts, &info, &query) {
        Ok(output) => output,
        Err(e) if e.reason == Reason::NotAcceptable => {
            unacceptable = Some(e);
            Output::JSON
        }
        Err(e) => return Err(e),
    };
    let received = server.auditor.as_ref().map(|_| jiff::Timestamp::now()).unwrap_or_default();
    let asked = Instant::now();
    let user = match authenticate(server, caller, &mut parts).await {
        Ok(user) => user,
        Err(error) => {
            server.metrics.authenticated(None, asked.elapsed());
            seen.nobody = true;
            seen.recording = Recording::begin(server, &parts, &info, None, received).await?;
            return Err(error);
        }
    };
    server.metrics.authenticated(Some(&user.name), asked.elapsed());
    seen.nobody = user.name == UserInfo::ANONYMOUS;
    trace.done("authenticate");
    let given = parts.headers.get(ironkeel_trace::TRACEPARENT).and_then(|v| v.to_str().ok());
    // The traces of those whom we do not know well are not gone on with.
    let trusted = given.is_some() && (user.in_group(UserInfo::MASTERS) || user.in_group("system:monitoring"));
    trace.stands(server.tracer.as_ref(), given, trusted);
    seen.recording = Recording::begin(server, &parts, &info, Some(&user), received).await?;
    let request = Asked::new(&info, &query);
    let user = match acting::act_as(server, &user, &parts, &request).await? {
        Some((acting, mode)) => {
            seen.acting = Some((acting.clone(), mode.constraint()));
            acting
        }
        None => user,
    };
    let asked = Instant::now();
    let _room = server.limits.as_ref().map(|limits| limits.enter(&user, &info)).transpose()?;
    let place = flow::place(server, &user, &info, &query, &mut seen.classified).await?;
    server.metrics.filter("priorityandfairness", asked.elapsed());
    seen.waited = place.as_ref().map(flow::Place::waited).unwrap_or_default();
    trace.done("wait for a seat");
    let asked = Instant::now();
    let decided = allow(server, &request.by(&user), &mut seen.decision).await;
    server.metrics.authorized(decided.is_ok(), asked.elapsed());
    decided?;
    trace.done("authorize");
    let long = info.is_long_running();
    let limit = if long { server.request_timeout } else { deadline(server, &query)? };
    let passed_on = info.subresource == "proxy" || server.aggregator.remote(&info.group, &info.version).is_some();
    let (body, upload) = if passed_on {
        (bytes::Bytes::new(), Some(body::pass(body)))
    } else if long && info.verb == "get" {
        (bytes::Bytes::new(), None)
    } else {
        // Whoever sends slowly must not hold a seat for longer than a request may take.
        let read = tokio::time::timeout(server.request_timeout, body::read(body));
        let body = read.await.map_err(|_| timed_out())??;
        (seen.cbor.map_or(Ok(body.clone()), |cbor| cbor.read(body))?, None)
    };
    trace.done("read the body");
    seen.body = body.clone();
    if info.verb == "watch" {
        let selector = query.get("fieldSelector").unwrap_or_default();
        seen.watched = Some(server.fairness.watches().register(&flow::digest(&user, &info), &selector));
    }
    // Admission is part of the registry's write path, behind defaulting.
    let context = Context {
        server: server.clone(),
        user,
        info,
        query,
        parts,
        body,
        upload: Mutex::new(upload),
        output: seen.output,
        unacceptable,
        warnings: seen.warnings.clone(),
        annotations: seen.annotations.clone(),
    };
    // The largest future of a request stands still on the heap; what is around it is moved now and then.
    let answer = Box::pin(dispatch(context));
    if long {
        return answer.await;
    }
    let answered = tokio::time::timeout(limit, answer).await;
    trace.done(HANDLE);
    match answered {
        Ok(answer) => answer,
        Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> ApiError {
    ApiError::new(Reason::Timeout, "Timeout: request did not complete within requested timeout")
}

/// How long the request may take: what `?timeout=` asks for, but no longer than the server's limit.
fn deadline(server: &Server, query: &Query) -> Result<Duration, ApiError> {
    let Some(text) = query.get("timeout").filter(|t| !t.is_empty()) else { return Ok(server.request_timeout) };
    let wrong = |length: &str| {
        let why = match crate::request_info::missing_unit(length) {
            true => "missing unit in",
            false => "invalid",
        };
        ApiError::bad_request(format!("invalid timeout specified in the request URL - time: {why} duration {text:?}"))
    };
    let (negative, length) = match text.strip_prefix('-') {
        Some(length) => (true, length),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let asked = crate::request_info::go_duration(length).ok_or_else(|| wrong(length))?;
    Ok(if negative || asked.is_zero() { server.request_timeout } else { asked.min(server.request_timeout) })
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
pub(crate) struct AnonymousPaths(ArcSwap<Vec<String>>);

impl AnonymousPaths {
    pub(crate) fn new(paths: Vec<String>) -> Self {
        AnonymousPaths(ArcSwap::from_pointee(paths))
    }

    pub(crate) fn replace(&self, paths: Vec<String>) {
        self.0.store(Arc::new(paths));
    }

    fn allow(&self, path: &str) -> bool {
        let paths = self.0.load();
        paths.is_empty() || paths.iter().any(|p| p == path)
    }
}

fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// Who it is; 401 where nobody can tell.
async fn authenticate(server: &Server, caller: &Caller, parts: &mut Parts) -> Result<Arc<UserInfo>, ApiError> {
    let connection = match caller {
        Caller::Stamped(user) => return Ok(user.clone()),
        Caller::Peer(connection) => connection,
    };
    let peer = connection.peer(&server.certificates, server.registry.clock().now().as_second());
    if let Some(peer) = &peer {
        if peer.front_proxy
            && let Some(user) = server.certificates.named_in_headers(&parts.headers)
        {
            return Ok(Arc::new(user));
        }
        if let Some(user) = &peer.user {
            server.metrics.certificate(peer.expires - server.registry.clock().now().as_second());
            return Ok(user.clone());
        }
    }
    let Ok(bearer) = Bearer::of(&parts.headers) else { return Err(unauthorized()) };
    if let Some(bearer) = &bearer {
        bearer.take_out(&mut parts.headers);
    }
    let bearer = bearer.as_ref().map(|b| b.token.as_str());
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
        && let own = server.issuer.api_audiences()
        && let Some(who) = server.delegates.authenticate(token, own, own, now).await
    {
        return Ok(Arc::new(who.user));
    }
    tracing::info!(error = %refused, "credentials were refused");
    Err(unauthorized())
}

/// What a request asks for, as authorizers see it.
pub(crate) struct Asked<'a> {
    info: &'a RequestInfo,
    fields: Cow<'a, str>,
    labels: Cow<'a, str>,
    /// The one object that the field selector leaves.
    selected: Option<String>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(info: &'a RequestInfo, query: &'a Query) -> Self {
        let collection = info.is_resource && matches!(info.verb, "list" | "watch" | "deletecollection");
        let of = |key: &str| query.get(key).filter(|_| collection).unwrap_or_default();
        let fields = of("fieldSelector");
        let selected = if fields.is_empty() || info.verb == "deletecollection" {
            None
        } else {
            FieldSelector::parse(&fields).ok().and_then(|s| s.required("metadata.name").map(str::to_owned))
        };
        Asked { info, labels: of("labelSelector"), fields, selected }
    }

    pub(crate) fn verb(&self) -> &str {
        self.info.verb
    }

    /// The same, asked by `user`.
    pub(crate) fn by<'b>(&'b self, user: &'b UserInfo) -> Attributes<'b> {
        let info = self.info;
        if !info.is_resource {
            return Attributes::for_path(user, info.verb, &info.path);
        }
        Attributes {
            subresource: &info.subresource,
            namespace: info.scope(),
            name: self.selected.as_deref().unwrap_or(&info.name),
            field_selector: &self.fields,
            label_selector: &self.labels,
            ..Attributes::for_resource(user, info.verb, &info.group, &info.version, &info.resource)
        }
    }
}

/// Whether somebody may; what was decided is kept for the audit log.
async fn allow(
    server: &Server,
    attributes: &Attributes<'_>,
    decided: &mut Option<(bool, Arc<str>)>,
) -> Result<(), ApiError> {
    let decision = decide(server, attributes).await;
    if server.auditor.is_some() {
        *decided = Some((decision.is_allowed(), decision.reason().into()));
    }
    if decision.is_allowed() {
        return Ok(());
    }
    Err(forbidden(attributes, decision.reason()))
}

/// The answer to what is not allowed.
pub(crate) fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let why = attributes.refusal(reason);
    if attributes.resource_request {
        return ApiError::forbidden(attributes.group, attributes.resource, attributes.name, &why);
    }
    ApiError { details: Some(Box::default()), ..ApiError::new(Reason::Forbidden, format!("forbidden: {why}")) }
}

/// What the authorizers say, the webhook in its place.
pub(crate) async fn decide(server: &Server, attributes: &Attributes<'_>) -> Decision {
    server.delegates.decide(&server.authorizer, &server.metrics, attributes).await
}
