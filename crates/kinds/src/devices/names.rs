//! Forms of names in `resource.k8s.io`, and the parts that several of its kinds have.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::storage_sources::csi_driver_name;
use crate::pod_spec::string;
use crate::repeats::{identity, members, repeated_whole};
use crate::{Path, names};

/// Octets of an identifier of an attribute or a capacity.
const ID_MAX_BYTES: usize = 32;
/// Octets of a pool's name.
const POOL_MAX_BYTES: usize = 253;
/// Binding conditions of one sort that a device may have.
const BINDING_CONDITIONS_MAX: usize = 4;

/// What a taint may do.
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// A text member, empty where absent.
pub(super) fn text<'a>(v: &'a Value, f: &str) -> &'a str {
    v.str_at(&[f]).unwrap_or_default()
}

/// Whether a list is short enough for its elements to be looked at.
pub(super) fn at_most(list: &[Value], max: usize, at: &Path, e: &mut Errors) -> bool {
    if list.len() > max {
        e.too_many(at, list.len(), max);
    }
    list.len() <= max
}

/// The name of a pool: subdomains, separated by slashes.
pub(super) fn pool(name: &str, at: &Path, e: &mut Errors) {
    if name.is_empty() {
        e.required(at, "");
        return;
    }
    if name.len() > POOL_MAX_BYTES {
        e.too_long(at, POOL_MAX_BYTES);
    }
    for part in name.split('/') {
        e.invalid_each(at, part, names::subdomain(part));
    }
}

/// The same as the declared format `k8s-resource-pool-name` tells it.
pub(super) fn declared_pool(name: &str, at: &Path, e: &mut Errors) {
    if name.len() > POOL_MAX_BYTES {
        e.too_long(at, POOL_MAX_BYTES);
    }
    for (i, part) in name.split('/').enumerate() {
        if part.is_empty() {
            e.invalid(at, name, &format!("segment {i}: must not be empty"));
            continue;
        }
        let messages = names::long_name(part).into_iter().map(|m| format!("segment {i}: {m}"));
        e.invalid_each(at, part, messages.collect());
    }
}

fn identifier(id: &str, at: &Path, e: &mut Errors) {
    if id.len() > ID_MAX_BYTES {
        e.too_long(at, ID_MAX_BYTES);
    }
    let form = id.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !form {
        let text = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        e.invalid(at, id, text);
    }
}

/// The name of an attribute or a capacity: an identifier, with or without a domain. As upstream,
/// more than one slash passes.
pub(super) fn qualified(name: &str, at: &Path, e: &mut Errors) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [id] => identifier(id, at, e),
        [domain, id] => {
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
        _ => {}
    }
}

/// [`qualified`] with a domain.
pub(super) fn fully_qualified(name: &str, at: &Path, e: &mut Errors) {
    qualified(name, at, e);
    if !name.contains('/') {
        e.invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// A taint of a device; an effect that stays is not looked at again.
pub(super) fn taint(t: &Value, old: Option<&Value>, at: &Path, e: &mut Errors) {
    let key = text(t, "key");
    e.invalid_each(&at.child("key"), key, names::qualified(key));
    if let Some(v) = string(t, "value") {
        e.invalid_each(&at.child("value"), v, names::label_value(v));
    }
    match text(t, "effect") {
        x if old.is_some_and(|o| text(o, "effect") == x) => {}
        "" => e.required(&at.child("effect"), ""),
        x if !EFFECTS.contains(&x) => e.not_supported(&at.child("effect"), x, EFFECTS),
        _ => {}
    }
}

/// What must become true, and what must not, before a device is bound.
pub(super) fn binding_conditions(device: &Value, at: &Path, e: &mut Errors) {
    let (ready, failed) = ("bindingConditions", "bindingFailureConditions");
    let (conditions, failures) = (device.items_at(&[ready]), device.items_at(&[failed]));
    for (field, list) in [(ready, conditions), (failed, failures)] {
        let path = at.child(field);
        if at_most(list, BINDING_CONDITIONS_MAX, &path, e) {
            for (i, c) in list.iter().enumerate() {
                let name = c.as_str().unwrap_or_default();
                e.invalid_each(&path.index(i), name, names::qualified(name));
            }
        }
        let twice = repeated_whole(list);
        for (i, c) in list.iter().enumerate() {
            if twice[i] {
                e.duplicate(&path.index(i), c.clone());
            }
        }
    }
    let ready_too = members(conditions);
    for (i, c) in failures.iter().enumerate().filter(|(_, c)| ready_too.contains(&identity(c))) {
        let at = at.child(failed).index(i);
        e.invalid(&at, c.clone(), "bindingFailureConditions must not overlap with bindingConditions");
    }
    if conditions.is_empty() && !failures.is_empty() {
        let text = "bindingConditions are required to use bindingFailureConditions";
        e.invalid(&at.child(ready), Value::Null, text);
    }
    if failures.is_empty() && !conditions.is_empty() {
        let text = "bindingFailureConditions are required to use bindingConditions";
        e.invalid(&at.child(failed), Value::Null, text);
    }
}

/// Free content that must be a JSON object of at most so many octets.
pub(super) fn raw_object(value: Option<&Value>, max_bytes: usize, at: &Path, e: &mut Errors) {
    match value {
        None | Some(Value::Null) => e.required(at, ""),
        Some(v) if crate::error::shown(v).len() > max_bytes => e.too_long(at, max_bytes),
        Some(Value::Object(_)) => {}
        Some(_) => e.invalid(at, "<value omitted>", "must be a valid JSON object"),
    }
}
