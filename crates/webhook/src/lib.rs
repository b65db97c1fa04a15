//! HTTPS calls to webhooks: admission, conversion of custom resources, authentication, authorization.
//!
//! A [`WebhookClient`] posts a JSON body to a [`Target`] and answers the body that comes back. It
//! keeps connections a target, gives up after the caller's time-out, never follows a redirect
//! (CVE-2020-8561), and reads no more than [`RESPONSE_MAX_BYTES`]. Errors read as upstream's REST
//! client words them, since they end in messages that users know.
//!
//! What does not live here: what the bodies mean, who is called when, and how a Service is found
//! ([`Resolver`]).

mod connect;
mod error;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use connect::Connector;
pub use error::{CallError, TargetError};

/// Longest answer that is read, in bytes.
pub const RESPONSE_MAX_BYTES: usize = 16 << 20;
/// Targets whose connections are kept.
const POOLS_MAX: usize = 256;
/// How long an idle connection is kept, in seconds.
const IDLE_SECONDS: u64 = 90;
/// Idle connections kept a target.
const IDLE_CONNECTIONS: usize = 25;
/// Port of a Service whose reference names none.
pub const DEFAULT_SERVICE_PORT: u16 = 443;
/// Calls of a webhook whose failures pass, in all.
pub const ATTEMPTS: u32 = 5;
/// How much longer each wait between them is than the one before.
const BACKOFF_FACTOR: f64 = 1.5;
const AGENT: &str = "kube-apiserver-admission";

/// Where a webhook listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `https://host[:port]/path`.
    Url(String),
    /// A Service of the cluster; the certificate is for `<name>.<namespace>.svc`.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Path, with or without the leading slash; may be empty.
        path: String,
        /// Port of the Service.
        port: u16,
    },
}

/// What proves the caller to the webhook.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Client certificate chain in PEM; empty for none.
    pub certificate_pem: Vec<u8>,
    /// Its key in PEM.
    pub key_pem: Vec<u8>,
    /// Bearer token; empty for none.
    pub token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A webhook: where it listens, and whom to believe that it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Authorities in PEM; the system's where empty.
    pub ca_bundle_pem: Vec<u8>,
    /// What proves the caller; nobody in particular by default.
    pub credentials: Credentials,
}

impl Target {
    /// A target called without credentials.
    pub fn new(endpoint: Endpoint, ca_bundle_pem: Vec<u8>) -> Self {
        Target { endpoint, ca_bundle_pem, credentials: Credentials::default() }
    }

    fn base(&self) -> Result<Uri, TargetError> {
        let text = match &self.endpoint {
            Endpoint::Url(url) => url.split('#').next().unwrap_or_default().to_owned(),
            Endpoint::Service { namespace, name, path, port } => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
            }
        };
        let uri: Uri = text.parse().map_err(|_| TargetError::Url(text.clone()))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) if !host.is_empty() => Ok(uri),
            _ => Err(TargetError::Url(text)),
        }
    }
}

/// Finds a Service of the cluster.
pub trait Resolver: Send + Sync + 'static {
    /// Where to connect for this port of the Service: its ClusterIP, an endpoint of a headless one,
    /// or a name for `ExternalName`. The error is shown as it is: `service "x" not found`.
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Place, String>;
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Address(SocketAddr),
    /// A name for the resolver of the host.
    Host(String, u16),
}

/// For clients of URLs alone.
#[derive(Debug)]
pub struct NoServices;

impl Resolver for NoServices {
    fn resolve(&self, _: &str, name: &str, _: u16) -> Result<Place, String> {
        Err(format!("service \"{name}\" not found"))
    }
}

type Pool = Client<Connector, Full<Bytes>>;

/// Calls webhooks. Cheap to share; keeps connections.
pub struct WebhookClient {
    resolver: Arc<dyn Resolver>,
    pools: Mutex<HashMap<Target, Pool>>,
}

impl fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookClient").field("pools", &self.pools.lock().len()).finish_non_exhaustive()
    }
}

impl WebhookClient {
    /// A client that finds Services with `resolver`.
    pub fn new(resolver: Arc<dyn Resolver>) -> Self {
        WebhookClient { resolver, pools: Mutex::default() }
    }

    fn pool(&self, target: &Target, base: &Uri) -> Result<Pool, TargetError> {
        if let Some(pool) = self.pools.lock().get(target) {
            return Ok(pool.clone());
        }
        let connector = Connector::new(target, base, self.resolver.clone())?;
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_SECONDS))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        let mut pools = self.pools.lock();
        if pools.len() >= POOLS_MAX {
            pools.clear();
        }
        pools.insert(target.clone(), pool.clone());
        Ok(pool)
    }

    /// Posts a JSON body and answers the body of a 200. The time-out is also told to the webhook, as
    /// `?timeout=10s`, rounded up to whole seconds.
    pub async fn post(&self, target: &Target, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let base = target.base()?;
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let glue = if base.query().is_some() { '&' } else { '?' };
        let text = format!("{base}{glue}timeout={seconds}s");
        let failed = |why: String| CallError::Transport { method: "Post", url: text.clone(), why };
        let pool = self.pool(target, &base)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&text)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, AGENT);
        if let Some(traceparent) = ironkeel_trace::traceparent() {
            request = request.header(ironkeel_trace::TRACEPARENT, traceparent);
        }
        if !target.credentials.token.is_empty() {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", target.credentials.token))
                .map_err(|_| TargetError::Credentials("the token has characters that no header may have".into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| TargetError::Url(text.clone()))?;
        let exchange = async {
            let answer = pool.request(request).await.map_err(|e| failed(error::transport_text(&e)))?;
            let code = answer.status().as_u16();
            let media = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            let is_text = media.is_none_or(|m| m.is_empty() || m.starts_with(b"text/"));
            let retry_after = answer.headers().contains_key(RETRY_AFTER);
            let bytes = match Limited::new(answer.into_body(), RESPONSE_MAX_BYTES).collect().await {
                Ok(all) => all.to_bytes(),
                Err(e) if e.is::<http_body_util::LengthLimitError>() => return Err(CallError::TooLarge),
                Err(e) => return Err(failed(error::transport_text(&*e))),
            };
            if (200..=206).contains(&code) {
                Ok(bytes)
            } else {
                Err(CallError::status(code, is_text, retry_after, &bytes))
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(done) => done,
            Err(_) => Err(failed("context deadline exceeded".into())),
        }
    }

    /// [`WebhookClient::post`], up to [`ATTEMPTS`] times while failures are transient. `wait` is the time before
    /// the second attempt; each later one waits half as long again as the one before.
    pub async fn post_retried(
        &self,
        target: &Target,
        body: Bytes,
        timeout: Duration,
        mut wait: Duration,
    ) -> Result<Bytes, CallError> {
        for _ in 1..ATTEMPTS {
            match self.post(target, body.clone(), timeout).await {
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(wait).await;
                    wait = wait.mul_f64(BACKOFF_FACTOR);
                }
                done => return done,
            }
        }
        self.post(target, body, timeout).await
    }
}
