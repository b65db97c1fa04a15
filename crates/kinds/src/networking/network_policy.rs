//! NetworkPolicy.

use std::collections::HashSet;

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::present;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, selector, strategy};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn columns(&self) -> &'static str {
        "networkPolicy"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let pods = selector::text(o.at(&["spec", "podSelector"]));
        vec![print::non_empty(pods, "<none>"), print::age(o, c)]
    }
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        for (list, _) in LISTS {
            for r in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                for p in r.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                    if p.get("protocol").is_none_or(Value::is_null) {
                        *p.slot(&["protocol"]) = "TCP".into();
                    }
                }
            }
        }
        if spec.get("policyTypes").is_none_or(Value::is_empty) {
            let mut types = vec!["Ingress"];
            if spec.get("egress").is_some_and(|e| !e.is_empty()) {
                types.push("Egress");
            }
            spec.insert("policyTypes", types);
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        validate(o, &HashSet::new(), e);
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        validate(o, &blocks(old), e);
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
}

/// The rules and their peers: where in the spec, and under what name.
const LISTS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// Every address block of a policy.
fn blocks(o: &Value) -> HashSet<&str> {
    let rules = LISTS.iter().flat_map(|(list, peers)| o.items_at(&["spec", list]).iter().map(|r| r.items_at(&[peers])));
    let found = rules.flatten().filter_map(|p| p.get("ipBlock"));
    found.flat_map(|b| b.items_at(&["except"]).iter().filter_map(Value::as_str).chain(b.str_at(&["cidr"]))).collect()
}

/// Rules for the policy; blocks that it had before stay, however they are written.
fn validate(o: &Value, known: &HashSet<&str>, e: &mut Errors) {
    let at = Path::new("spec");
    selector::label_selector(o.at(&["spec", "podSelector"]), &at.child("podSelector"), e);
    for (list, peers) in LISTS {
        for (i, r) in o.items_at(&["spec", list]).iter().enumerate() {
            let at = at.child(list).index(i);
            for (j, p) in r.items_at(&["ports"]).iter().enumerate() {
                port(p, &at.child("ports").index(j), e);
            }
            for (j, p) in r.items_at(&[peers]).iter().enumerate() {
                peer(p, known, &at.child(peers).index(j), e);
            }
        }
    }
    let types = o.items_at(&["spec", "policyTypes"]);
    let path = at.child("policyTypes");
    if types.len() > 2 {
        e.invalid(&path, types.to_vec(), "may not specify more than two policyTypes");
        return;
    }
    for (i, t) in types.iter().enumerate() {
        let t = t.as_str().unwrap_or_default();
        if !matches!(t, "Ingress" | "Egress") {
            e.not_supported(&path.index(i), t, &["Ingress", "Egress"]);
        }
    }
}

fn port(p: &Value, at: &Path, e: &mut Errors) {
    let protocol = p.str_at(&["protocol"]).unwrap_or("TCP");
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        e.not_supported(&at.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    match present(p, "port") {
        Some(Value::String(name)) => {
            e.invalid_each(&at.child("port"), name, names::port_name(name));
            if let Some(end) = p.i64_at(&["endPort"]) {
                e.invalid(&at.child("endPort"), end, "may not be specified when `port` is non-numeric");
            }
        }
        Some(v) => {
            let n = v.as_i64().unwrap_or(0);
            names::port_number(n).iter().for_each(|m| e.invalid(&at.child("port"), n, m));
            if let Some(end) = p.i64_at(&["endPort"]) {
                if end < n {
                    e.invalid(&at.child("endPort"), n, "must be greater than or equal to `port`");
                }
                names::port_number(end).iter().for_each(|m| e.invalid(&at.child("endPort"), end, m));
            }
        }
        None => {
            if let Some(end) = p.i64_at(&["endPort"]) {
                e.invalid(&at.child("endPort"), end, "may not be specified when `port` is not specified");
            }
        }
    }
}

fn peer(p: &Value, known: &HashSet<&str>, at: &Path, e: &mut Errors) {
    let mut found = 0;
    for f in ["podSelector", "namespaceSelector"] {
        if let Some(s) = present(p, f) {
            found += 1;
            selector::label_selector(Some(s), &at.child(f), e);
        }
    }
    if let Some(b) = present(p, "ipBlock") {
        let path = at.child("ipBlock");
        if found > 0 {
            e.forbidden(at, "may not specify both ipBlock and another peer");
        }
        found += 1;
        let wrong = |c: &str| if known.contains(c) { Vec::new() } else { names::cidr(c) };
        let cidr = b.str_at(&["cidr"]).unwrap_or_default();
        if cidr.is_empty() {
            e.required(&path.child("cidr"), "");
        } else {
            e.invalid_each(&path.child("cidr"), cidr, wrong(cidr));
        }
        for (i, x) in b.items_at(&["except"]).iter().enumerate() {
            let (x, at) = (x.as_str().unwrap_or_default(), path.child("except").index(i));
            e.invalid_each(&at, x, wrong(x));
            if let (Ok(inner), Ok(outer)) = (x.parse::<ipnet::IpNet>(), cidr.parse::<ipnet::IpNet>())
                && (!outer.contains(&inner) || inner == outer)
            {
                e.invalid(&at, x, "must be a strict subset of `cidr`");
            }
        }
    }
    if found == 0 {
        e.required(at, "must specify a peer");
    }
}
