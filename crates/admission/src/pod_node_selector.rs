//! PodNodeSelector: a namespace's annotation, or the cluster's default, says on which nodes its Pods may
//! run; a list by namespace says what Pods may ask for besides.

use std::collections::BTreeMap;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes};

use crate::{Cluster, creates_pod};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// `a=b,c=d` as labels.
fn parse(selector: &str) -> Result<Labels, ApiError> {
    let mut out = Labels::new();
    for part in selector.split(',').filter(|_| !selector.is_empty()) {
        let mut sides = part.split('=');
        let (Some(key), Some(value), None) = (sides.next(), sides.next(), sides.next()) else {
            let parts: Vec<&str> = part.split('=').collect();
            return Err(crate::unreasoned(format!("invalid selector: [{}]", parts.join(" "))));
        };
        out.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(out)
}

fn of_namespace(c: &Cluster, settings: &BTreeMap<String, String>, name: &str) -> Result<Labels, ApiError> {
    let namespace = c.get("", "namespaces", "", name).ok_or_else(|| ApiError::not_found("", "namespaces", name))?;
    match namespace.annotation(ANNOTATION) {
        Some(own) => parse(own),
        None => parse(settings.get(CLUSTER_DEFAULT).map_or("", String::as_str)),
    }
}

fn asked(pod: &Value) -> Labels {
    let members = pod.at(&["spec", "nodeSelector"]).and_then(Value::as_object).into_iter().flat_map(|m| m.iter());
    members.map(|(k, v)| (k.to_string(), v.as_str().unwrap_or_default().to_owned())).collect()
}

pub(crate) fn mutate(
    c: &Cluster,
    settings: &BTreeMap<String, String>,
    a: &Attributes<'_>,
    pod: &mut Value,
) -> Result<(), ApiError> {
    if !creates_pod(a) {
        return Ok(());
    }
    validate(c, settings, a, pod, false)?;
    let mut all = of_namespace(c, settings, a.namespace)?;
    all.extend(asked(pod));
    if !all.is_empty() {
        let members: ironkeel_object::Map = all.into_iter().map(|(k, v)| (k, Value::from(v))).collect();
        *pod.slot(&["spec", "nodeSelector"]) = members.into();
    }
    validate(c, settings, a, pod, true)
}

/// That what a Pod asks for agrees with its namespace, and (`listed`) with the namespace's list.
pub(crate) fn validate(
    c: &Cluster,
    settings: &BTreeMap<String, String>,
    a: &Attributes<'_>,
    pod: &Value,
    listed: bool,
) -> Result<(), ApiError> {
    if !creates_pod(a) {
        return Ok(());
    }
    let (namespace, asked) = (of_namespace(c, settings, a.namespace)?, asked(pod));
    let refused = |why: &str| Err(ApiError::forbidden("", "pods", pod.name(), why));
    if asked.iter().any(|(k, v)| namespace.get(k).is_some_and(|own| own != v)) {
        return refused("pod node label selector conflicts with its namespace node label selector");
    }
    let allowed = parse(settings.get(a.namespace).map_or("", String::as_str))?;
    if listed && !allowed.is_empty() && asked.iter().any(|(k, v)| allowed.get(k) != Some(v)) {
        return refused("pod node label selector labels conflict with its namespace whitelist");
    }
    Ok(())
}
