//! Rules for a `PodSpec`, in a Pod or in a template. Defaults stand in `pod_template`, rules for a
//! Pod's change in `core::pod_update`.

pub(crate) mod containers;
mod env;
mod handlers;
mod projections;
pub(crate) mod scheduling;
mod security;
pub(crate) mod storage_sources;
mod volumes;
mod windows;

use std::collections::HashMap;

use ironkeel_object::Value;

use crate::error::{Errors, shown};
use crate::repeats::repeated;
use crate::{Path, names, resources, selector};

pub(crate) use scheduling::{node_selector, taint_effect, tolerations};

/// Where a pod spec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Template,
}

/// Absent and null are the same.
pub(crate) fn present<'a>(v: &'a Value, member: &str) -> Option<&'a Value> {
    v.get(member).filter(|x| !x.is_null())
}

/// A non-empty string.
pub(crate) fn string<'a>(v: &'a Value, member: &str) -> Option<&'a str> {
    v.get(member).and_then(Value::as_str).filter(|s| !s.is_empty())
}

/// One of several words: `Required` when empty, `Unsupported` when another.
pub(crate) fn one_of(v: &Value, member: &str, allowed: &[&str], path: &Path, e: &mut Errors) {
    match string(v, member) {
        None => e.required(&path.child(member), ""),
        Some(s) if !allowed.contains(&s) => e.not_supported(&path.child(member), s, allowed),
        Some(_) => {}
    }
}

/// What the rules of a container ask of the pod around it.
pub(crate) struct Surroundings<'a> {
    pub(crate) spec: &'a Value,
    pub(crate) place: Place,
    /// Names of well-formed volumes.
    pub(crate) volumes: HashMap<&'a str, &'a Value>,
}

impl<'a> Surroundings<'a> {
    /// Of a spec whose volumes were found good before.
    pub(crate) fn trusted(spec: &'a Value, place: Place) -> Self {
        Surroundings { spec, place, volumes: by_name(spec.items_at(&["volumes"])) }
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&'a Value> {
        self.volumes.get(name).copied()
    }

    fn flag(&self, member: &str) -> Option<bool> {
        self.spec.get(member).and_then(Value::as_bool)
    }

    pub(crate) fn host_users(&self) -> bool {
        self.flag("hostUsers") != Some(false)
    }

    /// Names of the pod's resource claims, sorted, without repeats.
    pub(crate) fn claim_names(&self) -> Vec<&'a str> {
        let list = self.spec.items_at(&["resourceClaims"]);
        let mut all: Vec<&str> = list.iter().filter_map(|c| string(c, "name")).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Volumes by their names, the first of each.
fn by_name<'a>(volumes: impl IntoIterator<Item = &'a Value>) -> HashMap<&'a str, &'a Value> {
    let mut all = HashMap::new();
    for v in volumes {
        if let Some(name) = v.str_at(&["name"]) {
            all.entry(name).or_insert(v);
        }
    }
    all
}

/// Every rule of a pod spec. `pod_name` is empty in a template.
pub(crate) fn validate(spec: &Value, pod_name: &str, path: &Path, place: Place, e: &mut Errors) {
    let at = |f: &str| path.child(f);
    if present(spec, "terminationGracePeriodSeconds").is_none() {
        e.required(&at("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::validate(spec.items_at(&["volumes"]), pod_name, place, &at("volumes"), e);
    let around = Surroundings { spec, place, volumes: by_name(volumes) };
    claims(spec, &at("resourceClaims"), e);
    containers::validate(&around, path, e);
    if let Some(r) = present(spec, "resources") {
        pod_resources(&around, r, &at("resources"), e);
    }
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, e);
    one_of(spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], path, e);
    selector::labels(spec.get("nodeSelector"), &at("nodeSelector"), e);
    security::validate_pod(spec, path, e);
    scheduling::validate_affinity(spec.get("affinity"), &at("affinity"), e);
    dns_config(spec, &at("dnsConfig"), e);
    windows::host_process(spec, path, e);
    host_users(&around, path, e);
    containers::file_keys(spec, path, e);
    if let Some(g) = spec.get("schedulingGroup").filter(|g| !g.is_null()) {
        let at = at("schedulingGroup").child("podGroupName");
        match g.str_at(&["podGroupName"]) {
            None => e.invalid(&at, Value::Null, "must specify one of: `podGroupName`"),
            Some(name) => e.invalid_each(&at, name, names::subdomain(name)),
        }
    }
    for (i, g) in spec.items_at(&["readinessGates"]).iter().enumerate() {
        let kind = g.str_at(&["conditionType"]).unwrap_or_default();
        e.invalid_each(&at("readinessGates").index(i).child("conditionType"), kind, names::qualified(kind));
    }
    let gates = spec.items_at(&["schedulingGates"]);
    let twice = repeated(gates, "name");
    for (i, g) in gates.iter().enumerate() {
        let name = g.str_at(&["name"]).unwrap_or_default();
        e.invalid_each(&at("schedulingGates").index(i), name, names::qualified(name));
        if twice[i] {
            e.duplicate(&at("schedulingGates").index(i), name);
        }
    }
    scheduling::spread(spec.items_at(&["topologySpreadConstraints"]), &at("topologySpreadConstraints"), e);
    for (field, rule) in [
        ("serviceAccountName", names::subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
    ] {
        if let Some(s) = string(spec, field) {
            e.invalid_each(&at(field), s, rule(s));
        }
    }
    if let Some(c) = spec.str_at(&["runtimeClassName"]) {
        e.invalid_each(&at("runtimeClassName"), c, names::subdomain(c));
    }
    if let Some(d) = spec.i64_at(&["activeDeadlineSeconds"]) {
        for m in names::in_range(d, 1, i64::from(i32::MAX)) {
            e.invalid(&at("activeDeadlineSeconds"), d, &m);
        }
    }
    hostname_override(spec, path, e);
    tolerations(spec.items_at(&["tolerations"]), &at("tolerations"), e);
    for (i, a) in spec.items_at(&["hostAliases"]).iter().enumerate() {
        let at = at("hostAliases").index(i);
        let ip = a.str_at(&["ip"]).unwrap_or_default();
        e.invalid_each(&at.child("ip"), ip, names::ip(ip));
        for (j, h) in a.items_at(&["hostnames"]).iter().enumerate() {
            let h = h.as_str().unwrap_or_default();
            e.invalid_each(&at.child("hostnames").index(j), h, names::subdomain(h));
        }
    }
    if present(spec, "preemptionPolicy").is_some() {
        one_of(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], path, e);
    }
    if let Some(o) = spec.get("overhead").and_then(Value::as_object) {
        resources::validate_overhead(o, &at("overhead").child("limits"), e);
    }
    windows::operating_system(spec, path, e);
}

/// The pod's own requests and limits, beside its containers'.
fn pod_resources(around: &Surroundings<'_>, r: &Value, at: &Path, e: &mut Errors) {
    if around.spec.str_at(&["os", "name"]) == Some("windows") {
        e.forbidden(at, "may not be set for a windows pod");
        return;
    }
    if r.get("claims").is_some_and(|c| !c.is_null()) {
        e.forbidden(&at.child("claims"), "claims may not be set for Resources at pod-level");
    }
    resources::validate(r, resources::Owner::Pod, &around.claim_names(), at, e);
    resources::validate_shares(around.spec, r, at, e);
}

fn host_users(around: &Surroundings<'_>, path: &Path, e: &mut Errors) {
    if around.host_users() {
        return;
    }
    let text = "when `hostUsers` is false";
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if around.flag(field) == Some(true) {
            e.forbidden(&path.child(shown), text);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, c) in around.spec.items_at(&[list]).iter().enumerate() {
            if !c.items_at(&["volumeDevices"]).is_empty() {
                e.forbidden(&path.child(list).index(i).child("volumeDevices"), text);
            }
        }
    }
}

fn claims(spec: &Value, path: &Path, e: &mut Errors) {
    let list = spec.items_at(&["resourceClaims"]);
    let twice = repeated(list, "name");
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        match string(c, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) if twice[i] => e.duplicate(&at.child("name"), n),
            Some(n) => e.invalid_each(&at.child("name"), n, names::label(n)),
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let member = |f: &str| shown(c.get(f).unwrap_or(&Value::Null));
        let whole = || {
            format!(
                "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
                shown(&c.str_at(&["name"]).unwrap_or_default().into()),
                member(sources[0]),
                member(sources[1])
            )
        };
        match sources.iter().filter(|s| present(c, s).is_some()).count() {
            0 => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                e.invalid_as(&at, &whole(), text);
            }
            2 => {
                let text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                e.invalid_as(&at, &whole(), text);
            }
            _ => {}
        }
        for s in sources {
            if let Some(n) = c.str_at(&[s]) {
                e.invalid_each(&at.child(s), n, names::subdomain(n));
            }
        }
    }
}

fn hostname_override(spec: &Value, path: &Path, e: &mut Errors) {
    let Some(name) = spec.str_at(&["hostnameOverride"]) else { return };
    let at = path.child("hostnameOverride");
    let flag = |f: &str| spec.get(f).and_then(Value::as_bool).unwrap_or(false);
    if flag("setHostnameAsFQDN") {
        e.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
    }
    if flag("hostNetwork") {
        e.forbidden(&at, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        e.too_long(&at, 64);
    }
    e.invalid_each(&at, name, names::subdomain(name));
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_MAX_BYTES: usize = 2048;

fn dns_config(spec: &Value, path: &Path, e: &mut Errors) {
    let none = spec.str_at(&["dnsPolicy"]) == Some("None");
    let Some(c) = present(spec, "dnsConfig") else {
        if none {
            e.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = c.items_at(&["nameservers"]);
    if none && servers.is_empty() {
        let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        e.required(&path.child("nameservers"), text);
        return;
    }
    if servers.len() > NAMESERVERS_MAX {
        let text = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        e.invalid(&path.child("nameservers"), servers.to_vec(), &text);
    }
    for (i, s) in servers.iter().enumerate() {
        let s = s.as_str().unwrap_or_default();
        e.invalid_each(&path.child("nameservers").index(i), s, names::ip(s));
    }
    let searches = c.items_at(&["searches"]);
    if searches.len() > SEARCHES_MAX {
        let text = format!("must not have more than {SEARCHES_MAX} search paths");
        e.invalid(&path.child("searches"), searches.to_vec(), &text);
    }
    let bytes: usize = searches.iter().filter_map(Value::as_str).map(|s| s.len() + 1).sum();
    if bytes > SEARCHES_MAX_BYTES + 1 {
        let text =
            format!("must not have more than {SEARCHES_MAX_BYTES} characters (including spaces) in the search list");
        e.invalid(&path.child("searches"), searches.to_vec(), &text);
    }
    for (i, s) in searches.iter().enumerate() {
        let s = s.as_str().unwrap_or_default();
        if s != "." {
            let s = s.strip_suffix('.').unwrap_or(s);
            e.invalid_each(&path.child("searches").index(i), s, names::subdomain_with_underscore(s));
        }
    }
    for (i, o) in c.items_at(&["options"]).iter().enumerate() {
        if string(o, "name").is_none() {
            e.required(&path.child("options").index(i), "must not be empty");
        }
    }
}
