//! Endpoints, and what EndpointSlice shares with it.

use ironkeel_object::Value;

use crate::core::service::protocol;
use crate::error::Errors;
use crate::pod_spec::string;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

pub(crate) struct Rules;

/// Addresses that no endpoint may have.
pub(crate) fn endpoint_ip(ip: &str, slices: bool, at: &Path, e: &mut Errors) {
    let Ok(a) = ip.parse::<std::net::IpAddr>() else {
        e.invalid_each(at, ip, names::ip(ip));
        if !slices {
            e.invalid(at, ip, "must be a valid IP address");
        }
        return;
    };
    let link_local = match a {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_group = match a {
        std::net::IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        std::net::IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    if a.is_unspecified() {
        e.invalid(at, ip, &format!("may not be unspecified ({ip})"));
    }
    if a.is_loopback() {
        e.invalid(at, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        e.invalid(at, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_group {
        e.invalid(at, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// The Endpoints cell: three at most, then how many more.
pub(crate) fn limited(all: &[String], more: usize) -> String {
    const SHOWN: usize = 3;
    if all.is_empty() {
        return "<none>".into();
    }
    let text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    let rest = more.max(all.len()).saturating_sub(SHOWN);
    if rest > 0 { format!("{text} + {rest} more...") } else { text }
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let subsets = o.get_mut("subsets").and_then(Value::as_array_mut);
        for s in subsets.into_iter().flatten() {
            for p in s.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if string(p, "protocol").is_none() {
                    *p.slot(&["protocol"]) = "TCP".into();
                }
            }
        }
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        for (i, s) in o.items_at(&["subsets"]).iter().enumerate() {
            let at = Path::new("subsets").index(i);
            if s.items_at(&["addresses"]).is_empty() && s.items_at(&["notReadyAddresses"]).is_empty() {
                e.required(&at, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (j, a) in s.items_at(&[list]).iter().enumerate() {
                    let ip = a.str_at(&["ip"]).unwrap_or_default();
                    let at = at.child(list).index(j);
                    endpoint_ip(ip, false, &at.child("ip"), e);
                    if let Some(h) = string(a, "hostname") {
                        e.invalid_each(&at.child("hostname"), h, names::label(h));
                    }
                    if let Some(n) = a.str_at(&["nodeName"]) {
                        e.invalid_each(&at.child("nodeName"), n, names::subdomain(n));
                    }
                }
            }
            let ports = s.items_at(&["ports"]);
            for (j, p) in ports.iter().enumerate() {
                let at = at.child("ports").index(j);
                match string(p, "name") {
                    None if ports.len() > 1 => e.required(&at.child("name"), ""),
                    None => {}
                    Some(n) => e.invalid_each(&at.child("name"), n, names::label(n)),
                }
                let n = p.i64_at(&["port"]).unwrap_or(0);
                names::port_number(n).iter().for_each(|m| e.invalid(&at.child("port"), n, m));
                if let Some(a) = p.str_at(&["appProtocol"]) {
                    e.invalid_each(&at.child("appProtocol"), a, names::qualified(a));
                }
                protocol(p, &at, e);
            }
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "endpoint"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let mut all = Vec::new();
        for s in o.items_at(&["subsets"]) {
            let ports = s.items_at(&["ports"]);
            for a in s.items_at(&["addresses"]) {
                let ip = a.str_at(&["ip"]).unwrap_or_default();
                let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                if ports.is_empty() {
                    all.push(ip.to_owned());
                }
                all.extend(ports.iter().map(|p| format!("{host}:{}", print::number(p, &["port"]))));
            }
        }
        vec![limited(&all, 0).into(), print::age(o, c)]
    }
}
