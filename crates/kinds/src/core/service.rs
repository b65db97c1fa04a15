//! Service: types, ports, addresses. Cluster IPs and node ports are allocated by the registry,
//! between `prepare_create` and `validate`; here is what needs no allocator.

use std::collections::HashSet;

use ironkeel_object::{ObjectMeta, Value};

use crate::core::endpoints::endpoint_ip;
use crate::error::Errors;
use crate::names::NameRule;
use crate::pod_spec::present;
use crate::repeats::repeated_whole;
use crate::structural::Depth;
use crate::{
    FieldError, Path, TableContext, core::service_cells, core::service_update, names, rules, selector, strategy,
};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        let blank = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        for (field, value) in [("sessionAffinity", "None"), ("type", "ClusterIP")] {
            if blank(spec.get(field)) {
                spec.insert(field, value);
            }
        }
        if spec.str("sessionAffinity") == Some("None") {
            spec.remove("sessionAffinityConfig");
        } else if spec.str("sessionAffinity") == Some("ClientIP") {
            let client = spec.object("sessionAffinityConfig").object("clientIP");
            if client.get("timeoutSeconds").is_none_or(Value::is_null) {
                client.insert("timeoutSeconds", 10800_i64);
            }
        }
        for p in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(p) = p.as_object_mut() else { continue };
            if blank(p.get("protocol")) {
                p.insert("protocol", "TCP");
            }
            if blank(p.get("targetPort")) || p.get("targetPort").and_then(Value::as_i64) == Some(0) {
                let port = p.get("port").cloned().unwrap_or_else(|| 0_i64.into());
                p.insert("targetPort", port);
            }
        }
        let kind = spec.str("type").unwrap_or_default().to_owned();
        let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|a| !a.is_empty());
        let accessible = matches!(kind.as_str(), "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && external_ips);
        let absent = |v: Option<&Value>| v.is_none_or(Value::is_null);
        if accessible && blank(spec.get("externalTrafficPolicy")) {
            spec.insert("externalTrafficPolicy", "Cluster");
        }
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer")
            && absent(spec.get("internalTrafficPolicy"))
        {
            spec.insert("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" && absent(spec.get("allocateLoadBalancerNodePorts")) {
            spec.insert("allocateLoadBalancerNodePorts", true);
        }
        if kind == "LoadBalancer" {
            let status = o.get_mut("status").and_then(|s| s.get_mut("loadBalancer")).and_then(|l| l.get_mut("ingress"));
            for i in status.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
                if !blank(i.get("ip")) && absent(i.get("ipMode")) {
                    i.insert("ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "loadBalancer"]) = Value::object();
        service_update::drop_internal_policy(o);
        service_update::first_address(o);
    }

    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource.is_none() {
            service_update::follow(o, old);
        }
    }

    fn validate(&self, o: &Value, e: &mut Errors) {
        validate(o, &Value::Null, e);
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }

    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            let at = Path::new("status").child("loadBalancer").child("ingress");
            let list = o.items_at(&["status", "loadBalancer", "ingress"]);
            if !list.is_empty() && o.str_at(&["spec", "type"]) != Some("LoadBalancer") {
                e.forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'");
            } else {
                crate::status::load_balancer(o, old, true, e);
            }
        }
        if subresource.is_none() {
            service_update::validate(o, old, e);
            validate(o, old, e);
        }
    }

    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn columns(&self) -> &'static str {
        "service"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        service_cells::cells(o, c)
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        match path {
            "spec.clusterIP" => Some(o.str_at(&["spec", "clusterIP"]).unwrap_or_default().to_owned()),
            "spec.type" => Some(o.str_at(&["spec", "type"]).unwrap_or_default().to_owned()),
            _ => None,
        }
    }
}

pub(crate) fn headless(o: &Value) -> bool {
    let ips = o.items_at(&["spec", "clusterIPs"]);
    ips.len() == 1 && ips[0].as_str() == Some("None")
        || ips.is_empty() && o.str_at(&["spec", "clusterIP"]) == Some("None")
}

pub(super) fn needs_health_check(o: &Value) -> bool {
    o.str_at(&["spec", "type"]) == Some("LoadBalancer") && o.str_at(&["spec", "externalTrafficPolicy"]) == Some("Local")
}

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// Rules for a Service that was `old` before (null: it is new). What was accepted once stays, however it is written.
fn validate(o: &Value, old: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
    let annotations = Path::new("metadata").child("annotations");
    if let (Some(mode), Some(hints)) = (o.annotation(TOPOLOGY_MODE), o.annotation(TOPOLOGY_HINTS))
        && mode != hints
    {
        let text = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        e.invalid(&annotations.key(TOPOLOGY_MODE), mode, &text);
    }
    let s = o.get("spec").unwrap_or(&Value::Null);
    let kind = s.str_at(&["type"]).unwrap_or_default();
    let ports = s.items_at(&["ports"]);
    let headless = headless(o);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        e.required(&spec.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let text = format!("may not be set to 'None' for {kind} services");
            e.invalid(&spec.child("clusterIPs").index(0), "None", &text);
        }
        "ExternalName" => {
            for f in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let set = if f == "ipFamilyPolicy" { present(s, f).is_some() } else { !s.items_at(&[f]).is_empty() };
                if set {
                    e.forbidden(&spec.child(f), "may not be set for ExternalName services");
                }
            }
            let name = s.str_at(&["externalName"]).unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                e.required(&spec.child("externalName"), "");
            } else {
                e.invalid_each(&spec.child("externalName"), name, names::subdomain(name));
            }
        }
        _ => {}
    }
    validate_ports(ports, &spec.child("ports"), e);
    selector::labels(s.get("selector"), &spec.child("selector"), e);
    match s.str_at(&["sessionAffinity"]).unwrap_or_default() {
        "ClientIP" => {
            let at = spec.child("sessionAffinityConfig");
            match s.i64_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]) {
                None => e.required(&at, "when session affinity type is ClientIP"),
                Some(t) if t <= 0 || t > 86400 => {
                    let at = at.child("clientIP").child("timeoutSeconds");
                    e.invalid(&at, t, "must be greater than 0 and less than 86400");
                }
                Some(_) => {}
            }
        }
        "" => e.required(&spec.child("sessionAffinity"), ""),
        "None" => {
            if s.get("sessionAffinityConfig").is_some_and(|c| !c.is_null()) {
                e.forbidden(&spec.child("sessionAffinityConfig"), "must not be set when session affinity is None");
            }
        }
        other => e.not_supported(&spec.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
    if kind != "ExternalName" {
        validate_addresses(s, &old["spec"], headless, &spec, e);
    }
    let known: HashSet<&str> = old.items_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    for (i, ip) in s.items_at(&["externalIPs"]).iter().enumerate() {
        let at = spec.child("externalIPs").index(i);
        let wrong = names::ip(ip.as_str().unwrap_or_default());
        match ip.as_str().unwrap_or_default() {
            ip if wrong.is_empty() => endpoint_ip(ip, true, &at, e),
            text if !known.contains(text) => e.invalid_each(&at, text, wrong),
            _ => {}
        }
    }
    match kind {
        "" => e.required(&spec.child("type"), ""),
        k if !TYPES.contains(&k) => e.not_supported(&spec.child("type"), k, TYPES),
        _ => {}
    }
    repeated_ports(ports, kind, &spec.child("ports"), e);
    source_ranges(o, old, kind, &spec, &annotations, e);
    for f in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if kind != "LoadBalancer" && s.get(f).is_some_and(|v| !v.is_null()) {
            e.forbidden(&spec.child(f), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    if let ("LoadBalancer", Some(c)) = (kind, s.str_at(&["loadBalancerClass"])) {
        e.invalid_each(&spec.child("loadBalancerClass"), c, names::qualified(c));
    }
    validate_traffic(o, s, kind, &spec, e);
}

/// From where a load balancer is reached; an annotation says it for clients from before the field.
fn source_ranges(o: &Value, old: &Value, kind: &str, spec: &Path, annotations: &Path, e: &mut Errors) {
    const ELSEWHERE: &str = "may only be used when `type` is 'LoadBalancer'";
    fn ranges(v: &Value) -> impl Iterator<Item = &str> {
        v.items_at(&["spec", "loadBalancerSourceRanges"]).iter().map(|r| r.as_str().unwrap_or_default().trim())
    }
    let (now, before): (Vec<&str>, HashSet<&str>) = (ranges(o).collect(), ranges(old).collect());
    if !now.is_empty() {
        let at = spec.child("LoadBalancerSourceRanges");
        if kind != "LoadBalancer" {
            e.forbidden(&at, ELSEWHERE);
        }
        for (i, r) in now.iter().enumerate().filter(|(_, r)| !before.contains(**r)) {
            e.invalid_each(&at.index(i), r, names::cidr(r));
        }
    } else if let Some(text) = o.annotation(SOURCE_RANGES) {
        let at = annotations.key(SOURCE_RANGES);
        if kind != "LoadBalancer" {
            e.forbidden(&at, ELSEWHERE);
        }
        if old.annotation(SOURCE_RANGES) != Some(text) && !text.trim().is_empty() {
            for r in text.split(',').map(str::trim) {
                e.invalid_each(&at, r, names::cidr(r));
            }
        }
    }
}

fn validate_traffic(o: &Value, s: &Value, kind: &str, spec: &Path, e: &mut Errors) {
    let accessible = service_update::accessible(o);
    let at = spec.child("externalTrafficPolicy");
    match s.str_at(&["externalTrafficPolicy"]).unwrap_or_default() {
        "" if accessible => e.required(&at, ""),
        "" => {}
        p if !accessible => e.invalid(&at, p, "may only be set for externally-accessible services"),
        p if !matches!(p, "Cluster" | "Local") => e.not_supported(&at, p, &["Cluster", "Local"]),
        _ => {}
    }
    let health = s.i64_at(&["healthCheckNodePort"]).unwrap_or(0);
    if health != 0 && !needs_health_check(o) {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        e.invalid(&spec.child("healthCheckNodePort"), health, text);
    } else if health != 0 {
        for m in names::port_number(health) {
            e.invalid(&spec.child("healthCheckNodePort"), health, &m);
        }
    }
    match s.str_at(&["internalTrafficPolicy"]) {
        None if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") => {
            e.required(&spec.child("internalTrafficPolicy"), "");
        }
        None | Some("Cluster" | "Local") => {}
        Some(p) => e.not_supported(&spec.child("internalTrafficPolicy"), p, &["Cluster", "Local"]),
    }
    const DISTRIBUTION: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(d) = s.str_at(&["trafficDistribution"]).filter(|d| !DISTRIBUTION.contains(d)) {
        e.not_supported(&spec.child("trafficDistribution"), d, DISTRIBUTION);
    }
}

fn validate_ports(ports: &[Value], path: &Path, e: &mut Errors) {
    let mut seen_names = HashSet::new();
    for (i, p) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = p.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                e.required(&at.child("name"), "");
            }
        } else {
            e.invalid_each(&at.child("name"), name, names::label(name));
            if !seen_names.insert(name) {
                e.duplicate(&at.child("name"), name);
            }
        }
        let port = p.i64_at(&["port"]).unwrap_or(0);
        for m in names::port_number(port) {
            e.invalid(&at.child("port"), port, &m);
        }
        protocol(p, &at, e);
        port_or_name(p.get("targetPort"), &at.child("targetPort"), e);
        if let Some(a) = p.str_at(&["appProtocol"]) {
            e.invalid_each(&at.child("appProtocol"), a, names::qualified(a));
        }
    }
}

/// Node ports where there are none, and ports that one protocol has twice.
fn repeated_ports(ports: &[Value], kind: &str, path: &Path, e: &mut Errors) {
    let node_port = |p: &Value| p.i64_at(&["nodePort"]).unwrap_or(0);
    for (i, _) in ports.iter().enumerate().filter(|(_, p)| kind == "ClusterIP" && node_port(p) != 0) {
        e.forbidden(&path.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
    }
    let (mut node_ports, mut plain) = (HashSet::new(), HashSet::new());
    for (i, p) in ports.iter().enumerate().filter(|(_, p)| node_port(p) != 0) {
        if !node_ports.insert((p.str_at(&["protocol"]), node_port(p))) {
            e.duplicate(&path.index(i).child("nodePort"), node_port(p));
        }
    }
    for (i, p) in ports.iter().enumerate() {
        let (protocol, port) = (p.str_at(&["protocol"]).unwrap_or_default(), p.i64_at(&["port"]).unwrap_or(0));
        if !plain.insert((protocol, port)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{port},\"TargetPort\":0,\"NodePort\":0}}",
                crate::error::shown(&protocol.into())
            );
            e.duplicate_as(&path.index(i), &shown, "");
        }
    }
}

/// TCP, UDP or SCTP.
pub(crate) fn protocol(p: &Value, at: &Path, e: &mut Errors) {
    match p.str_at(&["protocol"]).unwrap_or_default() {
        "TCP" | "UDP" | "SCTP" => {}
        "" => e.required(&at.child("protocol"), ""),
        other => e.not_supported(&at.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
    }
}

/// A port by number or by name.
pub(crate) fn port_or_name(port: Option<&Value>, at: &Path, e: &mut Errors) {
    match port {
        Some(Value::String(name)) => e.invalid_each(at, name, names::port_name(name)),
        other => {
            let n = other.and_then(Value::as_i64).unwrap_or(0);
            for m in names::port_number(n) {
                e.invalid(at, n, &m);
            }
        }
    }
}

/// Addresses, their families and the policy that says how many there are; nothing of it for an ExternalName.
fn validate_addresses(s: &Value, old: &Value, headless: bool, spec: &Path, e: &mut Errors) {
    let single = s.str_at(&["clusterIP"]).unwrap_or_default();
    let list = s.items_at(&["clusterIPs"]);
    let at = spec.child("clusterIPs");
    let shown = || s.get("clusterIPs").cloned().unwrap_or_default();
    match (single.is_empty(), list.first()) {
        (false, None) => e.required(&at, ""),
        (false, Some(first)) if first.as_str() != Some(single) => {
            e.invalid(&at, shown(), "first value must match `clusterIP`")
        }
        (true, Some(_)) => e.invalid(&at, shown(), "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let families = s.items_at(&["ipFamilies"]);
    let twice = repeated_whole(families);
    for (i, f) in families.iter().enumerate() {
        let at = spec.child("ipFamilies").index(i);
        let name = f.as_str().unwrap_or_default();
        if !matches!(name, "IPv4" | "IPv6") {
            e.not_supported(&at, name, &["IPv4", "IPv6"]);
        }
        if twice[i] {
            e.duplicate(&at, name);
        }
    }
    const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(p) = s.str_at(&["ipFamilyPolicy"]).filter(|p| !POLICIES.contains(p)) {
        e.not_supported(&spec.child("ipFamilyPolicy"), p, POLICIES);
    }
    let known: HashSet<&str> = old.items_at(&["clusterIPs"]).iter().filter_map(Value::as_str).collect();
    let mut misplaced = false;
    for (i, value) in list.iter().enumerate() {
        let ip = value.as_str().unwrap_or_default();
        if i == 0 && ip == "None" {
            if list.len() > 1 {
                misplaced = true;
                e.invalid(&at, shown(), "'None' must be the first and only value");
            }
            continue;
        }
        let wrong = if known.contains(ip) { Vec::new() } else { names::ip(ip) };
        misplaced |= !wrong.is_empty();
        e.invalid_each(&at.index(i), ip, wrong);
    }
    if list.len() > MAX_ADDRESSES {
        e.invalid(&at, shown(), "may only hold up to 2 values");
    }
    // Of what is no address, the family says nothing.
    if misplaced {
        return;
    }
    let is_v6 = |v: &Value| v.as_str().is_some_and(|s| s.contains(':'));
    if list.len() > 1 && (list.iter().all(is_v6) || !list.iter().any(is_v6)) {
        e.invalid(&at, shown(), "may specify no more than one IP for each IP family");
    }
    for (i, (ip, family)) in list.iter().zip(families).enumerate().filter(|_| !headless) {
        let family = family.as_str().unwrap_or_default();
        if family == "IPv4" && is_v6(ip) || family == "IPv6" && !is_v6(ip) {
            let text = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            e.invalid(&at.index(i), ip.clone(), &text);
        }
    }
}

const MAX_ADDRESSES: usize = 2;

/// What is wrong with a Service's addresses as they are, before any are allocated. Upstream's allocator answers
/// with these alone.
pub fn service_address_errors(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::default();
    let before = old.unwrap_or(&Value::Null);
    validate_addresses(&service["spec"], &before["spec"], headless(service), &Path::new("spec"), &mut e);
    e.into_vec()
}
