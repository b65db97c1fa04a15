//! Security contexts of pods and containers.

use ironkeel_object::Value;

use crate::error::{Errors, shown};
use crate::pod_spec::{containers, present, repeated, string, windows};
use crate::{Path, names};

fn unix_ids(v: &Value, fields: &[&str], at: &Path, e: &mut Errors) {
    for f in fields {
        if let Some(id) = v.i64_at(&[f]) {
            names::unix_id(id).iter().for_each(|m| e.invalid(&at.child(f), id, m));
        }
    }
}

/// `securityContext` of a pod, and what depends on it.
pub(crate) fn validate_pod(spec: &Value, path: &Path, e: &mut Errors) {
    let Some(s) = present(spec, "securityContext") else { return };
    let at = path.child("securityContext");
    unix_ids(s, &["fsGroup", "runAsUser", "runAsGroup"], &at, e);
    for (i, g) in s.items_at(&["supplementalGroups"]).iter().enumerate() {
        let g = g.as_i64().unwrap_or_default();
        names::unix_id(g).iter().for_each(|m| e.invalid(&at.child("supplementalGroups").index(i), g, m));
    }
    let flag = |f: &str| spec.get(f).and_then(Value::as_bool);
    if flag("shareProcessNamespace") == Some(true) && flag("hostPID") == Some(true) {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        e.invalid(&at.child("shareProcessNamespace"), true, text);
    }
    let list = s.items_at(&["sysctls"]);
    let twice = repeated(list, "name");
    for (i, c) in list.iter().enumerate() {
        let at = at.child("sysctls").index(i);
        match string(c, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) if !sysctl_name(n) => {
                let text = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
                e.invalid(&at.child("name"), n, text);
            }
            Some(n) if twice[i] => e.duplicate(&at.child("name"), n),
            Some(_) => {}
        }
        let name = c.str_at(&["name"]).unwrap_or_default();
        if let Some(shared) = sysctl_of_host(&name.replace('/', "."), |f| flag(f) == Some(true)) {
            e.invalid(&at.child("name"), name, &format!("may not be specified when '{shared}' is true"));
        }
    }
    for (f, allowed) in
        [("fsGroupChangePolicy", &["Always", "OnRootMismatch"]), ("supplementalGroupsPolicy", &["Merge", "Strict"])]
    {
        if let Some(v) = s.str_at(&[f]).filter(|v| !allowed.contains(v)) {
            e.not_supported(&at.child(f), v, allowed);
        }
    }
    if let Some(p) = s.str_at(&["seLinuxChangePolicy"]).filter(|p| *p != "Recursive") {
        e.not_supported(&at.child("seLinuxChangePolicy"), p, &["Recursive"]);
    }
    windows::options(s, &at, e);
    profiles(s, &at, e);
}

/// Kernel settings that belong to the host where the pod shares its namespace.
fn sysctl_of_host(name: &str, flag: impl Fn(&str) -> bool) -> Option<&'static str> {
    let ipc = name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name.starts_with("fs.mqueue.")
        || name == "kernel.sem";
    if ipc && flag("hostIPC") {
        return Some("hostIPC");
    }
    (name.starts_with("net.") && flag("hostNetwork")).then_some("hostNetwork")
}

fn sysctl_name(n: &str) -> bool {
    let part = |p: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(p.bytes().next())
            && edge(p.bytes().next_back())
            && p.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_'))
    };
    n.len() <= 253 && n.split(['.', '/']).all(part)
}

/// `securityContext` of a container.
pub(crate) fn validate_container(s: &Value, host_users: bool, at: &Path, e: &mut Errors) {
    unix_ids(s, &["runAsUser", "runAsGroup"], at, e);
    match s.str_at(&["procMount"]) {
        None | Some("Default") => {}
        Some("Unmasked") => {
            if host_users {
                e.invalid(&at.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
            }
        }
        Some(p) => e.not_supported(&at.child("procMount"), p, &["Default", "Unmasked"]),
    }
    let flag = |f: &str| s.get(f).and_then(Value::as_bool);
    if flag("allowPrivilegeEscalation") == Some(false) {
        if flag("privileged") == Some(true) {
            e.invalid(at, s.clone(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = s.items_at(&["capabilities", "add"]);
        if added.iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            e.invalid(at, s.clone(), text);
        }
    }
    windows::options(s, at, e);
    profiles(s, at, e);
}

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const APP_ARMOR_NAME_MAX_BYTES: usize = 4095;

fn profiles(s: &Value, at: &Path, e: &mut Errors) {
    for (field, what) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(p) = present(s, field) else { continue };
        let at = at.child(field);
        let kind = p.str_at(&["type"]).unwrap_or_default();
        if kind.is_empty() {
            e.required(&at.child("type"), &format!("type is required when {field} is set"));
        } else if !PROFILE_TYPES.contains(&kind) {
            e.not_supported(&at.child("type"), kind, PROFILE_TYPES);
        }
        let local = p.str_at(&["localhostProfile"]);
        let path = at.child("localhostProfile");
        if kind != "Localhost" {
            if let Some(l) = local {
                let text = format!("can only be set when {what} type is Localhost");
                if what == "seccomp" {
                    let quoted = |s: &str| shown(&s.into());
                    let whole = format!("{{\"Type\":{},\"LocalhostProfile\":{}}}", quoted(kind), quoted(l));
                    e.invalid_as(&path, &whole, &text);
                } else if PROFILE_TYPES.contains(&kind) {
                    e.invalid(&path, l, &text);
                }
            }
            continue;
        }
        match local {
            None => e.required(&path, &format!("must be set when {what} type is Localhost")),
            Some(l) if what == "seccomp" => containers::descending(l, &path, e),
            Some(l) => {
                let trimmed = l.trim();
                if trimmed != l {
                    e.invalid(&path, l, "must not be padded with whitespace");
                } else if trimmed.is_empty() {
                    e.required(&path, &format!("must be set when {what} type is Localhost"));
                }
                if l.len() > APP_ARMOR_NAME_MAX_BYTES {
                    e.too_long(&path, APP_ARMOR_NAME_MAX_BYTES);
                }
            }
        }
    }
}
