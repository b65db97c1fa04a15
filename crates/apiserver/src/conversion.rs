//! Conversion of custom resources by their webhook: `ConversionReview` of apiextensions.k8s.io/v1.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Converter, Reason};
use ironkeel_webhook::{DEFAULT_SERVICE_PORT, Endpoint, Target, WebhookClient};

/// How long one call may take, in seconds (upstream's).
const TIMEOUT_SECONDS: u64 = 30;

/// The webhook of one definition.
#[derive(Debug)]
pub(crate) struct Webhook {
    client: Arc<WebhookClient>,
    target: Target,
    /// `v1` or `v1beta1`: the first that the webhook names and this server speaks.
    review_version: String,
}

impl Webhook {
    pub(crate) fn new(client: Arc<WebhookClient>, definition: &Value) -> Self {
        let webhook = definition.at(&["spec", "conversion", "webhook"]).unwrap_or(&Value::Null);
        let config = webhook.get("clientConfig").unwrap_or(&Value::Null);
        let bundle = config.str_at(&["caBundle"]).unwrap_or_default();
        let text = |path: &[&str]| config.str_at(path).unwrap_or_default().to_owned();
        let endpoint = match config.str_at(&["url"]) {
            Some(url) => Endpoint::Url(url.to_owned()),
            None => Endpoint::Service {
                namespace: text(&["service", "namespace"]),
                name: text(&["service", "name"]),
                path: text(&["service", "path"]),
                port: config
                    .i64_at(&["service", "port"])
                    .and_then(|p| u16::try_from(p).ok())
                    .unwrap_or(DEFAULT_SERVICE_PORT),
            },
        };
        let versions = webhook.items_at(&["conversionReviewVersions"]);
        let known = versions.iter().filter_map(Value::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
        Webhook {
            client,
            target: Target::new(endpoint, base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default()),
            review_version: known.unwrap_or("v1").to_owned(),
        }
    }

    async fn call(&self, objects: &[Value], to: &str) -> Result<Vec<Value>, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let mut request = Map::new();
        request.insert("uid", uid.as_str());
        request.insert("desiredAPIVersion", to);
        request.insert("objects", objects.to_vec());
        let api_version = format!("apiextensions.k8s.io/{}", self.review_version);
        let mut review = Map::new();
        review.insert("kind", "ConversionReview");
        review.insert("apiVersion", api_version.as_str());
        review.insert("request", request);
        let mut body = Vec::new();
        ironkeel_codec::encode_json(&Value::Object(review), &mut body);
        let timeout = Duration::from_secs(TIMEOUT_SECONDS);
        let answer = self.client.post(&self.target, Bytes::from(body), timeout).await.map_err(|e| e.to_string())?;
        let answer = ironkeel_codec::parse_json(&answer).map_err(|e| e.to_string())?;
        let found = (answer.str_at(&["apiVersion"]), answer.str_at(&["kind"]));
        if found != (Some(&api_version), Some("ConversionReview")) {
            let (version, kind) = (found.0.unwrap_or_default(), found.1.unwrap_or_default());
            return Err(format!(
                "expected webhook response of {api_version}, Kind=ConversionReview, got {version}, Kind={kind}"
            ));
        }
        let Some(response) = answer.get("response").filter(|r| !r.is_null()) else {
            return Err("no response provided".to_owned());
        };
        let answered = response.str_at(&["uid"]).unwrap_or_default();
        if answered != uid && self.review_version == "v1" {
            return Err(format!("expected response.uid={uid:?}, got {answered:?}"));
        }
        let status = response.str_at(&["result", "status"]).unwrap_or_default();
        if status != "Success" {
            let message = response.str_at(&["result", "message"]).unwrap_or_default();
            if message.is_empty() {
                return Err(format!("response.result.status was '{status}', not 'Success'"));
            }
            return Err(message.to_owned());
        }
        Ok(response.items_at(&["convertedObjects"]).to_vec())
    }
}

#[async_trait]
impl Converter for Webhook {
    async fn convert(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError> {
        let about = objects.first().map(of_kind).unwrap_or_default();
        let failed =
            |why: String| ApiError::new(Reason::InternalError, format!("conversion webhook for {about} {why}"));
        let differ: Vec<Value> = objects.iter().filter(|o| o.str_at(&["apiVersion"]) != Some(to)).cloned().collect();
        if differ.is_empty() {
            return Ok(objects);
        }
        let converted = self.call(&differ, to).await.map_err(|e| failed(format!("failed: {e}")))?;
        if converted.len() != differ.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), differ.len())));
        }
        let mut converted = converted.into_iter().enumerate();
        let mut out = Vec::with_capacity(objects.len());
        for original in objects {
            if original.str_at(&["apiVersion"]) == Some(to) {
                out.push(original);
                continue;
            }
            let Some((i, mut new)) = converted.next() else { break };
            let invalid = |why: String| failed(format!("returned invalid converted object at index {i}: {why}"));
            let found = new.str_at(&["apiVersion"]).unwrap_or_default();
            if found != to {
                return Err(invalid(format!("invalid groupVersion (expected {to}, received {found})")));
            }
            let (kind, wanted) =
                (new.str_at(&["kind"]).unwrap_or_default(), original.str_at(&["kind"]).unwrap_or_default());
            if kind != wanted {
                return Err(invalid(format!("invalid kind (expected {wanted}, received {kind})")));
            }
            same_identity(&original, &new).map_err(&invalid)?;
            restore_metadata(&original, &mut new)
                .map_err(|why| failed(format!("returned invalid metadata in object at index {i}: {why}")))?;
            out.push(new);
        }
        Ok(out)
    }
}

/// `stable.example.com/v1, Kind=CronTab`.
fn of_kind(object: &Value) -> String {
    format!(
        "{}, Kind={}",
        object.str_at(&["apiVersion"]).unwrap_or_default(),
        object.str_at(&["kind"]).unwrap_or_default()
    )
}

fn same_identity(original: &Value, converted: &Value) -> Result<(), String> {
    for (what, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let (e, a) = (original.meta_str(field), converted.meta_str(field));
        if e != a {
            return Err(format!("must have the same {what}: {e} != {a}"));
        }
    }
    Ok(())
}

/// A webhook may change labels and annotations; the rest of the metadata stays.
fn restore_metadata(original: &Value, converted: &mut Value) -> Result<(), String> {
    let Some(meta) = converted.get("metadata") else { return Err("missing metadata in converted object".to_owned()) };
    let Some(meta) = meta.as_object() else {
        return Err(format!("invalid metadata of type {} in converted object", meta.type_name()));
    };
    let mut kept = original.meta().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match meta.get(field) {
            None | Some(Value::Null) => _ = kept.remove(field),
            Some(Value::Object(m)) => {
                if let Some((k, v)) = m.iter().find(|(_, v)| v.as_str().is_none()) {
                    return Err(format!(
                        "metadata.{field}[{k}] must be a string, but is {} in converted object",
                        v.type_name()
                    ));
                }
                kept.insert(field, m.clone());
            }
            Some(v) => {
                return Err(format!("invalid metadata.{field} of type {} in converted object", v.type_name()));
            }
        }
    }
    if let Some(m) = converted.as_object_mut() {
        m.insert("metadata", kept);
    }
    Ok(())
}
