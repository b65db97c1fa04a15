//! Ingress.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

pub(crate) struct Rules;

fn host(h: &str, at: &Path, e: &mut Errors) {
    if h.parse::<std::net::IpAddr>().is_ok() {
        e.invalid(at, h, "must be a DNS name, not an IP address");
    } else if h.contains('*') {
        e.invalid_each(at, h, names::wildcard_subdomain(h));
    } else {
        e.invalid_each(at, h, names::subdomain(h));
    }
}

fn backend(b: &Value, at: &Path, e: &mut Errors) {
    match (present(b, "service"), present(b, "resource")) {
        (None, None) => e.invalid(at, "", "resource or service backend is required"),
        (Some(_), Some(_)) => e.invalid(at, "", "cannot set both resource and service backends"),
        (None, Some(r)) => {
            for f in ["name", "kind"] {
                if string(r, f).is_none() {
                    e.required(&at.child("resource").child(f), "");
                }
            }
            if let Some(g) = r.str_at(&["apiGroup"]) {
                e.invalid_each(&at.child("resource").child("apiGroup"), g, names::subdomain(g));
            }
        }
        (Some(s), None) => {
            let (whole, at) = (at, at.child("service"));
            match string(s, "name") {
                None => e.required(&at.child("name"), ""),
                Some(n) => e.invalid_each(&at.child("name"), n, names::label(n)),
            }
            let (name, number) =
                (s.str_at(&["port", "name"]).unwrap_or_default(), s.i64_at(&["port", "number"]).unwrap_or(0));
            match (name.is_empty(), number) {
                (true, 0) => e.required(whole, "port name or number is required"),
                (false, 0) => e.invalid_each(&at.child("port").child("name"), name, names::port_name(name)),
                (true, n) => {
                    names::port_number(n).iter().for_each(|m| e.invalid(&at.child("port").child("number"), n, m))
                }
                (false, _) => e.invalid(whole, "", "cannot set both port name & port number"),
            }
        }
    }
}

impl rules::Rules for Rules {
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "loadBalancer"]) = Value::object();
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        let all = spec.items_at(&["rules"]);
        if all.is_empty() && present(spec, "defaultBackend").is_none() {
            e.invalid(
                &at,
                spec.get("rules").cloned().unwrap_or_default(),
                "either `defaultBackend` or `rules` must be specified",
            );
        }
        if let Some(b) = present(spec, "defaultBackend") {
            backend(b, &at.child("defaultBackend"), e);
        }
        for (i, r) in all.iter().enumerate() {
            let at = at.child("rules").index(i);
            if let Some(h) = string(r, "host") {
                host(h, &at.child("host"), e);
            }
            let Some(http) = present(r, "http") else { continue };
            let paths = http.items_at(&["paths"]);
            let at = at.child("http").child("paths");
            if paths.is_empty() {
                e.required(&at, "");
            }
            for (j, p) in paths.iter().enumerate() {
                let at = at.index(j);
                let path = p.str_at(&["path"]).unwrap_or_default();
                match p.str_at(&["pathType"]) {
                    None => {
                        e.required(&at.child("pathType"), "pathType must be specified");
                        continue;
                    }
                    Some("Exact" | "Prefix") => {
                        if !path.starts_with('/') {
                            e.invalid(&at.child("path"), path, "must be an absolute path");
                        }
                        for bad in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|b| path.contains(**b)) {
                            e.invalid(&at.child("path"), path, &format!("must not contain '{bad}'"));
                        }
                        for bad in ["/..", "/."].iter().filter(|b| path.ends_with(**b)) {
                            e.invalid(&at.child("path"), path, &format!("cannot end with '{bad}'"));
                        }
                    }
                    Some("ImplementationSpecific") => {
                        if !path.is_empty() && !path.starts_with('/') {
                            e.invalid(&at.child("path"), path, "must be an absolute path");
                        }
                    }
                    Some(t) => {
                        e.not_supported(&at.child("pathType"), t, &["Exact", "ImplementationSpecific", "Prefix"]);
                        continue;
                    }
                }
                backend(&p["backend"], &at.child("backend"), e);
            }
        }
        for (i, t) in spec.items_at(&["tls"]).iter().enumerate() {
            if let Some(s) = string(t, "secretName") {
                e.invalid_each(&at.child("tls").index(i).child("secretName"), s, names::subdomain(s));
            }
            for (j, h) in t.items_at(&["hosts"]).iter().enumerate() {
                host(h.as_str().unwrap_or_default(), &at.child("tls").index(i).child("hosts").index(j), e);
            }
        }
        if let Some(c) = spec.str_at(&["ingressClassName"]) {
            e.invalid_each(&at.child("ingressClassName"), c, names::subdomain(c));
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            crate::status::load_balancer(o, old, false, e);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "ingress"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        const SHOWN: usize = 3;
        let hosts: Vec<&str> = o.items_at(&["spec", "rules"]).iter().filter_map(|r| string(r, "host")).collect();
        let shown = match hosts.len() {
            0 => "*".to_owned(),
            n if n > SHOWN => format!("{} + {} more...", hosts[..SHOWN].join(","), n - SHOWN),
            _ => hosts.join(","),
        };
        let addresses: Vec<&str> = o
            .items_at(&["status", "loadBalancer", "ingress"])
            .iter()
            .filter_map(|i| string(i, "ip").or_else(|| string(i, "hostname")))
            .collect();
        let ports = if o.items_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            print::text(o, &["spec", "ingressClassName"], "<none>"),
            shown.into(),
            addresses.join(",").into(),
            ports.into(),
            print::age(o, c),
        ]
    }
}
