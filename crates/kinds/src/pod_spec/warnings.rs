//! Warnings about pod specs: what works, but hardly as meant.

use std::collections::{HashMap, HashSet};

use ironkeel_object::{ObjectMeta, Value};

use crate::names;
use crate::pod_spec::{present, repeated, string};

/// Of a pod or a template (anything with `metadata` and `spec`); `prefix` is the path before `spec`.
pub(crate) fn warnings(holder: Option<&Value>, prefix: &str) -> Vec<String> {
    let Some(o) = holder else { return Vec::new() };
    let mut w = Vec::new();
    let spec = &o["spec"];
    for key in spec.get("nodeSelector").and_then(Value::as_object).into_iter().flat_map(|m| m.keys()) {
        let replacement = match key.as_ref() {
            "beta.kubernetes.io/arch" => "kubernetes.io/arch",
            "beta.kubernetes.io/os" => "kubernetes.io/os",
            "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
            "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
            _ => continue,
        };
        w.push(format!("{prefix}spec.nodeSelector[{key}]: deprecated since v1.14; use \"{replacement}\" instead"));
    }
    let aliases = spec.items_at(&["hostAliases"]);
    for ((i, a), twice) in aliases.iter().enumerate().zip(repeated(aliases, "ip")) {
        if twice {
            let ip = a.str_at(&["ip"]).unwrap_or_default();
            w.push(format!("{prefix}spec.hostAliases[{i}].ip: duplicate ip \"{ip}\""));
        }
    }
    for (i, v) in spec.items_at(&["volumes"]).iter().enumerate() {
        volume(v, &format!("{prefix}spec.volumes[{i}]"), &mut w);
    }
    let secrets = spec.items_at(&["imagePullSecrets"]);
    for ((i, s), twice) in secrets.iter().enumerate().zip(repeated(secrets, "name")) {
        match string(s, "name") {
            None => w.push(format!("{prefix}spec.imagePullSecrets[{i}].name: invalid empty name \"\"")),
            Some(n) if twice => {
                w.push(format!("{prefix}spec.imagePullSecrets[{i}].name: duplicate name \"{n}\""));
            }
            Some(_) => {}
        }
    }
    affinity(spec, prefix, &mut w);
    for (i, c) in spec.items_at(&["topologySpreadConstraints"]).iter().enumerate() {
        if present(c, "labelSelector").is_none() {
            w.push(format!(
                "{prefix}spec.topologySpreadConstraints[{i}].labelSelector: a null labelSelector results in matching no pod"
            ));
        }
    }
    fractions(spec.get("overhead"), &format!("{prefix}spec.overhead"), &mut w);
    for list in ["initContainers", "containers"] {
        for (i, c) in spec.items_at(&[list]).iter().enumerate() {
            container(c, &format!("{prefix}spec.{list}[{i}]"), &mut w);
        }
    }
    for key in ["seccomp.security.alpha.kubernetes.io/pod", "security.alpha.kubernetes.io/sysctls"] {
        if o.annotation(key).is_some() {
            w.push(format!("{prefix}metadata.annotations[{key}]: non-functional in v1.27+; use the \"securityContext\" field instead"));
        }
    }
    if spec.i64_at(&["terminationGracePeriodSeconds"]).is_some_and(|s| s < 0) {
        w.push(format!("{prefix}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    w
}

/// Warnings about pairs that are told; clients see a few dozen at most, and ten thousand ports make millions.
const PAIRS_TOLD: usize = 256;

fn container(c: &Value, at: &str, w: &mut Vec<String>) {
    let env = c.items_at(&["env"]);
    for ((i, v), twice) in env.iter().enumerate().zip(repeated(env, "name")) {
        if twice {
            let name = v.str_at(&["name"]).unwrap_or_default();
            w.push(format!(
                "{at}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
    for kind in ["requests", "limits"] {
        fractions(c.at(&["resources", kind]), &format!("{at}.resources.{kind}"), w);
    }
    let ports = c.items_at(&["ports"]);
    // Where earlier ports of the same number and protocol, and of the same name, stand.
    let mut numbered: HashMap<String, Vec<usize>> = HashMap::new();
    let mut named: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, p) in ports.iter().enumerate() {
        if w.len() > PAIRS_TOLD {
            break;
        }
        let text = |f: &str| p.str_at(&[f]).unwrap_or_default();
        let number = |v: &Value, f: &str| v.i64_at(&[f]).unwrap_or(0);
        if !text("hostIP").is_empty() && number(p, "hostPort") == 0 {
            w.push(format!(
                "{at}.ports[{i}]: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                text("name"),
                number(p, "containerPort"),
                text("protocol"),
                text("hostIP")
            ));
        }
        let before = numbered.entry(format!("{:?} {:?}", p["containerPort"], p["protocol"])).or_default();
        before.push(i);
        for (j, other) in before.iter().filter(|j| **j < i).map(|j| (j, &ports[*j])).take(PAIRS_TOLD) {
            let host = |v: &Value| (number(v, "hostPort"), v.str_at(&["hostIP"]).unwrap_or_default().to_owned());
            let what = match (host(p), host(other)) {
                (a, b) if a == b => "duplicate",
                ((0, _), _) | (_, (0, _)) => "overlapping",
                ((a, x), (b, y)) if a == b && (x.is_empty() || y.is_empty()) => "dangerously ambiguous",
                _ => continue,
            };
            w.push(format!("{at}.ports[{i}]: {what} port definition with {at}.ports[{j}]"));
        }
        let before = named.entry(format!("{:?}", p["name"])).or_default();
        before.push(i);
        for j in before.iter().filter(|j| **j < i).take(PAIRS_TOLD) {
            let name = text("name");
            if !name.is_empty() {
                let other = format!("{at}.ports[{j}]");
                w.push(format!(
                    "{at}.ports[{i}]: duplicate port name \"{name}\" with {other}, services and probes that select ports by name will use {other}"
                ));
            }
        }
    }
}

/// Storage that is gone, or paths that hide each other.
fn volume(v: &Value, at: &str, w: &mut Vec<String>) {
    const GONE: &[(&str, &str, &str)] = &[
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (kind, shown, text) in GONE {
        if present(v, kind).is_some() {
            w.push(format!("{at}.{shown}: {text}"));
        }
    }
    let name = v.str_at(&["name"]).unwrap_or_default();
    let about = |kind: &str, field: &str, word: &str| {
        let source = v.at(&[kind, field]).and_then(Value::as_str).unwrap_or_default();
        format!("{word} \"{source}\"")
    };
    for (kind, description) in [
        ("configMap", about("configMap", "name", "ConfigMap")),
        ("secret", about("secret", "secretName", "Secret")),
        ("downwardAPI", "DownwardAPI".to_owned()),
    ] {
        let items = v.at(&[kind]).map(|s| s.items_at(&["items"])).unwrap_or_default();
        let mut paths: Vec<&str> = items.iter().filter_map(|k| string(k, "path")).collect();
        paths.sort_unstable();
        let mut overlaps = Vec::new();
        let mut earlier: HashSet<&str> = HashSet::new();
        for (i, p) in paths.iter().enumerate() {
            let above = p.match_indices('/').any(|(at, _)| earlier.contains(&p[..at]));
            if earlier.insert(p) && !above {
                continue;
            }
            for q in &paths[..i] {
                if overlaps.len() > PAIRS_TOLD {
                    break;
                }
                if p == q || p.strip_prefix(q).is_some_and(|rest| rest.starts_with('/')) {
                    overlaps.push(format!("\"{p}\" with \"{q}\""));
                }
            }
        }
        if !overlaps.is_empty() {
            w.push(format!("volume \"{name}\" ({description}): overlapping paths: {}", overlaps.join(", ")));
        }
    }
    for s in v.items_at(&["projected", "sources"]) {
        if s.as_object().is_none_or(|m| m.values().all(Value::is_null)) {
            w.push(format!("volume \"{name}\" (Projected) has no sources provided"));
        }
    }
    let claim = v.at(&["ephemeral", "volumeClaimTemplate", "spec", "resources"]);
    for kind in ["requests", "limits"] {
        let at = format!("{at}.ephemeral.volumeClaimTemplate.spec.resources.{kind}");
        fractions(claim.and_then(|r| r.get(kind)), &at, w);
    }
}

fn affinity(spec: &Value, prefix: &str, w: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = format!("{prefix}spec.affinity.{kind}");
        let list = |f: &str| spec.items_at(&["affinity", kind, f]);
        let null = "a null labelSelector results in matching no pod";
        for (i, t) in list("requiredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            if present(t, "labelSelector").is_none() {
                w.push(format!("{at}.requiredDuringSchedulingIgnoredDuringExecution[{i}].labelSelector: {null}"));
            }
        }
        for (i, t) in list("preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate() {
            if present(&t["podAffinityTerm"], "labelSelector").is_none() {
                w.push(format!(
                    "{at}.preferredDuringSchedulingIgnoredDuringExecution[{i}].podAffinityTerm.labelSelector: {null}"
                ));
            }
        }
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, t) in spec.items_at(&["affinity", "nodeAffinity", preferred]).iter().enumerate() {
        for (j, x) in t.items_at(&["preference", "matchExpressions"]).iter().enumerate() {
            for (k, v) in x.items_at(&["values"]).iter().enumerate() {
                let v = v.as_str().unwrap_or_default();
                for m in names::label_value(v) {
                    w.push(format!(
                        "{prefix}spec.affinity.nodeAffinity.{preferred}[{i}].preference.matchExpressions[{j}].values[{k}]: {v} is invalid, {m}"
                    ));
                }
            }
        }
    }
}

/// Bytes come whole.
pub(crate) fn fractions(list: Option<&Value>, at: &str, w: &mut Vec<String>) {
    for (name, q) in list.and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        if !matches!(name.as_ref(), "memory" | "ephemeral-storage" | "storage") {
            continue;
        }
        if let Some(q) = crate::resources::quantity(Some(q)).filter(|q| q.milli_value() % 1000 != 0) {
            w.push(format!("{at}[{name}]: fractional byte value \"{q}\" is invalid, must be an integer"));
        }
    }
}
