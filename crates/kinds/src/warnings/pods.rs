//! Warnings about pods and templates.

use std::collections::HashSet;

use ironkeel_object::{ObjectMeta, Value};

use super::addresses::ip;
use super::list::Warnings;
use super::{claim_spec, deprecated_label, fraction, node_selector_term};
use super::{paths, ports};
use crate::pod_spec::present;

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Of a pod.
pub(super) fn of_pod(pod: &Value, w: &mut Warnings) {
    spec_and_meta(pod, "", w);
}

/// Of a template at `at`.
pub(super) fn of_template(template: Option<&Value>, at: &str, w: &mut Warnings) {
    if let Some(template) = template {
        spec_and_meta(template, &format!("{at}."), w);
    }
}

/// Containers of every kind, each with its path.
fn containers<'v>(spec: &'v Value, prefix: &str) -> Vec<(String, &'v Value)> {
    let mut all = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let of_list = spec.items_at(&[list]).iter().enumerate();
        all.extend(of_list.map(|(i, c)| (format!("{prefix}spec.{list}[{i}]"), c)));
    }
    all
}

fn spec_and_meta(o: &Value, prefix: &str, w: &mut Warnings) {
    let spec = &o["spec"];
    for key in spec.get("nodeSelector").and_then(Value::as_object).into_iter().flat_map(|m| m.keys()) {
        if let Some(text) = deprecated_label(key) {
            w.push(format_args!("{prefix}spec.nodeSelector[{key}]: {text}"));
        }
    }
    node_affinity(spec, prefix, w);
    for (i, c) in spec.items_at(&["topologySpreadConstraints"]).iter().enumerate() {
        let at = format!("{prefix}spec.topologySpreadConstraints[{i}]");
        let key = c.str_at(&["topologyKey"]).unwrap_or_default();
        if let Some(text) = deprecated_label(key) {
            w.push(format_args!("{at}.topologyKey: {key} is {text}"));
        }
        if present(c, "labelSelector").is_none() {
            w.push(format_args!("{at}.labelSelector: {NULL_SELECTOR}"));
        }
    }
    annotations(o, prefix, w);
    for (i, v) in spec.items_at(&["volumes"]).iter().enumerate() {
        volume(v, &format!("{prefix}spec.volumes[{i}]"), w);
    }
    for v in spec.items_at(&["volumes"]) {
        paths::overlaps(v, w);
    }
    aliases_and_secrets(spec, prefix, w);
    for name in ["memory", "ephemeral-storage"] {
        fraction(spec.get("overhead"), name, &format!("{prefix}spec.overhead"), w);
    }
    let all = containers(spec, prefix);
    profiles_and_environment(o, &all, prefix, w);
    ports::of_containers(&all, w);
    if spec.i64_at(&["terminationGracePeriodSeconds"]).is_some_and(|s| s < 0) {
        w.push(format_args!(
            "{prefix}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated \
             as 1"
        ));
    }
    pod_affinity(spec, prefix, w);
    for (i, server) in spec.items_at(&["dnsConfig", "nameservers"]).iter().enumerate() {
        ip(&format!("{prefix}spec.dnsConfig.nameservers[{i}]"), server.as_str().unwrap_or_default(), w);
    }
    for (i, alias) in spec.items_at(&["hostAliases"]).iter().enumerate() {
        ip(&format!("{prefix}spec.hostAliases[{i}].ip"), alias.str_at(&["ip"]).unwrap_or_default(), w);
    }
}

fn node_affinity(spec: &Value, prefix: &str, w: &mut Warnings) {
    let at = format!("{prefix}spec.affinity.nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = spec.items_at(&["affinity", "nodeAffinity", required, "nodeSelectorTerms"]);
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(Some(term), false, &format!("{at}.{required}.nodeSelectorTerms[{i}]"), w);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in spec.items_at(&["affinity", "nodeAffinity", preferred]).iter().enumerate() {
        node_selector_term(term.get("preference"), true, &format!("{at}.{preferred}[{i}].preference"), w);
    }
}

fn pod_affinity(spec: &Value, prefix: &str, w: &mut Warnings) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = format!("{prefix}spec.affinity.{kind}");
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, t) in spec.items_at(&["affinity", kind, required]).iter().enumerate() {
            if present(t, "labelSelector").is_none() {
                w.push(format_args!("{at}.{required}[{i}].labelSelector: {NULL_SELECTOR}"));
            }
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, t) in spec.items_at(&["affinity", kind, preferred]).iter().enumerate() {
            if present(&t["podAffinityTerm"], "labelSelector").is_none() {
                w.push(format_args!("{at}.{preferred}[{i}].podAffinityTerm.labelSelector: {NULL_SELECTOR}"));
            }
        }
    }
}

fn annotations(o: &Value, prefix: &str, w: &mut Warnings) {
    const DEPRECATED: [(&str, &str); 3] = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
        ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ];
    for (key, text) in DEPRECATED {
        if o.annotation(key).is_some() {
            w.push(format_args!("{prefix}metadata.annotations[{key}]: {text}"));
        }
    }
}

/// Storage that is gone.
fn volume(v: &Value, at: &str, w: &mut Warnings) {
    const GONE: &[(&str, &str, &str)] = &[
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ];
    const GONE_LATER: &[(&str, &str, &str)] = &[
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let gone = |list: &[(&str, &str, &str)], w: &mut Warnings| {
        for (kind, shown, text) in list {
            if present(v, kind).is_some() {
                w.push(format_args!("{at}.{shown}: {text}"));
            }
        }
    };
    gone(GONE, w);
    let claim = v.at(&["ephemeral", "volumeClaimTemplate", "spec"]);
    claim_spec(claim, &format!("{at}.ephemeral.volumeClaimTemplate.spec"), w);
    gone(GONE_LATER, w);
}

fn aliases_and_secrets(spec: &Value, prefix: &str, w: &mut Warnings) {
    let mut seen = HashSet::new();
    for (i, a) in spec.items_at(&["hostAliases"]).iter().enumerate() {
        let ip = a.str_at(&["ip"]).unwrap_or_default();
        if !seen.insert(ip) {
            w.push(format_args!("{prefix}spec.hostAliases[{i}].ip: duplicate ip \"{ip}\""));
        }
    }
    let secrets = spec.items_at(&["imagePullSecrets"]);
    let name = |s: &Value| s.str_at(&["name"]).unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    for (i, s) in secrets.iter().enumerate() {
        if !seen.insert(name(s)) {
            w.push(format_args!("{prefix}spec.imagePullSecrets[{i}].name: duplicate name \"{}\"", name(s)));
        }
    }
    for (i, _) in secrets.iter().enumerate().filter(|(_, s)| name(s).is_empty()) {
        w.push(format_args!("{prefix}spec.imagePullSecrets[{i}].name: invalid empty name \"\""));
    }
}

fn profiles_and_environment(o: &Value, all: &[(String, &Value)], prefix: &str, w: &mut Warnings) {
    const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let seccomp = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let context = o.at(&["spec", "securityContext"]);
    let profile = |context: Option<&Value>, field: &str| context.and_then(|c| present(c, field)).is_some();
    if !profile(context, "seccompProfile") && o.annotation(SECCOMP_POD).is_some() {
        w.push(format_args!("{prefix}metadata.annotations[{SECCOMP_POD}]: {seccomp}"));
    }
    for (at, c) in all {
        let name = c.str_at(&["name"]).unwrap_or_default();
        let own = c.get("securityContext");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if !profile(own, "seccompProfile") && o.annotation(&key).is_some() {
            w.push(format_args!("{prefix}metadata.annotations[{key}]: {seccomp}"));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        // Annotations of pods become fields, which tells of itself.
        if !profile(own, "appArmorProfile")
            && let Some(annotation) = o.annotation(&key)
            && !(prefix.is_empty() || is_app_armor(context.and_then(|c| present(c, "appArmorProfile")), annotation))
        {
            w.push(format_args!(
                "{prefix}metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            ));
        }
        for name in ["memory", "ephemeral-storage"] {
            for kind in ["limits", "requests"] {
                fraction(c.at(&["resources", kind]), name, &format!("{at}.resources.{kind}"), w);
            }
        }
        environment(c, at, w);
    }
}

/// Whether an AppArmor profile says the same as an annotation.
fn is_app_armor(profile: Option<&Value>, annotation: &str) -> bool {
    let Some(profile) = profile else { return false };
    let kind = profile.str_at(&["type"]).unwrap_or_default();
    match annotation {
        "unconfined" => kind == "Unconfined",
        "runtime/default" => kind == "RuntimeDefault",
        other => {
            let local = profile.str_at(&["localhostProfile"]).unwrap_or_default();
            kind == "Localhost" && !local.is_empty() && other.strip_prefix("localhost/") == Some(local)
        }
    }
}

/// Variables that hide earlier ones without making use of them.
fn environment(c: &Value, at: &str, w: &mut Warnings) {
    let mut seen = HashSet::new();
    for (i, v) in c.items_at(&["env"]).iter().enumerate() {
        let name = v.str_at(&["name"]).unwrap_or_default();
        if seen.insert(name) {
            continue;
        }
        let value = v.str_at(&["value"]).unwrap_or_default();
        let reference = format!("$({name})");
        if present(v, "valueFrom").is_some() || value == reference || !value.contains(&reference) {
            w.push(format_args!(
                "{at}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
}
