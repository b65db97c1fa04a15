//! The AdmissionReview that is sent, and what must be true of the one that comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{Attributes, Cause, Details};

use super::hook::ReviewVersion;
use crate::attributes::{options_value, request_kind, resource_value, user_value};
use crate::matching::{View, namespace_of};

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim()).ok()
}

/// A request for one webhook.
pub(super) struct Body<'a> {
    pub(super) a: &'a Attributes<'a>,
    pub(super) view: &'a View,
    pub(super) object: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
    pub(super) version: ReviewVersion,
}

impl Body<'_> {
    /// The uid of the request, and its bytes.
    pub(super) fn encode(&self) -> (String, Vec<u8>) {
        let a = self.a;
        let uid = uuid::Uuid::new_v4().to_string();
        let about = self.object.or(self.old);
        let mut r = Map::new();
        r.insert("uid", uid.as_str());
        r.insert("kind", request_kind(a, self.view.row(a), about));
        r.insert("resource", resource_value(self.view.row(a)));
        r.insert("requestKind", request_kind(a, a.row, about));
        r.insert("requestResource", resource_value(a.row));
        if !a.subresource.is_empty() {
            r.insert("subResource", a.subresource);
            r.insert("requestSubResource", a.subresource);
        }
        for (key, text) in [("name", a.name), ("namespace", namespace_of(a))] {
            if !text.is_empty() {
                r.insert(key, text);
            }
        }
        r.insert("operation", a.operation.as_str());
        r.insert("userInfo", user_value(a));
        r.insert("object", self.object.cloned());
        r.insert("oldObject", self.old.cloned());
        r.insert("dryRun", a.dry_run);
        r.insert("options", options_value(a));
        let mut review = Map::new();
        review.insert("apiVersion", self.version.api_version());
        review.insert("kind", "AdmissionReview");
        review.insert("request", r);
        let mut bytes = Vec::with_capacity(2048);
        ironkeel_codec::encode_json(&Value::Object(review), &mut bytes);
        (uid, bytes)
    }
}

/// What a webhook answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    /// The decoded JSON patch; none where nothing is to change.
    pub(super) patch: Option<Result<Value, String>>,
    pub(super) patch_type: String,
    pub(super) status: Option<Value>,
}

impl Answer {
    /// Reads and checks an answer; the error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8], uid: &str, version: ReviewVersion, mutating: bool) -> Result<Self, String> {
        let review = ironkeel_codec::parse_json(bytes)
            .map_err(|e| format!("failed to call webhook: couldn't get version/kind; json parse error: {e}"))?;
        let invalid = |why: String| format!("received invalid webhook response: {why}");
        let response = match review.get("response") {
            Some(r @ Value::Object(_)) => r,
            _ => return Err(invalid("webhook response was absent".into())),
        };
        let strict = version == ReviewVersion::V1;
        if strict {
            let got = response.str_at(&["uid"]).unwrap_or_default();
            if got != uid {
                return Err(invalid(format!("expected response.uid={uid:?}, got {got:?}")));
            }
            let gvk = review.gvk();
            if (gvk.group.as_str(), gvk.version.as_str(), gvk.kind.as_str())
                != ("admission.k8s.io", "v1", "AdmissionReview")
            {
                let shown = format!("{}/{}, Kind={}", gvk.group, gvk.version, gvk.kind);
                let wanted = "admission.k8s.io/v1, Kind=AdmissionReview";
                return Err(invalid(format!("expected webhook response of {wanted}, got {shown}")));
            }
        }
        let patch = response.str_at(&["patch"]).filter(|p| !p.is_empty());
        let patch_type = response.str_at(&["patchType"]);
        if strict && mutating {
            match (patch, patch_type) {
                (Some(_), None) => {
                    return Err(invalid("webhook returned response.patch but not response.patchType".into()));
                }
                (None, Some(_)) => {
                    return Err(invalid("webhook returned response.patchType but not response.patch".into()));
                }
                (Some(_), Some("")) => {
                    return Err(invalid("webhook returned invalid response.patchType of \"\"".into()));
                }
                _ => {}
            }
        } else if strict {
            if patch.is_some() {
                return Err(invalid("validating webhook may not return response.patch".into()));
            }
            if patch_type.is_some() {
                return Err(invalid("validating webhook may not return response.patchType".into()));
            }
        }
        let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
        let patch = patch.filter(|_| mutating).map(|text| {
            let bytes = from_base64(text).ok_or_else(|| undecodable("illegal base64 data".into()))?;
            match ironkeel_codec::parse_json(&bytes) {
                Ok(Value::Array(operations)) => Ok(Value::Array(operations)),
                Ok(other) => Err(undecodable(format!(
                    "json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
                    other.type_name()
                ))),
                Err(e) => Err(undecodable(e.to_string())),
            }
        });
        let texts = response.get("auditAnnotations").and_then(Value::as_object);
        Ok(Answer {
            allowed: response.get("allowed").and_then(Value::as_bool) == Some(true),
            annotations: texts
                .into_iter()
                .flat_map(Map::iter)
                .filter_map(|(k, v)| Some((k.to_string(), v.as_str()?.to_owned())))
                .collect(),
            warnings: crate::matching::texts(response, "warnings"),
            patch,
            patch_type: if strict { patch_type.unwrap_or_default().to_owned() } else { "JSONPatch".into() },
            status: response.get("status").filter(|s| !s.is_null()).cloned(),
        })
    }
}

/// `Status.details` as a webhook gave them.
pub(super) fn details(value: &Value) -> Option<Details> {
    value.as_object()?;
    let text = |v: &Value, key: &str| v.str_at(&[key]).unwrap_or_default().to_owned();
    Some(Details {
        name: text(value, "name"),
        group: text(value, "group"),
        kind: text(value, "kind"),
        uid: text(value, "uid"),
        causes: value
            .items_at(&["causes"])
            .iter()
            .map(|c| Cause { reason: text(c, "reason"), message: text(c, "message"), field: text(c, "field") })
            .collect(),
        retry_after_seconds: value.i64_at(&["retryAfterSeconds"]).unwrap_or(0),
    })
}
