//! ID tokens of OpenID Connect (`--oidc-*`, AuthenticationConfiguration): claims become a user.
//!
//! Fetching the issuer's keys is the API server's work, and so is fetching groups that stand elsewhere
//! (distributed claims); what a token must say, and where they stand, is decided here.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironkeel_expr::Program;
use serde::Deserialize;
use serde_json::Value;

use super::{Authenticated, claims};
use crate::token::KeySet;
use crate::{AuthError, UserInfo};

/// How far ahead the issuer's clock may be, in seconds.
const LEEWAY_SECONDS: i64 = 5 * 60;
/// Every algorithm that signatures are checked by.
pub(super) const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];

/// Where a part of the user comes from.
#[derive(Clone, Debug, Default)]
pub enum ClaimMapping {
    /// Nowhere.
    #[default]
    None,
    /// A claim, with something put before it.
    Claim {
        /// Its name.
        name: String,
        /// What is put before it.
        prefix: String,
    },
    /// An expression over `claims`.
    Expression(Program),
}

/// An expression that must be true.
#[derive(Clone, Debug)]
pub struct ValidationRule {
    /// Over `claims` or `user`.
    pub program: Program,
    /// What is said when it is false; may be empty.
    pub message: String,
}

/// One issuer, and how its claims are read.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// `iss` of its tokens, and where its discovery document is.
    pub issuer: String,
    /// Where the discovery document is instead, if not beneath the issuer.
    pub discovery_url: Option<String>,
    /// Tokens must be for one of these.
    pub audiences: Vec<String>,
    /// The user's name.
    pub username: ClaimMapping,
    /// The groups: a text or a list.
    pub groups: ClaimMapping,
    /// The uid.
    pub uid: ClaimMapping,
    /// Extras, each an expression over `claims`.
    pub extra: Vec<(String, Program)>,
    /// Claims that must be there with these values.
    pub required_claims: Vec<(String, String)>,
    /// What must hold of the claims.
    pub claim_rules: Vec<ValidationRule>,
    /// What must hold of the user.
    pub user_rules: Vec<ValidationRule>,
    /// Allowed algorithms.
    pub algorithms: Vec<String>,
    /// Authorities of the issuer's server in PEM; the host's where empty.
    pub ca_pem: String,
}

/// A claim that stands elsewhere, in a token that is to be fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct DistributedClaim {
    /// The claim.
    pub name: String,
    /// Where to ask.
    pub endpoint: String,
    /// The bearer token to ask with; may be empty.
    pub access_token: String,
}

impl std::fmt::Debug for DistributedClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DistributedClaim({} at {})", self.name, self.endpoint)
    }
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    access_token: String,
}

/// The issuer that leaves the scheme out (OpenID Connect Core 1.0, 15.6.2).
const GOOGLE: &str = "accounts.google.com";

fn same_issuer(said: &str, wanted: &str) -> bool {
    said == wanted || said == GOOGLE && wanted.strip_prefix("https://") == Some(GOOGLE)
}

fn refused(why: impl Into<String>) -> AuthError {
    AuthError::IdToken(why.into())
}

impl OidcConfig {
    /// Upstream's defaults around these two.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        let issuer = issuer.into();
        OidcConfig {
            username: ClaimMapping::Claim { name: "sub".to_owned(), prefix: format!("{issuer}#") },
            issuer,
            discovery_url: None,
            audiences: vec![client_id.into()],
            groups: ClaimMapping::None,
            uid: ClaimMapping::None,
            extra: Vec::new(),
            required_claims: Vec::new(),
            claim_rules: Vec::new(),
            user_rules: Vec::new(),
            algorithms: vec!["RS256".to_owned()],
            ca_pem: String::new(),
        }
    }

    /// Whether tokens may be signed by this algorithm: whether it is known here at all.
    pub fn knows_algorithm(name: &str) -> bool {
        ALGORITHMS.contains(&name)
    }

    /// Whether a token says that it is this issuer's.
    pub fn issued(&self, token: &str) -> bool {
        Self::unverified_issuer(token).is_some_and(|iss| iss == self.issuer)
    }

    /// What a token says, verified by the keys of `issuer` (this one, or another that answers for a claim).
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, issuer: &str, keys: &KeySet, token: &str, now: i64) -> Result<Value, AuthError> {
        let header = token.split('.').next().and_then(|h| URL_SAFE_NO_PAD.decode(h).ok());
        let header: Value = header.and_then(|h| serde_json::from_slice(&h).ok()).ok_or(AuthError::MalformedToken)?;
        if !self.algorithms.iter().any(|a| header["alg"] == a.as_str()) {
            return Err(AuthError::InvalidSignature);
        }
        let claims: Value = keys.verify_as(token)?;
        if !claims["iss"].as_str().is_some_and(|said| same_issuer(said, issuer)) {
            return Err(AuthError::UnknownToken);
        }
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if !audiences.iter().any(|a| self.audiences.contains(a)) {
            return Err(AuthError::WrongAudience { found: audiences, accepted: self.audiences.clone() });
        }
        let time = |claim: &str| claims[claim].as_f64().map(|t| t as i64);
        if time("exp").is_none_or(|exp| now > exp) {
            return Err(AuthError::Expired);
        }
        if time("nbf").is_some_and(|nbf| now + LEEWAY_SECONDS < nbf) {
            return Err(AuthError::NotYetValid);
        }
        Ok(claims)
    }

    /// Where the groups stand, if not in the token itself (OpenID Connect Core 1.0, 5.6.2).
    ///
    /// # Errors
    /// The token names a source and does not say where it is.
    pub fn distributed_groups(&self, claims: &Value) -> Result<Option<DistributedClaim>, AuthError> {
        let ClaimMapping::Claim { name, .. } = &self.groups else { return Ok(None) };
        let wrong = |why: String| refused(format!("could not expand distributed claims: {why}"));
        let names = match claims.get("_claim_names") {
            Some(names) if claims.get(name).is_none() => names,
            _ => return Ok(None),
        };
        let names: BTreeMap<String, String> = serde_json::from_value(names.clone())
            .map_err(|e| wrong(format!("oidc: error parsing distributed claim names: {e}")))?;
        let sources = claims.get("_claim_sources").ok_or_else(|| wrong("oidc: no claim sources".to_owned()))?;
        let sources: BTreeMap<String, Source> = serde_json::from_value(sources.clone())
            .map_err(|e| wrong(format!("oidc: could not parse claim sources: {e}")))?;
        let Some(named) = names.get(name) else { return Ok(None) };
        let missing = || wrong(format!("id token _claim_names contained a source {named} missing in _claims_sources"));
        let source = sources.get(named).ok_or_else(missing)?;
        // Without an address it may be an aggregated claim, which is not read.
        Ok((!source.endpoint.is_empty()).then(|| DistributedClaim {
            name: name.clone(),
            endpoint: source.endpoint.clone(),
            access_token: source.access_token.clone(),
        }))
    }

    /// The issuer that a token claims to be of; nothing is verified.
    pub fn unverified_issuer(token: &str) -> Option<String> {
        let said = KeySet::unverified_issuer(token)?;
        Some(if said == GOOGLE { format!("https://{GOOGLE}") } else { said })
    }

    /// The user that verified claims stand for.
    ///
    /// # Errors
    /// Claims that are absent, or not as they must be.
    pub fn identify(&self, claims: &Value) -> Result<Authenticated, AuthError> {
        Ok(Authenticated { user: self.user(claims)?, audiences: Vec::new() })
    }

    fn user(&self, claims: &Value) -> Result<UserInfo, AuthError> {
        let tree = claims::tree(claims);
        let expression = |program: &Program, what: &str| {
            let failed = |e: String| refused(format!("error evaluating {what} claim expression: {e}"));
            claims::evaluate(program, "claims", &tree).map_err(failed)
        };
        let text = |program: &Program, what: &str| {
            let value = expression(program, what)?;
            let failed = || {
                refused(format!(
                    "error evaluating {what} claim expression: {what} claim expression must return a string"
                ))
            };
            value.as_str().map(str::to_owned).ok_or_else(failed)
        };
        let mut user = UserInfo { name: self.name(claims, text)?, ..UserInfo::default() };
        user.groups = match &self.groups {
            ClaimMapping::None => Vec::new(),
            ClaimMapping::Claim { name, prefix } => named_groups(claims, name, prefix)?,
            ClaimMapping::Expression(program) => claims::texts(&expression(program, "group")?)
                .map_err(|e| refused(format!("error evaluating group claim expression: {e}")))?,
        };
        user.uid = match &self.uid {
            ClaimMapping::None => String::new(),
            ClaimMapping::Claim { name, .. } => claims
                .get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| AuthError::Claim(name.clone()))?,
            ClaimMapping::Expression(program) => text(program, "uid")?,
        };
        if let Some(id) = claims["jti"].as_str() {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        for (key, program) in &self.extra {
            let failed =
                |e: String| refused(format!("error evaluating extra claim expression: {}: {e}", program.source()));
            let values = claims::texts(&expression(program, "extra")?).map_err(failed)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        for (claim, wanted) in &self.required_claims {
            if claims[claim] != wanted.as_str() {
                return Err(AuthError::Claim(claim.clone()));
            }
        }
        check(&self.claim_rules, "claims", &tree, "claim validation expression")?;
        if !self.user_rules.is_empty() {
            check(&self.user_rules, "user", &claims::user_tree(&user), "user info validation rule")?;
        }
        user.mark_authenticated();
        Ok(user)
    }

    fn name(
        &self,
        claims: &Value,
        text: impl Fn(&Program, &str) -> Result<String, AuthError>,
    ) -> Result<String, AuthError> {
        match &self.username {
            ClaimMapping::None => Err(AuthError::Claim(String::new())),
            ClaimMapping::Expression(program) => {
                let name = text(program, "username")?;
                if name.is_empty() {
                    return Err(refused("empty username via CEL expression is not allowed"));
                }
                Ok(name)
            }
            ClaimMapping::Claim { name: claim, prefix } => {
                let name = claims[claim].as_str().filter(|n| !n.is_empty());
                let name = name.ok_or_else(|| AuthError::Claim(claim.clone()))?;
                if claim == "email" && claims.get("email_verified").is_some_and(|v| v != true) {
                    return Err(AuthError::Claim("email_verified".to_owned()));
                }
                Ok(format!("{prefix}{name}"))
            }
        }
    }
}

/// Groups of a claim: one text, or a list of nothing but texts. A claim that is absent is none.
fn named_groups(claims: &Value, name: &str, prefix: &str) -> Result<Vec<String>, AuthError> {
    let wrong = || refused(format!("parse groups claim {name:?}: it is no text and no list of texts"));
    let found = match claims.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().map(|g| g.as_str().ok_or_else(wrong)).collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    Ok(found.into_iter().map(|g| format!("{prefix}{g}")).collect())
}

/// Every rule must be true.
fn check(
    rules: &[ValidationRule],
    variable: &'static str,
    data: &ironkeel_object::Value,
    what: &str,
) -> Result<(), AuthError> {
    for rule in rules {
        let failed = |why: String| refused(format!("error evaluating {what}: {why}"));
        let value = claims::evaluate(&rule.program, variable, data).map_err(failed)?;
        if value.as_bool() != Some(true) {
            let source = rule.program.source();
            let message = match rule.message.as_str() {
                "" => format!("validation expression '{source}' failed"),
                said => format!("validation expression '{source}' failed: {said}"),
            };
            return Err(failed(message));
        }
    }
    Ok(())
}
