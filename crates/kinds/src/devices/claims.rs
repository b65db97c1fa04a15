//! Rules for what a claim asks for: requests, constraints, configuration; and for device classes.

use ironkeel_object::Value;

use super::names::{EFFECTS, at_most, fully_qualified, raw_object, text};
use super::selectors;
use crate::error::Errors;
use crate::pod_spec::storage_sources::csi_driver_name;
use crate::pod_spec::{present, string};
use crate::{Path, equality, names};

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
/// Octets of the parameters of one configuration.
const PARAMETERS_MAX_BYTES: usize = 10 * 1024;

/// The names that other members refer to: `request`, or `request/subrequest`.
pub(super) fn is_request(devices: &Value, name: &str) -> bool {
    let (first, second) = name.split_once('/').map_or((name, None), |(a, b)| (a, Some(b)));
    devices
        .items_at(&["requests"])
        .iter()
        .filter(|r| text(r, "name") == first)
        .any(|r| second.is_none_or(|s| r.items_at(&["firstAvailable"]).iter().any(|x| text(x, "name") == s)))
}

/// `spec.devices` of a claim.
pub(super) fn validate(devices: &Value, at: &Path, e: &mut Errors) {
    let (requests, path) = (devices.items_at(&["requests"]), at.child("requests"));
    if at_most(requests, REQUESTS_MAX, &path, e) {
        for (i, r) in requests.iter().enumerate() {
            let at = path.index(i);
            let name = text(r, "name");
            if requests[..i].iter().any(|x| text(x, "name") == name) {
                e.duplicate(&at, name);
            }
            request(r, &at, e);
        }
    }
    let (constraints, path) = (devices.items_at(&["constraints"]), at.child("constraints"));
    if at_most(constraints, CONSTRAINTS_MAX, &path, e) {
        for (i, c) in constraints.iter().enumerate() {
            constraint(devices, c, &path.index(i), e);
        }
    }
    let (configs, path) = (devices.items_at(&["config"]), at.child("config"));
    if at_most(configs, CONFIGS_MAX, &path, e) {
        for (i, c) in configs.iter().enumerate() {
            let at = path.index(i);
            references(devices, c.items_at(&["requests"]), &at.child("requests"), e);
            configuration(c, false, &at, e);
        }
    }
}

fn constraint(devices: &Value, c: &Value, at: &Path, e: &mut Errors) {
    references(devices, c.items_at(&["requests"]), &at.child("requests"), e);
    match (c.str_at(&["matchAttribute"]), c.str_at(&["distinctAttribute"])) {
        (Some(a), _) => fully_qualified(a, &at.child("matchAttribute"), e),
        (None, Some(a)) => fully_qualified(a, &at.child("distinctAttribute"), e),
        (None, None) => {
            let text =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            e.required(at, text);
        }
    }
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
            if !at_most(alternatives, ALTERNATIVES_MAX, &path, e) {
                return;
            }
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
    selectors::validate(x, &at.child("selectors"), e);
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

/// `requests` of a constraint or a configuration.
pub(super) fn references(devices: &Value, list: &[Value], path: &Path, e: &mut Errors) {
    if !at_most(list, REQUESTS_MAX, path, e) {
        return;
    }
    for (i, n) in list.iter().enumerate() {
        let (name, at) = (n.as_str().unwrap_or_default(), path.index(i));
        if list[..i].contains(n) {
            e.duplicate(&at, name);
        }
        reference(devices, name, &at, e);
    }
}

/// The name of a request, or of one of its alternatives.
pub(super) fn reference(devices: &Value, name: &str, at: &Path, e: &mut Errors) {
    const FORM: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        e.invalid(at, name, FORM);
        return;
    }
    for p in parts {
        e.invalid_each(at, p, names::label(p));
    }
    if !is_request(devices, name) {
        e.invalid(at, name, FORM);
    }
}

/// One configuration of a claim or a class; what was stored already may be of any size.
pub(super) fn configuration(c: &Value, stored: bool, at: &Path, e: &mut Errors) {
    let at = at.child("opaque");
    let Some(o) = present(c, "opaque") else {
        e.required(&at, "");
        return;
    };
    csi_driver_name(text(o, "driver"), &at.child("driver"), e);
    let max = if stored { usize::MAX } else { PARAMETERS_MAX_BYTES };
    raw_object(o.get("parameters"), max, &at.child("parameters"), e);
}

/// A device class, and the one before it.
pub(super) fn class(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let (at, spec) = (Path::new("spec"), &o["spec"]);
    selectors::validate(spec, &at.child("selectors"), e);
    let unchanged = old.is_some_and(|b| equality::same(spec.get("config"), b["spec"].get("config")));
    let (configs, path) = (spec.items_at(&["config"]), at.child("config"));
    if at_most(configs, CONFIGS_MAX, &path, e) {
        for (i, c) in configs.iter().enumerate() {
            configuration(c, unchanged, &path.index(i), e);
        }
    }
    if let Some(n) = spec.str_at(&["extendedResourceName"])
        && !crate::resources::is_extended(n)
    {
        e.invalid(&at.child("extendedResourceName"), n, "must be a valid extended resource name");
    }
}
