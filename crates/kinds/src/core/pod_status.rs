//! What a write of a Pod's status may say: addresses, claims, the health of devices, and that what ended for good
//! stays ended.

use std::collections::HashMap;

use ironkeel_object::Value;

use crate::error::Errors;
use crate::repeats::{repeated_by, texts};
use crate::{Path, equality, names, pod_spec, status};

/// Rules for the status of `o`, which was `old` before.
pub(super) fn validate(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("status");
    if !equality::same(o.at(&["spec", "nodeName"]), old.at(&["spec", "nodeName"])) {
        e.forbidden(&Path::new("status").child("nodeName"), "may not be changed directly");
    }
    for (i, c) in o.items_at(&["status", "conditions"]).iter().enumerate() {
        let kind = c.str_at(&["type"]).unwrap_or_default();
        e.invalid_each(&at.child("conditions").index(i).child("Type"), kind, names::qualified(kind));
    }
    let nominated = |v: &Value| v.str_at(&["status", "nominatedNodeName"]).unwrap_or_default().to_owned();
    if !nominated(o).is_empty() && nominated(o) != nominated(old) {
        let path = at.child("nominatedNodeName");
        e.invalid_each(&path, &nominated(o), names::subdomain(&nominated(o)));
        if old.str_at(&["spec", "nodeName"]).is_some_and(|n| !n.is_empty()) {
            e.forbidden(&path, "may not be set on pods that are already bound to a node");
        }
    }
    if let Some(g) = o.i64_at(&["status", "observedGeneration"]).filter(|g| *g < 0) {
        e.invalid(&at.child("observedGeneration"), g, "must be a non-negative integer");
    }
    status::addresses(o, "podIPs", e);
    if let Some(first) = o.items_at(&["status", "hostIPs"]).first() {
        let ip = first.str_at(&["ip"]).unwrap_or_default();
        if o.str_at(&["status", "hostIP"]).unwrap_or_default() != ip {
            e.invalid(&at.child("hostIPs").index(0).child("ip"), ip, "must be equal to `hostIP`");
        }
        status::addresses(o, "hostIPs", e);
    }
    let claims = texts(o.items_at(&["spec", "resourceClaims"]), "name");
    for (i, c) in o.items_at(&["status", "resourceClaimStatuses"]).iter().enumerate() {
        let name = c.str_at(&["name"]).unwrap_or_default();
        if !claims.contains(name) {
            let text = "must match the name of an entry in `spec.resourceClaims`";
            e.invalid(&at.child("resourceClaimStatuses").index(i).child("name"), name, text);
        }
    }
    extended_claim(o, &at.child("extendedResourceClaimStatus"), e);
    for (statuses, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        allocated_resources(o, statuses, containers, &at.child(statuses), e);
    }
    let class = |v: &Value| v.str_at(&["status", "qosClass"]).unwrap_or_default().to_owned();
    if !class(old).is_empty() && class(o) != class(old) {
        e.invalid(&at.child("qosClass"), class(o), "field is immutable");
    }
    for (statuses, containers) in LISTS {
        ended_for_good(o, old, statuses, containers, &at.child(statuses), e);
        users(o, statuses, &at.child(statuses), e);
    }
}

/// Lists of statuses, and of the containers that they are of.
const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// Whether a container that ended with this code starts again.
fn restarts(container: &Value, pod: &Value, code: i64) -> bool {
    let by_policy = |policy: &str| match policy {
        "Never" => Some(false),
        "OnFailure" => Some(code != 0),
        "Always" => Some(true),
        _ => None,
    };
    let matched = |r: &&Value| {
        let listed = r.items_at(&["exitCodes", "values"]).iter().any(|v| v.as_i64() == Some(code));
        match r.str_at(&["exitCodes", "operator"]) {
            Some("In") => listed,
            Some("NotIn") => !listed,
            _ => false,
        }
    };
    if let Some(own) = pod_spec::string(container, "restartPolicy") {
        let rule = container.items_at(&["restartPolicyRules"]).iter().find(matched);
        if rule.is_some_and(|r| r.str_at(&["action"]) == Some("Restart")) {
            return true;
        }
        if let Some(restarts) = by_policy(own) {
            return restarts;
        }
    }
    by_policy(pod.str_at(&["restartPolicy"]).unwrap_or_default()).unwrap_or(true)
}

/// A container that ended for good does not come back.
fn ended_for_good(o: &Value, old: &Value, statuses: &str, containers: &str, at: &Path, e: &mut Errors) {
    let pod = &old["spec"];
    let all = ["containers", "initContainers"].iter().flat_map(|l| pod.items_at(&[l]));
    let mut rules = all.flat_map(|c| c.items_at(&["restartPolicyRules"]));
    if containers != "ephemeralContainers" && rules.any(|r| r.str_at(&["action"]) == Some("RestartAllContainers")) {
        return;
    }
    let name = |v: &Value| v.str_at(&["name"]).unwrap_or_default().to_owned();
    let ended = |s: &Value| s.at(&["state", "terminated"]).filter(|t| !t.is_null()).cloned();
    let mut now: HashMap<String, &Value> = HashMap::new();
    for s in o.items_at(&["status", statuses]) {
        now.entry(name(s)).or_insert(s);
    }
    let mut known: HashMap<String, &Value> = HashMap::new();
    for c in pod.items_at(&[containers]) {
        known.entry(name(c)).or_insert(c);
    }
    for (i, s) in old.items_at(&["status", statuses]).iter().enumerate() {
        let Some(end) = ended(s) else { continue };
        if now.get(&name(s)).is_none_or(|n| ended(n).is_some()) {
            continue;
        }
        let code = end.i64_at(&["exitCode"]).unwrap_or(0);
        let ephemeral = containers == "ephemeralContainers";
        if ephemeral || !known.get(&name(s)).is_some_and(|c| restarts(c, pod, code)) {
            e.forbidden(&at.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Who a container's first process runs as.
fn users(o: &Value, statuses: &str, at: &Path, e: &mut Errors) {
    let windows = o.str_at(&["spec", "os", "name"]) == Some("windows");
    for (i, s) in o.items_at(&["status", statuses]).iter().enumerate() {
        let Some(user) = s.at(&["user", "linux"]).filter(|u| !u.is_null()) else { continue };
        let at = at.index(i).child("user").child("linux");
        if windows {
            e.forbidden(&at, "cannot be set for a windows pod");
            continue;
        }
        let mut check = |id: Option<&Value>, at: &Path| {
            let id = id.and_then(Value::as_i64).unwrap_or(0);
            names::unix_id(id).iter().for_each(|m| e.invalid(at, id, m));
        };
        check(user.get("uid"), &at.child("uid"));
        check(user.get("gid"), &at.child("gid"));
        for (g, group) in user.items_at(&["supplementalGroups"]).iter().enumerate() {
            check(Some(group), &at.child("supplementalGroups").index(g));
        }
    }
}

/// The claim that was made for a pod's extended resources: which of them each request stands for.
fn extended_claim(o: &Value, at: &Path, e: &mut Errors) {
    let Some(status) = o.at(&["status", "extendedResourceClaimStatus"]).filter(|s| !s.is_null()) else { return };
    let text = |v: &Value, f: &str| v.str_at(&[f]).unwrap_or_default().to_owned();
    let path = at.child("requestMappings");
    let mappings = status.items_at(&["requestMappings"]);
    if mappings.is_empty() {
        e.required(&path, "at least one request mapping is required");
    }
    let mut containers: HashMap<String, &Value> = HashMap::new();
    for list in ["initContainers", "containers"] {
        containers.extend(o.items_at(&["spec", list]).iter().map(|c| (text(c, "name"), c)));
    }
    const PARTS: [&str; 3] = ["containerName", "resourceName", "requestName"];
    let twice = repeated_by(mappings, |m| PARTS.map(|f| text(m, f)));
    for (i, m) in mappings.iter().enumerate() {
        let here = path.index(i);
        let (container, resource, request) = (text(m, PARTS[0]), text(m, PARTS[1]), text(m, PARTS[2]));
        match containers.get(&container) {
            None => {
                let why = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                e.invalid(&here.child(PARTS[0]), container.as_str(), why);
            }
            Some(c) if c.at(&["resources", "requests", &resource]).is_none() => {
                let why = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                e.invalid(&here.child(PARTS[1]), resource.as_str(), why);
            }
            Some(_) => {}
        }
        e.invalid_each(&at.child(PARTS[2]), &request, names::label(&request));
        if twice[i] {
            PARTS.iter().zip([container, resource, request]).for_each(|(f, v)| e.duplicate(&here.child(f), v));
        }
    }
    match text(status, "resourceClaimName").as_str() {
        "" => e.required(&at.child("resourceClaimName"), ""),
        name => e.invalid_each(&at.child("resourceClaimName"), name, names::subdomain(name)),
    }
}

const HEALTH: &[&str] = &["Healthy", "Unhealthy", "Unknown"];
const HEALTH_MESSAGE_MAX_BYTES: usize = 1024;

/// The health of the devices that a container was given: of resources and claims that it asked for.
fn allocated_resources(o: &Value, statuses: &str, containers: &str, path: &Path, e: &mut Errors) {
    let text = |v: &Value, f: &str| v.str_at(&[f]).unwrap_or_default().to_owned();
    let known: HashMap<String, &Value> =
        o.items_at(&["spec", containers]).iter().rev().map(|c| (text(c, "name"), c)).collect();
    for (i, s) in o.items_at(&["status", statuses]).iter().enumerate() {
        for (j, a) in s.items_at(&["allocatedResourcesStatus"]).iter().enumerate() {
            let at = path.index(i).child("allocatedResourcesStatus").index(j);
            let name = text(a, "name");
            // A container that is not there is no fault of the status.
            if let Some(c) = known.get(&text(s, "name")) {
                let claim = |c: &Value| match pod_spec::string(c, "request") {
                    Some(r) => format!("claim:{}/{r}", text(c, "name")),
                    None => format!("claim:{}", text(c, "name")),
                };
                let (asked, why) = if name.starts_with("claim:") {
                    let any = c.items_at(&["resources", "claims"]).iter().any(|c| claim(c) == name);
                    (
                        any,
                        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
                    )
                } else {
                    let any = c.at(&["resources", "requests", &name]).is_some();
                    (any, "must match one of the container's resource requests")
                };
                if !asked {
                    e.invalid(&at.child("name"), name, why);
                }
            }
            let devices = a.items_at(&["resources"]);
            let twice = repeated_by(devices, |d| text(d, "resourceID"));
            for (k, d) in devices.iter().enumerate() {
                let at = at.child("resources").index(k);
                let health = text(d, "health");
                if !HEALTH.contains(&health.as_str()) {
                    e.not_supported(&at.child("health"), health, HEALTH);
                }
                match d.str_at(&["message"]) {
                    Some("") => e.required(&at.child("message"), "must be non-empty if specified"),
                    Some(m) if m.len() > HEALTH_MESSAGE_MAX_BYTES => {
                        e.too_long(&at.child("message"), HEALTH_MESSAGE_MAX_BYTES);
                    }
                    _ => {}
                }
                if twice[k] {
                    e.duplicate(&at.child("resourceID"), text(d, "resourceID"));
                }
            }
        }
    }
}
