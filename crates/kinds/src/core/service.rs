//! Service: types, ports, addresses. Cluster IPs and node ports are allocated by the registry,
//! between `prepare_create` and `validate`; here is what needs no allocator.

use std::collections::{HashMap, HashSet};

use ironkeel_object::Value;

use crate::error::Errors;
use crate::names::NameRule;
use crate::repeats::{identity, repeated_whole};
use crate::structural::Depth;
use crate::{Path, TableContext, core::service_cells, names, rules, selector, strategy};

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
        if accessible && blank(spec.get("externalTrafficPolicy")) {
            spec.insert("externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" && blank(spec.get("internalTrafficPolicy")) {
            spec.insert("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" && spec.get("allocateLoadBalancerNodePorts").is_none_or(Value::is_null) {
            spec.insert("allocateLoadBalancerNodePorts", true);
        }
        if kind == "LoadBalancer" {
            let status = o.get_mut("status").and_then(|s| s.get_mut("loadBalancer")).and_then(|l| l.get_mut("ingress"));
            for i in status.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
                if !blank(i.get("ip")) && blank(i.get("ipMode")) {
                    i.insert("ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "loadBalancer"]) = Value::object();
        first_cluster_ip(o);
    }

    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource.is_none() {
            follow_cluster_ip(o, old);
            keep_allocated(o, old);
            first_cluster_ip(o);
            drop_by_type(o, old);
        }
    }

    fn validate(&self, o: &Value, e: &mut Errors) {
        validate(o, e);
    }

    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            let at = Path::new("status").child("loadBalancer").child("ingress");
            let list = o.items_at(&["status", "loadBalancer", "ingress"]);
            if !list.is_empty() && o.str_at(&["spec", "type"]) != Some("LoadBalancer") {
                e.forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'");
            } else {
                crate::status::load_balancer(o, true, e);
            }
        }
        if subresource.is_some() {
            return;
        }
        let kind = |v: &Value| v.str_at(&["spec", "type"]).unwrap_or_default().to_owned();
        let first = |v: &Value| v.items_at(&["spec", "clusterIPs"]).first().cloned();
        if kind(old) != "ExternalName"
            && kind(o) != "ExternalName"
            && let (Some(before), Some(now)) = (first(old), first(o))
            && before != now
        {
            let at = Path::new("spec").child("clusterIPs").index(0);
            e.invalid(&at, o.at(&["spec", "clusterIPs"]).cloned().unwrap_or_default(), "may not change once set");
        }
        let health = |v: &Value| v.i64_at(&["spec", "healthCheckNodePort"]);
        if needs_health_check(o) && needs_health_check(old) && health(o) != health(old) {
            e.forbidden(&Path::new("spec").child("healthCheckNodePort"), "field is immutable");
        }
        if kind(o) == "LoadBalancer" && kind(old) == "LoadBalancer" {
            let class = |v: &Value| v.at(&["spec", "loadBalancerClass"]).filter(|c| !c.is_null()).cloned();
            if class(o) != class(old) {
                let at = Path::new("spec").child("loadBalancerClass");
                e.invalid(&at, class(o).unwrap_or_default(), "may not change once set");
            }
        }
    }

    fn depth(&self) -> Depth {
        Depth::Enums
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

fn needs_health_check(o: &Value) -> bool {
    o.str_at(&["spec", "type"]) == Some("LoadBalancer") && o.str_at(&["spec", "externalTrafficPolicy"]) == Some("Local")
}

/// `clusterIP` is the first of `clusterIPs`; an old client sets the one only.
fn first_cluster_ip(o: &mut Value) {
    let single = o.str_at(&["spec", "clusterIP"]).unwrap_or_default().to_owned();
    let listed = o.items_at(&["spec", "clusterIPs"]).len();
    if !single.is_empty() && listed == 0 {
        *o.slot(&["spec", "clusterIPs"]) = vec![single].into();
    }
}

/// A client that changes `clusterIP` alone means the first of `clusterIPs`.
fn follow_cluster_ip(o: &mut Value, old: &Value) {
    let single = |v: &Value| v.str_at(&["spec", "clusterIP"]).unwrap_or_default().to_owned();
    let now = single(o);
    let listed = o.items_at(&["spec", "clusterIPs"]);
    if now.is_empty() || now == single(old) || listed.is_empty() || listed != old.items_at(&["spec", "clusterIPs"]) {
        return;
    }
    if let Some(first) = o.slot(&["spec", "clusterIPs"]).as_array_mut().and_then(|l| l.first_mut()) {
        *first = now.into();
    }
}

/// An update that leaves out what was allocated keeps it, as long as the type still needs it.
fn keep_allocated(o: &mut Value, old: &Value) {
    let kind = |v: &Value| v.str_at(&["spec", "type"]).unwrap_or_default().to_owned();
    let (now, before) = (kind(o), kind(old));
    let has_ip = |k: &str| matches!(k, "ClusterIP" | "NodePort" | "LoadBalancer");
    let has_node_port = |k: &str| matches!(k, "NodePort" | "LoadBalancer");
    if has_ip(&now) && has_ip(&before) {
        let (single, list) =
            (o.str_at(&["spec", "clusterIP"]).unwrap_or_default(), o.items_at(&["spec", "clusterIPs"]));
        if single.is_empty() && list.is_empty() {
            for f in ["clusterIP", "clusterIPs"] {
                if let Some(v) = old.at(&["spec", f]).cloned() {
                    *o.slot(&["spec", f]) = v;
                }
            }
        }
        for f in ["ipFamilies", "ipFamilyPolicy"] {
            if o.at(&["spec", f]).is_none_or(Value::is_empty)
                && let Some(v) = old.at(&["spec", f]).cloned()
            {
                *o.slot(&["spec", f]) = v;
            }
        }
    }
    if has_node_port(&now) && has_node_port(&before) {
        let mut had: HashMap<(String, String), &Value> = HashMap::new();
        for h in old.items_at(&["spec", "ports"]) {
            had.entry((identity(&h["port"]), identity(&h["protocol"]))).or_insert(h);
        }
        let mut used: HashSet<i64> =
            o.items_at(&["spec", "ports"]).iter().filter_map(|p| p.i64_at(&["nodePort"])).collect();
        let ports = o.get_mut("spec").and_then(|s| s.get_mut("ports")).and_then(Value::as_array_mut);
        for p in ports.into_iter().flatten() {
            if p.i64_at(&["nodePort"]).unwrap_or(0) != 0 {
                continue;
            }
            let same = had.get(&(identity(&p["port"]), identity(&p["protocol"])));
            if let Some(n) = same.and_then(|h| h.i64_at(&["nodePort"])).filter(|n| !used.contains(n)) {
                used.insert(n);
                *p.slot(&["nodePort"]) = n.into();
            }
        }
    }
    if needs_health_check(o)
        && needs_health_check(old)
        && o.i64_at(&["spec", "healthCheckNodePort"]).unwrap_or(0) == 0
        && let Some(v) = old.at(&["spec", "healthCheckNodePort"]).cloned()
    {
        *o.slot(&["spec", "healthCheckNodePort"]) = v;
    }
}

/// Fields that only a former type had go with it, unless the client changed them itself.
fn drop_by_type(o: &mut Value, old: &Value) {
    let kind = o.str_at(&["spec", "type"]).unwrap_or_default().to_owned();
    let was = old.str_at(&["spec", "type"]).unwrap_or_default().to_owned();
    let drop = |o: &mut Value, fields: &[&str]| {
        let unchanged: Vec<&str> =
            fields.iter().copied().filter(|f| o.at(&["spec", f]) == old.at(&["spec", f])).collect();
        if let Some(spec) = strategy::spec(o) {
            for f in unchanged {
                spec.remove(f);
            }
        }
    };
    if kind == "ExternalName" && was != "ExternalName" {
        drop(o, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if kind != "ExternalName" && was == "ExternalName" {
        drop(o, &["externalName"]);
    }
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") && matches!(was.as_str(), "NodePort" | "LoadBalancer") {
        let had: HashSet<String> = old.items_at(&["spec", "ports"]).iter().map(|h| identity(&h["nodePort"])).collect();
        let ports = o.get_mut("spec").and_then(|s| s.get_mut("ports")).and_then(Value::as_array_mut);
        for p in ports.into_iter().flatten() {
            if had.contains(&identity(&p["nodePort"]))
                && let Some(m) = p.as_object_mut()
            {
                m.remove("nodePort");
            }
        }
        if o.items_at(&["spec", "externalIPs"]).is_empty() {
            drop(o, &["externalTrafficPolicy"]);
        }
    }
    if was == "LoadBalancer" && kind != "LoadBalancer" {
        drop(o, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if needs_health_check(old) && !needs_health_check(o) {
        drop(o, &["healthCheckNodePort"]);
    }
}

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

fn validate(o: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
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
                if s.get(f).is_some_and(|v| !v.is_empty()) {
                    e.forbidden(&spec.child(f), "may not be set for ExternalName services");
                }
            }
            let name = s.str_at(&["externalName"]).unwrap_or_default().trim_end_matches('.');
            if name.is_empty() {
                e.required(&spec.child("externalName"), "");
            } else {
                e.invalid_each(&spec.child("externalName"), name, names::subdomain(name));
            }
        }
        "" => e.required(&spec.child("type"), ""),
        k if !TYPES.contains(&k) => e.not_supported(&spec.child("type"), k, TYPES),
        _ => {}
    }
    validate_ports(ports, kind, &spec.child("ports"), e);
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
        validate_addresses(s, headless, &spec, e);
    }
    for (i, ip) in s.items_at(&["externalIPs"]).iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        e.invalid_each(&spec.child("externalIPs").index(i), ip, names::ip(ip));
    }
    let ranges = s.items_at(&["loadBalancerSourceRanges"]);
    let at = spec.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && kind != "LoadBalancer" {
        e.forbidden(&at, "may only be used when `type` is 'LoadBalancer'");
    }
    for (i, r) in ranges.iter().enumerate() {
        let r = r.as_str().unwrap_or_default().trim();
        e.invalid_each(&at.index(i), r, names::cidr(r));
    }
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

fn validate_traffic(o: &Value, s: &Value, kind: &str, spec: &Path, e: &mut Errors) {
    let accessible = matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !s.items_at(&["externalIPs"]).is_empty());
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
    }
    match s.str_at(&["internalTrafficPolicy"]).unwrap_or_default() {
        "" if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") => {
            e.required(&spec.child("internalTrafficPolicy"), "");
        }
        "" | "Cluster" | "Local" => {}
        p => e.not_supported(&spec.child("internalTrafficPolicy"), p, &["Cluster", "Local"]),
    }
    const DISTRIBUTION: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(d) = s.str_at(&["trafficDistribution"]).filter(|d| !DISTRIBUTION.contains(d)) {
        e.not_supported(&spec.child("trafficDistribution"), d, DISTRIBUTION);
    }
}

fn validate_ports(ports: &[Value], kind: &str, path: &Path, e: &mut Errors) {
    let (mut seen_names, mut seen_node_ports, mut seen_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
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
        let node_port = p.i64_at(&["nodePort"]).unwrap_or(0);
        if kind == "ClusterIP" && node_port != 0 {
            e.forbidden(&at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let spoken = p.str_at(&["protocol"]);
        if node_port != 0 && !seen_node_ports.insert((spoken, node_port)) {
            e.duplicate(&at.child("nodePort"), node_port);
        }
        if !seen_ports.insert((spoken, port)) {
            let mut key = ironkeel_object::Map::new();
            key.insert("port", port);
            key.insert("protocol", p["protocol"].clone());
            e.duplicate(&at, key);
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

fn validate_addresses(s: &Value, headless: bool, spec: &Path, e: &mut Errors) {
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
    for (i, ip) in list.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if i == 0 && ip == "None" {
            if list.len() > 1 {
                e.invalid(&at, shown(), "'None' must be the first and only value");
            }
            continue;
        }
        e.invalid_each(&at.index(i), ip, names::ip(ip));
        let family = families.get(i).and_then(Value::as_str).unwrap_or_default();
        let is_v6 = ip.contains(':');
        if !headless && (family == "IPv4" && is_v6 || family == "IPv6" && !is_v6) {
            e.invalid(&at.index(i), ip, &format!("expected an {family} value as indicated by `ipFamilies[{i}]`"));
        }
    }
    if list.len() > 2 {
        e.invalid(&at, shown(), "may only hold up to 2 values");
    }
    if list.len() == 2 && list.iter().filter(|v| v.as_str().is_some_and(|s| s.contains(':'))).count() != 1 {
        e.invalid(&at, shown(), "may specify no more than one IP for each IP family");
    }
}
