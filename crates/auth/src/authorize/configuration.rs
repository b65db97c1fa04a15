//! AuthorizationConfiguration (`--authorization-config`): the authorizers in their order, read
//! strictly; field paths, rules and words are upstream's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::AuthorizationMode;
use super::match_conditions::MatchConditions;
use crate::ConfigurationError;
use crate::configuration::{self, Fields, GoDuration};

/// Longest time that a webhook may be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<GoDuration>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<GoDuration>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<GoDuration>,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    connection_info: Option<Connection>,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(rename = "type", default)]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    expression: String,
}

/// One authorizer of the chain.
#[derive(Clone, Debug)]
pub struct AuthorizerEntry {
    /// Its name, for messages and metrics.
    pub name: String,
    /// What it is.
    pub kind: AuthorizerKind,
}

/// What an authorizer is.
#[derive(Clone, Debug)]
pub enum AuthorizerKind {
    /// One that answers from memory.
    Local(AuthorizationMode),
    /// A webhook.
    Webhook(Box<WebhookRules>),
}

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct WebhookRules {
    /// Where it is.
    pub kubeconfig: Option<PathBuf>,
    /// `v1` or `v1beta1` of the review.
    pub version: String,
    /// How long it may take.
    pub timeout: Duration,
    /// How long a yes is kept; zero for not at all.
    pub authorized_ttl: Duration,
    /// How long a no is kept; zero for not at all.
    pub unauthorized_ttl: Duration,
    /// Whether a failure is a no (else it has no opinion).
    pub deny_on_failure: bool,
    /// When it is asked at all.
    pub conditions: MatchConditions,
}

/// Reads a file's text. `abac` tells whether there is a policy file.
///
/// # Errors
/// All that is wrong.
pub fn read_authorization(text: &str) -> Result<Vec<AuthorizerEntry>, ConfigurationError> {
    let file: File = configuration::parse(text)?;
    configuration::check_version("AuthorizationConfiguration", VERSIONS, &file.kind, &file.api_version)?;
    let mut f = Fields::default();
    if file.authorizers.is_empty() {
        f.required("authorizers", "at least one authorization mode must be defined");
    }
    let mut chain: Vec<AuthorizerEntry> = Vec::new();
    let (mut types, mut names) = (Vec::new(), Vec::new());
    for (i, entry) in file.authorizers.into_iter().enumerate() {
        let at = format!("authorizers[{i}]");
        let mode = match entry.kind.as_str() {
            "" => {
                f.required(&format!("{at}.type"), "");
                continue;
            }
            "Webhook" => None,
            other => match AuthorizationMode::named(other) {
                Some(mode) => Some(mode),
                None => {
                    let known = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
                    f.not_supported(&format!("{at}.type"), other, &known);
                    continue;
                }
            },
        };
        if mode.is_some() && types.contains(&entry.kind) {
            f.duplicate(&format!("{at}.type"), &entry.kind);
            continue;
        }
        types.push(entry.kind.clone());
        let path = format!("{at}.name");
        if entry.name.is_empty() {
            f.required(&path, "");
        } else if names.contains(&entry.name) {
            f.duplicate(&path, &entry.name);
        } else if !configuration::is_subdomain(&entry.name) {
            let why = "authorizer name is invalid: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
            f.invalid(&path, &entry.name, why);
        }
        names.push(entry.name.clone());
        let kind = match (mode, entry.webhook) {
            (Some(mode), None) => AuthorizerKind::Local(mode),
            (Some(_), Some(_)) => {
                f.invalid(&format!("{at}.webhook"), "non-null", "may only be specified when type=Webhook");
                continue;
            }
            (None, None) => {
                f.required(&format!("{at}.webhook"), "required when type=Webhook");
                continue;
            }
            (None, Some(webhook)) => match webhook.check(&at, &mut f) {
                Some(rules) => AuthorizerKind::Webhook(Box::new(rules)),
                None => continue,
            },
        };
        chain.push(AuthorizerEntry { name: entry.name, kind });
    }
    f.done(chain)
}

fn one_of(f: &mut Fields, path: &str, value: &str, known: &[&str]) {
    if value.is_empty() {
        f.required(path, "");
    } else if !known.contains(&value) {
        f.not_supported(path, value, known);
    }
}

impl Webhook {
    fn check(self, at: &str, f: &mut Fields) -> Option<WebhookRules> {
        let mut positive = |field: &str, value: &Option<GoDuration>| match value {
            None => {
                f.required(&format!("{at}.{field}"), "");
                Duration::ZERO
            }
            Some(GoDuration(d)) if d.is_zero() => {
                f.required(&format!("{at}.{field}"), "");
                Duration::ZERO
            }
            Some(GoDuration(d)) => *d,
        };
        let timeout = positive("timeout", &self.timeout);
        // What upstream fills in.
        let authorized_ttl = self.authorized_ttl.map_or(Duration::from_secs(300), |d| d.0);
        let unauthorized_ttl = self.unauthorized_ttl.map_or(Duration::from_secs(30), |d| d.0);
        if timeout > TIMEOUT_MAX {
            f.invalid(&format!("{at}.timeout"), &format!("{}s", timeout.as_secs()), "must be > 0s and <= 30s");
        }
        let reviews = &self.subject_access_review_version;
        one_of(f, &format!("{at}.subjectAccessReviewVersion"), reviews, &["v1", "v1beta1"]);
        let path = format!("{at}.matchConditionSubjectAccessReviewVersion");
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => f.required(&path, "required if match conditions are specified"),
            "v1" => {}
            other => f.not_supported(&path, other, &["v1"]),
        }
        one_of(f, &format!("{at}.failurePolicy"), &self.failure_policy, &["NoOpinion", "Deny"]);
        let connection = self.connection_info.unwrap_or_default();
        let path = format!("{at}.connectionInfo.type");
        let file = match connection.kind.as_str() {
            "KubeConfigFile" => Some(kubeconfig(connection.kube_config_file.as_deref(), at, f)?),
            "InClusterConfig" => {
                if let Some(file) = &connection.kube_config_file {
                    let path = format!("{at}.connectionInfo.kubeConfigFile");
                    f.invalid(&path, &file.display().to_string(), "can only be set when type=KubeConfigFile");
                }
                None
            }
            other => {
                one_of(f, &path, other, &["InClusterConfig", "KubeConfigFile"]);
                None
            }
        };
        let expressions = self.match_conditions.into_iter().map(|c| c.expression);
        let conditions = MatchConditions::compile(expressions, at, f);
        let ttl = |keep: Option<bool>, ttl| if keep.unwrap_or(true) { ttl } else { Duration::ZERO };
        Some(WebhookRules {
            kubeconfig: file,
            version: self.subject_access_review_version,
            timeout,
            authorized_ttl: ttl(self.cache_authorized_requests, authorized_ttl),
            unauthorized_ttl: ttl(self.cache_unauthorized_requests, unauthorized_ttl),
            deny_on_failure: self.failure_policy == "Deny",
            conditions,
        })
    }
}

fn kubeconfig(file: Option<&Path>, at: &str, f: &mut Fields) -> Option<PathBuf> {
    let path = format!("{at}.connectionInfo.kubeConfigFile");
    let Some(file) = file.filter(|p| !p.as_os_str().is_empty()) else {
        f.required(&path, "");
        return None;
    };
    let shown = file.display().to_string();
    if !file.is_absolute() {
        f.invalid(&path, &shown, "must be an absolute path");
        return None;
    }
    match std::fs::metadata(file) {
        Err(e) => f.invalid(&path, &shown, &format!("error loading file: {e}")),
        Ok(found) if !found.is_file() => f.invalid(&path, &shown, "must be a regular file"),
        Ok(_) => return Some(file.to_owned()),
    }
    None
}
