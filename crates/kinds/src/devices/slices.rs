//! Rules for resource slices: the pool, where its devices are, the devices, shared counters.

use std::collections::HashMap;

use ironkeel_object::{Map, Value};

use super::names::{at_most, binding_conditions, pool, qualified, taint, text};
use super::policy;
use crate::error::Errors;
use crate::pod_spec::present;
use crate::pod_spec::scheduling::node_selector;
use crate::pod_spec::storage_sources::csi_driver_name;
use crate::repeats::repeated_text;
use crate::{Path, equality, names};

const DEVICES_MAX: usize = 128;
/// Where devices have taints, or consume counters.
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMPTIONS_MAX: usize = 2;
/// Attributes and capacities of one device, together.
const ENTRIES_MAX: usize = 32;
const ATTRIBUTE_MAX_BYTES: usize = 64;
const TAINTS_MAX: usize = 16;
/// Keys are shown up to this length: a domain, a slash and an identifier.
const KEY_SHOWN_BYTES: usize = 63 + 1 + 32;

const PLACES: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
const DEVICE_PLACES: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

fn flag(v: &Value, f: &str) -> Option<bool> {
    v.get(f).and_then(Value::as_bool)
}

fn braces(set: &[&str]) -> String {
    format!("{{{}}}", set.join(", "))
}

/// A slice, and the one before it.
pub(super) fn validate(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let (at, spec) = (Path::new("spec"), &o["spec"]);
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
    let before = old.map(|o| &o["spec"]);
    if let Some(b) = before {
        let text = |v: &Value, p: &[&str]| v.str_at(p).unwrap_or_default().to_owned();
        for (steps, at) in [(&["pool", "name"][..], path.child("name")), (&["driver"][..], at.child("driver"))] {
            if text(spec, steps) != text(b, steps) {
                e.invalid(&at, text(spec, steps), "field is immutable");
            }
        }
        if present(spec, "nodeName") != present(b, "nodeName") {
            let value = spec.get("nodeName").cloned().unwrap_or_default();
            e.invalid(&at.child("nodeName"), value, "field is immutable");
        }
    }
    places(spec, &at, e);
    if present(spec, "sharedCounters").is_some() && present(spec, "devices").is_some() {
        e.invalid(&at, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = spec.items_at(&["devices"]);
    let advanced = |d: &Value| !d.items_at(&["taints"]).is_empty() || !d.items_at(&["consumesCounters"]).is_empty();
    let max = if devices.iter().any(advanced) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    let path = at.child("devices");
    if at_most(devices, max, &path, e) {
        let twice = repeated_text(devices, "name");
        let mut earlier: HashMap<&str, &Value> = HashMap::new();
        for d in before.map(|b| b.items_at(&["devices"])).unwrap_or_default() {
            earlier.entry(text(d, "name")).or_insert(d);
        }
        for (i, d) in devices.iter().enumerate() {
            let (at, name) = (path.index(i), text(d, "name"));
            let was = earlier.get(name).copied();
            device(d, was, flag(spec, "perDeviceNodeSelection").unwrap_or(false), &at, e);
            if twice[i] {
                e.duplicate(&at, name);
            }
        }
    }
    let (sets, path) = (spec.items_at(&["sharedCounters"]), at.child("sharedCounters"));
    if at_most(sets, COUNTER_SETS_MAX, &path, e) {
        for (i, s) in sets.iter().enumerate() {
            counters(s, "name", &path.index(i), e);
            if sets[..i].iter().any(|x| text(x, "name") == text(s, "name")) {
                e.duplicate(&path.index(i), text(s, "name"));
            }
        }
    }
}

/// Where the slice's devices are.
fn places(spec: &Value, at: &Path, e: &mut Errors) {
    let mut set = Vec::new();
    match spec.str_at(&["nodeName"]) {
        Some("") => e.invalid(&at.child("nodeName"), "", "must be either unset or set to a non-empty string"),
        Some(n) => {
            set.push("`nodeName`");
            e.invalid_each(&at.child("nodeName"), n, names::subdomain(n));
        }
        None => {}
    }
    if let Some(s) = present(spec, "nodeSelector") {
        set.push("`nodeSelector`");
        let at = at.child("nodeSelector");
        node_selector(s, &at, e);
        let terms = s.items_at(&["nodeSelectorTerms"]);
        if terms.len() != 1 {
            e.invalid(&at.child("nodeSelectorTerms"), terms.to_vec(), "must have exactly one node selector term");
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match flag(spec, field) {
            Some(true) => set.push(shown),
            Some(false) => e.invalid(&at.child(field), false, "must be either unset or set to true"),
            None => {}
        }
    }
    match set.len() {
        0 => e.required(at, PLACES),
        1 => {}
        _ => e.invalid(at, braces(&set), &format!("{PLACES}, but multiple fields are set")),
    }
}

fn device(d: &Value, old: Option<&Value>, own_place: bool, at: &Path, e: &mut Errors) {
    let name = text(d, "name");
    e.invalid_each(&at.child("name"), name, names::label(name));
    let empty = Map::new();
    let map = |f: &str| d.get(f).and_then(Value::as_object).unwrap_or(&empty);
    let (attributes, capacity) = (map("attributes"), map("capacity"));
    let entries = attributes.len() + capacity.len();
    if entries > ENTRIES_MAX {
        let text = format!("the total number of attributes and capacities must not exceed {ENTRIES_MAX}");
        e.invalid(at, entries as i64, &text);
    }
    let path = at.child("attributes");
    for (key, value) in attributes.iter() {
        qualified(key, &path, e);
        attribute(value, &path.key(&shortened(key, KEY_SHOWN_BYTES)), e);
    }
    let path = at.child("capacity");
    let shared = flag(d, "allowMultipleAllocations").unwrap_or(false);
    for (key, value) in capacity.iter() {
        qualified(key, &path, e);
        policy::capacity(value, shared, &path.key(&shortened(key, KEY_SHOWN_BYTES)), e);
    }
    let (taints, path) = (d.items_at(&["taints"]), at.child("taints"));
    let same = old.is_some_and(|o| equality::same(o.get("taints"), d.get("taints")));
    if !same && at_most(taints, TAINTS_MAX, &path, e) {
        for (i, t) in taints.iter().enumerate() {
            taint(t, None, &path.index(i), e);
        }
    }
    let (consumed, path) = (d.items_at(&["consumesCounters"]), at.child("consumesCounters"));
    if at_most(consumed, CONSUMPTIONS_MAX, &path, e) {
        for (i, c) in consumed.iter().enumerate() {
            counters(c, "counterSet", &path.index(i), e);
            if consumed[..i].iter().any(|x| text(x, "counterSet") == text(c, "counterSet")) {
                e.duplicate(&path.index(i), text(c, "counterSet"));
            }
        }
    }
    device_place(d, own_place, at, e);
    binding_conditions(d, at, e);
}

fn device_place(d: &Value, own: bool, at: &Path, e: &mut Errors) {
    if !own {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|f| present(d, f).is_some()) {
            let text = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            e.invalid(at, Value::Null, text);
        }
        return;
    }
    let mut set = Vec::new();
    match d.str_at(&["nodeName"]) {
        Some("") => e.invalid(&at.child("nodeName"), "", "must not be empty"),
        Some(n) => {
            set.push("`nodeName`");
            e.invalid_each(&at.child("nodeName"), n, names::subdomain(n));
        }
        None => {}
    }
    if let Some(s) = present(d, "nodeSelector") {
        set.push("`nodeSelector`");
        node_selector(s, &at.child("nodeSelector"), e);
    }
    match flag(d, "allNodes") {
        Some(true) => set.push("`allNodes`"),
        Some(false) => e.invalid(&at.child("allNodes"), false, "must be either unset or set to true"),
        None => {}
    }
    match set.len() {
        0 => e.required(at, DEVICE_PLACES),
        1 => {}
        _ => e.invalid(at, braces(&set), DEVICE_PLACES),
    }
}

/// A counter set, or what a device consumes of one.
fn counters(c: &Value, name: &'static str, at: &Path, e: &mut Errors) {
    match text(c, name) {
        "" => e.required(&at.child(name), ""),
        n => e.invalid_each(&at.child(name), n, names::label(n)),
    }
    let path = at.child("counters");
    let Some(all) = c.get("counters").and_then(Value::as_object).filter(|m| !m.is_empty()) else {
        e.required(&path, "");
        return;
    };
    if all.len() > COUNTERS_MAX {
        e.too_many(&path, all.len(), COUNTERS_MAX);
        return;
    }
    for key in all.keys() {
        e.invalid_each(&path, key, names::label(key));
    }
}

/// One value, of one type.
fn attribute(a: &Value, at: &Path, e: &mut Errors) {
    const TYPES: &[&str] = &["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
    if let Some(s) = a.str_at(&["string"])
        && s.len() > ATTRIBUTE_MAX_BYTES
    {
        e.too_long(&at.child("string"), ATTRIBUTE_MAX_BYTES);
    }
    if let Some(v) = a.str_at(&["version"]) {
        let at = at.child("version");
        if !is_semantic_version(v) {
            e.invalid(&at, v, "must be a string compatible with semver.org spec 2.0.0");
        }
        if v.len() > ATTRIBUTE_MAX_BYTES {
            e.too_long(&at, ATTRIBUTE_MAX_BYTES);
        }
    }
    match TYPES.iter().filter(|t| present(a, t).is_some()).count() {
        0 => e.invalid(at, "", "exactly one value must be specified"),
        1 => {}
        _ => e.invalid(at, a.clone(), "exactly one value must be specified"),
    }
}

fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
    let word = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let number = |p: &str| digits(p) && (p == "0" || !p.starts_with('0'));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(|p| word(p) && (!digits(p) || number(p))))
        && build.is_none_or(|b| b.split('.').all(word))
}

/// A long key with its middle left out.
fn shortened(key: &str, max_bytes: usize) -> String {
    if key.len() <= max_bytes {
        return key.to_owned();
    }
    let rest = max_bytes - 3;
    let (head, tail) = (rest.div_ceil(2), key.len() - rest / 2);
    let head = (0..=head).rev().find(|i| key.is_char_boundary(*i)).unwrap_or(0);
    let tail = (tail..=key.len()).find(|i| key.is_char_boundary(*i)).unwrap_or(key.len());
    format!("{}...{}", &key[..head], &key[tail..])
}
