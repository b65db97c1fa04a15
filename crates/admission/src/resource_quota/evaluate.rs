//! What one object counts as, by the names that a quota limits, and which objects a quota with scopes
//! sees. Answers to upstream's `pkg/quota/v1/evaluator/core`.
//!
//! A name is counted from objects of one resource. Devices that claims ask for are limited by
//! `<class>.deviceclass.resource.k8s.io/devices` alone; `requests.deviceclass.resource.kubernetes.io/<class>`, and
//! `requests.` with the extended resource of a class, limit what Pods ask for. Upstream adds to the latter two the
//! claims that no Pod's request stands for, where the class has an extended resource; we do not.

use ironkeel_object::{ObjectMeta, Quantity, Value};
use ironkeel_registry::qualified;

use crate::usage::{Amounts, add, pod_resources, raise};

/// Group and plural of claims of devices.
const CLAIMS: (&str, &str) = ("resource.k8s.io", "resourceclaims");
/// Most devices of one allocation; what "All" may come to.
const ALLOCATION_MAX_DEVICES: i64 = 32;

/// Whether objects of a resource differ in what they count as; of others only the number counts.
pub(super) fn weighs(group: &str, plural: &str) -> bool {
    (group.is_empty() && matches!(plural, "pods" | "persistentvolumeclaims" | "services")) || (group, plural) == CLAIMS
}

fn one() -> Quantity {
    Quantity::from_value(1)
}

/// What an object counts as, by quota resource name.
pub(super) fn usage_of(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut out = Amounts::new();
    out.insert(format!("count/{}", qualified(group, plural)), one());
    if group == CLAIMS.0 && plural == CLAIMS.1 {
        for request in object.items_at(&["spec", "devices", "requests"]) {
            add(&mut out, &devices(request));
        }
    }
    if group.is_empty() {
        match plural {
            "pods" => {
                out.insert("pods".to_owned(), one());
                let finished = matches!(object.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"));
                if finished {
                    out.remove("pods");
                    return out;
                }
                for (name, q) in pod_resources(object, "requests") {
                    let native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
                    if native || name.starts_with("hugepages-") {
                        out.insert(name.clone(), q);
                    }
                    // Other resources of Kubernetes' own are not counted; extended ones are, by requests alone.
                    if native || name.contains('/') || name.starts_with("hugepages-") {
                        out.insert(format!("requests.{name}"), q);
                    }
                }
                for (name, q) in pod_resources(object, "limits") {
                    if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                        out.insert(format!("limits.{name}"), q);
                    }
                }
            }
            "persistentvolumeclaims" => {
                out.insert("persistentvolumeclaims".to_owned(), one());
                let amount = |path: &[&str]| object.str_at(path).and_then(|t| Quantity::parse(t).ok());
                let wanted = amount(&["spec", "resources", "requests", "storage"]);
                // What a growing volume was given already counts, even when less is asked for again.
                let given = amount(&["status", "allocatedResources", "storage"]);
                let size = wanted.map(|w| whole(given.filter(|g| *g > w).unwrap_or(w)));
                let class = object
                    .annotation("volume.beta.kubernetes.io/storage-class")
                    .or_else(|| object.str_at(&["spec", "storageClassName"]))
                    .filter(|c| !c.is_empty())
                    .map(|c| format!("{c}.storageclass.storage.k8s.io"));
                if let Some(class) = &class {
                    out.insert(format!("{class}/persistentvolumeclaims"), one());
                }
                if let Some(q) = size {
                    out.insert("requests.storage".to_owned(), q);
                    if let Some(class) = &class {
                        out.insert(format!("{class}/requests.storage"), q);
                    }
                }
            }
            "services" => {
                out.insert("services".to_owned(), one());
                match object.str_at(&["spec", "type"]) {
                    Some("NodePort") => _ = out.insert("services.nodeports".to_owned(), ports(object)),
                    Some("LoadBalancer") => {
                        out.insert("services.loadbalancers".to_owned(), one());
                        let allocates = object.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool);
                        let counted = if allocates == Some(false) { chosen_ports(object) } else { ports(object) };
                        out.insert("services.nodeports".to_owned(), counted);
                    }
                    _ => {}
                }
            }
            "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
                out.insert(plural.to_owned(), one());
            }
            _ => {}
        }
    }
    out
}

/// Whole bytes, rounded up.
fn whole(q: Quantity) -> Quantity {
    if q.milli_value() % 1000 == 0 { q } else { Quantity::from_value(q.value()) }
}

/// The devices that one request of a claim may come to hold, by class; of alternatives the most of each.
fn devices(request: &Value) -> Amounts {
    let asked = |of: &Value| {
        let count = match of.str_at(&["allocationMode"]) {
            Some("ExactCount") => of.i64_at(&["count"]).unwrap_or(0),
            Some("All") => ALLOCATION_MAX_DEVICES,
            _ => 0,
        };
        let class = of.str_at(&["deviceClassName"]).unwrap_or_default();
        Amounts::from([(format!("{class}.deviceclass.resource.k8s.io/devices"), Quantity::from_value(count))])
    };
    let mut out = Amounts::new();
    match request.get("exactly").filter(|e| !e.is_null()) {
        Some(exactly) => out = asked(exactly),
        None => request.items_at(&["firstAvailable"]).iter().for_each(|of| raise(&mut out, &asked(of))),
    }
    out
}

fn ports(service: &Value) -> Quantity {
    Quantity::from_value(service.items_at(&["spec", "ports"]).len() as i64)
}

/// Ports with a node port of their own.
fn chosen_ports(service: &Value) -> Quantity {
    let chosen = |p: &&Value| p.i64_at(&["nodePort"]).unwrap_or(0) != 0;
    Quantity::from_value(service.items_at(&["spec", "ports"]).iter().filter(chosen).count() as i64)
}

/// Whether one selector of a scope means this value; an empty value is none.
fn selects(e: &Value, values: &[&str]) -> bool {
    let values: Vec<&str> = values.iter().copied().filter(|v| !v.is_empty()).collect();
    let listed = e.items_at(&["values"]).iter().any(|v| v.as_str().is_some_and(|v| values.contains(&v)));
    match e.str_at(&["operator"]).unwrap_or_default() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !values.is_empty(),
        "DoesNotExist" => values.is_empty(),
        _ => false,
    }
}

/// Whether no container asks for processors or memory.
fn best_effort(pod: &Value) -> bool {
    let asks = |part: &str| {
        let amounts = pod_resources(pod, part);
        ["cpu", "memory"].iter().any(|r| amounts.get(*r).is_some_and(|q| *q > Quantity::from_value(0)))
    };
    !asks("requests") && !asks("limits")
}

/// Whether a Pod's affinity looks into other namespaces.
fn crosses_namespaces(pod: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let crosses = |term: &Value| {
        !term.items_at(&["namespaces"]).is_empty() || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][*kind];
        affinity.items_at(&[REQUIRED]).iter().any(crosses)
            || affinity.items_at(&[PREFERRED]).iter().any(|p| crosses(&p["podAffinityTerm"]))
    })
}

/// Whether a quota's scopes let it see this Pod or claim; other objects are seen by scopeless quotas
/// alone.
pub(super) fn in_scope(quota: &Value, plural: &str, object: &Value) -> bool {
    let scopes: Vec<&str> = quota.items_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
    let expressions = quota.items_at(&["spec", "scopeSelector", "matchExpressions"]);
    if scopes.is_empty() && expressions.is_empty() {
        return true;
    }
    let nothing = Value::Null;
    if plural == "persistentvolumeclaims" {
        let classes = [
            object.str_at(&["spec", "volumeAttributesClassName"]).unwrap_or_default(),
            object.str_at(&["status", "currentVolumeAttributesClassName"]).unwrap_or_default(),
            object.str_at(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]).unwrap_or_default(),
        ];
        return scopes.iter().all(|s| *s == "VolumeAttributesClass" && classes.iter().any(|c| !c.is_empty()))
            && expressions
                .iter()
                .all(|e| e.str_at(&["scopeName"]) == Some("VolumeAttributesClass") && selects(e, &classes));
    }
    if plural != "pods" {
        return false;
    }
    let terminating = object.i64_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|s| s >= 0);
    let class = object.str_at(&["spec", "priorityClassName"]).unwrap_or_default();
    let sees = |scope: &str, e: &Value| match scope {
        "BestEffort" => best_effort(object),
        "NotBestEffort" => !best_effort(object),
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "PriorityClass" if e.is_null() => !class.is_empty(),
        "PriorityClass" => selects(e, &[class]),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    };
    scopes.iter().all(|s| sees(s, &nothing))
        && expressions.iter().all(|e| sees(e.str_at(&["scopeName"]).unwrap_or_default(), e))
}
