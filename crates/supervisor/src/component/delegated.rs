//! Who asks a component, and may they: by client certificates and TokenReviews, and SubjectAccessReviews, of the API
//! server. Without `--authentication-kubeconfig` tokens are nobody's; without `--authorization-kubeconfig` only what is
//! always allowed is (upstream's rules).

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use ironkeel_auth::{ClientCertificates, UserInfo};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use rustls::pki_types::CertificateDer;

use super::serving::{ServingOptions, text};
use crate::Error;

/// Where the API server publishes the authorities of clients.
const PUBLISHED: &str = "extension-apiserver-authentication";

/// See the module.
pub(super) struct Delegated {
    certificates: ClientCertificates,
    always_allowed: Vec<String>,
    authentication: Option<kube::Client>,
    authorization: Option<kube::Client>,
}

impl Delegated {
    pub(super) async fn new(options: ServingOptions, component: &'static str) -> Result<Self, Error> {
        let client = async |path: &Option<std::path::PathBuf>| match path {
            Some(path) => ironkeel_client::from_kubeconfig(path).await.map(Some),
            None => Ok(None),
        };
        let authentication = client(&options.authentication).await?;
        let authorization = client(&options.authorization).await?;
        let mut authorities = options.client_ca.unwrap_or_default();
        if let Some(client) = authentication.as_ref().filter(|_| options.look_up && authorities.is_empty()) {
            match Api::<ConfigMap>::namespaced(client.clone(), "kube-system").get(PUBLISHED).await {
                Ok(published) => {
                    authorities = published.data.and_then(|mut d| d.remove("client-ca-file")).unwrap_or_default();
                }
                Err(error) if options.tolerate => {
                    tracing::warn!(%error, "the authorities of clients were not found: certificates name nobody");
                }
                Err(error) => return Err(Error::Component { component, reason: error.to_string() }),
            }
        }
        let certificates = ClientCertificates::new(&authorities, None)
            .map_err(|e| Error::Component { component, reason: e.to_string() })?;
        Ok(Delegated { certificates, always_allowed: options.always_allowed, authentication, authorization })
    }

    /// Whom a connection's certificate names.
    pub(super) fn identify(&self, chain: &[CertificateDer<'_>]) -> Option<UserInfo> {
        let peer = self.certificates.identify(chain).ok()?;
        peer.user.map(|user| (*user).clone())
    }

    /// The answer for whoever may not; `None` for those who may.
    pub(super) async fn refuses(&self, peer: &Option<UserInfo>, asked: &Asked) -> Option<Response<Full<Bytes>>> {
        let (path, verb) = (asked.path.as_str(), asked.verb.as_str());
        let allowed = |rule: &String| match rule.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == rule,
        };
        if self.always_allowed.iter().any(allowed) {
            return None;
        }
        let user = match (peer, asked.token.as_deref()) {
            (Some(user), _) => user.clone(),
            (None, Some(token)) => match self.who(token).await {
                Some(user) => user,
                None => return Some(text(StatusCode::UNAUTHORIZED, "Unauthorized\n")),
            },
            (None, None) => UserInfo::new(UserInfo::ANONYMOUS, ["system:unauthenticated"]),
        };
        match self.may(&user, verb, path).await {
            true => None,
            false => {
                let why = format!("forbidden: User {:?} cannot {verb} path {path:?}\n", user.name);
                Some(text(StatusCode::FORBIDDEN, why))
            }
        }
    }

    async fn who(&self, token: &str) -> Option<UserInfo> {
        let client = self.authentication.clone()?;
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = match Api::<TokenReview>::all(client).create(&PostParams::default(), &review).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "a token was not reviewed");
                return None;
            }
        };
        let status = answer.status.filter(|s| s.authenticated == Some(true))?;
        let user = status.user?;
        let mut who = UserInfo::new(user.username.unwrap_or_default(), user.groups.unwrap_or_default());
        who.uid = user.uid.unwrap_or_default();
        who.extra = user.extra.unwrap_or_default();
        Some(who)
    }

    async fn may(&self, user: &UserInfo, verb: &str, path: &str) -> bool {
        if user.in_group(UserInfo::MASTERS) {
            return true;
        }
        let Some(client) = self.authorization.clone() else { return false };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|e| !e.is_empty()),
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some(verb.to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        match Api::<SubjectAccessReview>::all(client).create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.is_some_and(|s| s.allowed),
            Err(error) => {
                tracing::warn!(%error, "an access was not reviewed");
                false
            }
        }
    }
}

/// What of a request decides whether it may be answered.
pub(super) struct Asked {
    path: String,
    verb: String,
    token: Option<String>,
}

impl Asked {
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        let bearer = || {
            let value = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        };
        Asked {
            path: request.uri().path().to_owned(),
            verb: request.method().as_str().to_ascii_lowercase(),
            token: bearer(),
        }
    }
}
