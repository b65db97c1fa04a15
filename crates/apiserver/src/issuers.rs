//! OpenID Connect issuers: their keys, fetched and kept, and groups that stand elsewhere (distributed
//! claims, OpenID Connect Core 1.0, 5.6.2). What tokens must say is decided in `auth`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use ironkeel_auth::{AuthError, Authenticated, DistributedClaim, KeySet, OidcConfig};
use parking_lot::Mutex;
use serde_json::Value;

use crate::body::Body;
use crate::delegates::{place, send};
use crate::outbound::{self, Trust};

/// How long an issuer's keys are good without asking again, in seconds.
const KEYS_SECONDS: u64 = 600;
/// How soon an issuer that did not answer, or whose key is unknown, is asked again, in seconds.
const KEYS_RETRY_SECONDS: u64 = 10;
/// Most other issuers that answer for claims of one issuer's tokens.
const OTHER_ISSUERS: usize = 16;

/// The keys of one issuer.
struct Keys {
    issuer: String,
    discovery_url: String,
    set: ArcSwap<KeySet>,
    /// When they were last asked for; held while they are fetched.
    fetched: tokio::sync::Mutex<Option<Instant>>,
}

impl Keys {
    fn of(issuer: &str, discovery_url: Option<String>) -> Self {
        let beneath = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Keys {
            issuer: issuer.to_owned(),
            discovery_url: discovery_url.unwrap_or_else(beneath),
            set: ArcSwap::default(),
            fetched: tokio::sync::Mutex::default(),
        }
    }

    async fn fetch(&self, tls: &Arc<rustls::ClientConfig>, least: Duration) -> Result<(), String> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < least) {
            return Ok(());
        }
        *fetched = Some(Instant::now());
        let get = async |url: &str| -> Result<Value, String> {
            serde_json::from_slice(&get(tls, url, "").await?).map_err(|e| format!("{url}: {e}"))
        };
        let document = get(&self.discovery_url).await?;
        if document["issuer"] != self.issuer.as_str() {
            return Err(format!("the discovery document is of issuer {}", document["issuer"]));
        }
        let jwks = get(document["jwks_uri"].as_str().unwrap_or_default()).await?;
        let mut keys = KeySet::default();
        keys.add_jwks(&jwks);
        self.set.store(Arc::new(keys));
        Ok(())
    }

    async fn refresh(&self, tls: &Arc<rustls::ClientConfig>, age_seconds: u64) {
        if let Err(error) = self.fetch(tls, Duration::from_secs(age_seconds)).await {
            tracing::warn!(%error, issuer = self.issuer, "the keys of an issuer cannot be fetched");
        }
    }
}

async fn get(tls: &Arc<rustls::ClientConfig>, url: &str, token: &str) -> Result<bytes::Bytes, String> {
    let (backend, path) = place(url, tls)?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    if !token.is_empty() {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| e.to_string())?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    send(&backend, request).await.map_err(|e| format!("{url}: {e}"))
}

/// An issuer with its keys.
pub(crate) struct Issuer {
    pub(crate) config: OidcConfig,
    tls: Arc<rustls::ClientConfig>,
    keys: Keys,
    /// Issuers that answer for claims, by their names.
    others: Mutex<HashMap<String, Arc<Keys>>>,
}

impl Issuer {
    async fn verify(&self, keys: &Keys, token: &str, now: i64) -> Result<Value, AuthError> {
        let stale = keys.set.load().is_empty();
        keys.refresh(&self.tls, if stale { KEYS_RETRY_SECONDS } else { KEYS_SECONDS }).await;
        match self.config.verify(&keys.issuer, &keys.set.load_full(), token, now) {
            // The issuer may have a new key.
            Err(AuthError::InvalidSignature) => {
                keys.refresh(&self.tls, KEYS_RETRY_SECONDS).await;
                self.config.verify(&keys.issuer, &keys.set.load_full(), token, now)
            }
            other => other,
        }
    }

    /// The user of a token at `now` (Unix seconds).
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) async fn authenticate(&self, token: &str, now: i64) -> Result<Authenticated, AuthError> {
        let mut claims = self.verify(&self.keys, token, now).await?;
        if let Some(claim) = self.config.distributed_groups(&claims)? {
            let failed = |e: String| AuthError::IdToken(format!("could not expand distributed claims: {e}"));
            let value = self.resolve(&claim, now).await.map_err(failed)?;
            claims[&claim.name] = value;
        }
        self.config.identify(&claims)
    }

    /// Fetches the token in which a claim stands, and verifies it as an ID token of its own issuer.
    async fn resolve(&self, claim: &DistributedClaim, now: i64) -> Result<Value, String> {
        let DistributedClaim { name, endpoint, access_token } = claim;
        let answer = get(&self.tls, endpoint, access_token).await;
        let answer = answer.map_err(|e| format!("while getting distributed claim {name:?}: {e}"))?;
        let malformed = || format!("getting untrusted issuer from endpoint {endpoint} failed for claim {name:?}");
        let token = std::str::from_utf8(&answer).map_err(|_| malformed())?.trim();
        let issuer = OidcConfig::unverified_issuer(token).ok_or_else(malformed)?;
        let other = if issuer == self.config.issuer { None } else { Some(self.other(&issuer)?) };
        let keys = other.as_deref().unwrap_or(&self.keys);
        let mut claims =
            self.verify(keys, token, now).await.map_err(|e| format!("verify distributed claim token: {e}"))?;
        let found = claims.get_mut(name).map(Value::take);
        found.ok_or_else(|| {
            format!("jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {name}")
        })
    }

    fn other(&self, issuer: &str) -> Result<Arc<Keys>, String> {
        let mut others = self.others.lock();
        if let Some(known) = others.get(issuer) {
            return Ok(known.clone());
        }
        if others.len() >= OTHER_ISSUERS {
            return Err(format!("more than {OTHER_ISSUERS} issuers answer for claims"));
        }
        let keys = Arc::new(Keys::of(issuer, None));
        others.insert(issuer.to_owned(), keys.clone());
        Ok(keys)
    }
}

/// Issuers by their configurations.
///
/// # Errors
/// A bundle of authorities that cannot be read.
pub(crate) fn issuers(configs: &[OidcConfig], before: &[Arc<Issuer>]) -> Result<Vec<Arc<Issuer>>, String> {
    let issuer = |config: &OidcConfig| {
        let trust = if config.ca_pem.is_empty() { Trust::System } else { Trust::Bundle(config.ca_pem.as_bytes()) };
        let tls = outbound::client_tls(trust, None)?;
        let of_before = |b: &&Arc<Issuer>| b.config.issuer == config.issuer && b.config.ca_pem == config.ca_pem;
        let keys = Keys::of(&config.issuer, config.discovery_url.clone());
        // Keys that were fetched go on counting, so that a change of another field refuses nobody.
        if let Some(before) = before.iter().find(of_before) {
            keys.set.store(before.keys.set.load_full());
        }
        Ok(Arc::new(Issuer { config: config.clone(), tls, keys, others: Mutex::default() }))
    };
    configs.iter().map(issuer).collect()
}
