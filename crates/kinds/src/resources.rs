//! Requests and limits: names of resources, quantities, and the pod's quality of service.

use std::collections::BTreeMap;

use ironkeel_object::Quantity;
use ironkeel_object::Value;

use crate::error::Errors;
use crate::{Path, names, print};

/// A quantity of the tree: canonical text, or a number as some clients write it.
pub(crate) fn quantity(value: Option<&Value>) -> Option<Quantity> {
    Quantity::parse(&print::scalar(value)).ok()
}

fn is_standard_container_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// Overcommit is a matter of the kubelet's own resources only.
fn may_overcommit(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}

fn validate_name(name: &str, path: &Path, e: &mut Errors) {
    let before = names::qualified(name);
    let fine = before.is_empty();
    e.invalid_each(path, name, before);
    if fine && !name.contains('/') && !is_standard_container_resource(name) {
        e.invalid(path, name, "must be a standard resource for containers");
        e.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    if fine && name.contains('/') && !name.contains("kubernetes.io/") && name.starts_with("requests.") {
        e.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// One quantity: not negative; whole where the resource is counted.
pub(crate) fn validate_quantity(name: &str, value: Option<&Value>, path: &Path, e: &mut Errors) {
    let text = print::scalar(value);
    let Ok(q) = Quantity::parse(&text) else {
        e.invalid(
            path,
            text,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
        return;
    };
    if q.signum() < 0 {
        e.invalid(path, text.as_str(), "must be greater than or equal to 0");
    }
    let counted = matches!(name, "pods" | "services" | "replicationcontrollers" | "resourcequotas" | "secrets")
        || (name.contains('/') && !name.contains("kubernetes.io/"))
        || name.starts_with("hugepages-");
    if counted && q.milli_value() % 1000 != 0 {
        e.invalid(path, text, "must be an integer");
    }
}

/// `ResourceRequirements` of a container or a pod.
pub(crate) fn validate(requirements: &Value, path: &Path, e: &mut Errors) {
    let map = |f: &str| requirements.get(f).and_then(Value::as_object);
    let at = |f: &str| path.child(f);
    let mut cpu_or_memory = false;
    let mut huge = false;
    for f in ["limits", "requests"] {
        for (name, value) in map(f).into_iter().flat_map(|m| m.iter()) {
            validate_name(name, &at(f), e);
            validate_quantity(name, Some(value), &at(f).key(name), e);
            cpu_or_memory |= matches!(name.as_ref(), "cpu" | "memory");
            huge |= name.starts_with("hugepages-");
        }
    }
    for (name, request) in map("requests").into_iter().flat_map(|m| m.iter()) {
        let limit = requirements.at(&["limits", name]);
        let key = at("requests");
        let (Some(r), Some(l)) = (quantity(Some(request)), quantity(limit)) else {
            if limit.is_none() && !may_overcommit(name) {
                e.required(&at("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        if r != l && !may_overcommit(name) {
            e.invalid(
                &key,
                print::scalar(Some(request)),
                &format!("must be equal to {name} limit of {}", print::scalar(limit)),
            );
        } else if r > l {
            let text = format!("must be less than or equal to {name} limit of {}", print::scalar(limit));
            e.invalid(&key, print::scalar(Some(request)), &text);
        }
    }
    if huge && !cpu_or_memory {
        e.forbidden(path, "HugePages require cpu or memory");
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, c) in requirements.items_at(&["claims"]).iter().enumerate() {
        let name = c.str_at(&["name"]).unwrap_or_default();
        let at = path.child("claims").index(i);
        if name.is_empty() {
            e.required(&at.child("name"), "");
        } else if seen.contains(&name) {
            e.duplicate(&at, name);
        }
        seen.push(name);
    }
}

/// The pod's class, from cpu and memory of all containers (or the pod's own resources).
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    let own = pod.at(&["spec", "resources"]).filter(|r| !r.is_empty());
    let holders: Vec<&Value> = match own {
        Some(r) => vec![r],
        None => ["containers", "initContainers"]
            .iter()
            .flat_map(|l| pod.items_at(&["spec", l]))
            .map(|c| &c["resources"])
            .collect(),
    };
    for r in holders {
        let mut limited = 0;
        for name in ["cpu", "memory"] {
            if let Some(q) = quantity(r.at(&["requests", name])).filter(|q| !q.is_zero()) {
                let sum = requests.remove(name).map_or_else(|| q, |have| have + q);
                requests.insert(name, sum);
            }
            if let Some(q) = quantity(r.at(&["limits", name])).filter(|q| !q.is_zero()) {
                limited += 1;
                let sum = limits.remove(name).map_or_else(|| q, |have| have + q);
                limits.insert(name, sum);
            }
        }
        guaranteed &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let same = requests.len() == limits.len() && requests.iter().all(|(k, v)| limits.get(k) == Some(v));
    if guaranteed && same { "Guaranteed" } else { "Burstable" }
}
