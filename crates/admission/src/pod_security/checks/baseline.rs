//! The controls of the baseline level.

use ironkeel_object::{Map, Value};

use super::{
    Subject, bad, containers, flag, in_user_namespace, name, plural, quoted, said, seccomp_set, setters, sorted,
    unmasked_proc, who,
};

const CAPABILITIES: &[&str] = &[
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
/// Sysctls that stay within a Pod, and the minor version that first allows each.
const SAFE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
/// The minor version that first allows the SELinux type of container engines.
const SELINUX_ENGINE_MINOR: u32 = 31;
/// The minor version from which seccomp profiles stand in fields, not in annotations.
const SECCOMP_FIELDS_MINOR: u32 = 19;
/// The minor version from which a user namespace makes up for an unmasked /proc.
const USER_NAMESPACE_MINOR: u32 = 35;
const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn annotations<'a>(s: &Subject<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = s.annotations.and_then(Value::as_object).into_iter().flat_map(Map::iter);
    all.map(|(k, v)| (k.as_ref(), v.as_str().unwrap_or_default()))
}

pub(super) fn app_armor(s: &Subject<'_>, _: u32) -> Option<String> {
    fn wrong(c: &Value) -> Option<&str> {
        c.at(&["securityContext", "appArmorProfile"]).filter(|p| !p.is_null())?;
        let kind = c.str_at(&["securityContext", "appArmorProfile", "type"]).unwrap_or_default();
        (!matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
    }
    let mut by = setters(s.spec, |c| wrong(c).is_some());
    let mut values = said(s.spec, wrong);
    let noted: Vec<String> = annotations(s)
        .filter(|(k, v)| {
            let allowed = v.is_empty() || *v == "runtime/default" || v.starts_with("localhost/");
            k.starts_with(APP_ARMOR_PREFIX) && !allowed
        })
        .map(|(k, v)| format!("{k}={v:?}"))
        .collect();
    if !noted.is_empty() {
        by.push(plural("annotation", "annotations", noted.len()).to_owned());
        values.extend(sorted(noted));
    }
    if by.is_empty() {
        return None;
    }
    let lead = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    Some(format!("{lead} ({} must not set AppArmor profile type to {})", by.join(" and "), quoted(&values)))
}

pub(super) fn capabilities(s: &Subject<'_>, _: u32) -> Option<String> {
    let extra = |c| -> Vec<&str> {
        let added = Value::items_at(c, &["securityContext", "capabilities", "add"]);
        added.iter().filter_map(Value::as_str).filter(|x| !CAPABILITIES.contains(x)).collect()
    };
    let names = bad(s.spec, |c| !extra(c).is_empty());
    let all = sorted(containers(s.spec).flat_map(extra).map(str::to_owned).collect());
    (!names.is_empty()).then(|| {
        let (who, all) = (who(&names), quoted(&all));
        format!("non-default capabilities ({who} must not include {all} in securityContext.capabilities.add)")
    })
}

pub(super) fn host_namespaces(s: &Subject<'_>, _: u32) -> Option<String> {
    let keys = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> = keys.filter(|k| flag(s.spec, &[k]) == Some(true)).map(|k| format!("{k}=true")).collect();
    (!shared.is_empty()).then(|| format!("host namespaces ({})", shared.join(", ")))
}

pub(super) fn host_path_volumes(s: &Subject<'_>, _: u32) -> Option<String> {
    let volumes = s.spec.items_at(&["volumes"]).iter();
    let names: Vec<&str> = volumes.filter(|v| v.get("hostPath").is_some_and(|h| !h.is_null())).map(name).collect();
    let lead = plural("volume", "volumes", names.len());
    (!names.is_empty()).then(|| format!("hostPath volumes ({lead} {})", quoted(&names)))
}

pub(super) fn host_ports(s: &Subject<'_>, _: u32) -> Option<String> {
    let of = |c| -> Vec<i64> {
        let ports = Value::items_at(c, &["ports"]).iter();
        ports.filter_map(|p| p.i64_at(&["hostPort"])).filter(|p| *p != 0).collect()
    };
    let names = bad(s.spec, |c| !of(c).is_empty());
    if names.is_empty() {
        return None;
    }
    let ports = sorted(containers(s.spec).flat_map(of).map(|p| p.to_string()).collect());
    let (uses, lead) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    Some(format!("hostPort ({} {uses} {lead} {})", who(&names), ports.join(", ")))
}

pub(super) fn host_probes(s: &Subject<'_>, _: u32) -> Option<String> {
    const HANDLERS: &[&[&str]] = &[
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let hosts = |c| -> Vec<&str> {
        let handlers = HANDLERS.iter().filter_map(|path| Value::at(c, path));
        let hosts = handlers.flat_map(|h| ["httpGet", "tcpSocket"].map(|k| h.str_at(&[k, "host"]).unwrap_or_default()));
        hosts.filter(|h| !h.is_empty()).collect()
    };
    let names = sorted(bad(s.spec, |c| !hosts(c).is_empty()).into_iter().map(str::to_owned).collect());
    if names.is_empty() {
        return None;
    }
    let hosts = sorted(containers(s.spec).flat_map(hosts).map(str::to_owned).collect());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let uses = plural("uses", "use", names.len());
    let lead = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    Some(format!("probe or lifecycle host ({} {uses} {lead} {})", who(&names), quoted(&hosts)))
}

pub(super) fn privileged(s: &Subject<'_>, _: u32) -> Option<String> {
    let names = bad(s.spec, |c| flag(c, &["securityContext", "privileged"]) == Some(true));
    (!names.is_empty()).then(|| format!("privileged ({} must not set securityContext.privileged=true)", who(&names)))
}

pub(super) fn proc_mount(s: &Subject<'_>, minor: u32) -> Option<String> {
    if minor >= USER_NAMESPACE_MINOR && in_user_namespace(s.spec) {
        return None;
    }
    unmasked_proc(s.spec)
}

pub(super) fn selinux(s: &Subject<'_>, minor: u32) -> Option<String> {
    let options = |c| Value::at(c, &["securityContext", "seLinuxOptions"]).filter(|o| !o.is_null());
    let text = |o, key: &str| Value::str_at(o, &[key]).unwrap_or_default();
    let allowed =
        |kind: &str| SELINUX_TYPES.contains(&kind) || (kind == "container_engine_t" && minor >= SELINUX_ENGINE_MINOR);
    let wrong = |c| {
        options(c)
            .is_some_and(|o| !allowed(text(o, "type")) || !text(o, "user").is_empty() || !text(o, "role").is_empty())
    };
    let by = setters(s.spec, wrong);
    if by.is_empty() {
        return None;
    }
    let all: Vec<&Value> = std::iter::once(s.spec).chain(containers(s.spec)).filter_map(options).collect();
    let mut data = Vec::new();
    let types = sorted(all.iter().map(|o| text(o, "type")).filter(|t| !allowed(t)).map(str::to_owned).collect());
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for key in ["user", "role"] {
        if all.iter().any(|o| !text(o, key).is_empty()) {
            data.push(format!("{key} may not be set"));
        }
    }
    let (by, data) = (by.join(" and "), data.join("; "));
    Some(format!("seLinuxOptions ({by} set forbidden securityContext.seLinuxOptions: {data})"))
}

pub(super) fn seccomp(s: &Subject<'_>, minor: u32) -> Option<String> {
    if minor >= SECCOMP_FIELDS_MINOR {
        return seccomp_set(s.spec);
    }
    let meant = |key: &str| {
        key == SECCOMP_POD || key.strip_prefix(SECCOMP_PREFIX).is_some_and(|n| containers(s.spec).any(|c| name(c) == n))
    };
    let allowed = |v: &str| v == "runtime/default" || v == "docker/default" || v.starts_with("localhost/");
    let wrong = annotations(s).filter(|(k, v)| meant(k) && !allowed(v)).map(|(k, v)| format!("{k}={v:?}"));
    let wrong = sorted(wrong.collect());
    let lead = plural("annotation", "annotations", wrong.len());
    (!wrong.is_empty()).then(|| format!("seccompProfile (forbidden {lead} {})", wrong.join(", ")))
}

pub(super) fn sysctls(s: &Subject<'_>, minor: u32) -> Option<String> {
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(n, since)| *n == name && *since <= minor);
    let all = s.spec.items_at(&["securityContext", "sysctls"]).iter();
    let wrong: Vec<&str> = all.filter_map(|c| c.str_at(&["name"])).filter(|n| !safe(n)).collect();
    (!wrong.is_empty()).then(|| format!("forbidden sysctls ({})", wrong.join(", ")))
}

pub(super) fn windows_host_process(s: &Subject<'_>, _: u32) -> Option<String> {
    let by = setters(s.spec, |c| flag(c, &["securityContext", "windowsOptions", "hostProcess"]) == Some(true));
    let by = by.join(" and ");
    (!by.is_empty()).then(|| format!("hostProcess ({by} must not set securityContext.windowsOptions.hostProcess=true)"))
}
