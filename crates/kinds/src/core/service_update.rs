//! What an update of a Service keeps of what it was: values that were allocated for it, and fields that its new type
//! has no use for. What may not change of it at all. Allocation itself is the registry's.

use std::collections::{HashMap, HashSet};

use ironkeel_object::Value;

use super::service::{headless, needs_health_check};
use crate::error::Errors;
use crate::{Path, strategy};

fn kind(o: &Value) -> &str {
    o.str_at(&["spec", "type"]).unwrap_or_default()
}

fn external(o: &Value) -> bool {
    kind(o) == "ExternalName"
}

fn has_node_ports(o: &Value) -> bool {
    matches!(kind(o), "NodePort" | "LoadBalancer")
}

/// Whether node ports are given to it unasked.
fn gets_node_ports(o: &Value) -> bool {
    let wanted = o.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool);
    kind(o) == "NodePort" || (kind(o) == "LoadBalancer" && wanted != Some(false))
}

fn single(o: &Value) -> &str {
    o.str_at(&["spec", "clusterIP"]).unwrap_or_default()
}

fn list<'v>(o: &'v Value, field: &str) -> &'v [Value] {
    o.items_at(&["spec", field])
}

fn node_ports(o: &Value) -> HashSet<i64> {
    list(o, "ports").iter().filter_map(|p| p.i64_at(&["nodePort"])).filter(|n| *n != 0).collect()
}

fn take(o: &mut Value, old: &Value, field: &'static str) {
    if let Some(spec) = o.get_mut("spec") {
        strategy::keep(spec, &old["spec"], field);
    }
}

/// Takes over what the client left out, and drops what the new type has no use for.
pub(super) fn follow(o: &mut Value, old: &Value) {
    keep_allocated(o, old);
    match_first_address(o, old);
    drop_by_type(o, old);
    drop_internal_policy(o);
}

/// An ExternalName has no endpoints to choose from: upstream shows none, though it says what is wrong with it.
pub(super) fn drop_internal_policy(o: &mut Value) {
    let fine = matches!(o.str_at(&["spec", "internalTrafficPolicy"]), Some("Cluster" | "Local"));
    if let (true, Some(spec)) = (external(o) && fine, strategy::spec(o)) {
        spec.remove("internalTrafficPolicy");
    }
}

/// Who sends the manifest of a Service again does not know what was allocated for it.
fn keep_allocated(o: &mut Value, old: &Value) {
    if !external(o) && !external(old) {
        if single(o).is_empty() {
            take(o, old, "clusterIP");
        }
        if list(o, "clusterIPs").is_empty() && !list(old, "clusterIPs").is_empty() {
            take(o, old, "clusterIPs");
        }
    }
    if gets_node_ports(o) && gets_node_ports(old) {
        let used: HashSet<i64> = node_ports(o).intersection(&node_ports(old)).copied().collect();
        // By name: the port itself may change.
        let name = |p: &Value| p.str_at(&["name"]).unwrap_or_default().to_owned();
        let had: HashMap<String, i64> =
            list(old, "ports").iter().map(|p| (name(p), p.i64_at(&["nodePort"]).unwrap_or(0))).collect();
        let ports = o.get_mut("spec").and_then(|s| s.get_mut("ports")).and_then(Value::as_array_mut);
        for p in ports.into_iter().flatten().filter(|p| p.i64_at(&["nodePort"]).unwrap_or(0) == 0) {
            if let Some(n) = had.get(&name(p)).filter(|n| **n != 0 && !used.contains(n)) {
                *p.slot(&["nodePort"]) = (*n).into();
            }
        }
    }
    let asked = o.i64_at(&["spec", "healthCheckNodePort"]).unwrap_or(0);
    if needs_health_check(o) && needs_health_check(old) && asked == 0 {
        take(o, old, "healthCheckNodePort");
    }
}

/// `clusterIP` is the first of `clusterIPs`; a client that changes or clears the one alone means the other too.
fn match_first_address(o: &mut Value, old: &Value) {
    let same_list = list(o, "clusterIPs") == list(old, "clusterIPs");
    if single(o) == single(old) {
        if list(o, "clusterIPs").is_empty() {
            take(o, old, "clusterIPs");
        }
    } else if same_list {
        if let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("clusterIPs");
        }
        first_address(o);
    }
}

/// The list for a client that gives the one address only.
pub(super) fn first_address(o: &mut Value) {
    let one = single(o).to_owned();
    if !one.is_empty() && list(o, "clusterIPs").is_empty() {
        *o.slot(&["spec", "clusterIPs"]) = vec![one].into();
    }
}

/// Fields that only the former type had go with it, unless the client changed them itself.
fn drop_by_type(o: &mut Value, old: &Value) {
    let same = |o: &Value, f: &str| {
        let value = |v: &Value| v.at(&["spec", f]).filter(|v| !v.is_empty()).cloned();
        value(o) == value(old)
    };
    let mut gone: Vec<&str> = Vec::new();
    if external(o) && !external(old) {
        if same(o, "clusterIP") && same(o, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|f| same(o, f)));
    }
    if needs_health_check(old) && !needs_health_check(o) {
        gone.extend(Some("healthCheckNodePort").filter(|f| same(o, f)));
    }
    if kind(old) == "LoadBalancer" && kind(o) != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|f| same(o, f)));
    }
    if accessible(old) && !accessible(o) {
        gone.extend(Some("externalTrafficPolicy").filter(|f| same(o, f)));
    }
    let ports_go = has_node_ports(old) && !has_node_ports(o) && node_ports(o).is_subset(&node_ports(old));
    if kind(o) != "LoadBalancer" && o.at(&["status", "loadBalancer"]).is_some() {
        *o.slot(&["status", "loadBalancer"]) = Value::object();
    }
    let Some(spec) = strategy::spec(o) else { return };
    for f in gone {
        spec.remove(f);
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).filter(|_| ports_go);
    for p in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        p.remove("nodePort");
    }
}

/// Whether somebody outside of the cluster may reach it.
pub(super) fn accessible(o: &Value) -> bool {
    has_node_ports(o) || (kind(o) == "ClusterIP" && !list(o, "externalIPs").is_empty())
}

/// What may not change.
pub(super) fn validate(o: &Value, old: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
    if !external(o) && !external(old) {
        if !(headless(o) && headless(old)) {
            addresses(o, old, &spec, e);
        }
        if !headless(o) && !headless(old) {
            families(o, old, &spec, e);
        }
    }
    if kind(o) == "LoadBalancer" && kind(old) == "LoadBalancer" {
        let class = |v: &Value| v.at(&["spec", "loadBalancerClass"]).filter(|c| !c.is_null()).cloned();
        if class(o) != class(old) {
            e.invalid(&spec.child("loadBalancerClass"), class(o).unwrap_or_default(), "may not change once set");
        }
    }
    let health = |v: &Value| v.i64_at(&["spec", "healthCheckNodePort"]).unwrap_or(0);
    if needs_health_check(o) && needs_health_check(old) && health(o) != health(old) {
        e.forbidden(&spec.child("healthCheckNodePort"), "field is immutable");
    }
}

fn shown(o: &Value, field: &str) -> Value {
    o.at(&["spec", field]).cloned().unwrap_or_default()
}

fn is_single_stack(o: &Value) -> bool {
    o.str_at(&["spec", "ipFamilyPolicy"]) == Some("SingleStack")
}

fn addresses(o: &Value, old: &Value, spec: &Path, e: &mut Errors) {
    const FIELD: &str = "clusterIPs";
    let (now, before) = (list(o, FIELD), list(old, FIELD));
    let at = spec.child(FIELD);
    if now.len() == before.len() {
        for i in (0..now.len()).filter(|i| now[*i] != before[*i]) {
            e.invalid(&at.index(i), shown(o, FIELD), "may not change once set");
        }
        return;
    }
    if now.is_empty() {
        e.invalid(&at.index(0), shown(o, FIELD), "primary clusterIP can not be unset");
    }
    if let (Some(n), Some(b)) = (now.first(), before.first())
        && n != b
    {
        e.invalid(&at.index(0), shown(o, FIELD), "may not change once set");
    }
    if before.len() > now.len() && now.len() == 1 && !is_single_stack(o) {
        let text = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        e.invalid(&spec.child("ipFamilyPolicy"), shown(o, "ipFamilyPolicy"), text);
    }
}

fn families(o: &Value, old: &Value, spec: &Path, e: &mut Errors) {
    const FIELD: &str = "ipFamilies";
    let (now, before) = (list(o, FIELD), list(old, FIELD));
    let at = spec.child(FIELD).index(0);
    if now.len() == before.len() {
        for _ in now.iter().zip(before).filter(|(n, b)| n != b) {
            e.invalid(&at, shown(o, FIELD), "may not change once set");
        }
        return;
    }
    let released = before.len() > now.len();
    if released && list(o, "clusterIPs").is_empty() {
        e.invalid(&at, shown(o, FIELD), "primary ipFamily can not be unset");
    }
    if let (Some(n), Some(b)) = (now.first(), before.first())
        && n != b
    {
        e.invalid(&at, shown(o, "clusterIPs"), "may not change once set");
    }
    if released && now.len() == 1 && !is_single_stack(o) {
        let text = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        e.invalid(&spec.child("ipFamilyPolicy"), shown(o, "ipFamilyPolicy"), text);
    }
}
