//! Who calls the kubelet, and may they: x509 by the client CA, bearer tokens by TokenReview, and SubjectAccessReview
//! over `nodes/<subresource>`. system:masters needs no review. Answers are kept for a short time.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// How long a positive answer is believed.
const ALLOWED_FOR: Duration = Duration::from_secs(300);
/// How long a negative answer is believed.
const DENIED_FOR: Duration = Duration::from_secs(30);
/// How long a token's owner is believed.
const TOKEN_FOR: Duration = Duration::from_secs(120);
/// Answers kept.
const CACHE_ENTRIES: usize = 1024;
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    pub(crate) uid: Option<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// The holder of a verified client certificate.
    pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = parsed.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> =
            subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
        groups.push("system:authenticated".into());
        Some(Self { user, groups, uid: None, extra: BTreeMap::new() })
    }
}

/// What is asked for.
pub(crate) struct Subject<'a> {
    pub(crate) node: &'a str,
    pub(crate) path: &'a str,
    pub(crate) method: &'a Method,
}

impl Subject<'_> {
    /// The API verb of the method.
    pub(crate) fn verb(&self) -> &'static str {
        match *self.method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        }
    }

    /// Subresources of nodes of which one must be allowed.
    pub(crate) fn subresources(&self) -> Vec<&'static str> {
        match self.path.split('/').find(|part| !part.is_empty()).unwrap_or_default() {
            "stats" => vec!["stats"],
            "metrics" => vec!["metrics"],
            "logs" => vec!["log"],
            "healthz" => vec!["healthz", "proxy"],
            "configz" => vec!["configz", "proxy"],
            "pods" | "runningpods" => vec!["pods", "proxy"],
            _ => vec!["proxy"],
        }
    }
}

/// Asks the API server, and remembers.
pub(crate) struct Authorizer {
    client: Client,
    decisions: Mutex<HashMap<String, (bool, Instant)>>,
    tokens: Mutex<HashMap<[u8; 32], (Caller, Instant)>>,
}

impl Authorizer {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, decisions: Mutex::default(), tokens: Mutex::default() }
    }

    /// The owner of the request's bearer token.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Option<Caller> {
        let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim().to_owned();
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some((caller, until)) = self.tokens.lock().get(&key)
            && *until > Instant::now()
        {
            return Some(caller.clone());
        }
        let review = TokenReview { spec: TokenReviewSpec { token, audiences: None }, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let status = answer.inspect_err(|error| tracing::debug!(%error, "token not reviewed")).ok()?.status?;
        let user = status.user.filter(|_| status.authenticated == Some(true))?;
        let caller = Caller {
            user: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            uid: user.uid,
            extra: user.extra.unwrap_or_default(),
        };
        let mut tokens = self.tokens.lock();
        if tokens.len() >= CACHE_ENTRIES {
            tokens.clear();
        }
        tokens.insert(key, (caller.clone(), Instant::now() + TOKEN_FOR));
        Some(caller)
    }

    /// Whether the caller may.
    pub(crate) async fn allows(&self, caller: &Caller, subject: &Subject<'_>) -> bool {
        if caller.groups.iter().any(|group| group == MASTERS) {
            return true;
        }
        for subresource in subject.subresources() {
            if self.review(caller, subject, subresource).await {
                return true;
            }
        }
        false
    }

    async fn review(&self, caller: &Caller, subject: &Subject<'_>, subresource: &str) -> bool {
        let key = format!("{caller:?} {} {subresource}", subject.verb());
        if let Some((allowed, until)) = self.decisions.lock().get(&key)
            && *until > Instant::now()
        {
            return *allowed;
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(caller.user.clone()),
                groups: Some(caller.groups.clone()),
                uid: caller.uid.clone(),
                extra: (!caller.extra.is_empty()).then(|| caller.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(subject.verb().into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(subject.node.into()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let allowed = match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.is_some_and(|status| status.allowed),
            Err(error) => {
                tracing::debug!(%error, "access not reviewed");
                return false;
            }
        };
        let until = Instant::now() + if allowed { ALLOWED_FOR } else { DENIED_FOR };
        let mut decisions = self.decisions.lock();
        if decisions.len() >= CACHE_ENTRIES {
            decisions.clear();
        }
        decisions.insert(key, (allowed, until));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_nodes() {
        let check = |path: &str, method: Method, verb: &str, subresources: &[&str]| {
            let subject = Subject { node: "n", path, method: &method };
            assert_eq!((subject.verb(), subject.subresources().as_slice()), (verb, subresources), "{path}");
        };
        check("/exec/ns/p/c", Method::POST, "create", &["proxy"]);
        check("/containerLogs/ns/p/c", Method::GET, "get", &["proxy"]);
        check("/stats/summary", Method::GET, "get", &["stats"]);
        check("/metrics/cadvisor", Method::GET, "get", &["metrics"]);
        check("/pods", Method::GET, "get", &["pods", "proxy"]);
    }
}
