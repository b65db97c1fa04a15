//! Requests and limits: names of resources, quantities, and the pod's quality of service.

use std::collections::{BTreeMap, HashSet};

use ironkeel_object::{Map, Quantity, Value};

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

/// Whether a name is one of the API's own resources, not a vendor's.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A vendor's resource: `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified(&format!("requests.{name}")).is_empty()
}

/// Resources that are counted in whole numbers.
fn is_counted(name: &str) -> bool {
    const COUNTED: &[&str] = &[
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    COUNTED.contains(&name) || is_extended(name)
}

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Any resource: qualified, and known where it has no domain. Answers whether it is fine.
pub(crate) fn validate_resource_name(name: &str, path: &Path, e: &mut Errors) -> bool {
    let messages = names::qualified(name);
    if !messages.is_empty() {
        e.invalid_each(path, name, messages);
        return false;
    }
    let known = name.contains('/')
        || STANDARD.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-");
    if !known {
        e.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    known
}

/// A resource of a container.
pub(crate) fn validate_container_resource(name: &str, path: &Path, e: &mut Errors) {
    validate_resource_name(name, path, e);
    if !name.contains('/') {
        if !is_standard_container_resource(name) {
            e.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        e.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// One quantity: not negative; whole where the resource is counted.
pub(crate) fn validate_quantity(name: &str, value: Option<&Value>, path: &Path, e: &mut Errors) {
    let Some(q) = quantity(value) else {
        let text = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        e.invalid(path, print::scalar(value), text);
        return;
    };
    if q.signum() < 0 {
        e.invalid(path, print::scalar(value), "must be greater than or equal to 0");
    }
    if is_counted(name) && q.milli_value() % 1000 != 0 {
        e.invalid(path, print::scalar(value), "must be an integer");
    }
}

fn validate_huge_page(name: &str, value: &Value, path: &Path, e: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-").and_then(|s| Quantity::parse(s).ok()) else { return };
    let Some(q) = quantity(Some(value)) else { return };
    let size = size.value();
    if q.signum() < 0 || size <= 0 || q.value() % size != 0 {
        let text = print::scalar(Some(value));
        e.invalid(path, text.as_str(), &format!("{text} is not positive integer multiple of {name}"));
    }
}

/// `overhead` of a pod or a runtime class.
pub(crate) fn validate_overhead(list: &Map, path: &Path, e: &mut Errors) {
    for (name, value) in list.iter() {
        let at = path.key(name);
        validate_container_resource(name, &at, e);
        validate_quantity(name, Some(value), &at, e);
        validate_huge_page(name, value, &at, e);
    }
}

/// Whose requests and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Container,
    Pod,
}

/// `ResourceRequirements` of a container or a pod; `claims` are the names of the pod's claims.
pub(crate) fn validate(requirements: &Value, owner: Owner, claims: &[&str], path: &Path, e: &mut Errors) {
    let map = |f: &str| requirements.get(f).and_then(Value::as_object);
    let at = |f: &str| path.child(f);
    let mut cpu_or_memory = false;
    let mut huge = false;
    for f in ["limits", "requests"] {
        for (name, value) in map(f).into_iter().flat_map(|m| m.iter()) {
            let at = at(f).key(name);
            match owner {
                Owner::Container => validate_container_resource(name, &at, e),
                Owner::Pod => {
                    if validate_resource_name(name, &at, e)
                        && !matches!(name.as_ref(), "cpu" | "memory")
                        && !name.starts_with("hugepages-")
                    {
                        e.not_supported(&at, name.as_ref(), &["cpu", "hugepages-", "memory"]);
                    }
                }
            }
            validate_quantity(name, Some(value), &at, e);
            cpu_or_memory |= matches!(name.as_ref(), "cpu" | "memory");
            if name.starts_with("hugepages-") {
                huge = true;
                validate_huge_page(name, value, &at, e);
            }
        }
    }
    for (name, request) in map("requests").into_iter().flat_map(|m| m.iter()) {
        let limit = requirements.at(&["limits", name]);
        let (Some(r), Some(l)) = (quantity(Some(request)), quantity(limit)) else {
            if limit.is_none() && !may_overcommit(name) {
                e.required(&at("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let relation = if r != l && !may_overcommit(name) {
            "equal to"
        } else if r > l {
            "less than or equal to"
        } else {
            continue;
        };
        let text = format!("must be {relation} {name} limit of {}", print::scalar(limit));
        e.invalid(&at("requests"), print::scalar(Some(request)), &text);
    }
    if huge && !cpu_or_memory {
        e.forbidden(path, "HugePages require cpu or memory");
    }
    claim_names(requirements.items_at(&["claims"]), claims, &path.child("claims"), e);
}

/// `known` is sorted.
fn claim_names(list: &[Value], known: &[&str], path: &Path, e: &mut Errors) {
    let (mut seen, mut seen_names) = (HashSet::new(), HashSet::new());
    let mut detail: Option<String> = None;
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        let (name, request) = (c.str_at(&["name"]).unwrap_or_default(), c.str_at(&["request"]).unwrap_or_default());
        if name.is_empty() {
            e.required(&at, "");
            continue;
        }
        if seen.contains(&(name, "")) {
            e.duplicate(&at, name);
        } else {
            if !request.is_empty() {
                e.invalid_each(&at.child("request"), request, names::label(request));
                if seen.contains(&(name, request)) {
                    e.duplicate(&at, format!("{name}/{request}"));
                }
            } else if seen_names.contains(name) {
                e.duplicate(&at, name);
            }
        }
        seen.insert((name, request));
        seen_names.insert(name);
        if known.binary_search(&name).is_err() {
            let detail = detail.get_or_insert_with(|| {
                let list =
                    if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
                format!("must be one of the names in pod.spec.resourceClaims{list}")
            });
            e.not_found_because(&at, name, detail);
        }
    }
}

/// The pod's own resources cover its containers'.
pub(crate) fn validate_shares(spec: &Value, own: &Value, path: &Path, e: &mut Errors) {
    let sum = |kind: &str, name: &str| {
        let of = |c: &Value| quantity(c.at(&["resources", kind, name]));
        let running = spec.items_at(&["containers"]).iter().filter_map(of);
        running.reduce(|a, b| a + b)
    };
    for (name, value) in own.get("requests").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        if let (Some(total), Some(q)) = (sum("requests", name), quantity(Some(value)))
            && total > q
        {
            let text = format!("must be greater than or equal to aggregate container requests of {total}");
            e.invalid(&path.child("requests").key(name), print::scalar(Some(value)), &text);
        }
    }
    for (name, value) in own.get("limits").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        let Some(q) = quantity(Some(value)) else { continue };
        if name.starts_with("hugepages-")
            && let Some(total) = sum("limits", name).filter(|t| *t > q)
        {
            let text = format!("must be greater than or equal to aggregate container limits of {total}");
            e.invalid(&path.child("limits").key(name), print::scalar(Some(value)), &text);
        }
        for (i, c) in spec.items_at(&["containers"]).iter().enumerate() {
            let limit = c.at(&["resources", "limits", name]);
            if quantity(limit).is_some_and(|l| l > q) {
                let at = path.child("containers").index(i).key(name).child("limits");
                let text = format!("must be less than or equal to pod limits of {}", print::scalar(Some(value)));
                e.invalid(&at, print::scalar(limit), &text);
            }
        }
    }
}

/// The pod's class, from cpu and memory of all containers (or the pod's own resources).
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    let own = pod.at(&["spec", "resources"]).filter(|r| !r.is_null());
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
