//! PodTolerationRestriction: Pods tolerate what their namespace says, besides what they say themselves,
//! and no more than their namespace's list allows.

use ironkeel_object::{ObjectMeta, Quantity, Value, object};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;
use crate::configuration::PluginSettings;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

fn about_pod(a: &Attributes<'_>) -> bool {
    a.is("", "pods") && matches!(a.operation, Operation::Create | Operation::Update)
}

/// The tolerations in a namespace's annotation; none where it has no such annotation.
fn listed(c: &Cluster, namespace: &str, annotation: &str) -> Result<Option<Vec<Value>>, ApiError> {
    let namespace =
        c.get("", "namespaces", "", namespace).ok_or_else(|| ApiError::not_found("", "namespaces", namespace))?;
    let Some(text) = namespace.annotation(annotation) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let tree = ironkeel_codec::parse_json(text.as_bytes()).map_err(|e| crate::unreasoned(e.to_string()))?;
    match tree {
        Value::Array(list) => Ok(Some(list.to_vec())),
        Value::Null => Ok(Some(Vec::new())),
        other => Err(crate::unreasoned(format!(
            "json: cannot unmarshal {} into Go value of type []v1.Toleration",
            other.type_name()
        ))),
    }
}

/// Whether a Pod asks for no cpu and no memory at all.
fn best_effort(pod: &Value) -> bool {
    let asks = |v: &Value| {
        ["requests", "limits"].iter().any(|kind| {
            let amount = |name: &&str| {
                let text = v.str_at(&["resources", kind, name]).unwrap_or_default();
                Quantity::parse(text).is_ok_and(|q| q > Quantity::from_value(0))
            };
            ["cpu", "memory"].iter().any(amount)
        })
    };
    let containers = ["containers", "initContainers"];
    !asks(&pod["spec"]) && !containers.iter().flat_map(|l| pod.items_at(&["spec", l])).any(asks)
}

fn text<'v>(t: &'v Value, field: &str) -> &'v str {
    t.str_at(&[field]).unwrap_or_default()
}

/// Whether `wide` tolerates all that `t` does.
fn covers(wide: &Value, t: &Value) -> bool {
    if wide == t {
        return true;
    }
    let any_key = text(wide, "key").is_empty() && text(wide, "operator") == "Exists";
    let (effect, seconds) = (text(wide, "effect"), wide.i64_at(&["tolerationSeconds"]));
    let key = any_key || text(wide, "key") == text(t, "key");
    if !key || !(effect.is_empty() || effect == text(t, "effect")) {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = seconds
        && t.i64_at(&["tolerationSeconds"]).is_none_or(|s| s > most)
    {
        return false;
    }
    match text(wide, "operator") {
        "Equal" | "" => text(t, "operator") == "Equal" && text(wide, "value") == text(t, "value"),
        "Exists" => true,
        _ => false,
    }
}

/// All tolerations without those that another one covers.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::with_capacity(all.len());
    for (i, t) in all.iter().enumerate() {
        let before = out.iter().any(|wide| covers(wide, t));
        let after = all[i + 1..].iter().any(|wide| wide != t && covers(wide, t));
        if !before && !after {
            out.push(t.clone());
        }
    }
    out
}

pub(crate) fn mutate(
    c: &Cluster,
    settings: &PluginSettings,
    a: &Attributes<'_>,
    pod: &mut Value,
) -> Result<(), ApiError> {
    if !about_pod(a) {
        return Ok(());
    }
    let mut extra = Vec::new();
    if a.operation == Operation::Create {
        extra = listed(c, a.namespace, DEFAULTS)?.unwrap_or_else(|| settings.default_tolerations.clone());
    }
    if !best_effort(pod) {
        let pressure = object!({
            "key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule",
        });
        extra.push(pressure);
    }
    if !extra.is_empty() {
        let mut all = pod.items_at(&["spec", "tolerations"]).to_vec();
        all.extend(extra);
        *pod.slot(&["spec", "tolerations"]) = merged(&all).into();
    }
    validate(c, settings, a, pod)
}

pub(crate) fn validate(
    c: &Cluster,
    settings: &PluginSettings,
    a: &Attributes<'_>,
    pod: &Value,
) -> Result<(), ApiError> {
    let own = pod.items_at(&["spec", "tolerations"]);
    if !about_pod(a) || own.is_empty() {
        return Ok(());
    }
    let (allowed, whose) = match listed(c, a.namespace, ALLOWED)? {
        Some(list) => (list, "namespace"),
        None => (settings.allowed_tolerations.clone(), "cluster"),
    };
    let fits = |t: &Value| allowed.iter().any(|wide| covers(wide, t));
    if allowed.is_empty() || own.iter().all(fits) {
        return Ok(());
    }
    Err(crate::unreasoned(format!(
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its {whose} whitelist"
    )))
}
