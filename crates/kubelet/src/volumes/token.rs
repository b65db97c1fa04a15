//! Service account tokens of pods: asked for with TokenRequest, bound to the pod, kept in memory, renewed when 80% of
//! their life (or 24 hours) have passed.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;

use crate::{Error, names};

/// A token is renewed at this age however long it lives.
const RENEW_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// Life of a token when the projection does not say, seconds.
const DEFAULT_LIFE_S: i64 = 3600;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    account: String,
    audience: Option<String>,
    life: i64,
}

#[derive(Clone)]
struct Token {
    token: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens in use on this node.
pub(crate) struct Tokens {
    client: Client,
    tokens: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, tokens: Mutex::default() }
    }

    /// A token for the projection, and when to ask again. An old one serves while the API is away.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), Error> {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let life = projection.expiration_seconds.unwrap_or(DEFAULT_LIFE_S);
        let audience = projection.audience.clone().filter(|audience| !audience.is_empty());
        let key = Key { uid: names::uid(pod).into(), account: account.into(), audience: audience.clone(), life };
        let now = Timestamp::now();
        let cached = self.tokens.lock().get(&key).cloned();
        if let Some(token) = cached.as_ref().filter(|token| token.renew_at > now) {
            return Ok((token.token.clone(), token.renew_at));
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.into_iter().collect()),
                expiration_seconds: Some(life),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), names::namespace(pod));
        let answer = match api.create_token_request(account, &PostParams::default(), &request).await {
            Ok(answer) => answer,
            Err(error) => {
                return match cached.filter(|token| token.expires_at > now) {
                    Some(token) => Ok((token.token, now + Duration::from_secs(60))),
                    None => Err(error.into()),
                };
            }
        };
        let status = answer.status.unwrap_or_default();
        let expires_at = status.expiration_timestamp.map_or(now, |time| time.0);
        let whole: Duration = expires_at.duration_since(now).try_into().unwrap_or_default();
        let renew_at = now + (whole * 8 / 10).min(RENEW_AT_MOST).max(Duration::from_secs(1));
        let token = Token { token: status.token.unwrap_or_default(), renew_at, expires_at };
        self.tokens.lock().insert(key, token.clone());
        Ok((token.token, renew_at))
    }

    /// Forgets a pod's tokens.
    pub(crate) fn forget(&self, uid: &str) {
        self.tokens.lock().retain(|key, _| key.uid != uid);
    }
}
