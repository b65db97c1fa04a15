//! Security contexts of pods and containers.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{present, string};
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
    for (i, c) in list.iter().enumerate() {
        let at = at.child("sysctls").index(i);
        match string(c, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) if !sysctl_name(n) => {
                let text = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
                e.invalid(&at.child("name"), n, text);
            }
            Some(n) if list[..i].iter().any(|x| x["name"] == c["name"]) => e.duplicate(&at.child("name"), n),
            Some(_) => {}
        }
    }
    for (f, allowed) in
        [("fsGroupChangePolicy", &["Always", "OnRootMismatch"]), ("supplementalGroupsPolicy", &["Merge", "Strict"])]
    {
        if let Some(v) = s.str_at(&[f]).filter(|v| !allowed.contains(v)) {
            e.not_supported(&at.child(f), v, allowed);
        }
    }
    profiles(s, &at, e);
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
pub(crate) fn validate_container(s: &Value, at: &Path, e: &mut Errors) {
    unix_ids(s, &["runAsUser", "runAsGroup"], at, e);
    if let Some(p) = s.str_at(&["procMount"]).filter(|p| !matches!(*p, "Default" | "Unmasked")) {
        e.not_supported(&at.child("procMount"), p, &["Default", "Unmasked"]);
    }
    let flag = |f: &str| s.get(f).and_then(Value::as_bool);
    if flag("allowPrivilegeEscalation") == Some(false) {
        if flag("privileged") == Some(true) {
            e.invalid(at, s.clone(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = s.items_at(&["capabilities", "add"]);
        if added.iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            e.invalid(
                at,
                s.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    profiles(s, at, e);
}

fn profiles(s: &Value, at: &Path, e: &mut Errors) {
    for field in ["seccompProfile", "appArmorProfile"] {
        let Some(p) = present(s, field) else { continue };
        let at = at.child(field);
        let local = at.child("localhostProfile");
        match (p.str_at(&["type"]).unwrap_or_default(), present(p, "localhostProfile")) {
            ("Localhost", None) => e.required(&local, "must be set when seccomp type is Localhost"),
            ("Localhost", Some(v)) => {
                if field == "seccompProfile" {
                    crate::pod_spec::containers::descending(v.as_str().unwrap_or_default(), &local, e);
                }
            }
            ("RuntimeDefault" | "Unconfined", Some(v)) => {
                let text = if field == "seccompProfile" {
                    "can only be set when seccomp type is Localhost"
                } else {
                    "can only be set when AppArmor type is Localhost"
                };
                e.invalid(&local, v.clone(), text);
            }
            ("RuntimeDefault" | "Unconfined", None) => {}
            ("", _) => e.required(&at.child("type"), "type is required when seccompProfile is set"),
            (other, _) => e.not_supported(&at.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
        }
    }
}
