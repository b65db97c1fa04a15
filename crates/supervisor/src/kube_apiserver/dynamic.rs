//! What a running server takes over when its files change: authorities of clients and front proxies,
//! static tokens, keys of ServiceAccount tokens, issuers, authorizers and policies. Serving
//! certificates are watched where they are read (`serving`).

use std::path::{Path, PathBuf};

use ironkeel_apiserver::{ApiServer, Configuration};
use ironkeel_auth::{KeySet, SigningKey};

use super::reload::{Reload, text};
use super::{authentication, authorization};
use crate::flags::{FlagError, Given, invalid};

const SIGN: &str = "service-account-signing-key-file";
const VERIFY: &str = "service-account-key-file";

fn keys(signing: &Path, verifying: &[PathBuf]) -> Result<(SigningKey, KeySet), (&'static str, PathBuf, String)> {
    let read = |flag, path: &Path| text(path).map_err(|e| (flag, path.to_owned(), e));
    let key = SigningKey::from_pem(&read(SIGN, signing)?)
        .ok_or_else(|| (SIGN, signing.to_owned(), "not a P-256 or RSA private key in PEM".to_owned()))?;
    let mut keys = KeySet::default();
    for path in verifying {
        if !keys.add_pem(&read(VERIFY, path)?) {
            return Err((VERIFY, path.clone(), "no P-256, P-384 or RSA key in PEM".to_owned()));
        }
    }
    if keys.is_empty() {
        keys.add_signing_key(&key);
    }
    Ok((key, keys))
}

fn verifying(given: &Given) -> Vec<PathBuf> {
    given.all(VERIFY).iter().map(PathBuf::from).collect()
}

/// The key that signs tokens of ServiceAccounts, and those that verify them.
pub(super) fn service_account_keys(given: &Given) -> Result<(SigningKey, KeySet), FlagError> {
    let signing = given.text(SIGN).ok_or(FlagError::Required(SIGN))?;
    keys(Path::new(signing), &verifying(given))
        .map_err(|(flag, path, why)| invalid(flag, &path.display().to_string(), why))
}

/// Reads a changed file, has `replace` take it over, and notes what came of it.
fn take_over(
    server: &ApiServer,
    which: Configuration,
    path: &Path,
    replace: impl FnOnce(&str) -> Result<(), String>,
) -> Result<(), String> {
    let taken = text(path).and_then(|text| replace(&text).map(|()| text));
    server.reconfigured(which, taken.as_deref().ok());
    taken.map(drop)
}

/// See the module.
pub(super) struct Files {
    client_ca: Option<PathBuf>,
    front_proxy_ca: Option<PathBuf>,
    tokens: Option<PathBuf>,
    signing: Option<PathBuf>,
    verifying: Vec<PathBuf>,
    authentication: Option<PathBuf>,
    own_issuers: Vec<String>,
    authorization: Option<PathBuf>,
    policies: Option<PathBuf>,
}

impl Files {
    pub(super) fn of(given: &Given) -> Files {
        let path = |flag| given.text(flag).map(PathBuf::from);
        Files {
            client_ca: path("client-ca-file"),
            front_proxy_ca: path("requestheader-client-ca-file"),
            tokens: path("token-auth-file"),
            signing: path(SIGN),
            verifying: verifying(given),
            authentication: path("authentication-config"),
            own_issuers: given.all("service-account-issuer").to_vec(),
            authorization: path("authorization-config"),
            policies: path("authorization-policy-file"),
        }
    }

    /// Tells the server of changes.
    pub(super) fn watch(self, reload: &mut Reload, server: &ApiServer) {
        if let Some(path) = self.client_ca {
            let (server, from) = (server.clone(), path.clone());
            reload.watch_async("client-ca-file", [path], move || {
                let (server, from) = (server.clone(), from.clone());
                Box::pin(async move { server.replace_client_ca(&text(&from)?).await })
            });
        }
        if let Some(path) = self.front_proxy_ca {
            let (server, from) = (server.clone(), path.clone());
            reload.watch_async("requestheader-client-ca-file", [path], move || {
                let (server, from) = (server.clone(), from.clone());
                Box::pin(async move { server.replace_front_proxy_ca(&text(&from)?).await })
            });
        }
        if let Some(path) = self.tokens {
            let (server, from) = (server.clone(), path.clone());
            reload.watch("token-auth-file", [path], move || server.replace_static_tokens(&text(&from)?));
        }
        if let Some(signing) = self.signing {
            let (server, verifying) = (server.clone(), self.verifying);
            let all: Vec<PathBuf> = std::iter::once(signing.clone()).chain(verifying.iter().cloned()).collect();
            reload.watch("keys of ServiceAccount tokens", all, move || {
                let (key, keys) =
                    keys(&signing, &verifying).map_err(|(_, path, why)| format!("{}: {why}", path.display()))?;
                server.replace_service_account_keys(key, keys);
                Ok(())
            });
        }
        if let Some(path) = self.authentication {
            let (server, from, own) = (server.clone(), path.clone(), self.own_issuers);
            let which = Configuration::Authentication;
            server.configured(which, &text(&from).unwrap_or_default());
            reload.watch("authentication-config", [path], move || {
                take_over(&server, which, &from, |text| {
                    let read = authentication::parse(&from, text, &own)?;
                    server.replace_issuers(&read.issuers, read.anonymous)
                })
            });
        }
        if let Some(path) = self.authorization {
            let (server, from) = (server.clone(), path.clone());
            let which = Configuration::Authorization;
            server.configured(which, &text(&from).unwrap_or_default());
            reload.watch("authorization-config", [path], move || {
                take_over(&server, which, &from, |text| server.replace_authorizers(&authorization::parse(&from, text)?))
            });
        }
        if let Some(path) = self.policies {
            let (server, from) = (server.clone(), path.clone());
            reload.watch("authorization-policy-file", [path], move || {
                server.replace_policies(authorization::policies(&from)?);
                Ok(())
            });
        }
    }
}
