//! `--use-service-account-credentials`: each controller writes as its own ServiceAccount of kube-system,
//! with a token that is asked for when it is first needed and again before it expires.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt as _};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Error;

const NAMESPACE: &str = "kube-system";
/// Lifetime that is asked for, in seconds.
const LIFETIME_S: i64 = 3600;
/// A token is replaced after this share of its lifetime.
const RENEW_AFTER: Duration = Duration::from_secs(LIFETIME_S as u64 * 4 / 5);

/// Makes clients of accounts.
pub(super) struct Accounts {
    /// The controller manager's own identity, which may make accounts and tokens.
    own: Client,
    /// The same server without an identity.
    nobody: Client,
}

struct Account {
    name: String,
    own: Client,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Accounts {
    /// The server that `kubeconfig` names.
    pub(super) async fn new(kubeconfig: &Path, own: Client) -> Result<Accounts, Error> {
        let nobody = ironkeel_client::anonymous_from_kubeconfig(kubeconfig).await?;
        Ok(Accounts { own, nobody })
    }

    /// The client of an account.
    pub(super) fn client(&self, name: &str) -> Client {
        let account = Arc::new(Account { name: name.to_owned(), own: self.own.clone(), token: Mutex::default() });
        let nobody = self.nobody.clone();
        let service = tower::service_fn(move |mut request: Request<Body>| {
            let (account, nobody) = (account.clone(), nobody.clone());
            async move {
                let token = account.token().await?;
                request.headers_mut().insert(header::AUTHORIZATION, token);
                let answer = nobody.send(request).await?;
                if answer.status() == http::StatusCode::UNAUTHORIZED {
                    // The account was deleted and made anew, or the key was changed.
                    *account.token.lock().await = None;
                }
                Ok::<_, kube::Error>(answer)
            }
        });
        ironkeel_client::from_service(service, name)
    }
}

impl Account {
    async fn token(&self) -> kube::Result<HeaderValue> {
        // Held while one is asked for: whoever comes meanwhile gets the same.
        let mut held = self.token.lock().await;
        if let Some((token, until)) = held.as_ref()
            && *until > Instant::now()
        {
            return Ok(token.clone());
        }
        let token = self.request().await?;
        *held = Some((token.clone(), Instant::now() + RENEW_AFTER));
        Ok(token)
    }

    async fn request(&self) -> kube::Result<HeaderValue> {
        let accounts = Api::<ServiceAccount>::namespaced(self.own.clone(), NAMESPACE);
        if accounts.get_opt(&self.name).await?.is_none() {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            match accounts.create(&PostParams::default(), &account).await {
                Ok(made) => tracing::debug!(account = made.name_any(), "made"),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        let spec = TokenRequestSpec { expiration_seconds: Some(LIFETIME_S), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = accounts.create_token_request(&self.name, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        let mut value =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|e| kube::Error::HttpError(e.into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
