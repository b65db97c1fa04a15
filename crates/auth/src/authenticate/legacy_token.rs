//! Tokens that stand in Secrets of type `kubernetes.io/service-account-token`, as the token controller
//! signs them: without expiry and audience, good as long as the Secret holds them.
//!
//! The use of one is reported, so that the Secret can say when it was used last; the controller that
//! cleans up unused ones goes by that.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_schema::resource;
use serde::Deserialize;

use super::{Authenticated, equal_in_constant_time};
use crate::token::KeySet;
use crate::{AuthError, UserInfo};

/// The issuer in these tokens, whatever the cluster's is.
const ISSUER: &str = "kubernetes/serviceaccount";
/// Set by the cleaner: the token is no longer accepted.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Told of each use of a token in a Secret.
pub type TokenUse = Arc<dyn Fn(&Value) + Send + Sync>;

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

pub(super) struct LegacyTokens {
    keys: Arc<ArcSwap<KeySet>>,
    used: Option<TokenUse>,
}

impl LegacyTokens {
    pub(super) fn new(keys: Arc<ArcSwap<KeySet>>, used: Option<TokenUse>) -> Self {
        LegacyTokens { keys, used }
    }

    pub(super) fn is_one(token: &str) -> bool {
        KeySet::unverified_issuer(token).is_some_and(|issuer| issuer == ISSUER)
    }

    /// `audiences` are what the token is good for: this API server alone.
    pub(super) fn authenticate(
        &self,
        token: &str,
        audiences: Vec<String>,
        source: &dyn ObjectSource,
    ) -> Result<Authenticated, AuthError> {
        let claims: Claims = self.keys.load().verify_as(token)?;
        if claims.sub != format!("system:serviceaccount:{}:{}", claims.namespace, claims.name) {
            return Err(AuthError::MalformedToken);
        }
        let stored = |plural: &str, kind: &'static str, name: &str| {
            let row = resource("", "v1", plural).expect("the table has the core resources");
            let found = source.get(row, &claims.namespace, name).filter(|o| o.deletion_timestamp().is_none());
            found.ok_or_else(|| gone(kind, &claims.namespace, name))
        };
        let secret = stored("secrets", "Secret", &claims.secret)?;
        if !equal_in_constant_time(&held(&secret), token.as_bytes()) {
            return Err(gone("Secret", &claims.namespace, &claims.secret));
        }
        let account = stored("serviceaccounts", "ServiceAccount", &claims.name)?;
        if account.uid() != claims.uid {
            return Err(gone("ServiceAccount", &claims.namespace, &claims.name));
        }
        if let Some(used) = &self.used {
            used(&secret);
        }
        if secret.label(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(AuthError::Invalidated { namespace: claims.namespace, secret: claims.secret });
        }
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", claims.namespace)];
        let mut user = UserInfo::new(claims.sub, groups);
        user.uid = claims.uid;
        Ok(Authenticated { user, audiences })
    }
}

fn gone(kind: &'static str, namespace: &str, name: &str) -> AuthError {
    AuthError::BoundObjectInvalid { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The token that a Secret holds; nothing where it holds none.
fn held(secret: &Value) -> Vec<u8> {
    use base64::Engine;
    let text = secret.str_at(&["data", "token"]).unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}
