//! Others who are asked who a caller is and what it may do: webhooks that answer TokenReviews and
//! SubjectAccessReviews, and OpenID Connect issuers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use ironkeel_auth::{Attributes, Authenticated, Authorizer, AuthorizerEntry, Decision, OidcConfig, Resolved, UserInfo};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::access::{self, Said};
use crate::body::Body;
use crate::issuers::{Issuer, issuers};
use crate::metrics::Metrics;
use crate::outbound::{self, Backend, ClientIdentity, Host, Trust};

/// Longest answer, in bytes.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;
/// How long an answer may take, in seconds.
const ANSWER_SECONDS: u64 = 10;
/// How long the second attempt waits, in milliseconds; each later one half as long again as the one before.
const RETRY_WAIT_MS: u64 = 500;
/// Answers that are remembered; past it all are forgotten.
const REMEMBERED: usize = 4096;

/// A webhook, as a kubeconfig file names it.
#[derive(Clone)]
pub struct WebhookConfig {
    /// Its URL.
    pub url: String,
    /// Authorities in PEM; the host's where absent.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// Our certificate.
    pub identity: Option<Arc<ClientIdentity>>,
    /// Our token.
    pub token: Option<String>,
    /// A file with our token, instead: it is read for each question, since others write it anew.
    pub token_file: Option<PathBuf>,
    /// `v1` or `v1beta1` of the review.
    pub version: String,
    /// How long a yes is remembered.
    pub yes_ttl: Duration,
    /// How long a no is remembered.
    pub no_ttl: Duration,
}

impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookConfig").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Whom to ask besides.
#[derive(Debug, Default)]
pub struct DelegatesConfig {
    /// Who is it?
    pub tokens: Option<WebhookConfig>,
    /// May they?
    pub access: Option<WebhookConfig>,
    /// Whether the access webhook stands before RBAC, and so may deny what roles allow.
    pub access_first: bool,
    /// The whole chain of authorizers, local ones and webhooks; instead of the modes and of `access`.
    pub chain: Option<Vec<AuthorizerEntry>>,
    /// Issuers of ID tokens.
    pub issuers: Vec<OidcConfig>,
}

impl WebhookConfig {
    /// Reads the current context of a kubeconfig file (JSON or YAML); relative paths are beneath its
    /// directory.
    ///
    /// # Errors
    /// What is missing or cannot be read.
    pub fn from_kubeconfig(path: &std::path::Path) -> Result<Self, String> {
        let read = |p: &std::path::Path| std::fs::read(p).map_err(|e| format!("{}: {e}", p.display()));
        let bytes = read(path)?;
        let config = ironkeel_codec::decode_yaml(&bytes, None).map_err(|e| format!("{}: {e}", path.display()))?.0;
        let named = |list: &str, name: &str, member: &str| {
            let found = config.items_at(&[list]).iter().find(|i| i.str_at(&["name"]) == Some(name));
            found
                .and_then(|i| i.get(member))
                .cloned()
                .ok_or_else(|| format!("{}: no {member} {name:?}", path.display()))
        };
        let current = config.str_at(&["current-context"]).unwrap_or_default();
        let context = named("contexts", current, "context")?;
        let text =
            |v: &ironkeel_object::Value, key: &str| v.str_at(&[key]).filter(|t| !t.is_empty()).map(str::to_owned);
        let cluster = named("clusters", &text(&context, "cluster").unwrap_or_default(), "cluster")?;
        let user = match text(&context, "user") {
            Some(name) => named("users", &name, "user")?,
            None => ironkeel_object::Value::object(),
        };
        let here = path.parent().unwrap_or(std::path::Path::new("."));
        let pem = |v: &ironkeel_object::Value, key: &str| -> Result<Option<Vec<u8>>, String> {
            if let Some(data) = text(v, &format!("{key}-data")) {
                return STANDARD.decode(data).map(Some).map_err(|e| format!("{key}-data: {e}"));
            }
            text(v, key).map(|file| read(&here.join(file))).transpose()
        };
        let identity = match (pem(&user, "client-certificate")?, pem(&user, "client-key")?) {
            (Some(certificate), Some(key)) => Some(Arc::new(ClientIdentity::from_pem(&certificate, &key)?)),
            _ => None,
        };
        Ok(WebhookConfig {
            url: text(&cluster, "server").ok_or_else(|| format!("{}: no server", path.display()))?,
            ca_pem: pem(&cluster, "certificate-authority")?,
            insecure: cluster.at(&["insecure-skip-tls-verify"]).and_then(|v| v.as_bool()).unwrap_or(false),
            identity,
            token: text(&user, "token"),
            token_file: text(&user, "tokenFile").map(|file| here.join(file)),
            version: "v1beta1".to_owned(),
            yes_ttl: Duration::from_secs(120),
            no_ttl: Duration::from_secs(30),
        })
    }

    /// For a server that is a pod itself: the cluster's own API at its Service, with the pod's account, whose
    /// files are in `directory`.
    ///
    /// # Errors
    /// This is no pod.
    pub fn in_cluster(variable: &dyn Fn(&str) -> Option<String>, directory: &Path) -> Result<Self, String> {
        let of = |name: &str| variable(name).filter(|v| !v.is_empty());
        let (Some(host), Some(port)) = (of("KUBERNETES_SERVICE_HOST"), of("KUBERNETES_SERVICE_PORT")) else {
            let why = "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined";
            return Err(why.to_owned());
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
        };
        read("token")?;
        Ok(WebhookConfig {
            url: format!("https://{host}:{port}"),
            ca_pem: Some(read("ca.crt")?),
            insecure: false,
            identity: None,
            token: None,
            token_file: Some(directory.join("token")),
            version: "v1beta1".to_owned(),
            yes_ttl: Duration::from_secs(120),
            no_ttl: Duration::from_secs(30),
        })
    }
}

impl ClientIdentity {
    /// A certificate chain and its key, both in PEM.
    ///
    /// # Errors
    /// PEM that holds neither.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|e| format!("the certificate cannot be read: {e}"))?;
        if chain.is_empty() {
            return Err("there is no certificate in the file".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("the key cannot be read: {e}"))?;
        Ok(ClientIdentity { chain, key })
    }
}

/// Where a URL leads: backend and path.
pub(crate) fn place(url: &str, tls: &Arc<rustls::ClientConfig>) -> Result<(Backend, String), String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url} is no URL"))?;
    let name = uri.host().ok_or_else(|| format!("{url} has no host"))?.trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() != Some("http");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let ip = name.parse::<std::net::IpAddr>().ok();
    let host = ip.map_or_else(|| Host::Name(name.clone(), port), |ip| Host::at(ip, port));
    let server_name = ip.is_none().then_some(name);
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Ok((Backend { host, tls: secure.then(|| (tls.clone(), server_name)) }, path))
}

/// The audiences that both name; `None` where something was asked for and nothing of it is there.
fn common(asked: &[String], good: &[String]) -> Option<Vec<String>> {
    let both: Vec<String> = asked.iter().filter(|a| good.contains(a)).cloned().collect();
    (!both.is_empty() || asked.is_empty()).then_some(both)
}

pub(crate) async fn send(backend: &Backend, request: Request<Body>) -> Result<bytes::Bytes, String> {
    send_within(backend, request, Duration::from_secs(ANSWER_SECONDS)).await.map_err(|failure| failure.why)
}

/// Why there is no answer, and whether another attempt may help (upstream's `DefaultShouldRetry`).
struct Failure {
    why: String,
    transient: bool,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        let transient = why.to_ascii_lowercase().contains("connection reset by peer");
        Failure { why, transient }
    }
}

async fn send_within(backend: &Backend, mut request: Request<Body>, limit: Duration) -> Result<bytes::Bytes, Failure> {
    let authority = HeaderValue::from_str(&backend.host.authority()).map_err(|e| e.to_string())?;
    request.headers_mut().insert(HOST, authority);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let talk = async {
        let response = outbound::send(backend, request).await?;
        let status = response.status();
        let retry_after = response.headers().contains_key(http::header::RETRY_AFTER);
        let body = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES).collect().await.map_err(|e| e.to_string())?;
        if !status.is_success() {
            let transient = retry_after || matches!(status.as_u16(), 429 | 500 | 504);
            return Err(Failure { why: format!("it answered {status}"), transient });
        }
        Ok(body.to_bytes())
    };
    match tokio::time::timeout(limit, talk).await {
        Ok(outcome) => outcome,
        Err(_) => Err("it did not answer in time".to_owned().into()),
    }
}

type Key = [u8; 32];

fn key_of(text: &str) -> Key {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    key
}

/// A webhook with its memory.
pub(crate) struct Webhook {
    config: WebhookConfig,
    tls: Arc<rustls::ClientConfig>,
    remembered: Mutex<HashMap<Key, (Instant, Value)>>,
    timeout: Duration,
}

impl Webhook {
    pub(crate) fn new(config: WebhookConfig) -> Result<Self, String> {
        let trust = match (&config.ca_pem, config.insecure) {
            (_, true) => Trust::Anyone,
            (Some(pem), _) => Trust::Bundle(pem),
            (None, _) => Trust::System,
        };
        let tls = outbound::client_tls(trust, config.identity.as_deref())?;
        Ok(Webhook { config, tls, remembered: Mutex::default(), timeout: access::TIMEOUT })
    }

    /// As above, with another limit.
    pub(crate) fn within(config: WebhookConfig, timeout: Duration) -> Result<Self, String> {
        Ok(Webhook { timeout, ..Webhook::new(config)? })
    }

    /// `v1` or `v1beta1`.
    pub(crate) fn version(&self) -> &str {
        &self.config.version
    }

    /// Posts JSON; what is answered does not matter, as long as it is a yes.
    pub(crate) async fn post(&self, text: String) -> Result<(), String> {
        let (backend, request) = self.request(text).await?;
        send(&backend, request).await.map(drop)
    }

    async fn request(&self, text: String) -> Result<(Backend, Request<Body>), String> {
        let (backend, path) = place(&self.config.url, &self.tls)?;
        let mut request = Request::new(Body::whole(text));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = ironkeel_trace::traceparent().and_then(|t| HeaderValue::try_from(t).ok()) {
            request.headers_mut().insert(ironkeel_trace::TRACEPARENT, value);
        }
        // A file goes before what the kubeconfig says, as upstream has it.
        let token = match &self.config.token_file {
            Some(file) => {
                let read = tokio::fs::read_to_string(file).await;
                Some(read.map_err(|e| format!("{}: {e}", file.display()))?.trim().to_owned())
            }
            None => self.config.token.clone(),
        };
        if let Some(token) = token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| e.to_string())?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        Ok((backend, request))
    }

    /// What is answered, after several attempts where failures pass.
    async fn answer(&self, text: String) -> Result<bytes::Bytes, String> {
        let mut wait = Duration::from_millis(RETRY_WAIT_MS);
        for _ in 1..ironkeel_webhook::ATTEMPTS {
            let (backend, request) = self.request(text.clone()).await?;
            match send_within(&backend, request, self.timeout).await {
                Err(failure) if failure.transient => {
                    tokio::time::sleep(wait).await;
                    wait = wait * 3 / 2;
                }
                done => return done.map_err(|failure| failure.why),
            }
        }
        let (backend, request) = self.request(text).await?;
        send_within(&backend, request, self.timeout).await.map_err(|failure| failure.why)
    }

    /// The review's status.
    pub(crate) async fn ask(&self, review: &Value, yes: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let text = review.to_string();
        let key = key_of(&text);
        if let Some((until, status)) = self.remembered.lock().get(&key)
            && *until > Instant::now()
        {
            return Ok(status.clone());
        }
        let answer = self.answer(text).await?;
        let mut answer: Value = serde_json::from_slice(&answer).map_err(|e| e.to_string())?;
        let status = answer.get_mut("status").map(Value::take).ok_or("it answered without a status")?;
        let ttl = if yes(&status) { self.config.yes_ttl } else { self.config.no_ttl };
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, (Instant::now() + ttl, status.clone()));
        Ok(status)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Delegates {
    tokens: Option<Webhook>,
    access: Option<Webhook>,
    access_first: bool,
    pub(crate) chain: access::Chain,
    issuers: ArcSwap<Vec<Arc<Issuer>>>,
}

impl Delegates {
    pub(crate) fn new(config: &DelegatesConfig) -> Result<Self, String> {
        Ok(Delegates {
            issuers: ArcSwap::from_pointee(issuers(&config.issuers, &[])?),
            tokens: config.tokens.clone().map(Webhook::new).transpose()?,
            access: config.access.clone().map(Webhook::new).transpose()?,
            access_first: config.access_first,
            chain: access::Chain::new(config.chain.as_deref())?,
        })
    }

    /// Believes these issuers from now on.
    pub(crate) fn replace_issuers(&self, configs: &[OidcConfig]) -> Result<(), String> {
        let new = issuers(configs, &self.issuers.load())?;
        self.issuers.store(Arc::new(new));
        Ok(())
    }

    /// Who a token stands for that nobody here knows. It must be good for one of `audiences`; whoever
    /// does not speak of audiences means the API server's `own`.
    pub(crate) async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        own: &[String],
        now: i64,
    ) -> Option<Authenticated> {
        for issuer in self.issuers.load_full().iter().filter(|i| i.config.issued(token)) {
            match issuer.authenticate(token, now).await {
                Ok(who) => return common(audiences, own).map(|audiences| Authenticated { audiences, ..who }),
                Err(error) => tracing::info!(%error, "an ID token was refused"),
            }
        }
        let webhook = self.tokens.as_ref()?;
        let review = json!({
            "apiVersion": format!("authentication.k8s.io/{}", webhook.config.version), "kind": "TokenReview",
            "metadata": { "creationTimestamp": null }, "spec": { "token": token, "audiences": audiences },
        });
        let status = match webhook.ask(&review, |s| s["authenticated"] == true).await {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, "the webhook for tokens failed");
                return None;
            }
        };
        if status["authenticated"] != true {
            return None;
        }
        let texts = |v: &Value| -> Vec<String> {
            v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let user = &status["user"];
        let mut who = UserInfo::new(user["username"].as_str().unwrap_or_default(), texts(&user["groups"]));
        who.uid = user["uid"].as_str().unwrap_or_default().to_owned();
        let extra = user["extra"].as_object().into_iter().flatten();
        who.extra = extra.map(|(k, v)| (k.clone(), texts(v))).collect();
        let said = texts(&status["audiences"]);
        let audiences = common(audiences, if said.is_empty() { own } else { &said })?;
        (!who.name.is_empty()).then_some(Authenticated { user: who, audiences })
    }

    /// What the authorizers say about a request, in their order. Masters are asked about by nobody.
    pub(crate) async fn decide(&self, authorizer: &Authorizer, metrics: &Metrics, a: &Attributes<'_>) -> Decision {
        if a.user.in_group(UserInfo::MASTERS) {
            return Decision::Allow("".into());
        }
        if let Some(decision) = self.chain.decide(authorizer, metrics, a).await {
            return decision;
        }
        let mut said = Said::default();
        if self.access_first
            && let Some(decided) = said.note(metrics, "Webhook", "webhook", self.ask_access(a).await)
        {
            return decided;
        }
        for mode in authorizer.modes().iter() {
            if let Some(decided) =
                said.note(metrics, mode.name(), mode.default_name(), authorizer.authorize_by(*mode, a))
            {
                return decided;
            }
        }
        if !self.access_first
            && let Some(decided) = said.note(metrics, "Webhook", "webhook", self.ask_access(a).await)
        {
            return decided;
        }
        said.nothing()
    }

    /// What is known of all that `user` may in `namespace`, by authorizer.
    pub(crate) fn rules_for(&self, authorizer: &Authorizer, user: &UserInfo, namespace: &str) -> Vec<Resolved> {
        if let Some(known) = self.chain.rules_for(authorizer, user, namespace) {
            return known;
        }
        let mut known = authorizer.rules_for(user, namespace);
        if self.access.is_some() {
            known.insert(if self.access_first { 0 } else { known.len() }, access::unresolved());
        }
        known
    }

    /// What the webhook says about a request.
    async fn ask_access(&self, a: &Attributes<'_>) -> Decision {
        let Some(webhook) = &self.access else { return Decision::NoOpinion("".into()) };
        access::ask(webhook, a).await.unwrap_or_else(|error| {
            tracing::warn!(error, "the webhook for authorization failed");
            Decision::NoOpinion("".into())
        })
    }
}
