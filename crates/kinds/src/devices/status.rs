//! Rules for what status writes report of claims, taint rules and pool requests.

use std::collections::HashSet;

use ironkeel_object::{ObjectMeta, Value};

use super::claims::{configuration, reference, references};
use super::names::{at_most, binding_conditions, declared_pool, pool, raw_object, text};
use crate::error::Errors;
use crate::pod_spec::present;
use crate::pod_spec::scheduling::node_selector;
use crate::pod_spec::storage_sources::csi_driver_name;
use crate::repeats::repeated_by;
use crate::status::conditions;
use crate::{Path, TableContext, equality, names, print};

const CONSUMERS_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
/// Configurations of the class and of the claim.
const CONFIGS_MAX: usize = 64;
const CONDITIONS_MAX: usize = 8;
const DATA_MAX_BYTES: usize = 10 * 1024;
const INTERFACE_MAX_BYTES: usize = 256;
const HARDWARE_ADDRESS_MAX_BYTES: usize = 128;
const ADDRESSES_MAX: usize = 16;
const POOLS_MAX: usize = 1000;
const POOL_CONDITIONS_MAX: usize = 10;
const POOL_ERROR_MAX_BYTES: usize = 256;

/// A device by driver, pool, name and share.
fn device_id(d: &Value) -> String {
    let mut id = format!("{}/{}/{}", text(d, "driver"), text(d, "pool"), text(d, "device"));
    if let Some(share) = d.str_at(&["shareID"]).filter(|s| !s.is_empty()) {
        id.push('/');
        id.push_str(share);
    }
    id
}

/// `status` of a claim.
pub(super) fn claim(o: &Value, old: &Value, e: &mut Errors) {
    let (at, status, before) = (Path::new("status"), &o["status"], &old["status"]);
    let (consumers, path) = (status.items_at(&["reservedFor"]), at.child("reservedFor"));
    if at_most(consumers, CONSUMERS_MAX, &path, e) {
        for (i, c) in consumers.iter().enumerate() {
            let at = path.index(i);
            for f in ["resource", "name", "uid"].into_iter().filter(|f| text(c, f).is_empty()) {
                e.required(&at.child(f), "");
            }
            if consumers[..i].iter().any(|x| text(x, "uid") == text(c, "uid")) {
                e.duplicate(&at, text(c, "uid"));
            }
        }
    }
    let allocation = present(status, "allocation");
    let allocated: HashSet<String> =
        allocation.map(|a| a.items_at(&["devices", "results"]).iter().map(device_id).collect()).unwrap_or_default();
    let (devices, path) = (status.items_at(&["devices"]), at.child("devices"));
    let twice = repeated_by(devices, device_id);
    for (i, d) in devices.iter().enumerate() {
        let at = path.index(i);
        device(d, &allocated, &at, e);
        if twice[i] {
            e.duplicate_as(&at, &device_id(d), "");
        }
    }
    let path = at.child("reservedFor");
    if !consumers.is_empty() {
        if allocation.is_none() {
            e.forbidden(&path, "may not be specified when `allocated` is not set");
        } else if o.deletion_timestamp().is_some()
            && consumers.iter().any(|c| !before.items_at(&["reservedFor"]).contains(c))
        {
            let text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            e.forbidden(&path, text);
        }
    }
    let path = at.child("allocation");
    match (allocation, present(before, "allocation")) {
        (Some(new), Some(was)) if !equality::equal_as("resource/v1.AllocationResult", new, was) => {
            e.invalid(&path, new.clone(), "field is immutable");
        }
        (Some(new), None) => allocation_result(&o["spec"]["devices"], new, &path, e),
        _ => {}
    }
}

fn allocation_result(requested: &Value, a: &Value, at: &Path, e: &mut Errors) {
    let devices = at.child("devices");
    let (results, path) = (a.items_at(&["devices", "results"]), devices.child("results"));
    if at_most(results, RESULTS_MAX, &path, e) {
        for (i, r) in results.iter().enumerate() {
            let at = path.index(i);
            reference(requested, text(r, "request"), &at.child("request"), e);
            device_name(r, &at, e);
            binding_conditions(r, &at, e);
            share(r, &at, e);
        }
    }
    let (configs, path) = (a.items_at(&["devices", "config"]), devices.child("config"));
    if at_most(configs, CONFIGS_MAX, &path, e) {
        for (i, c) in configs.iter().enumerate() {
            let at = path.index(i);
            match text(c, "source") {
                "" => e.required(&at.child("source"), ""),
                "FromClaim" | "FromClass" => {}
                s => e.not_supported(&at.child("source"), s, &["FromClaim", "FromClass"]),
            }
            references(requested, c.items_at(&["requests"]), &at.child("requests"), e);
            configuration(c, false, &at, e);
        }
    }
    if let Some(s) = present(a, "nodeSelector") {
        node_selector(s, &at.child("nodeSelector"), e);
    }
}

fn device_name(d: &Value, at: &Path, e: &mut Errors) {
    csi_driver_name(text(d, "driver"), &at.child("driver"), e);
    pool(text(d, "pool"), &at.child("pool"), e);
    e.invalid_each(&at.child("device"), text(d, "device"), names::label(text(d, "device")));
}

/// `shareID`: a UUID in its usual form.
fn share(d: &Value, at: &Path, e: &mut Errors) {
    let Some(id) = d.str_at(&["shareID"]) else { return };
    let form = id.len() == 36
        && id.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        });
    if form {
        return;
    }
    let text = if id.len() == 36 {
        "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters".to_owned()
    } else {
        format!("error validating uid: invalid UUID length: {}", id.len())
    };
    e.invalid(&at.child("shareID"), id, &text);
}

fn device(d: &Value, allocated: &HashSet<String>, at: &Path, e: &mut Errors) {
    device_name(d, at, e);
    share(d, at, e);
    let id = device_id(d);
    if !allocated.contains(&id) {
        e.invalid_as(at, &id, "must be an allocated device in the claim");
    }
    let list = d.items_at(&["conditions"]);
    at_most(list, CONDITIONS_MAX, &at.child("conditions"), e);
    conditions(list, &at.child("conditions"), e);
    if let Some(data) = present(d, "data") {
        raw_object(Some(data), DATA_MAX_BYTES, &at.child("data"), e);
    }
    let Some(network) = present(d, "networkData") else { return };
    let at = at.child("networkData");
    for (field, max) in [("interfaceName", INTERFACE_MAX_BYTES), ("hardwareAddress", HARDWARE_ADDRESS_MAX_BYTES)] {
        if text(network, field).len() > max {
            e.too_long(&at.child(field), max);
        }
    }
    let (ips, path) = (network.items_at(&["ips"]), at.child("ips"));
    if at_most(ips, ADDRESSES_MAX, &path, e) {
        for (i, ip) in ips.iter().enumerate() {
            interface_address(ip.as_str().unwrap_or_default(), &path.index(i), e);
            if ips[..i].contains(ip) {
                e.duplicate(&path.index(i), ip.clone());
            }
        }
    }
}

fn interface_address(text: &str, at: &Path, e: &mut Errors) {
    let Ok(net) = text.parse::<ipnet::IpNet>() else {
        e.invalid(at, text, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)");
        return;
    };
    let canonical = format!("{}/{}", net.addr(), net.prefix_len());
    if canonical != text {
        e.invalid(at, text, &format!("must be in canonical form (\"{canonical}\")"));
    }
}

/// `status` of a taint rule.
pub(super) fn taint_rule(o: &Value, e: &mut Errors) {
    let at = Path::new("status").child("conditions");
    let list = o.items_at(&["status", "conditions"]);
    conditions(list, &at, e);
    at_most(list, CONDITIONS_MAX, &at, e);
}

/// `spec` of a request for the status of pools.
pub(super) fn pool_request(o: &Value, e: &mut Errors) {
    let (at, spec) = (Path::new("spec"), &o["spec"]);
    match text(spec, "driver") {
        "" => e.required(&at.child("driver"), ""),
        d => e.invalid_each(&at.child("driver"), d, names::long_name_caseless(d)),
    }
    if let Some(p) = spec.str_at(&["poolName"]) {
        declared_pool(p, &at.child("poolName"), e);
    }
    bounds(spec.i64_at(&["limit"]), 1, 1000, &at.child("limit"), e);
}

fn bounds(value: Option<i64>, min: i64, max: i64, at: &Path, e: &mut Errors) {
    match value {
        Some(v) if v < min => e.invalid(at, v, &format!("must be greater than or equal to {min}")),
        Some(v) if v > max => e.invalid(at, v, &format!("must be less than or equal to {max}")),
        _ => {}
    }
}

/// `status` of a request for the status of pools: written once.
pub(super) fn pool_answer(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("status");
    if let Some(was) = present(old, "status") {
        if !equality::same(o.get("status"), Some(was)) {
            e.invalid(&at, o.get("status").cloned().unwrap_or_default(), "field is immutable");
        }
        return;
    }
    let Some(status) = present(o, "status") else { return };
    match status.i64_at(&["poolCount"]) {
        None => e.required(&at.child("poolCount"), ""),
        count => bounds(count, 0, i64::MAX, &at.child("poolCount"), e),
    }
    let (pools, path) = (status.items_at(&["pools"]), at.child("pools"));
    if at_most(pools, POOLS_MAX, &path, e) {
        for (i, p) in pools.iter().enumerate() {
            pool_status(p, &path.index(i), e);
        }
    }
    let (list, path) = (status.items_at(&["conditions"]), at.child("conditions"));
    if at_most(list, POOL_CONDITIONS_MAX, &path, e) {
        conditions(list, &path, e);
    }
}

fn pool_status(p: &Value, at: &Path, e: &mut Errors) {
    match text(p, "driver") {
        "" => e.required(&at.child("driver"), ""),
        d => e.invalid_each(&at.child("driver"), d, names::long_name_caseless(d)),
    }
    match text(p, "poolName") {
        "" => e.required(&at.child("poolName"), ""),
        n => declared_pool(n, &at.child("poolName"), e),
    }
    match p.i64_at(&["generation"]).unwrap_or(0) {
        0 => e.required(&at.child("generation"), ""),
        g => bounds(Some(g), 0, i64::MAX, &at.child("generation"), e),
    }
    bounds(p.i64_at(&["resourceSliceCount"]), 1, i64::MAX, &at.child("resourceSliceCount"), e);
    for f in ["totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"] {
        bounds(p.i64_at(&[f]), 0, i64::MAX, &at.child(f), e);
    }
    if let Some(n) = p.str_at(&["nodeName"]) {
        e.invalid_each(&at.child("nodeName"), n, names::long_name(n));
    }
    if text(p, "validationError").len() > POOL_ERROR_MAX_BYTES {
        e.too_long(&at.child("validationError"), POOL_ERROR_MAX_BYTES);
    }
}

/// The cells of a request for the status of pools.
pub(super) fn pool_cells(o: &Value, c: &TableContext) -> Vec<Value> {
    let status = present(o, "status");
    let conditions = status.map(|s| s.items_at(&["conditions"])).unwrap_or_default();
    let decided =
        conditions.iter().find(|c| matches!(text(c, "type"), "Complete" | "Failed") && text(c, "status") == "True");
    let pools = status.map(|s| s.items_at(&["pools"])).unwrap_or_default();
    let count = status.and_then(|s| s.i64_at(&["poolCount"])).unwrap_or(0);
    let failed = decided.is_some_and(|c| text(c, "type") == "Failed");
    let complete = decided.filter(|_| !failed);
    let state = match decided {
        None => "Pending".to_owned(),
        Some(_) if failed => "Failed".to_owned(),
        Some(_) if count > pools.len() as i64 => format!("Complete ({}/{count} pools)", pools.len()),
        Some(_) => "Complete".to_owned(),
    };
    let counted = status.is_some() && !failed;
    let sum = |f: &str| {
        let total: i64 = pools.iter().filter_map(|p| p.i64_at(&[f])).sum();
        Value::from(if counted { total.to_string() } else { "-".to_owned() })
    };
    let errors = pools.iter().filter(|p| present(p, "validationError").is_some()).count();
    let completed = match complete {
        Some(c2) => print::since(c2.str_at(&["lastTransitionTime"]), c),
        None => "<none>".to_owned(),
    };
    vec![
        print::text(o, &["spec", "driver"], ""),
        sum("totalDevices"),
        sum("availableDevices"),
        sum("allocatedDevices"),
        sum("unavailableDevices"),
        if counted { errors.to_string() } else { "-".to_owned() }.into(),
        count.into(),
        state.into(),
        completed.into(),
    ]
}
