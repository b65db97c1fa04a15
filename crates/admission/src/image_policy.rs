//! ImagePolicyWebhook: a backend is asked whether a Pod's images may run.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ironkeel_object::{Map, Value, object};
use ironkeel_registry::{ApiError, Attributes, Operation};
use ironkeel_webhook::{Credentials, Endpoint, Target, WebhookClient};
use jiff::Timestamp;
use parking_lot::Mutex;

const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// Answers that are remembered; past it all are forgotten.
const REMEMBERED: usize = 1024;
/// How long one answer may take, in seconds.
const CALL_SECONDS: u64 = 30;

/// The backend, and what its silence means.
#[derive(Clone, Debug)]
pub struct ImagePolicyConfig {
    /// Where it listens.
    pub target: Target,
    /// How long a yes is remembered.
    pub allow_ttl: Duration,
    /// How long a no is remembered.
    pub deny_ttl: Duration,
    /// How long the second call waits.
    pub backoff: Duration,
    /// Whether images may run when the backend does not answer.
    pub default_allow: bool,
}

/// A time in its unit: -1 is none at all, 0 the default.
fn time(v: &Value, field: &str, unit: Duration, max: Duration, default: Duration) -> Result<Duration, String> {
    match v.i64_at(&[field]).unwrap_or(0) {
        -1 => Ok(Duration::ZERO),
        0 => Ok(default),
        n => {
            let given = u32::try_from(n).ok().map(|n| unit.saturating_mul(n)).filter(|d| *d <= max);
            given.ok_or_else(|| format!("imagePolicy.{field}: valid value is up to {max:?}, got {n}"))
        }
    }
}

impl ImagePolicyConfig {
    /// Reads the settings; the kubeconfig that they name is looked for beside them.
    pub(crate) fn read(v: &Value, beside: &Path) -> Result<Self, String> {
        let file = v.str_at(&["kubeConfigFile"]).filter(|f| !f.is_empty());
        let file = beside.join(file.ok_or("imagePolicy.kubeConfigFile is missing")?);
        let (second, most) = (Duration::from_secs(1), Duration::from_secs(30 * 60));
        let step = Duration::from_millis(1);
        Ok(ImagePolicyConfig {
            target: target(&file).map_err(|why| format!("{}: {why}", file.display()))?,
            allow_ttl: time(v, "allowTTL", second, most, Duration::from_secs(300))?,
            deny_ttl: time(v, "denyTTL", second, most, Duration::from_secs(30))?,
            backoff: time(v, "retryBackoff", step, Duration::from_secs(300), Duration::from_millis(500))?,
            default_allow: v.get("defaultAllow").and_then(Value::as_bool) == Some(true),
        })
    }
}

/// The current context of a kubeconfig file.
fn target(path: &Path) -> Result<Target, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let config = ironkeel_codec::decode_yaml(&bytes, None).map_err(|e| e.to_string())?.0;
    let named = |list: &str, name: &str, member: &str| {
        let found = config.items_at(&[list]).iter().find(|i| i.str_at(&["name"]) == Some(name));
        found.and_then(|i| i.get(member)).cloned().ok_or_else(|| format!("no {member} {name:?}"))
    };
    let text = |v: &Value, key: &str| v.str_at(&[key]).filter(|t| !t.is_empty()).map(str::to_owned);
    let current = text(&config, "current-context").unwrap_or_default();
    let context = named("contexts", &current, "context")?;
    let cluster = named("clusters", &text(&context, "cluster").unwrap_or_default(), "cluster")?;
    let user = match text(&context, "user") {
        Some(name) => named("users", &name, "user")?,
        None => Value::object(),
    };
    if cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool) == Some(true) {
        return Err("insecure-skip-tls-verify is not supported for this backend".to_owned());
    }
    let here = path.parent().unwrap_or(Path::new("."));
    let pem = |v: &Value, key: &str| -> Result<Vec<u8>, String> {
        if let Some(data) = text(v, &format!("{key}-data")) {
            return STANDARD.decode(data).map_err(|e| format!("{key}-data: {e}"));
        }
        let Some(file) = text(v, key) else { return Ok(Vec::new()) };
        std::fs::read(here.join(&file)).map_err(|e| format!("{file}: {e}"))
    };
    let url =
        text(&cluster, "server").filter(|u| u.starts_with("https://")).ok_or("the server must be an https URL")?;
    let mut out = Target::new(Endpoint::Url(url), pem(&cluster, "certificate-authority")?);
    out.credentials = Credentials {
        certificate_pem: pem(&user, "client-certificate")?,
        key_pem: pem(&user, "client-key")?,
        token: text(&user, "token").unwrap_or_default(),
    };
    Ok(out)
}

/// The backend and its last answers.
pub(crate) struct ImagePolicy {
    config: ImagePolicyConfig,
    remembered: Mutex<HashMap<Vec<u8>, (Timestamp, Value)>>,
}

impl ImagePolicy {
    pub(crate) fn new(config: ImagePolicyConfig) -> Self {
        ImagePolicy { config, remembered: Mutex::default() }
    }

    pub(crate) async fn validate(
        &self,
        client: &WebhookClient,
        a: &Attributes<'_>,
        pod: &Value,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let lists: &[&str] = match a.subresource {
            "" => &["containers", "initContainers"],
            "ephemeralcontainers" => &["ephemeralContainers"],
            _ => return Ok(()),
        };
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        if !writes || a.row.plural() != "pods" || !a.row.group().is_empty() {
            return Ok(());
        }
        let spec = spec(a, pod, lists);
        let key = json(&spec);
        let known = self.remembered.lock().get(&key).filter(|(until, _)| *until > now).map(|(_, s)| s.clone());
        let status = match known {
            Some(status) => status,
            None => match self.ask(client, spec).await {
                Ok(status) => {
                    self.remember(key, &status, now);
                    status
                }
                Err(why) if self.config.default_allow => {
                    tracing::warn!(why, "the image policy backend failed; images are allowed");
                    a.annotate(&format!("{AUDIT_PREFIX}failed-open"), "true");
                    return Ok(());
                }
                Err(why) => return Err(a.forbidden(&why)),
            },
        };
        for (name, value) in status.get("auditAnnotations").and_then(Value::as_object).into_iter().flat_map(Map::iter) {
            a.annotate(&format!("{AUDIT_PREFIX}{name}"), value.as_str().unwrap_or_default());
        }
        if status.get("allowed").and_then(Value::as_bool) == Some(true) {
            return Ok(());
        }
        Err(a.forbidden(&match status.str_at(&["reason"]).unwrap_or_default() {
            "" => "one or more images rejected by webhook backend".to_owned(),
            reason => format!("image policy webhook backend denied one or more images: {reason}"),
        }))
    }

    fn remember(&self, key: Vec<u8>, status: &Value, now: Timestamp) {
        let yes = status.get("allowed").and_then(Value::as_bool) == Some(true);
        let ttl = if yes { self.config.allow_ttl } else { self.config.deny_ttl };
        let mut all = self.remembered.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, (until, _)| *until > now);
            if all.len() >= REMEMBERED {
                all.clear();
            }
        }
        if let Ok(until) = now.checked_add(ttl) {
            all.insert(key, (until, status.clone()));
        }
    }

    async fn ask(&self, client: &WebhookClient, spec: Value) -> Result<Value, String> {
        let review = object!({
            "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": { "creationTimestamp": null }, "spec": (spec), "status": { "allowed": false },
        });
        let body = Bytes::from(json(&review));
        let timeout = Duration::from_secs(CALL_SECONDS);
        let asked = client.post_retried(&self.config.target, body, timeout, self.config.backoff);
        let answer = asked.await.map_err(|e| e.to_string())?;
        let tree = ironkeel_codec::parse_json(&answer).map_err(|e| e.to_string())?;
        Ok(tree.get("status").cloned().unwrap_or_default())
    }
}

fn json(tree: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ironkeel_codec::encode_json(tree, &mut out);
    out
}

fn spec(a: &Attributes<'_>, pod: &Value, lists: &[&str]) -> Value {
    let containers = lists.iter().flat_map(|l| pod.items_at(&["spec", l]));
    let images: Vec<Value> =
        containers.map(|c| object!({ "image": (c.str_at(&["image"]).unwrap_or_default()) })).collect();
    let annotations = pod.at(&["metadata", "annotations"]).and_then(Value::as_object).into_iter().flat_map(Map::iter);
    let about: Map = annotations
        .filter(|(k, _)| k.contains(".image-policy.k8s.io/"))
        .map(|(k, v)| (k.to_string(), v.clone()))
        .collect();
    let mut out = object!({ "containers": (images), "namespace": (a.namespace) });
    if !about.is_empty() {
        *out.slot(&["annotations"]) = about.into();
    }
    out
}
