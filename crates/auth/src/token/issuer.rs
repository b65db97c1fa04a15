//! Issuing tokens, and telling the world how to verify them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Claims, KeySet, KubernetesClaims, Reference, SigningKey};
use crate::AuthError;

/// Shortest lifetime that may be asked for.
pub const MIN_EXPIRATION_SECONDS: i64 = 10 * 60;
/// Longest lifetime that may be asked for.
pub const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;

/// What a token is wanted for.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub name: String,
    /// UID of the ServiceAccount.
    pub uid: String,
    /// Audiences; empty means the API server's own.
    pub audiences: Vec<String>,
    /// Lifetime in seconds.
    pub expiration_seconds: i64,
    /// What the token lives and dies with.
    pub bound_object: Option<BoundObject>,
}

/// What a token is bound to.
#[derive(Clone, Debug)]
pub enum BoundObject {
    /// A Pod, with the Node that it runs on where it is scheduled.
    Pod {
        /// The Pod.
        pod: Reference,
        /// Its Node.
        node: Option<Reference>,
    },
    /// A Secret.
    Secret(Reference),
    /// A Node.
    Node(Reference),
}

/// The key that signs, and all that verify.
#[derive(Debug)]
struct Keys {
    signing: SigningKey,
    verifying: KeySet,
}

/// Issues tokens. Clones share the keys, which may be replaced.
#[derive(Clone, Debug)]
pub struct ServiceAccountIssuer {
    issuer: String,
    api_audiences: Vec<String>,
    keys: Arc<ArcSwap<Keys>>,
    max_seconds: Option<i64>,
    jwks_uri: Option<String>,
}

impl ServiceAccountIssuer {
    /// Signs as `issuer` with `key`; `keys` are all that verify.
    pub fn new(issuer: impl Into<String>, api_audiences: Vec<String>, key: SigningKey, keys: KeySet) -> Self {
        let keys = Arc::new(ArcSwap::from_pointee(Keys { signing: key, verifying: keys }));
        ServiceAccountIssuer { issuer: issuer.into(), api_audiences, keys, max_seconds: None, jwks_uri: None }
    }

    /// Signs with another key from now on, and tells of these that verify.
    pub fn replace_keys(&self, signing: SigningKey, verifying: KeySet) {
        self.keys.store(Arc::new(Keys { signing, verifying }));
    }

    /// Tokens live no longer than this (`--service-account-max-token-expiration`); longer requests
    /// are cut.
    #[must_use]
    pub fn limited_to(mut self, seconds: i64) -> Self {
        self.max_seconds = Some(seconds);
        self
    }

    /// Says in the discovery document that the key set is at this URL (`--service-account-jwks-uri`).
    #[must_use]
    pub fn with_jwks_uri(mut self, uri: impl Into<String>) -> Self {
        self.jwks_uri = Some(uri.into());
        self
    }

    /// The issuer's URL.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The API server's own audiences, which an empty request means.
    pub fn api_audiences(&self) -> &[String] {
        &self.api_audiences
    }

    /// Makes a token at `now` (Unix seconds); returns it and its expiry (Unix seconds).
    ///
    /// # Errors
    /// [`AuthError::ExpirationSeconds`] outside of the limits.
    pub fn issue(&self, request: TokenRequest, now: i64) -> Result<(String, i64), AuthError> {
        if request.expiration_seconds < MIN_EXPIRATION_SECONDS {
            return Err(AuthError::ExpirationSeconds("less than 10 minutes"));
        }
        if request.expiration_seconds > MAX_EXPIRATION_SECONDS {
            return Err(AuthError::ExpirationSeconds("larger than 2^32 seconds"));
        }
        let exp = now + self.max_seconds.map_or(request.expiration_seconds, |max| request.expiration_seconds.min(max));
        let mut private = KubernetesClaims {
            namespace: request.namespace,
            service_account: Reference { name: request.name, uid: request.uid },
            ..KubernetesClaims::default()
        };
        match request.bound_object {
            Some(BoundObject::Pod { pod, node }) => {
                private.pod = Some(pod);
                private.node = node;
            }
            Some(BoundObject::Secret(secret)) => private.secret = Some(secret),
            Some(BoundObject::Node(node)) => private.node = Some(node),
            None => {}
        }
        let claims = Claims {
            aud: if request.audiences.is_empty() { self.api_audiences.clone() } else { request.audiences },
            exp,
            iat: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{}:{}", private.namespace, private.service_account.name),
            kubernetes: private,
            nbf: now,
        };
        Ok((self.keys.load().signing.sign(&claims)?, exp))
    }

    /// The OIDC discovery document, for `/.well-known/openid-configuration`.
    pub fn discovery(&self, jwks_uri: &str) -> serde_json::Value {
        serde_json::json!({
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri.as_deref().unwrap_or(jwks_uri),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.keys.load().verifying.algorithms(),
        })
    }

    /// The key set, for `/openid/v1/jwks`.
    pub fn jwks(&self) -> serde_json::Value {
        self.keys.load().verifying.jwks()
    }
}
