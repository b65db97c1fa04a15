//! The controls of the Pod Security Standards, each answering what violates it.

use ironkeel_object::{Map, Value};

const BASELINE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const RESTRICTED_VOLUMES: &[&str] = &[
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
const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|l| spec.items_at(&[l]))
}

fn name(container: &Value) -> &str {
    container.str_at(&["name"]).unwrap_or_default()
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn who(names: &[&str]) -> String {
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names))
}

fn bad<'a>(spec: &'a Value, is_bad: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
    containers(spec).filter(|c| is_bad(c)).map(name).collect()
}

/// The controls of the baseline level. Under `restricted` those are left out that a stricter control
/// of that level speaks for: capabilities and the seccomp profile.
pub(super) fn baseline(spec: &Value, annotations: Option<&Value>, restricted: bool) -> Vec<String> {
    let mut out = Vec::new();
    let flag = |v: &Value, path: &[&str]| v.at(path).and_then(Value::as_bool) == Some(true);
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|k| flag(spec, &[k]))
        .map(|k| format!("{k}=true"))
        .collect();
    if !shared.is_empty() {
        out.push(format!("host namespaces ({})", shared.join(", ")));
    }
    let privileged = bad(spec, |c| flag(c, &["securityContext", "privileged"]));
    if !privileged.is_empty() {
        out.push(format!("privileged ({} must not set securityContext.privileged=true)", who(&privileged)));
    }
    let added = |c: &Value| -> Vec<String> {
        let list = c.items_at(&["securityContext", "capabilities", "add"]);
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let caps = bad(spec, |c| added(c).iter().any(|x| !BASELINE_CAPABILITIES.contains(&x.as_str())));
    if !caps.is_empty() && (!restricted || windows(spec)) {
        let mut extra: Vec<String> =
            containers(spec).flat_map(added).filter(|x| !BASELINE_CAPABILITIES.contains(&x.as_str())).collect();
        extra.sort();
        extra.dedup();
        let extra: Vec<String> = extra.iter().map(|x| format!("\"{x}\"")).collect();
        out.push(format!(
            "non-default capabilities ({} must not include {} in securityContext.capabilities.add)",
            who(&caps),
            extra.join(", ")
        ));
    }
    let host_paths: Vec<String> = spec
        .items_at(&["volumes"])
        .iter()
        .filter(|v| v.get("hostPath").is_some_and(|h| !h.is_null()))
        .map(|v| format!("\"{}\"", name(v)))
        .collect();
    if !host_paths.is_empty() {
        let s = if host_paths.len() == 1 { "" } else { "s" };
        out.push(format!("hostPath volumes (volume{s} {})", host_paths.join(", ")));
    }
    let ports: Vec<&str> =
        bad(spec, |c| c.items_at(&["ports"]).iter().any(|p| p.i64_at(&["hostPort"]).unwrap_or(0) != 0));
    if !ports.is_empty() {
        let mut numbers: Vec<i64> = containers(spec)
            .flat_map(|c| c.items_at(&["ports"]))
            .filter_map(|p| p.i64_at(&["hostPort"]))
            .filter(|p| *p != 0)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let s = if numbers.len() == 1 { "" } else { "s" };
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        out.push(format!("hostPort ({} uses hostPort{s} {})", who(&ports), numbers.join(", ")));
    }
    if let Some(profiles) = annotations.and_then(Value::as_object) {
        let forbidden = profiles.iter().any(|(k, v)| {
            k.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && v.as_str().is_some_and(|v| !v.is_empty() && v != "runtime/default" && !v.starts_with("localhost/"))
        });
        if forbidden {
            out.push("forbidden AppArmor profiles".to_owned());
        }
    }
    let all = || std::iter::once(spec).chain(containers(spec));
    if all().any(|c| c.str_at(&["securityContext", "appArmorProfile", "type"]) == Some("Unconfined")) {
        out.push("forbidden AppArmor profile".to_owned());
    }
    let selinux = all().filter_map(|c| c.at(&["securityContext", "seLinuxOptions"])).any(|o| {
        let text = |k: &str| o.str_at(&[k]).unwrap_or_default();
        !SELINUX_TYPES.contains(&text("type")) || !text("user").is_empty() || !text("role").is_empty()
    });
    if selinux {
        out.push("seLinuxOptions (pod or containers set forbidden securityContext.seLinuxOptions)".to_owned());
    }
    let mounts =
        bad(spec, |c| c.str_at(&["securityContext", "procMount"]).is_some_and(|p| p != "Default" && !p.is_empty()));
    if !mounts.is_empty() && spec.get("hostUsers").and_then(Value::as_bool) != Some(false) {
        out.push(format!("procMount ({} must not set securityContext.procMount to \"Unmasked\")", who(&mounts)));
    }
    let unconfined = all().any(|c| c.str_at(&["securityContext", "seccompProfile", "type"]) == Some("Unconfined"));
    if unconfined && (!restricted || windows(spec)) {
        out.push(
            "seccompProfile (pod or container must not set securityContext.seccompProfile.type to \"Unconfined\")"
                .to_owned(),
        );
    }
    let sysctls: Vec<&str> = spec
        .items_at(&["securityContext", "sysctls"])
        .iter()
        .filter_map(|s| s.str_at(&["name"]))
        .filter(|s| !SAFE_SYSCTLS.contains(s))
        .collect();
    if !sysctls.is_empty() {
        out.push(format!("forbidden sysctls ({})", sysctls.join(", ")));
    }
    out
}

fn windows(spec: &Value) -> bool {
    spec.str_at(&["os", "name"]) == Some("windows")
}

/// The controls that the restricted level adds.
pub(super) fn restricted(spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let context = |c: &Value, key: &str| c.at(&["securityContext", key]).and_then(Value::as_bool);
    let on_linux = !windows(spec);
    let escalating = bad(spec, |c| context(c, "allowPrivilegeEscalation") != Some(false));
    if on_linux && !escalating.is_empty() {
        out.push(format!(
            "allowPrivilegeEscalation != false ({} must set securityContext.allowPrivilegeEscalation=false)",
            who(&escalating)
        ));
    }
    if on_linux {
        out.extend(capabilities(spec));
    }
    let mut types = Vec::new();
    let mut volumes = Vec::new();
    for volume in spec.items_at(&["volumes"]) {
        let sources = volume.as_object().into_iter().flat_map(Map::iter);
        let found: Vec<&str> = sources
            .filter(|(k, s)| k.as_ref() != "name" && !s.is_null() && !RESTRICTED_VOLUMES.contains(&k.as_ref()))
            .map(|(k, _)| k.as_ref())
            .collect();
        if !found.is_empty() {
            volumes.push(name(volume));
            types.extend(found);
        }
    }
    if !volumes.is_empty() {
        types.sort_unstable();
        types.dedup();
        let (s, uses) = if volumes.len() == 1 { ("", "uses") } else { ("s", "use") };
        let ts = if types.len() == 1 { "" } else { "s" };
        out.push(format!(
            "restricted volume types (volume{s} {} {uses} restricted volume type{ts} {})",
            quoted(&volumes),
            quoted(&types)
        ));
    }
    let pod_non_root = context(spec, "runAsNonRoot");
    let rooted = bad(spec, |c| match context(c, "runAsNonRoot") {
        Some(set) => !set,
        None => pod_non_root != Some(true),
    });
    if !rooted.is_empty() {
        out.push(format!("runAsNonRoot != true (pod or {} must set securityContext.runAsNonRoot=true)", who(&rooted)));
    }
    let zero = |c: &Value| c.i64_at(&["securityContext", "runAsUser"]) == Some(0);
    if zero(spec) || containers(spec).any(zero) {
        out.push("runAsUser=0 (pod or container must not set runAsUser=0)".to_owned());
    }
    if !on_linux {
        return out;
    }
    let safe = |c: &Value| {
        c.str_at(&["securityContext", "seccompProfile", "type"]).map(|t| matches!(t, "RuntimeDefault" | "Localhost"))
    };
    let pod_safe = safe(spec);
    let unsafe_ones = bad(spec, |c| !safe(c).or(pod_safe).unwrap_or(false));
    if !unsafe_ones.is_empty() {
        out.push(format!(
            "seccompProfile (pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            who(&unsafe_ones)
        ));
    }
    out
}

/// All dropped, and none but NET_BIND_SERVICE added.
fn capabilities(spec: &Value) -> Option<String> {
    let undropped = bad(spec, |c| {
        let dropped = c.items_at(&["securityContext", "capabilities", "drop"]);
        !dropped.iter().any(|d| d.as_str() == Some("ALL"))
    });
    let extra = |c| -> Vec<&str> {
        let added = Value::items_at(c, &["securityContext", "capabilities", "add"]);
        added.iter().filter_map(Value::as_str).filter(|x| *x != "NET_BIND_SERVICE").collect()
    };
    let adding = bad(spec, |c| !extra(c).is_empty());
    let mut parts = Vec::new();
    if !undropped.is_empty() {
        parts.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", who(&undropped)));
    }
    if !adding.is_empty() {
        let mut all: Vec<&str> = containers(spec).flat_map(extra).collect();
        all.sort_unstable();
        all.dedup();
        parts.push(format!("{} must not include {} in securityContext.capabilities.add", who(&adding), quoted(&all)));
    }
    (!parts.is_empty()).then(|| format!("unrestricted capabilities ({})", parts.join("; ")))
}
