//! Storage that pods and persistent volumes name alike: disks of clouds, network file systems, CSI.
//! What only pods have (keys of maps, projections) stands in `volumes` and `projections`.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{containers, present, string};
use crate::{Path, names};

/// Who names the source; persistent volumes also name the namespace of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder<'a> {
    Pod,
    /// With the volume's name.
    PersistentVolume(&'a str),
}

pub(crate) fn required(v: &Value, fields: &[&str], at: &Path, e: &mut Errors) {
    for f in fields {
        if v.get(f).is_none_or(Value::is_empty) {
            e.required(&at.child(f), "");
        }
    }
}

fn range(v: &Value, field: &str, detail: &str, at: &Path, e: &mut Errors) {
    if let Some(n) = v.i64_at(&[field]).filter(|n| !(0..=255).contains(n)) {
        e.invalid(&at.child(field), n, detail);
    }
}

const PARTITION: &str = "must be between 1 and 255, inclusive";
const LUN: &str = "must be between 0 and 255, inclusive";

/// Checks a source that both holders have; `false` for one that is not among them.
pub(crate) fn validate(kind: &str, s: &Value, holder: Holder<'_>, at: &Path, e: &mut Errors) -> bool {
    let persistent = holder != Holder::Pod;
    match kind {
        "gcePersistentDisk" => {
            // Upstream's path for pods differs from the field's name.
            required(s, &["pdName"], at, e);
            range(s, "partition", PARTITION, at, e);
        }
        "awsElasticBlockStore" => {
            required(s, &["volumeID"], at, e);
            range(s, "partition", PARTITION, at, e);
        }
        "hostPath" => host_path(s, at, e),
        "nfs" => {
            required(s, &["server", "path"], at, e);
            let path = s.str_at(&["path"]).unwrap_or_default();
            if !path.starts_with('/') {
                e.invalid(&at.child("path"), path, "must be an absolute path");
            }
        }
        "iscsi" => iscsi(s, holder, at, e),
        "glusterfs" => {
            required(s, &["endpoints", "path"], at, e);
            if persistent && let Some(n) = s.str_at(&["endpointsNamespace"]) {
                let at = at.child("endpointsNamespace");
                if n.is_empty() {
                    e.invalid(&at, n, "if the endpointnamespace is set, it must be a valid namespace name");
                } else {
                    e.invalid_each(&at, n, names::label(n));
                }
            }
        }
        "flocker" => {
            let (name, uuid) = (string(s, "datasetName"), string(s, "datasetUUID"));
            match (name, uuid) {
                (None, None) => e.required(at, "one of datasetName and datasetUUID is required"),
                (Some(_), Some(_)) => {
                    e.invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously");
                }
                _ => {}
            }
            if let Some(n) = name.filter(|n| n.contains('/')) {
                e.invalid(&at.child("datasetName"), n, "must not contain '/'");
            }
        }
        "rbd" => required(s, &["monitors", "image"], at, e),
        "cinder" => {
            required(s, &["volumeID"], at, e);
            if let Some(r) = present(s, "secretRef") {
                let fields: &[&str] = if persistent { &["name", "namespace"] } else { &["name"] };
                required(r, fields, &at.child("secretRef"), e);
            }
        }
        "cephfs" => required(s, &["monitors"], at, e),
        "quobyte" => quobyte(s, at, e),
        "fc" => fibre_channel(s, at, e),
        "flexVolume" => flex(s, at, e),
        "azureFile" => {
            required(s, &["secretName", "shareName"], at, e);
            if persistent && s.str_at(&["secretNamespace"]).is_some_and(str::is_empty) {
                e.invalid(&at.child("secretNamespace"), "", "must not be empty");
            }
        }
        "vsphereVolume" => required(s, &["volumePath"], at, e),
        "photonPersistentDisk" => required(s, &["pdID"], at, e),
        "portworxVolume" => required(s, &["volumeID"], at, e),
        "azureDisk" => azure_disk(s, at, e),
        "storageos" => storage_os(s, persistent, at, e),
        "scaleIO" => required(s, &["gateway", "system", "volumeName"], at, e),
        "csi" => csi(s, persistent, at, e),
        _ => return false,
    }
    true
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn host_path(s: &Value, at: &Path, e: &mut Errors) {
    match string(s, "path") {
        None => e.required(&at.child("path"), ""),
        Some(p) => containers::no_backsteps(p, &at.child("path"), e),
    }
    if let Some(t) = s.str_at(&["type"]).filter(|t| !HOST_PATH_TYPES.contains(t)) {
        e.not_supported(&at.child("type"), t, HOST_PATH_TYPES);
    }
}

/// Whether an initiator or target name has the form that its prefix asks for; `None` without one.
fn iscsi_name(name: &str) -> Option<bool> {
    let hex = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(rest) = name.strip_prefix("iqn") {
        // iqn.yyyy-mm.reversed.domain[:anything]
        let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        let form = rest.strip_prefix('.').and_then(|r| r.split_once('-')).is_some_and(|(year, rest)| {
            let Some((month, rest)) = rest.split_once('.') else { return false };
            let domain = rest.split(':').next().unwrap_or_default();
            digits(year, 4)
                && digits(month, 2)
                && domain.split('.').all(|l| {
                    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
                    edge(l.bytes().next())
                        && edge(l.bytes().next_back())
                        && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
                })
        });
        Some(form)
    } else if let Some(rest) = name.strip_prefix("eui") {
        Some(rest.strip_prefix('.').is_some_and(|r| r.len() == 16 && hex(r)))
    } else {
        name.strip_prefix("naa").map(|rest| rest.strip_prefix('.').is_some_and(|r| r.len() == 32 && hex(r)))
    }
}

fn iscsi(s: &Value, holder: Holder<'_>, at: &Path, e: &mut Errors) {
    required(s, &["targetPortal"], at, e);
    let no_prefix = match holder {
        Holder::Pod => "must be valid format starting with iqn, eui, or naa",
        Holder::PersistentVolume(_) => "must be valid format",
    };
    let initiator = s.str_at(&["initiatorName"]);
    if let Holder::PersistentVolume(name) = holder {
        let portal = s.str_at(&["targetPortal"]).unwrap_or_default();
        if initiator.is_some() && name.len() + 1 + portal.len() > 64 {
            let text = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
            e.invalid(&at.child("targetportal"), portal, text);
        }
    }
    let check = |name: &str, at: &Path, e: &mut Errors| match iscsi_name(name) {
        None => e.invalid(at, name, no_prefix),
        Some(false) => e.invalid(at, name, "must be valid format"),
        Some(true) => {}
    };
    match string(s, "iqn") {
        None => e.required(&at.child("iqn"), ""),
        Some(iqn) => check(iqn, &at.child("iqn"), e),
    }
    range(s, "lun", LUN, at, e);
    let flag = |f: &str| s.get(f).and_then(Value::as_bool).unwrap_or(false);
    let secret = present(s, "secretRef");
    if secret.is_none() && (flag("chapAuthDiscovery") || flag("chapAuthSession")) {
        e.required(&at.child("secretRef"), "");
    }
    if let (Holder::PersistentVolume(_), Some(r)) = (holder, secret) {
        required(r, &["name"], &at.child("secretRef"), e);
    }
    if let Some(i) = initiator {
        check(i, &at.child("initiatorname"), e);
    }
}

fn quobyte(s: &Value, at: &Path, e: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    match string(s, "registry") {
        None => e.required(&at.child("registry"), PAIRS),
        Some(_) if string(s, "tenant").is_some_and(|t| t.len() >= 65) => {
            e.required(&at.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
        }
        Some(registry) => {
            for pair in registry.split(',') {
                let host = pair.rsplit_once(':').map(|(host, _)| host);
                let bracketed = |h: &str| h.starts_with('[') && h.ends_with(']');
                if host.is_none_or(|h| h.contains(':') && !bracketed(h)) {
                    e.invalid(&at.child("registry"), registry, PAIRS);
                }
            }
        }
    }
    required(s, &["volume"], at, e);
}

fn fibre_channel(s: &Value, at: &Path, e: &mut Errors) {
    let (targets, ids) = (s.items_at(&["targetWWNs"]), s.items_at(&["wwids"]));
    let path = at.child("targetWWNs");
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => e.required(&path, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            e.invalid(&path, targets.to_vec(), "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    if !targets.is_empty() {
        if present(s, "lun").is_none() {
            e.required(&at.child("lun"), "lun is required if targetWWNs is specified");
        }
        range(s, "lun", LUN, at, e);
    }
}

fn flex(s: &Value, at: &Path, e: &mut Errors) {
    required(s, &["driver"], at, e);
    for key in s.get("options").and_then(Value::as_object).into_iter().flat_map(|m| m.keys()) {
        let space = key.split_once('/').map_or(key.as_ref(), |(space, _)| space).to_ascii_lowercase();
        let reserved = |domain: &str| space == domain || space.strip_suffix(domain).is_some_and(|s| s.ends_with('.'));
        if reserved("kubernetes.io") || reserved("k8s.io") {
            let text = "kubernetes.io and k8s.io namespaces are reserved";
            e.invalid(&at.child("options").key(key), key.as_ref(), text);
        }
    }
}

fn azure_disk(s: &Value, at: &Path, e: &mut Errors) {
    required(s, &["diskName", "diskURI"], at, e);
    let one_of = |field: &str, allowed: &[&str], e: &mut Errors| {
        if let Some(v) = s.str_at(&[field]).filter(|v| !allowed.contains(v)) {
            e.not_supported(&at.child(field), v, allowed);
        }
    };
    one_of("cachingMode", &["None", "ReadOnly", "ReadWrite"], e);
    one_of("kind", &["Dedicated", "Managed", "Shared"], e);
    let uri = s.str_at(&["diskURI"]).unwrap_or_default();
    let at = at.child("diskURI");
    match Some(s.str_at(&["kind"]).unwrap_or("Shared")) {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            let form =
                "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
            e.not_supported(&at, uri, &[form]);
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            e.not_supported(
                &at,
                uri,
                &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
            );
        }
        _ => {}
    }
}

fn storage_os(s: &Value, persistent: bool, at: &Path, e: &mut Errors) {
    match string(s, "volumeName") {
        None => e.required(&at.child("volumeName"), ""),
        Some(n) => e.invalid_each(&at.child("volumeName"), n, names::label(n)),
    }
    if let Some(n) = string(s, "volumeNamespace") {
        e.invalid_each(&at.child("volumeNamespace"), n, names::label(n));
    }
    if let Some(r) = present(s, "secretRef") {
        let fields: &[&str] = if persistent { &["name", "namespace"] } else { &["name"] };
        required(r, fields, &at.child("secretRef"), e);
    }
}

/// Bytes of a CSI driver's name.
const DRIVER_NAME_MAX: usize = 63;

/// The name of a CSI driver.
pub(crate) fn csi_driver_name(name: &str, at: &Path, e: &mut Errors) {
    if name.is_empty() {
        e.required(at, "");
        return;
    }
    if name.len() > DRIVER_NAME_MAX {
        e.too_long(at, DRIVER_NAME_MAX);
    }
    e.invalid_each(at, name, names::subdomain(&name.to_lowercase()));
}

fn csi(s: &Value, persistent: bool, at: &Path, e: &mut Errors) {
    csi_driver_name(s.str_at(&["driver"]).unwrap_or_default(), &at.child("driver"), e);
    if persistent {
        required(s, &["volumeHandle"], at, e);
        for field in
            ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
        {
            let Some(r) = present(s, field) else { continue };
            let at = at.child(field);
            for (part, rule) in [("name", names::subdomain as fn(&str) -> Vec<String>), ("namespace", names::label)] {
                match string(r, part) {
                    None => e.required(&at.child(part), ""),
                    Some(n) => e.invalid_each(&at.child(part), n, rule(n)),
                }
            }
        }
    } else if let Some(r) = present(s, "nodePublishSecretRef") {
        match string(r, "name") {
            None => e.required(&at.child("nodePublishSecretRef").child("name"), ""),
            Some(n) => e.invalid_each(&at.child("name"), n, names::subdomain(n)),
        }
    }
}
