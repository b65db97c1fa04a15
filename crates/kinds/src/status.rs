//! Rules for what status writes report, shared by several kinds: addresses of load balancers and
//! pods, conditions.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::string;
use crate::repeats::{repeated_text, texts};
use crate::{Path, names};

/// `status.loadBalancer` of a Service or an Ingress; the modes of its addresses are a Service's only. Addresses that
/// stood in `old` stay, however they are written.
pub(crate) fn load_balancer(o: &Value, old: &Value, modes: bool, e: &mut Errors) {
    let known = texts(old.items_at(&["status", "loadBalancer", "ingress"]), "ip");
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (i, g) in o.items_at(&["status", "loadBalancer", "ingress"]).iter().enumerate() {
        let at = path.index(i);
        let ip = string(g, "ip");
        if let Some(ip) = ip.filter(|ip| !known.contains(ip)) {
            e.invalid_each(&at.child("ip"), ip, names::ip(ip));
        }
        if modes {
            match (g.str_at(&["ipMode"]), ip) {
                (None, Some(_)) => e.required(&at.child("ipMode"), "must be specified when `ip` is set"),
                (Some(_), None) => e.forbidden(&at.child("ipMode"), "may not be specified when `ip` is not set"),
                (Some(m), Some(_)) if !matches!(m, "Proxy" | "VIP") => {
                    e.not_supported(&at.child("ipMode"), m, &["Proxy", "VIP"]);
                }
                _ => {}
            }
        }
        if let Some(h) = string(g, "hostname") {
            e.invalid_each(&at.child("hostname"), h, names::subdomain(h));
            if h.parse::<std::net::IpAddr>().is_ok() {
                e.invalid(&at.child("hostname"), h, "must be a DNS name, not an IP address");
            }
        }
    }
}

const REASON: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";

/// A list of `meta/v1.Condition`.
pub(crate) fn conditions(list: &[Value], path: &Path, e: &mut Errors) {
    let twice = repeated_text(list, "type");
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        let text = |f: &str| c.str_at(&[f]).unwrap_or_default();
        let kind = text("type");
        if twice[i] {
            e.duplicate(&at.child("type"), kind);
        }
        e.invalid_each(&at.child("type"), kind, names::qualified(kind));
        if !matches!(text("status"), "False" | "True" | "Unknown") {
            e.not_supported(&at.child("status"), text("status"), &["False", "True", "Unknown"]);
        }
        e.non_negative(&at.child("observedGeneration"), c.i64_at(&["observedGeneration"]));
        if c.get("lastTransitionTime").is_none_or(Value::is_null) {
            e.required(&at.child("lastTransitionTime"), "");
        }
        match text("reason") {
            "" => e.required(&at.child("reason"), ""),
            r => {
                let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                let form = r.bytes().all(|b| word(b) || matches!(b, b',' | b':'))
                    && r.as_bytes()[0].is_ascii_alphabetic()
                    && r.bytes().next_back().is_some_and(word);
                if !form {
                    let text = format!(
                        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{REASON}')"
                    );
                    e.invalid(&at.child("reason"), r, &text);
                }
                if r.len() > 1024 {
                    e.too_long(&at.child("reason"), 1024);
                }
            }
        }
        if text("message").len() > 32 * 1024 {
            e.too_long(&at.child("message"), 32 * 1024);
        }
    }
}

/// `status.podIPs` or `status.hostIPs`: one address a family.
pub(crate) fn addresses(o: &Value, field: &str, e: &mut Errors) {
    let path = Path::new("status").child(field);
    let list = o.items_at(&["status", field]);
    let ips: Vec<&str> = list.iter().map(|i| i.str_at(&["ip"]).unwrap_or_default()).collect();
    for (i, ip) in ips.iter().enumerate() {
        e.invalid_each(&path.index(i), ip, names::ip(ip));
    }
    if ips.len() > 1
        && let Some(i) = ips.iter().position(|ip| !names::ip(ip).is_empty())
    {
        let why = format!("invalid IP[{i}]: {}", ips[i]);
        e.internal(&path, &format!("failed to check for dual stack with error:{why}"));
    }
    let sixes = ips.iter().filter(|i| i.contains(':')).count();
    if ips.len() > 1 && !(ips.len() == 2 && sixes == 1) {
        e.invalid(&path, list.to_vec(), "may specify no more than one IP for each IP family");
    }
}
