//! The authorizers in their order: by `--authorization-mode` and its webhook, or by an
//! AuthorizationConfiguration file; ABAC's policies.

use std::path::Path;
use std::time::Duration;

use ironkeel_apiserver::Config;
use ironkeel_auth::{
    AbacPolicies, AuthorizationMode, AuthorizerEntry, AuthorizerKind, MatchConditions, WebhookRules, read_authorization,
};

use super::reload::text;
use crate::flags::{FlagError, Given, invalid};

const FILE: &str = "authorization-config";
const MODE: &str = "authorization-mode";
const POLICIES: &str = "authorization-policy-file";
const WEBHOOK: &str = "authorization-webhook-config-file";
const WEBHOOK_FLAGS: &[&str] = &[
    WEBHOOK,
    "authorization-webhook-version",
    "authorization-webhook-cache-authorized-ttl",
    "authorization-webhook-cache-unauthorized-ttl",
];
/// How long the webhook of the flags may take.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a file.
pub(super) fn file(path: &Path) -> Result<Vec<AuthorizerEntry>, String> {
    parse(path, &text(path)?)
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<AuthorizerEntry>, String> {
    read_authorization(text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Reads ABAC's policies.
pub(super) fn policies(path: &Path) -> Result<AbacPolicies, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    AbacPolicies::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn local(chain: &[AuthorizerEntry]) -> Vec<AuthorizationMode> {
    let mode = |entry: &AuthorizerEntry| match entry.kind {
        AuthorizerKind::Local(mode) => Some(mode),
        AuthorizerKind::Webhook(_) => None,
    };
    chain.iter().filter_map(mode).collect()
}

/// The chain, where there are webhooks in it; the local modes and policies go into `config`.
pub(super) fn chain(given: &Given, config: &mut Config) -> Result<Option<Vec<AuthorizerEntry>>, FlagError> {
    let chain = match given.text(FILE) {
        Some(path) => {
            if !given.all(MODE).is_empty() || WEBHOOK_FLAGS.iter().any(|f| given.text(f).is_some()) {
                let why =
                    "can not be specified when --authorization-mode or --authorization-webhook-* flags are defined";
                return Err(invalid(FILE, path, why));
            }
            file(Path::new(path)).map_err(|e| invalid(FILE, path, e))?
        }
        None => by_flags(given)?,
    };
    config.authorization_modes = local(&chain);
    let abac = config.authorization_modes.contains(&AuthorizationMode::Abac);
    match given.text(POLICIES) {
        Some(path) if abac => config.policies = policies(Path::new(path)).map_err(|e| invalid(POLICIES, path, e))?,
        Some(path) => return Err(invalid(POLICIES, path, "cannot be specified without mode ABAC")),
        None if abac => return Err(FlagError::Required(POLICIES)),
        None => {}
    }
    // A file may bring webhooks later: then the chain is asked from the beginning.
    let webhooks = chain.len() > config.authorization_modes.len();
    Ok((webhooks || given.text(FILE).is_some()).then_some(chain))
}

fn by_flags(given: &Given) -> Result<Vec<AuthorizerEntry>, FlagError> {
    let mut chain: Vec<AuthorizerEntry> = Vec::new();
    for (i, name) in given.all(MODE).iter().enumerate() {
        if given.all(MODE)[..i].contains(name) {
            return Err(invalid(MODE, name, "stands twice"));
        }
        let kind = match (name.as_str(), AuthorizationMode::named(name)) {
            ("Webhook", _) => AuthorizerKind::Webhook(Box::new(webhook(given)?)),
            (_, Some(mode)) => AuthorizerKind::Local(mode),
            (_, None) => {
                let known = "must be AlwaysAllow, AlwaysDeny, Node, RBAC, ABAC or Webhook";
                return Err(invalid(MODE, name, known));
            }
        };
        chain.push(AuthorizerEntry { name: name.to_lowercase(), kind });
    }
    if let Some(path) = given.text(WEBHOOK)
        && !given.all(MODE).iter().any(|m| m == "Webhook")
    {
        return Err(invalid(WEBHOOK, path, "cannot be specified without mode Webhook"));
    }
    if chain.is_empty() {
        let kind = AuthorizerKind::Local(AuthorizationMode::AlwaysAllow);
        chain.push(AuthorizerEntry { name: "alwaysallow".to_owned(), kind });
    }
    Ok(chain)
}

fn webhook(given: &Given) -> Result<WebhookRules, FlagError> {
    let kubeconfig = Some(given.text(WEBHOOK).ok_or(FlagError::Required(WEBHOOK))?.into());
    let version = match given.text("authorization-webhook-version") {
        None => "v1beta1",
        Some(version @ ("v1" | "v1beta1")) => version,
        Some(other) => return Err(invalid("authorization-webhook-version", other, "must be v1 or v1beta1")),
    };
    let ttl = |flag, seconds| given.duration(flag, Duration::from_secs(seconds));
    Ok(WebhookRules {
        kubeconfig,
        version: version.to_owned(),
        timeout: WEBHOOK_TIMEOUT,
        authorized_ttl: ttl("authorization-webhook-cache-authorized-ttl", 300)?,
        unauthorized_ttl: ttl("authorization-webhook-cache-unauthorized-ttl", 30)?,
        deny_on_failure: false,
        conditions: MatchConditions::default(),
    })
}
