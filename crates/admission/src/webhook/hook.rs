//! One webhook of a configuration, compiled.

use std::time::Duration;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_webhook::{DEFAULT_SERVICE_PORT, Endpoint, Target};

use ironkeel_kinds::admission_expressions::MATCH_CONDITIONS;

use crate::cel::Condition;
use crate::matching::Match;

/// What a webhook waits for unless told otherwise, in seconds.
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;

/// Version of AdmissionReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            ReviewVersion::V1 => "admission.k8s.io/v1",
            ReviewVersion::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

pub(crate) struct Hook {
    /// Of the configuration.
    pub(crate) configuration: String,
    pub(crate) name: String,
    /// Configuration, webhook and place: tells hooks apart.
    pub(crate) uid: String,
    pub(crate) target: Result<Target, String>,
    pub(crate) matcher: Match,
    pub(crate) conditions: Vec<Condition>,
    /// `failurePolicy: Ignore`.
    pub(crate) ignores: bool,
    /// Has no side effects in a dry run.
    pub(crate) dry_runs: bool,
    pub(crate) timeout: Duration,
    /// The first of the webhook's versions that is known here.
    pub(crate) review_version: Option<ReviewVersion>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(crate) again: bool,
}

impl Hook {
    /// The webhooks of a configuration.
    pub(crate) fn parse_all(configuration: &Value) -> Vec<Hook> {
        let name = configuration.name();
        let list = configuration.items_at(&["webhooks"]).iter();
        list.enumerate().map(|(i, w)| Hook::parse(name, i, w)).collect()
    }

    fn parse(configuration: &str, index: usize, w: &Value) -> Hook {
        let name = w.str_at(&["name"]).unwrap_or_default();
        let seconds = w.i64_at(&["timeoutSeconds"]).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        let versions = w.items_at(&["admissionReviewVersions"]).iter().filter_map(Value::as_str);
        Hook {
            configuration: configuration.to_owned(),
            name: name.to_owned(),
            uid: format!("{configuration}/{name}/{index}"),
            target: target(w.get("clientConfig").unwrap_or(&Value::Null)),
            matcher: Match::of_webhook(w),
            conditions: Condition::parse_all(w.items_at(&["matchConditions"]), &MATCH_CONDITIONS),
            ignores: w.str_at(&["failurePolicy"]) == Some("Ignore"),
            dry_runs: matches!(w.str_at(&["sideEffects"]), Some("None" | "NoneOnDryRun")),
            timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or(1)),
            review_version: versions
                .filter_map(|v| match v {
                    "v1" => Some(ReviewVersion::V1),
                    "v1beta1" => Some(ReviewVersion::V1Beta1),
                    _ => None,
                })
                .next(),
            again: w.str_at(&["reinvocationPolicy"]) == Some("IfNeeded"),
        }
    }
}

/// Where a `clientConfig` leads.
fn target(config: &Value) -> Result<Target, String> {
    let bundle = match config.str_at(&["caBundle"]) {
        None | Some("") => Vec::new(),
        Some(text) => super::review::from_base64(text).ok_or("could not get REST client: caBundle is not base64")?,
    };
    let endpoint = match (config.str_at(&["url"]), config.get("service").filter(|s| !s.is_null())) {
        (Some(url), _) if !url.is_empty() => Endpoint::Url(url.to_owned()),
        (_, Some(service)) => {
            let text = |key: &str| service.str_at(&[key]).unwrap_or_default().to_owned();
            let port = service.i64_at(&["port"]).and_then(|p| u16::try_from(p).ok());
            Endpoint::Service {
                namespace: text("namespace"),
                name: text("name"),
                path: text("path"),
                port: port.unwrap_or(DEFAULT_SERVICE_PORT),
            }
        }
        _ => return Err("webhook configuration must have either service or URL".into()),
    };
    Ok(Target::new(endpoint, bundle))
}
