//! What depends on the operating system of a pod: options of Windows, and what either system lacks.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::present;
use crate::{Path, names};

const CREDENTIAL_SPEC_MAX_BYTES: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

fn every_container<'a>(spec: &'a Value, path: &Path) -> impl Iterator<Item = (&'a Value, Path)> {
    let path = path.clone();
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| {
        let at = path.child(list);
        spec.items_at(&[list]).iter().enumerate().map(move |(i, c)| (c, at.index(i)))
    })
}

/// `windowsOptions` of a security context.
pub(crate) fn options(context: &Value, at: &Path, e: &mut Errors) {
    let Some(o) = present(context, "windowsOptions") else { return };
    let at = at.child("windowsOptions");
    if let Some(n) = o.str_at(&["gmsaCredentialSpecName"]) {
        e.invalid_each(&at.child("gmsaCredentialSpecName"), n, names::subdomain(n));
    }
    if let Some(s) = o.str_at(&["gmsaCredentialSpec"]) {
        let at = at.child("gmsaCredentialSpec");
        if s.is_empty() {
            e.invalid(&at, s, "gmsaCredentialSpec cannot be an empty string");
        } else if s.len() > CREDENTIAL_SPEC_MAX_BYTES {
            e.invalid(&at, s, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = o.str_at(&["runAsUserName"]) {
        user_name(name, &at.child("runAsUserName"), e);
    }
}

fn user_name(name: &str, at: &Path, e: &mut Errors) {
    let mut wrong = |text: &str| e.invalid(at, name, text);
    if name.is_empty() {
        return wrong("runAsUserName cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return wrong("runAsUserName cannot contain control characters");
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return wrong("runAsUserName cannot contain more than one backslash");
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    if let Some(d) = domain {
        if d.len() >= DOMAIN_MAX {
            wrong("runAsUserName's Domain length must be under 256 characters");
        }
        let netbios = !d.is_empty()
            && !d.starts_with('.')
            && d.chars().count() <= 15
            && !d.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let dns = d.split('.').all(|l| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
            l.len() <= 63
                && edge(l.bytes().next())
                && edge(l.bytes().next_back())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
        if !netbios && !dns {
            wrong("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong("runAsUserName's User cannot be empty");
    } else if user.len() > USER_MAX {
        wrong("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' ')) {
        wrong("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

/// Host process containers: all or none, and on the host's network.
pub(crate) fn host_process(spec: &Value, path: &Path, e: &mut Errors) {
    let flag = |v: &Value| v.at(&["securityContext", "windowsOptions", "hostProcess"]).and_then(Value::as_bool);
    let of_pod = flag(spec);
    let (mut all, mut found) = (0, 0);
    for (c, at) in every_container(spec, path) {
        all += 1;
        let own = flag(c);
        if let (Some(p), Some(o)) = (of_pod, own)
            && p != o
        {
            let text = format!("pod hostProcess value must be identical if both are specified, was {p}");
            let at = at.child("securityContext").child("windowsOptions").child("hostProcess");
            e.invalid(&at, o, &text);
        }
        found += usize::from(own.or(of_pod) == Some(true));
    }
    if found == 0 {
        return;
    }
    if found != all {
        let text = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        e.invalid(path, "", text);
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) != Some(true) {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        e.invalid(&path.child("hostNetwork"), false, text);
    }
}

/// `os`, and what a pod of that system may not have.
pub(crate) fn operating_system(spec: &Value, path: &Path, e: &mut Errors) {
    let Some(os) = present(spec, "os") else { return };
    let at = path.child("os");
    match os.str_at(&["name"]).unwrap_or_default() {
        "" => e.required(&at.child("name"), ""),
        "linux" => linux(spec, path, e),
        "windows" => windows(spec, path, e),
        other => e.not_supported(&at, other, &["linux", "windows"]),
    }
}

fn linux(spec: &Value, path: &Path, e: &mut Errors) {
    let has = |v: &Value| v.at(&["securityContext", "windowsOptions"]).is_some_and(|w| !w.is_null());
    let text = "windows options cannot be set for a linux pod";
    if has(spec) {
        e.forbidden(&path.child("securityContext").child("windowsOptions"), text);
    }
    for (_, at) in every_container(spec, path).filter(|(c, _)| has(c)) {
        e.forbidden(&at.child("securityContext").child("windowsOptions"), text);
    }
}

fn windows(spec: &Value, path: &Path, e: &mut Errors) {
    let text = "cannot be set for a windows pod";
    let at = path.child("securityContext");
    let context = spec.get("securityContext").unwrap_or(&Value::Null);
    let set = |v: &Value, f: &str| present(v, f).is_some();
    for f in ["hostUsers", "shareProcessNamespace"] {
        if set(spec, f) {
            e.forbidden(&path.child(f), text);
        }
    }
    for f in ["hostPID", "hostIPC"] {
        if spec.get(f).and_then(Value::as_bool) == Some(true) {
            e.forbidden(&path.child(f), text);
        }
    }
    const OF_POD: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    for f in OF_POD.iter().filter(|f| set(context, f)) {
        e.forbidden(&at.child(f), text);
    }
    if !context.items_at(&["sysctls"]).is_empty() {
        e.forbidden(&at.child("sysctls"), text);
    }
    const OF_CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for (c, at) in every_container(spec, path) {
        let Some(own) = present(c, "securityContext") else { continue };
        for f in OF_CONTAINER.iter().filter(|f| set(own, f)) {
            e.forbidden(&at.child("securityContext").child(f), text);
        }
    }
}
