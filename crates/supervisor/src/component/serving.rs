//! The server of a component that runs alone, on upstream's port: health, metrics, `/statusz` and `/flagz`. TLS with
//! delegated authentication and authorization for the controllers (10257) and the scheduler (10259), as upstream's
//! generic server does it; plain HTTP for the proxy (10256 and 10249), as upstream's. There is no `/debug/pprof`, which
//! is Go's, and no `/configz`: flags say all of it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ironkeel_auth::pki::{self, ServingCertificates};
use ironkeel_metrics::{Family, Form, Stability, Text};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::delegated::{Asked, Delegated};
use crate::Error;
use crate::flags::{FlagError, Given, invalid};

/// How long a TLS handshake, and the head of a request, may take, in seconds.
const PATIENCE_SECONDS: u64 = 10;
/// Wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Paths that nobody needs a permission for (`--authorization-always-allow-paths`).
const ALWAYS_ALLOWED: &[&str] = &["/healthz", "/readyz", "/livez"];

const MASTER: Family =
    Family::gauge("leader_election_master_status", Stability::Alpha, "Whether this process leads: 1, or stands by: 0.")
        .by(&["name"]);

/// What the server tells of its component.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) component: &'static str,
    /// Whether it takes part in an election, and leads.
    pub(super) elects: bool,
    pub(super) leads: AtomicBool,
    /// Names and values, by name.
    pub(super) flags: Vec<(String, String)>,
    started: jiff::Timestamp,
}

impl Told {
    pub(super) fn new(component: &'static str, elects: bool, flags: Vec<(String, String)>) -> Arc<Self> {
        Arc::new(Told { component, elects, leads: AtomicBool::new(!elects), flags, started: jiff::Timestamp::now() })
    }
}

/// How the TLS server is run.
pub(super) struct ServingOptions {
    listen: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    pub(super) always_allowed: Vec<String>,
    pub(super) authentication: Option<PathBuf>,
    pub(super) authorization: Option<PathBuf>,
    pub(super) client_ca: Option<String>,
    /// Look for the authorities of clients in the cluster, too.
    pub(super) look_up: bool,
    /// Go on where that fails.
    pub(super) tolerate: bool,
}

/// What the flags say; `None` where `--secure-port` is 0.
pub(super) fn options(given: &Given, component: &'static str, port: u16) -> Result<Option<ServingOptions>, FlagError> {
    let address = given.parsed("bind-address", IpAddr::from([0, 0, 0, 0]))?;
    let port = given.parsed("secure-port", port)?;
    if port == 0 {
        return Ok(None);
    }
    let paths = given.all("authorization-always-allow-paths");
    let always_allowed =
        if paths.is_empty() { ALWAYS_ALLOWED.iter().map(|p| (*p).to_owned()).collect() } else { paths.to_vec() };
    let read = |flag: &'static str| -> Result<Option<String>, FlagError> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|e| invalid(flag, path, e.to_string()));
        given.text(flag).map(read).transpose()
    };
    Ok(Some(ServingOptions {
        listen: SocketAddr::new(address, port),
        tls: tls(given, component, address)?,
        always_allowed,
        authentication: given.text("authentication-kubeconfig").map(PathBuf::from),
        authorization: given.text("authorization-kubeconfig").map(PathBuf::from),
        client_ca: read("client-ca-file")?,
        look_up: !given.switch("authentication-skip-lookup", false),
        tolerate: given.switch("authentication-tolerate-lookup-failure", true),
    }))
}

fn tls(given: &Given, component: &'static str, address: IpAddr) -> Result<Arc<rustls::ServerConfig>, FlagError> {
    const CERT: &str = "tls-cert-file";
    const KEY: &str = "tls-private-key-file";
    let read = |flag, path: &Path| {
        std::fs::read_to_string(path).map_err(|e| invalid(flag, &path.display().to_string(), e.to_string()))
    };
    let fault = |e: ironkeel_auth::PkiError| invalid(CERT, given.text(CERT).unwrap_or_default(), e.to_string());
    let names = || vec!["localhost".to_owned(), "127.0.0.1".to_owned(), address.to_string()];
    let (certificate, key) = match (given.text(CERT), given.text(KEY), given.text("cert-dir")) {
        (Some(certificate), Some(key), _) => (read(CERT, Path::new(certificate))?, read(KEY, Path::new(key))?),
        (Some(_), None, _) => return Err(FlagError::Required(KEY)),
        (None, Some(_), _) => return Err(FlagError::Required(CERT)),
        (None, None, Some(dir)) => {
            let made = pki::self_signed(Path::new(dir), component, names()).map_err(fault)?;
            (read(CERT, &made.0)?, read(KEY, &made.1)?)
        }
        // Kept in memory alone.
        (None, None, None) => pki::self_signed_pem(component, names()).map_err(fault)?,
    };
    let versions: &[&'static rustls::SupportedProtocolVersion] = match given.text("tls-min-version") {
        None | Some("VersionTLS12") => rustls::ALL_VERSIONS,
        Some("VersionTLS13") => &[&rustls::version::TLS13],
        Some(other) => return Err(invalid("tls-min-version", other, "must be VersionTLS12 or VersionTLS13")),
    };
    let certificates = ServingCertificates::new(&certificate, &key).map_err(fault)?;
    pki::api_server_tls_with(Arc::new(certificates), versions, given.all("tls-cipher-suites")).map_err(fault)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Port { address, source })
}

/// Serves over TLS until `shutdown`; answers when the port is open.
pub(super) async fn start(
    options: Option<ServingOptions>,
    told: Arc<Told>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let Some(options) = options else { return Ok(()) };
    let listener = bind(options.listen).await?;
    let acceptor = TlsAcceptor::from(options.tls.clone());
    let delegated = Arc::new(Delegated::new(options, told.component).await?);
    let accepting = accept(listener, shutdown.clone(), move |socket, stop| {
        let (acceptor, delegated, told) = (acceptor.clone(), delegated.clone(), told.clone());
        async move {
            let shaken = tokio::time::timeout(Duration::from_secs(PATIENCE_SECONDS), acceptor.accept(socket)).await;
            let Ok(Ok(stream)) = shaken else { return };
            let peer = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = Arc::new(delegated.identify(peer));
            let service = service_fn(move |request: Request<Incoming>| {
                let (delegated, told, peer) = (delegated.clone(), told.clone(), peer.clone());
                async move {
                    let refused = delegated.refuses(&peer, &Asked::of(&request)).await;
                    Ok::<_, std::convert::Infallible>(refused.unwrap_or_else(|| respond(&told, &request)))
                }
            });
            serve(TokioIo::new(stream), service, stop).await;
        }
    });
    tokio::spawn(accepting);
    Ok(())
}

/// Serves plain HTTP until `shutdown`; answers when the port is open.
pub(super) async fn start_plain<F>(address: SocketAddr, answer: F, shutdown: &CancellationToken) -> Result<(), Error>
where
    F: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let listener = bind(address).await?;
    let accepting = accept(listener, shutdown.clone(), move |socket, stop| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            serve(TokioIo::new(socket), service, stop).await;
        }
    });
    tokio::spawn(accepting);
    Ok(())
}

async fn accept<F, W>(listener: TcpListener, shutdown: CancellationToken, each: F)
where
    F: Fn(TcpStream, CancellationToken) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                tokio::spawn(each(socket, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                // Mostly, one of the open ones has to end first.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<I, S>(io: I, service: S, stop: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = std::convert::Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(PATIENCE_SECONDS));
    let connection = builder.serve_connection(io, service);
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended early");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// An answer in plain text.
pub(super) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}

fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// What every component has.
pub(super) fn respond(told: &Told, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
    }
    let verbose = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "verbose" || p == "verbose=true"));
    let path = request.uri().path().trim_end_matches('/');
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    match (parts.next().unwrap_or_default(), parts.next()) {
        (family @ ("healthz" | "livez" | "readyz"), None) => {
            let checks = if told.elects { &["ping", "leaderElection"][..] } else { &["ping"] };
            let lines: String = checks.iter().map(|c| format!("[+]{c} ok\n")).collect();
            text(StatusCode::OK, if verbose { format!("{lines}{family} check passed\n") } else { "ok".to_owned() })
        }
        ("healthz" | "livez" | "readyz", Some("ping")) => text(StatusCode::OK, "ok"),
        ("healthz" | "livez" | "readyz", Some("leaderElection")) if told.elects => text(StatusCode::OK, "ok"),
        ("metrics", None) => metrics(told, request),
        ("statusz", None) => {
            let up = jiff::Timestamp::now().as_second() - told.started.as_second();
            let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
            let started = told.started.strftime("%a %b %e %H:%M:%S UTC %Y");
            let page = format!(
                "\n{} statusz\n\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nPaths: /flagz /healthz /livez /metrics /readyz /statusz\n",
                told.component
            );
            text(StatusCode::OK, page)
        }
        ("flagz", None) => {
            let lines: String = told.flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            text(StatusCode::OK, format!("\n{} flagz\n\n{lines}", told.component))
        }
        _ => not_found(),
    }
}

/// `/metrics`: the process, its queues, and whether it leads.
fn metrics(told: &Told, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    let mut page = Text::new(form);
    if told.elects {
        let leads = told.leads.load(Ordering::Relaxed);
        page.samples(&MASTER, [(vec![told.component], f64::from(u8::from(leads)))]);
    }
    ironkeel_informer::render_queues(&mut page);
    ironkeel_apiserver::render_process(&mut page);
    let mut response = text(StatusCode::OK, page.finish());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(form.media_type()));
    response
}
