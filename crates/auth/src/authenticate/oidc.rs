//! ID tokens of OpenID Connect (`--oidc-*`, AuthenticationConfiguration): claims become a user.
//!
//! Fetching the issuer's keys is the API server's work; what a token must say is decided here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Authenticated;
use crate::token::KeySet;
use crate::{AuthError, UserInfo};

/// How far clocks may differ, in seconds.
const LEEWAY_SECONDS: i64 = 10;

/// One issuer, and how its claims are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcConfig {
    /// `iss` of its tokens, and where its discovery document is.
    pub issuer: String,
    /// Where the discovery document is instead, if not beneath the issuer.
    pub discovery_url: Option<String>,
    /// Tokens must be for one of these.
    pub audiences: Vec<String>,
    /// Claim with the user's name.
    pub username_claim: String,
    /// What is put before it.
    pub username_prefix: String,
    /// Claim with groups: a text or a list; empty for none.
    pub groups_claim: String,
    /// What is put before each.
    pub groups_prefix: String,
    /// Claim with the uid; empty for none.
    pub uid_claim: String,
    /// Claims that must be there with these values.
    pub required_claims: Vec<(String, String)>,
    /// Allowed algorithms.
    pub algorithms: Vec<String>,
    /// Authorities of the issuer's server in PEM; the host's where empty.
    pub ca_pem: String,
}

impl OidcConfig {
    /// Upstream's defaults around these two.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        let issuer = issuer.into();
        OidcConfig {
            username_prefix: format!("{issuer}#"),
            issuer,
            discovery_url: None,
            audiences: vec![client_id.into()],
            username_claim: "sub".to_owned(),
            groups_claim: String::new(),
            groups_prefix: String::new(),
            uid_claim: String::new(),
            required_claims: Vec::new(),
            algorithms: vec!["RS256".to_owned()],
            ca_pem: String::new(),
        }
    }

    /// Whether a token says that it is this issuer's.
    pub fn issued(&self, token: &str) -> bool {
        KeySet::unverified_issuer(token).is_some_and(|iss| iss == self.issuer)
    }

    /// The user of a token at `now` (Unix seconds).
    ///
    /// # Errors
    /// A token that is refused.
    pub fn authenticate(&self, keys: &KeySet, token: &str, now: i64) -> Result<Authenticated, AuthError> {
        let header = token.split('.').next().and_then(|h| URL_SAFE_NO_PAD.decode(h).ok());
        let header: Value = header.and_then(|h| serde_json::from_slice(&h).ok()).ok_or(AuthError::MalformedToken)?;
        if !self.algorithms.iter().any(|a| header["alg"] == a.as_str()) {
            return Err(AuthError::InvalidSignature);
        }
        let claims: Value = keys.verify_as(token)?;
        if claims["iss"] != self.issuer.as_str() {
            return Err(AuthError::UnknownToken);
        }
        let audiences = texts(&claims["aud"]);
        if !audiences.iter().any(|a| self.audiences.contains(a)) {
            return Err(AuthError::WrongAudience { found: audiences, accepted: self.audiences.clone() });
        }
        let time = |claim: &str| claims[claim].as_f64().map(|t| t as i64);
        if time("exp").is_none_or(|exp| now > exp + LEEWAY_SECONDS) {
            return Err(AuthError::Expired);
        }
        if time("nbf").is_some_and(|nbf| now < nbf - LEEWAY_SECONDS) {
            return Err(AuthError::NotYetValid);
        }
        for (claim, wanted) in &self.required_claims {
            if claims[claim] != wanted.as_str() {
                return Err(AuthError::Claim(claim.clone()));
            }
        }
        let name = claims[&self.username_claim].as_str().filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| AuthError::Claim(self.username_claim.clone()))?;
        if self.username_claim == "email" && claims.get("email_verified").is_some_and(|v| v != true) {
            return Err(AuthError::Claim("email_verified".to_owned()));
        }
        let groups = texts(&claims[&self.groups_claim]);
        let groups = groups.into_iter().map(|g| format!("{}{g}", self.groups_prefix));
        let mut user = UserInfo::new(format!("{}{name}", self.username_prefix), groups);
        user.uid = claims[&self.uid_claim].as_str().unwrap_or_default().to_owned();
        if let Some(id) = claims["jti"].as_str() {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        Ok(Authenticated { user, audiences: Vec::new() })
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
