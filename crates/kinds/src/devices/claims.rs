//! Rules for what a claim asks for: requests, constraints, configuration; and for device classes
//! and taint rules. Expressions are compiled where they are evaluated.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::storage_sources::csi_driver_name;
use crate::pod_spec::{present, string};
use crate::{Path, names};

const REQUESTS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const ID_MAX: usize = 32;
const POOL_MAX: usize = 253;

fn at_most(list: &[Value], max: usize, at: &Path, e: &mut Errors) {
    if list.len() > max {
        e.too_many(at, list.len(), max);
    }
}

/// `spec.devices` of a claim.
pub(super) fn validate(devices: &Value, at: &Path, e: &mut Errors) {
    let requests = devices.items_at(&["requests"]);
    let path = at.child("requests");
    at_most(requests, REQUESTS_MAX, &path, e);
    for (i, r) in requests.iter().enumerate() {
        let at = path.index(i);
        let name = text(r, "name");
        if requests[..i].iter().any(|x| text(x, "name") == name) {
            e.duplicate(&at, name);
        }
        request(r, &at, e);
    }
    let known = |name: &str| {
        let (first, second) = name.split_once('/').map_or((name, None), |(a, b)| (a, Some(b)));
        requests
            .iter()
            .filter(|r| text(r, "name") == first)
            .any(|r| second.is_none_or(|s| r.items_at(&["firstAvailable"]).iter().any(|x| text(x, "name") == s)))
    };
    let constraints = devices.items_at(&["constraints"]);
    at_most(constraints, CONSTRAINTS_MAX, &at.child("constraints"), e);
    for (i, c) in constraints.iter().enumerate() {
        let at = at.child("constraints").index(i);
        references(c.items_at(&["requests"]), known, &at.child("requests"), e);
        match (c.str_at(&["matchAttribute"]), c.str_at(&["distinctAttribute"])) {
            (Some(a), _) => attribute(a, &at.child("matchAttribute"), e),
            (None, Some(a)) => attribute(a, &at.child("distinctAttribute"), e),
            (None, None) => {
                let text = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
                e.required(&at, text);
            }
        }
    }
    let configs = devices.items_at(&["config"]);
    at_most(configs, CONFIGS_MAX, &at.child("config"), e);
    for (i, c) in configs.iter().enumerate() {
        let at = at.child("config").index(i);
        references(c.items_at(&["requests"]), known, &at.child("requests"), e);
        configuration(c, &at, e);
    }
}

fn text<'a>(v: &'a Value, f: &str) -> &'a str {
    v.str_at(&[f]).unwrap_or_default()
}

fn request(r: &Value, at: &Path, e: &mut Errors) {
    e.invalid_each(&at.child("name"), text(r, "name"), names::label(text(r, "name")));
    let (alternatives, exactly) = (r.items_at(&["firstAvailable"]), present(r, "exactly"));
    match (alternatives.is_empty(), exactly) {
        (true, None) => e.required(at, "exactly one of `exactly` or `firstAvailable` is required"),
        (false, Some(_)) => {
            let text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            e.invalid_as(at, "null", text);
        }
        (true, Some(x)) => exact(x, &at.child("exactly"), e),
        (false, None) => {
            let path = at.child("firstAvailable");
            at_most(alternatives, ALTERNATIVES_MAX, &path, e);
            for (i, x) in alternatives.iter().enumerate() {
                let at = path.index(i);
                let name = text(x, "name");
                if alternatives[..i].iter().any(|y| text(y, "name") == name) {
                    e.duplicate(&at, name);
                }
                e.invalid_each(&at.child("name"), name, names::label(name));
                exact(x, &at, e);
            }
        }
    }
}

fn exact(x: &Value, at: &Path, e: &mut Errors) {
    match text(x, "deviceClassName") {
        "" => e.required(&at.child("deviceClassName"), ""),
        c => e.invalid_each(&at.child("deviceClassName"), c, names::subdomain(c)),
    }
    selectors(x, &at.child("selectors"), e);
    let count = x.i64_at(&["count"]).unwrap_or(0);
    match text(x, "allocationMode") {
        "All" if count != 0 => {
            e.invalid(&at.child("count"), count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count <= 0 => e.invalid(&at.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        m => e.not_supported(&at.child("allocationMode"), m, &["All", "ExactCount"]),
    }
    for (i, t) in x.items_at(&["tolerations"]).iter().enumerate() {
        toleration(t, &at.child("tolerations").index(i), e);
    }
}

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

fn toleration(t: &Value, at: &Path, e: &mut Errors) {
    if let Some(k) = string(t, "key") {
        e.invalid_each(&at.child("key"), k, names::qualified(k));
    }
    let value = text(t, "value");
    match text(t, "operator") {
        "Exists" if !value.is_empty() => {
            e.invalid(&at.child("value"), value, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => e.invalid_each(&at.child("value"), value, names::label_value(value)),
        "" => e.required(&at.child("operator"), ""),
        o => e.not_supported(&at.child("operator"), o, &["Equal", "Exists"]),
    }
    if let Some(x) = string(t, "effect").filter(|x| !EFFECTS.contains(x)) {
        e.not_supported(&at.child("effect"), x, EFFECTS);
    }
}

/// Selectors of a request or a class.
pub(super) fn selectors(x: &Value, path: &Path, e: &mut Errors) {
    let list = x.items_at(&["selectors"]);
    at_most(list, SELECTORS_MAX, path, e);
    for (i, s) in list.iter().enumerate() {
        let at = path.index(i).child("cel");
        match present(s, "cel") {
            None => e.required(&at, ""),
            Some(c) if string(c, "expression").is_none() => e.required(&at.child("expression"), ""),
            Some(_) => {}
        }
    }
}

fn references(list: &[Value], known: impl Fn(&str) -> bool, path: &Path, e: &mut Errors) {
    at_most(list, REQUESTS_MAX, path, e);
    for (i, n) in list.iter().enumerate() {
        let (name, at) = (n.as_str().unwrap_or_default(), path.index(i));
        if list[..i].contains(n) {
            e.duplicate(&at, name);
        }
        const FORM: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 {
            e.invalid(&at, name, FORM);
            continue;
        }
        for p in parts {
            e.invalid_each(&at, p, names::label(p));
        }
        if !known(name) {
            e.invalid(&at, name, FORM);
        }
    }
}

fn identifier(id: &str, at: &Path, e: &mut Errors) {
    if id.len() > ID_MAX {
        e.too_long(at, ID_MAX);
    }
    let form = id.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !form {
        let text = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        e.invalid(at, id, text);
    }
}

fn attribute(name: &str, at: &Path, e: &mut Errors) {
    match name.split_once('/') {
        None => {
            identifier(name, at, e);
            e.invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash");
        }
        Some((domain, id)) => {
            if domain.is_empty() {
                e.invalid(at, "", "the domain must not be empty");
            } else {
                csi_driver_name(domain, at, e);
            }
            if id.is_empty() {
                e.invalid(at, "", "the name must not be empty");
            } else {
                identifier(id, at, e);
            }
        }
    }
}

/// One configuration of a claim or a class.
pub(super) fn configuration(c: &Value, at: &Path, e: &mut Errors) {
    let at = at.child("opaque");
    let Some(o) = present(c, "opaque") else {
        e.required(&at, "");
        return;
    };
    csi_driver_name(text(o, "driver"), &at.child("driver"), e);
    match o.get("parameters") {
        None | Some(Value::Null) => e.required(&at.child("parameters"), ""),
        Some(Value::Object(_)) => {}
        Some(v) => e.invalid(&at.child("parameters"), v.clone(), "must be a valid JSON object"),
    }
}

/// A device class.
pub(super) fn class(o: &Value, e: &mut Errors) {
    let at = Path::new("spec");
    selectors(&o["spec"], &at.child("selectors"), e);
    let configs = o.items_at(&["spec", "config"]);
    at_most(configs, CONFIGS_MAX, &at.child("config"), e);
    for (i, c) in configs.iter().enumerate() {
        configuration(c, &at.child("config").index(i), e);
    }
    if let Some(n) = o.str_at(&["spec", "extendedResourceName"])
        && !crate::resources::is_extended(n)
    {
        e.invalid(&at.child("extendedResourceName"), n, "must be a valid extended resource name");
    }
}

/// A device taint rule.
pub(super) fn taint_rule(o: &Value, e: &mut Errors) {
    let at = Path::new("spec");
    if let Some(s) = o.at(&["spec", "deviceSelector"]).filter(|s| !s.is_null()) {
        let at = at.child("deviceSelector");
        if let Some(d) = s.str_at(&["driver"]) {
            csi_driver_name(d, &at.child("driver"), e);
        }
        if let Some(p) = s.str_at(&["pool"]) {
            pool(p, &at.child("pool"), e);
        }
        if let Some(d) = s.str_at(&["device"]) {
            e.invalid_each(&at.child("device"), d, names::label(d));
        }
    }
    taint(&o["spec"]["taint"], &at.child("taint"), e);
}

/// The name of a pool: subdomains, separated by slashes.
pub(super) fn pool(name: &str, at: &Path, e: &mut Errors) {
    if name.is_empty() {
        e.required(at, "");
        return;
    }
    if name.len() > POOL_MAX {
        e.too_long(at, POOL_MAX);
    }
    for part in name.split('/') {
        e.invalid_each(at, part, names::subdomain(part));
    }
}

/// A taint of a device.
pub(super) fn taint(t: &Value, at: &Path, e: &mut Errors) {
    let key = text(t, "key");
    e.invalid_each(&at.child("key"), key, names::qualified(key));
    if let Some(v) = string(t, "value") {
        e.invalid_each(&at.child("value"), v, names::label_value(v));
    }
    match text(t, "effect") {
        "" => e.required(&at.child("effect"), ""),
        x if !EFFECTS.contains(&x) => e.not_supported(&at.child("effect"), x, EFFECTS),
        _ => {}
    }
}

/// What a slice says of its pool and of where its devices are.
pub(super) fn slice(o: &Value, e: &mut Errors) {
    let at = Path::new("spec");
    let spec = &o["spec"];
    csi_driver_name(text(spec, "driver"), &at.child("driver"), e);
    let path = at.child("pool");
    pool(spec.str_at(&["pool", "name"]).unwrap_or_default(), &path.child("name"), e);
    let count = spec.i64_at(&["pool", "resourceSliceCount"]).unwrap_or(0);
    if count <= 0 {
        e.invalid(&path.child("resourceSliceCount"), count, "must be greater than zero");
    }
    if let Some(g) = spec.i64_at(&["pool", "generation"]).filter(|g| *g < 0) {
        e.invalid(&path.child("generation"), g, "must be greater than or equal to zero");
    }
    match spec.str_at(&["nodeName"]) {
        Some("") => e.invalid(&at.child("nodeName"), "", "must be either unset or set to a non-empty string"),
        Some(n) => e.invalid_each(&at.child("nodeName"), n, names::subdomain(n)),
        None => {}
    }
    let devices = spec.items_at(&["devices"]);
    for (i, d) in devices.iter().enumerate() {
        let at = at.child("devices").index(i);
        let name = text(d, "name");
        if devices[..i].iter().any(|x| text(x, "name") == name) {
            e.duplicate(&at.child("name"), name);
        }
        e.invalid_each(&at.child("name"), name, names::label(name));
        for (j, t) in d.items_at(&["taints"]).iter().enumerate() {
            taint(t, &at.child("taints").index(j), e);
        }
    }
}
