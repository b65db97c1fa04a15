//! Containers of a pod: regular, init (with sidecars) and ephemeral ones.

use std::collections::{HashMap, HashSet};

use ironkeel_object::Value;

use crate::core::service::protocol;
use crate::error::Errors;
use crate::pod_spec::{Place, Surroundings, env, handlers, one_of, present, security, string};
use crate::repeats::{repeated, texts};
use crate::{Path, names, resources};

/// All three lists.
pub(crate) fn validate(around: &Surroundings<'_>, path: &Path, e: &mut Errors) {
    let spec = around.spec;
    let list = spec.items_at(&["containers"]);
    let at = path.child("containers");
    if list.is_empty() {
        e.required(&at, "");
    }
    let twice = repeated(list, "name");
    for (i, c) in list.iter().enumerate() {
        let at = at.index(i);
        common(around, c, around.place, &at, e);
        if twice[i] && string(c, "name").is_some() {
            e.duplicate(&at.child("name"), c["name"].clone());
        }
        lifecycle_and_probes(spec, c, &at, e);
        restart_policy(c, false, &at, e);
    }
    host_ports(list, &at, e);
    host_network(spec, list, around.place, &at, e);
    init(around, path, e);
    ephemeral(around, path, e);
}

fn common(around: &Surroundings<'_>, c: &Value, place: Place, at: &Path, e: &mut Errors) {
    match string(c, "name") {
        None => e.required(&at.child("name"), ""),
        Some(n) => e.invalid_each(&at.child("name"), n, names::label(n)),
    }
    match string(c, "image") {
        // A template may leave the image to who makes the pod; upstream asks for it all the same.
        None => e.required(&at.child("image"), ""),
        Some(i) if place == Place::Pod && i.trim() != i => {
            e.invalid(&at.child("image"), i, "must not have leading or trailing whitespace");
        }
        Some(_) => {}
    }
    one_of(c, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], at, e);
    ports(c.items_at(&["ports"]), &at.child("ports"), e);
    env::validate(c, at, e);
    mounts(around, c, at, e);
    one_of(c, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, e);
    if let Some(r) = present(c, "resources") {
        let claims = if r.get("claims").is_some() { around.claim_names() } else { Vec::new() };
        resources::validate(r, resources::Owner::Container, &claims, &at.child("resources"), e);
    }
    resize_policy(around.spec, c, &at.child("resizePolicy"), e);
    if let Some(s) = present(c, "securityContext") {
        security::validate_container(s, around.host_users(), &at.child("securityContext"), e);
    }
}

/// Environment from files stands in a volume that the pod has for it.
pub(crate) fn file_keys(spec: &Value, path: &Path, e: &mut Errors) {
    let mut sources: HashMap<&str, &Value> = HashMap::new();
    for v in spec.items_at(&["volumes"]) {
        sources.entry(v.str_at(&["name"]).unwrap_or_default()).or_insert(v);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, c) in spec.items_at(&[list]).iter().enumerate() {
            for (j, v) in c.items_at(&["env"]).iter().enumerate() {
                let Some(r) = v.at(&["valueFrom", "fileKeyRef"]).filter(|r| !r.is_null()) else { continue };
                let name = r.str_at(&["volumeName"]).unwrap_or_default();
                let at = || {
                    let env = path.child(list).index(i).child("env").index(j);
                    env.child("valueFrom").child("fileKeyRef").child("volumeName")
                };
                match sources.get(name) {
                    None => e.not_found(&at(), name),
                    Some(s) if present(s, "emptyDir").is_none() => {
                        e.invalid(&at(), name, "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

fn ports(list: &[Value], path: &Path, e: &mut Errors) {
    let twice = repeated(list, "name");
    for (i, p) in list.iter().enumerate() {
        let at = path.index(i);
        if let Some(name) = string(p, "name") {
            let messages = names::port_name(name);
            if messages.is_empty() && twice[i] {
                e.duplicate(&at.child("name"), name);
            }
            e.invalid_each(&at.child("name"), name, messages);
        }
        match p.i64_at(&["containerPort"]).unwrap_or(0) {
            0 => e.required(&at.child("containerPort"), ""),
            n => names::port_number(n).iter().for_each(|m| e.invalid(&at.child("containerPort"), n, m)),
        }
        match p.i64_at(&["hostPort"]).unwrap_or(0) {
            0 => {}
            n => names::port_number(n).iter().for_each(|m| e.invalid(&at.child("hostPort"), n, m)),
        }
        protocol(p, &at, e);
    }
}

/// No two containers of a pod take the same port of the host.
fn host_ports(list: &[Value], path: &Path, e: &mut Errors) {
    let mut taken: HashSet<String> = HashSet::new();
    for (i, c) in list.iter().enumerate() {
        for (j, p) in c.items_at(&["ports"]).iter().enumerate() {
            let port = p.i64_at(&["hostPort"]).unwrap_or(0);
            if port == 0 {
                continue;
            }
            let text = |f: &str| p.str_at(&[f]).unwrap_or_default();
            let key = format!("{}/{}/{port}", text("protocol"), text("hostIP"));
            if taken.contains(&key) {
                e.duplicate(&path.index(i).child("ports").index(j).child("hostPort"), key.as_str());
            }
            taken.insert(key);
        }
    }
}

fn host_network(spec: &Value, list: &[Value], place: Place, path: &Path, e: &mut Errors) {
    if spec.get("hostNetwork").and_then(Value::as_bool) != Some(true) {
        return;
    }
    for (i, c) in list.iter().enumerate() {
        for (j, p) in c.items_at(&["ports"]).iter().enumerate() {
            let host = p.i64_at(&["hostPort"]).unwrap_or(0);
            if (place == Place::Pod || host != 0) && host != p.i64_at(&["containerPort"]).unwrap_or(0) {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                e.invalid(&at, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

/// A relative path that stays below where it starts.
pub(crate) fn descending(text: &str, at: &Path, e: &mut Errors) {
    if text.starts_with('/') {
        e.invalid(at, text, "must be a relative path");
    }
    no_backsteps(text, at, e);
}

/// A path without `..`.
pub(crate) fn no_backsteps(text: &str, at: &Path, e: &mut Errors) {
    if text.split('/').any(|p| p == "..") {
        e.invalid(at, text, "must not contain '..'");
    }
}

/// A relative path below its folder that no name of the kubelet's own can collide with.
pub(crate) fn local_path(text: &str, at: &Path, e: &mut Errors) {
    descending(text, at, e);
    if text.starts_with("..") && !text.starts_with("../") {
        e.invalid(at, text, "must not start with '..'");
    }
}

fn mounts(around: &Surroundings<'_>, c: &Value, at: &Path, e: &mut Errors) {
    let list = c.items_at(&["volumeMounts"]);
    let devices = c.items_at(&["volumeDevices"]);
    let path = at.child("volumeMounts");
    let twice = repeated(list, "mountPath");
    let (device_names, device_paths) = (texts(devices, "name"), texts(devices, "devicePath"));
    for (i, m) in list.iter().enumerate() {
        let at = path.index(i);
        let name = m.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            e.required(&at.child("name"), "");
        }
        if around.volume(name).is_none() {
            e.not_found(&at.child("name"), name);
        }
        let mount = m.str_at(&["mountPath"]).unwrap_or_default();
        if mount.is_empty() {
            e.required(&at.child("mountPath"), "");
        }
        if twice[i] {
            e.invalid(&at.child("mountPath"), mount, "must be unique");
        }
        if device_names.contains(name) {
            e.invalid(&at.child("name"), name, "must not already exist in volumeDevices");
        }
        if device_paths.contains(mount) {
            e.invalid(&at.child("mountPath"), mount, "must not already exist as a path in volumeDevices");
        }
        let sub = string(m, "subPath");
        if let Some(s) = sub {
            descending(s, &path.child("subPath"), e);
        }
        if let Some(s) = string(m, "subPathExpr") {
            if sub.is_some() {
                e.invalid(&at.child("subPathExpr"), s, "subPathExpr and subPath are mutually exclusive");
            }
            descending(s, &path.child("subPathExpr"), e);
        }
        propagation(c, m, &path.child("mountPropagation"), e);
        recursive_read_only(m, &path.child("recursiveReadOnly"), e);
    }
    let twice = [repeated(devices, "name"), repeated(devices, "devicePath")];
    for (i, d) in devices.iter().enumerate() {
        let at = at.child("volumeDevices").index(i);
        let name = d.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            e.required(&at.child("name"), "");
        }
        match around.volume(name) {
            None => e.not_found(&at.child("name"), name),
            Some(v) if present(v, "persistentVolumeClaim").is_none() && present(v, "ephemeral").is_none() => {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                e.invalid(&at.child("name"), name, text);
            }
            Some(_) => {}
        }
        let device = d.str_at(&["devicePath"]).unwrap_or_default();
        if device.is_empty() {
            e.required(&at.child("devicePath"), "");
        }
        for ((field, value), twice) in [("name", name), ("devicePath", device)].into_iter().zip(&twice) {
            if twice[i] {
                e.invalid(&at.child(field), value, "must be unique");
            }
        }
        if device.split('/').any(|p| p == "..") {
            e.invalid(&at.child("devicePath"), device, "can not contain backsteps ('..')");
        }
    }
}

fn propagation(c: &Value, m: &Value, at: &Path, e: &mut Errors) {
    let Some(p) = m.str_at(&["mountPropagation"]) else { return };
    let privileged = c.at(&["securityContext", "privileged"]).and_then(Value::as_bool).unwrap_or(false);
    match p {
        "None" | "HostToContainer" => {}
        "Bidirectional" if privileged => {}
        "Bidirectional" => {
            e.forbidden(at, "Bidirectional mount propagation is available only to privileged containers")
        }
        other => e.not_supported(at, other, &["Bidirectional", "HostToContainer", "None"]),
    }
}

fn recursive_read_only(m: &Value, at: &Path, e: &mut Errors) {
    let Some(r) = m.str_at(&["recursiveReadOnly"]).filter(|r| *r != "Disabled") else { return };
    if !matches!(r, "Enabled" | "IfPossible") {
        e.not_supported(at, r, &["Disabled", "Enabled", "IfPossible"]);
        return;
    }
    if m.get("readOnly").and_then(Value::as_bool) != Some(true) {
        e.forbidden(at, "may only be specified when readOnly is true");
    }
    if m.str_at(&["mountPropagation"]).is_some_and(|p| p != "None") {
        e.forbidden(at, "may only be specified when mountPropagation is None or not specified");
    }
}

fn resize_policy(spec: &Value, c: &Value, path: &Path, e: &mut Errors) {
    let list = c.items_at(&["resizePolicy"]);
    let twice = repeated(list, "resourceName");
    for (i, p) in list.iter().enumerate() {
        if twice[i] {
            e.duplicate(&path.index(i), p["resourceName"].clone());
        }
        match p.str_at(&["resourceName"]).unwrap_or_default() {
            "cpu" | "memory" => {}
            "" => e.required(path, ""),
            other => e.not_supported(path, other, &["cpu", "memory"]),
        }
        match p.str_at(&["restartPolicy"]).unwrap_or_default() {
            "NotRequired" | "RestartContainer" => {}
            "" => e.required(path, ""),
            other => e.not_supported(path, other, &["NotRequired", "RestartContainer"]),
        }
        let policy = p.str_at(&["restartPolicy"]).unwrap_or_default();
        if policy != "NotRequired" && spec.str_at(&["restartPolicy"]) == Some("Never") {
            e.invalid(path, policy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

fn restart_policy(c: &Value, init: bool, at: &Path, e: &mut Errors) {
    let rules = c.items_at(&["restartPolicyRules"]);
    match c.str_at(&["restartPolicy"]) {
        None if !rules.is_empty() => {
            e.required(&at.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        None | Some("Always" | "Never" | "OnFailure") => {}
        Some(p) => e.not_supported(&at.child("restartPolicy"), p, &["Always", "Never", "OnFailure"]),
    }
    if rules.len() > RESTART_RULES_MAX {
        e.too_many(&at.child("restartPolicyRules"), rules.len(), RESTART_RULES_MAX);
    }
    let checked = if init && c.str_at(&["restartPolicy"]).is_none() { &[] } else { rules };
    for (i, r) in checked.iter().enumerate() {
        let at = at.child("restartPolicyRules").index(i);
        word(r, "action", &["Restart", "RestartAllContainers"], &at, e);
        let path = at.child("exitCodes");
        match present(r, "exitCodes") {
            None => e.required(&path, "must be specified"),
            Some(x) => {
                word(x, "operator", &["In", "NotIn"], &path, e);
                let values = x.items_at(&["values"]).len();
                if values > EXIT_CODES_MAX {
                    e.too_many(&path.child("values"), values, EXIT_CODES_MAX);
                }
            }
        }
    }
}

/// One of several words; an absent one is unsupported too.
fn word(v: &Value, member: &str, allowed: &[&str], at: &Path, e: &mut Errors) {
    let w = v.str_at(&[member]).unwrap_or_default();
    if !allowed.contains(&w) {
        e.not_supported(&at.child(member), w, allowed);
    }
}

fn lifecycle_and_probes(spec: &Value, c: &Value, at: &Path, e: &mut Errors) {
    let grace = spec.i64_at(&["terminationGracePeriodSeconds"]);
    if let Some(l) = present(c, "lifecycle") {
        handlers::lifecycle(spec, l, grace, &at.child("lifecycle"), e);
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = present(c, kind) {
            handlers::probe(p, kind, grace, &at.child(kind), e);
        }
    }
}

fn init(around: &Surroundings<'_>, path: &Path, e: &mut Errors) {
    let spec = around.spec;
    let list = spec.items_at(&["initContainers"]);
    let regular = spec.items_at(&["containers"]);
    let path = path.child("initContainers");
    let twice = repeated(regular.iter().chain(list), "name");
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        common(around, c, around.place, &at, e);
        restart_policy(c, true, &at, e);
        if string(c, "name").is_some() && twice[regular.len() + i] {
            e.duplicate(&at.child("name"), c["name"].clone());
        }
        if c.str_at(&["restartPolicy"]) == Some("Always") {
            lifecycle_and_probes(spec, c, &at, e);
        } else {
            for f in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if present(c, f).is_some() {
                    e.forbidden(&at.child(f), "may not be set for init containers without restartPolicy=Always");
                }
            }
        }
        host_ports(std::slice::from_ref(c), &path, e);
    }
}

/// Members that an ephemeral container may have.
const EPHEMERAL: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// Ephemeral containers: debugging helpers with few rights.
pub(crate) fn ephemeral(around: &Surroundings<'_>, path: &Path, e: &mut Errors) {
    let spec = around.spec;
    let list = spec.items_at(&["ephemeralContainers"]);
    let path = path.child("ephemeralContainers");
    let others: Vec<&Value> = ["containers", "initContainers"].iter().flat_map(|l| spec.items_at(&[l])).collect();
    let twice = repeated(others.iter().copied().chain(list), "name");
    let targets: HashSet<&str> = others.iter().filter_map(|x| x.str_at(&["name"])).collect();
    for (i, c) in list.iter().enumerate() {
        let at = path.index(i);
        common(around, c, Place::Pod, &at, e);
        if string(c, "name").is_some() && twice[others.len() + i] {
            e.duplicate(&at.child("name"), c["name"].clone());
        }
        if let Some(t) = string(c, "targetContainerName")
            && !targets.contains(t)
        {
            e.not_found(&at.child("targetContainerName"), t);
        }
        for (k, v) in c.as_object().into_iter().flat_map(|m| m.iter()) {
            if !EPHEMERAL.contains(&k.as_ref()) && !v.is_empty() {
                e.forbidden(&at.child(k), "cannot be set for an Ephemeral Container");
            }
        }
        for (j, m) in c.items_at(&["volumeMounts"]).iter().enumerate() {
            for f in ["subPath", "subPathExpr"] {
                if string(m, f).is_some() {
                    let at = at.child("volumeMounts").index(j).child(f);
                    e.forbidden(&at, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}
