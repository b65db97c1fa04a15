//! `discovery.k8s.io`: EndpointSlice.

use ironkeel_object::{ObjectMeta, Value};

use crate::core::endpoints::{endpoint_ip, limited};
use crate::error::Errors;
use crate::repeats::repeated_text;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, print, rules};

pub(crate) struct Rules;

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20000;
const ADDRESSES_MAX: usize = 100;
const HINTS_MAX: usize = 8;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        for p in o.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if p.get("name").is_none_or(Value::is_null) {
                *p.slot(&["name"]) = "".into();
            }
            if p.get("protocol").is_none_or(Value::is_null) {
                *p.slot(&["protocol"]) = "TCP".into();
            }
        }
    }
    fn prepare_create(&self, o: &mut Value) {
        drop_topology(o);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, _subresource: Option<&str>) {
        let labels = |v: &Value| v.at(&["metadata", "labels"]).filter(|l| !l.is_empty()).cloned();
        // Controllers find slices by their labels, so those count too.
        let changed = ["addressType", "endpoints", "ports"].iter().any(|m| !equality::same(o.get(m), old.get(m)));
        if changed || labels(o) != labels(old) {
            o.meta_mut().insert("generation", old.generation() + 1);
        }
        drop_topology(o);
    }
    fn generation(&self) -> Generation {
        Generation::Of(&[])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let kind = o.str_at(&["addressType"]).unwrap_or_default();
        match kind {
            "" => e.required(&Path::new("addressType"), ""),
            "IPv4" | "IPv6" | "FQDN" => {}
            k => e.not_supported(&Path::new("addressType"), k, &["FQDN", "IPv4", "IPv6"]),
        }
        let list = o.items_at(&["endpoints"]);
        if list.len() > ENDPOINTS_MAX {
            e.too_many(&Path::new("endpoints"), list.len(), ENDPOINTS_MAX);
        }
        for (i, p) in list.iter().enumerate() {
            let at = Path::new("endpoints").index(i);
            let addresses = p.items_at(&["addresses"]);
            let path = at.child("addresses");
            if addresses.is_empty() {
                e.required(&path, "must contain at least 1 address");
            } else if addresses.len() > ADDRESSES_MAX {
                e.too_many(&path, addresses.len(), ADDRESSES_MAX);
            }
            for (j, a) in addresses.iter().enumerate() {
                let (a, at) = (a.as_str().unwrap_or_default(), path.index(j));
                match kind {
                    "FQDN" => e.invalid_each(&at, a, names::subdomain(a)),
                    "IPv4" | "IPv6" => {
                        endpoint_ip(a, true, &at, e);
                        if a.contains(':') != (kind == "IPv6") {
                            e.invalid(&at, a, &format!("must be an {kind} address"));
                        }
                    }
                    _ => {}
                }
            }
            if let Some(n) = p.str_at(&["nodeName"]) {
                e.invalid_each(&at.child("nodeName"), n, names::subdomain(n));
            }
            for (field, rule) in
                [("forZones", names::label_value as fn(&str) -> Vec<String>), ("forNodes", names::subdomain)]
            {
                let hints = p.items_at(&["hints", field]);
                let at = at.child("hints").child(field);
                if hints.len() > HINTS_MAX {
                    e.too_many(&at, hints.len(), HINTS_MAX);
                    continue;
                }
                for (j, h) in hints.iter().enumerate() {
                    let name = h.str_at(&["name"]).unwrap_or_default();
                    if hints[..j].iter().any(|x| x["name"] == h["name"]) {
                        e.duplicate(&at.index(j).child("name"), name);
                    }
                    e.invalid_each(&at.index(j).child("name"), name, rule(name));
                }
            }
            if let Some(h) = p.str_at(&["hostname"]) {
                e.invalid_each(&at.child("hostname"), h, names::label(h));
            }
        }
        let ports = o.items_at(&["ports"]);
        if ports.len() > PORTS_MAX {
            e.too_many(&Path::new("ports"), ports.len(), PORTS_MAX);
        }
        let twice = repeated_text(ports, "name");
        for (i, p) in ports.iter().enumerate() {
            let at = Path::new("ports").index(i);
            let name = p.str_at(&["name"]).unwrap_or_default();
            if !name.is_empty() {
                e.invalid_each(&at.child("name"), name, names::label(name));
            }
            if twice[i] {
                e.duplicate(&at.child("name"), name);
            }
            match p.str_at(&["protocol"]) {
                None => e.required(&at.child("protocol"), ""),
                Some("TCP" | "UDP" | "SCTP") => {}
                Some(other) => e.not_supported(&at.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
            }
            if let Some(a) = p.str_at(&["appProtocol"]) {
                e.invalid_each(&at.child("appProtocol"), a, names::qualified(a));
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        e.immutable(&Path::new("addressType"), o.get("addressType"), old.get("addressType"));
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "endpointSlice"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let ports: Vec<String> =
            o.items_at(&["ports"]).iter().map(|p| p.i64_at(&["port"]).map_or("*".into(), |n| n.to_string())).collect();
        let ports = if ports.is_empty() { "<unset>".to_owned() } else { limited(&ports, 0) };
        let all: Vec<String> = o
            .items_at(&["endpoints"])
            .iter()
            .flat_map(|p| p.items_at(&["addresses"]))
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let endpoints = if all.is_empty() { "<unset>".to_owned() } else { limited(&all, 0) };
        vec![print::text(o, &["addressType"], ""), ports.into(), endpoints.into(), print::age(o, c)]
    }
}

/// The older version's topology, which this one never had.
fn drop_topology(o: &mut Value) {
    let endpoints = o.get_mut("endpoints").and_then(Value::as_array_mut);
    for p in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        p.remove("deprecatedTopology");
    }
}
