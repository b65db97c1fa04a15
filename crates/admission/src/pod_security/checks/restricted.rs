//! The controls that the restricted level adds.

use ironkeel_object::{Map, Value};

use super::{
    Subject, bad, containers, flag, in_user_namespace, name, plural, quoted, seccomp_set, setters, sorted,
    unmasked_proc, unsafe_seccomp, who, windows,
};

/// The minor version from which Windows Pods need no controls that mean Linux alone.
const WINDOWS_MINOR: u32 = 25;
/// The minor version from which root in a user namespace is not held for root.
const USER_NAMESPACE_MINOR: u32 = 35;
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
];

fn exempt_windows(s: &Subject<'_>, minor: u32) -> bool {
    minor >= WINDOWS_MINOR && windows(s.spec)
}

fn exempt_user_namespace(s: &Subject<'_>, minor: u32) -> bool {
    minor >= USER_NAMESPACE_MINOR && in_user_namespace(s.spec)
}

pub(super) fn privilege_escalation(s: &Subject<'_>, minor: u32) -> Option<String> {
    if exempt_windows(s, minor) {
        return None;
    }
    let names = bad(s.spec, |c| flag(c, &["securityContext", "allowPrivilegeEscalation"]) != Some(false));
    (!names.is_empty()).then(|| {
        let who = who(&names);
        format!("allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)")
    })
}

/// All dropped, and none but NET_BIND_SERVICE added.
pub(super) fn capabilities(s: &Subject<'_>, minor: u32) -> Option<String> {
    if exempt_windows(s, minor) {
        return None;
    }
    let undropped = bad(s.spec, |c| {
        let dropped = c.items_at(&["securityContext", "capabilities", "drop"]);
        !dropped.iter().any(|d| d.as_str() == Some("ALL"))
    });
    let extra = |c| -> Vec<&str> {
        let added = Value::items_at(c, &["securityContext", "capabilities", "add"]);
        added.iter().filter_map(Value::as_str).filter(|x| *x != "NET_BIND_SERVICE").collect()
    };
    let adding = bad(s.spec, |c| !extra(c).is_empty());
    let mut parts = Vec::new();
    if !undropped.is_empty() {
        parts.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", who(&undropped)));
    }
    if !adding.is_empty() {
        let all = sorted(containers(s.spec).flat_map(extra).map(str::to_owned).collect());
        parts.push(format!("{} must not include {} in securityContext.capabilities.add", who(&adding), quoted(&all)));
    }
    (!parts.is_empty()).then(|| format!("unrestricted capabilities ({})", parts.join("; ")))
}

/// Without the baseline's exception for user namespaces.
pub(super) fn proc_mount(s: &Subject<'_>, _: u32) -> Option<String> {
    unmasked_proc(s.spec)
}

pub(super) fn volumes(s: &Subject<'_>, _: u32) -> Option<String> {
    let (mut names, mut types) = (Vec::new(), Vec::new());
    for volume in s.spec.items_at(&["volumes"]) {
        let sources = volume.as_object().into_iter().flat_map(Map::iter);
        let sources: Vec<&str> =
            sources.filter(|(k, v)| k.as_ref() != "name" && !v.is_null()).map(|(k, _)| k.as_ref()).collect();
        if sources.iter().any(|k| VOLUMES.contains(k)) {
            continue;
        }
        names.push(name(volume));
        types.push(match sources.first() {
            None => "unknown".to_owned(),
            Some(kind) => kind.replace("storageOS", "storageos"),
        });
    }
    if names.is_empty() {
        return None;
    }
    let types = sorted(types);
    let (lead, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let what = plural("restricted volume type", "restricted volume types", types.len());
    Some(format!("restricted volume types ({lead} {} {uses} {what} {})", quoted(&names), quoted(&types)))
}

pub(super) fn run_as_non_root(s: &Subject<'_>, minor: u32) -> Option<String> {
    if exempt_user_namespace(s, minor) {
        return None;
    }
    let set = |c| flag(c, &["securityContext", "runAsNonRoot"]);
    let by = setters(s.spec, |c| set(c) == Some(false)).join(" and ");
    if !by.is_empty() {
        return Some(format!("runAsNonRoot != true ({by} must not set securityContext.runAsNonRoot=false)"));
    }
    let silent = if set(s.spec) == Some(true) { Vec::new() } else { bad(s.spec, |c| set(c).is_none()) };
    (!silent.is_empty())
        .then(|| format!("runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)", who(&silent)))
}

pub(super) fn run_as_user(s: &Subject<'_>, minor: u32) -> Option<String> {
    if exempt_user_namespace(s, minor) {
        return None;
    }
    let by = setters(s.spec, |c| c.i64_at(&["securityContext", "runAsUser"]) == Some(0)).join(" and ");
    (!by.is_empty()).then(|| format!("runAsUser=0 ({by} must not set runAsUser=0)"))
}

pub(super) fn seccomp(s: &Subject<'_>, minor: u32) -> Option<String> {
    if exempt_windows(s, minor) {
        return None;
    }
    if let Some(text) = seccomp_set(s.spec) {
        return Some(text);
    }
    let set = |c| Value::at(c, &["securityContext", "seccompProfile"]).is_some_and(|p| !p.is_null());
    if set(s.spec) && unsafe_seccomp(s.spec).is_none() {
        return None;
    }
    let silent = bad(s.spec, |c| !set(c));
    (!silent.is_empty()).then(|| {
        let who = who(&silent);
        format!("seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")")
    })
}
