//! Bound ServiceAccount tokens: signature, times, audiences, and that the account and what the
//! token is bound to are still the same objects.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_schema::{Resource, resource};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use super::Authenticated;
use crate::token::{Claims, KeySet, Reference};
use crate::{AuthError, UserInfo};

/// Verified tokens that are remembered; past it the older half is forgotten.
const VERIFIED_TOKENS: usize = 8192;
/// How long an object being deleted still vouches for its tokens.
const DELETION_GRACE_SECONDS: i64 = 60;
/// How far clocks may differ.
const LEEWAY_SECONDS: i64 = 60;

type Hash = [u8; 32];

/// Signatures that were verified. Only that is remembered: times, audiences and objects are looked
/// at on each request, so a hit is never staler than a miss.
#[derive(Default)]
struct Verified {
    young: HashMap<Hash, Arc<Claims>>,
    old: HashMap<Hash, Arc<Claims>>,
}

pub(super) struct ServiceAccountTokens {
    issuers: Vec<String>,
    keys: Arc<ArcSwap<KeySet>>,
    verified: Mutex<Verified>,
}

fn core(plural: &str) -> &'static Resource {
    resource("", "v1", plural).expect("the table has the core resources")
}

impl ServiceAccountTokens {
    pub(super) fn new(issuers: Vec<String>, keys: Arc<ArcSwap<KeySet>>) -> Self {
        ServiceAccountTokens { issuers, keys, verified: Mutex::default() }
    }

    /// Forgets what the keys of before have verified.
    pub(super) fn forget(&self) {
        *self.verified.lock() = Verified::default();
    }

    pub(super) fn issued_here(&self, token: &str) -> bool {
        self.remembered(&hash(token)).is_some()
            || KeySet::unverified_issuer(token).is_some_and(|iss| self.issuers.contains(&iss))
    }

    fn remembered(&self, hash: &Hash) -> Option<Arc<Claims>> {
        let mut verified = self.verified.lock();
        if let Some(claims) = verified.young.get(hash) {
            return Some(claims.clone());
        }
        let claims = verified.old.remove(hash)?;
        verified.young.insert(*hash, claims.clone());
        Some(claims)
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, AuthError> {
        let hash = hash(token);
        if let Some(claims) = self.remembered(&hash) {
            return Ok(claims);
        }
        let claims = Arc::new(self.keys.load().verify(token)?);
        let mut verified = self.verified.lock();
        if verified.young.len() >= VERIFIED_TOKENS / 2 {
            verified.old = std::mem::take(&mut verified.young);
        }
        verified.young.insert(hash, claims.clone());
        Ok(claims)
    }

    pub(super) fn authenticate(
        &self,
        token: &str,
        accepted: &[String],
        now: i64,
        source: &dyn ObjectSource,
    ) -> Result<Authenticated, AuthError> {
        let claims = self.claims(token)?;
        if !self.issuers.contains(&claims.iss) {
            return Err(AuthError::UnknownToken);
        }
        if now > claims.exp + LEEWAY_SECONDS {
            return Err(AuthError::Expired);
        }
        if now < claims.nbf.max(claims.iat) - LEEWAY_SECONDS {
            return Err(AuthError::NotYetValid);
        }
        let audiences: Vec<String> = accepted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(AuthError::WrongAudience { found: claims.aud.clone(), accepted: accepted.to_vec() });
        }
        let k8s = &claims.kubernetes;
        let account = &k8s.service_account;
        if claims.sub != format!("system:serviceaccount:{}:{}", k8s.namespace, account.name) {
            return Err(AuthError::MalformedToken);
        }
        check(source, "serviceaccounts", "ServiceAccount", &k8s.namespace, account, now)?;
        if let Some(secret) = &k8s.secret {
            check(source, "secrets", "Secret", &k8s.namespace, secret, now)?;
        }
        if let Some(pod) = &k8s.pod {
            check(source, "pods", "Pod", &k8s.namespace, pod, now)?;
        } else if let Some(node) = &k8s.node {
            check(source, "nodes", "Node", "", node, now)?;
        }
        Ok(Authenticated { user: user(&claims), audiences })
    }
}

fn hash(token: &str) -> Hash {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn check(
    source: &dyn ObjectSource,
    plural: &str,
    kind: &'static str,
    namespace: &str,
    wanted: &Reference,
    now: i64,
) -> Result<(), AuthError> {
    let found = source.get(core(plural), namespace, &wanted.name);
    let same = found.is_some_and(|object| object.uid() == wanted.uid && !long_deleted(&object, now));
    if same {
        return Ok(());
    }
    Err(AuthError::BoundObjectInvalid { kind, namespace: namespace.to_owned(), name: wanted.name.clone() })
}

fn long_deleted(object: &Value, now: i64) -> bool {
    let since = object.deletion_timestamp().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    since.is_some_and(|t| t.as_second() + DELETION_GRACE_SECONDS < now)
}

fn user(claims: &Claims) -> UserInfo {
    let k8s = &claims.kubernetes;
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", k8s.namespace)];
    let mut user = UserInfo::new(claims.sub.clone(), groups);
    user.uid = k8s.service_account.uid.clone();
    let mut say = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        say("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &k8s.pod {
        say("pod-name", &pod.name);
        say("pod-uid", &pod.uid);
    }
    if let Some(node) = &k8s.node {
        say("node-name", &node.name);
        say("node-uid", &node.uid);
    }
    user
}
