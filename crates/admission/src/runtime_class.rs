//! RuntimeClass: a Pod's overhead and scheduling constraints come from its class.

use ironkeel_object::{Map, Value};
use ironkeel_registry::{ApiError, Attributes};

use crate::Cluster;
use crate::service_account::push;

pub(crate) fn mutate(c: &Cluster, a: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let overhead = |o: &Value, path: &[&str]| o.at(path).filter(|v| !v.is_empty()).cloned();
    let Some(name) = pod.str_at(&["spec", "runtimeClassName"]).map(str::to_owned) else {
        if overhead(pod, &["spec", "overhead"]).is_some() {
            return Err(a.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass Overhead"));
        }
        return Ok(());
    };
    let class = c
        .get("node.k8s.io", "runtimeclasses", "", &name)
        .ok_or_else(|| a.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
    if let Some(wanted) = overhead(&class, &["overhead", "podFixed"]) {
        if overhead(pod, &["spec", "overhead"]).is_some_and(|given| given != wanted) {
            return Err(a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
        *pod.slot(&["spec", "overhead"]) = wanted;
    } else if overhead(pod, &["spec", "overhead"]).is_some() {
        return Err(a.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass Overhead"));
    }
    let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
    for (key, value) in selector.into_iter().flat_map(Map::iter) {
        let slot = pod.slot(&["spec", "nodeSelector"]);
        if slot.as_object().is_none() {
            *slot = Value::object();
        }
        let Some(members) = slot.as_object_mut() else { continue };
        match members.get(key) {
            Some(given) if given != value => {
                return Err(a.forbidden(&format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] and pod.spec.nodeSelector[{key}] differ"
                )));
            }
            _ => members.insert(key.clone(), value.clone()),
        };
    }
    for toleration in class.items_at(&["scheduling", "tolerations"]) {
        if !pod.items_at(&["spec", "tolerations"]).contains(toleration) {
            push(pod.slot(&["spec", "tolerations"]), toleration.clone());
        }
    }
    Ok(())
}

/// That a Pod's overhead is still its class's when webhooks are done.
pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    if !crate::creates_pod(a) {
        return Ok(());
    }
    let wanted = match pod.str_at(&["spec", "runtimeClassName"]) {
        None => None,
        Some(name) => c
            .get("node.k8s.io", "runtimeclasses", "", name)
            .and_then(|class| class.at(&["overhead", "podFixed"]).filter(|v| !v.is_empty()).cloned()),
    };
    if pod.at(&["spec", "overhead"]).filter(|v| !v.is_empty()) == wanted.as_ref() {
        return Ok(());
    }
    Err(a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
}
