//! Volumes of a pod.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{containers, env, present, string};
use crate::{Path, names, resources};

const DOWNWARD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const MODE_MAX: i64 = 0o777;

/// The list `volumes`.
pub(crate) fn validate(list: &[Value], path: &Path, e: &mut Errors) {
    for (i, v) in list.iter().enumerate() {
        let at = path.index(i);
        match string(v, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) => {
                let messages = names::label(n);
                if messages.is_empty() && list[..i].iter().any(|x| x["name"] == v["name"]) {
                    e.duplicate(&at.child("name"), n);
                }
                e.invalid_each(&at.child("name"), n, messages);
            }
        }
        source(v, &at, e);
    }
}

fn required(v: &Value, fields: &[&str], at: &Path, e: &mut Errors) {
    for f in fields {
        if v.get(f).is_none_or(Value::is_empty) {
            e.required(&at.child(f), "");
        }
    }
}

fn source(v: &Value, path: &Path, e: &mut Errors) {
    let mut found = 0;
    for (kind, s) in v.as_object().into_iter().flat_map(|m| m.iter()) {
        if kind == "name" || s.is_null() {
            continue;
        }
        found += 1;
        let at = path.child(kind);
        if found > 1 {
            e.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_ref() {
            "emptyDir" => {
                if resources::quantity(s.get("sizeLimit")).is_some_and(|q| q.signum() < 0) {
                    e.forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
                }
                if let Some(m) = string(s, "medium").filter(|m| *m != "Memory" && !m.starts_with("HugePages")) {
                    e.not_supported(&at.child("medium"), m, &["HugePages", "Memory"]);
                }
            }
            "hostPath" => host_path(s, &at, e),
            "secret" => {
                required(s, &["secretName"], &at, e);
                mode(s, "defaultMode", &at, e);
                key_items(s, &at, e);
            }
            "configMap" => {
                required(s, &["name"], &at, e);
                mode(s, "defaultMode", &at, e);
                key_items(s, &at, e);
            }
            "downwardAPI" => {
                mode(s, "defaultMode", &at, e);
                downward_items(s, &at, e);
            }
            "projected" => projected(s, &at, e),
            "persistentVolumeClaim" => required(s, &["claimName"], &at, e),
            "nfs" => {
                required(s, &["server", "path"], &at, e);
                if let Some(p) = string(s, "path").filter(|p| !p.starts_with('/')) {
                    e.invalid(&at.child("path"), p, "must be an absolute path");
                }
            }
            "iscsi" => required(s, &["targetPortal", "iqn"], &at, e),
            "csi" => required(s, &["driver"], &at, e),
            "gitRepo" => required(s, &["repository"], &at, e),
            "glusterfs" => required(s, &["endpoints", "path"], &at, e),
            "rbd" => required(s, &["monitors", "image"], &at, e),
            "cephfs" => required(s, &["monitors"], &at, e),
            "image" => {
                required(s, &["reference"], &at, e);
                if let Some(p) = string(s, "pullPolicy").filter(|p| !matches!(*p, "Always" | "IfNotPresent" | "Never"))
                {
                    e.not_supported(&at.child("pullPolicy"), p, &["Always", "IfNotPresent", "Never"]);
                }
            }
            "ephemeral" => match present(s, "volumeClaimTemplate") {
                None => e.required(&at.child("volumeClaimTemplate"), ""),
                Some(t) => {
                    let at = at.child("volumeClaimTemplate").child("spec");
                    crate::core::claim::validate_spec(t.get("spec").unwrap_or(&Value::Null), &at, e);
                }
            },
            _ => {}
        }
    }
    if found == 0 {
        e.required(path, "must specify a volume type");
    }
}

/// `hostPath`, of a volume or a persistent volume.
pub(crate) fn host_path(s: &Value, at: &Path, e: &mut Errors) {
    match string(s, "path") {
        None => e.required(&at.child("path"), ""),
        Some(p) => containers::no_backsteps(p, &at.child("path"), e),
    }
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(t) = s.str_at(&["type"]).filter(|t| !TYPES.contains(t)) {
        e.not_supported(&at.child("type"), t, TYPES);
    }
}

fn mode(s: &Value, field: &str, at: &Path, e: &mut Errors) {
    if let Some(m) = s.i64_at(&[field]).filter(|m| !(0..=MODE_MAX).contains(m)) {
        e.invalid(&at.child(field), m, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn key_items(s: &Value, at: &Path, e: &mut Errors) {
    for (i, k) in s.items_at(&["items"]).iter().enumerate() {
        let at = at.child("items").index(i);
        required(k, &["key", "path"], &at, e);
        if let Some(p) = string(k, "path") {
            containers::descending(p, &at.child("path"), e);
        }
        mode(k, "mode", &at, e);
    }
}

fn downward_items(s: &Value, path: &Path, e: &mut Errors) {
    for (i, f) in s.items_at(&["items"]).iter().enumerate() {
        let at = path.child("items").index(i);
        match string(f, "path") {
            None => e.required(&at.child("path"), ""),
            Some(p) => containers::descending(p, &at.child("path"), e),
        }
        match (present(f, "fieldRef"), present(f, "resourceFieldRef")) {
            (Some(r), None) => env::field_ref(r, DOWNWARD_FIELDS, &at.child("fieldRef"), e),
            (None, Some(r)) => env::resource_ref(r, true, &at.child("resourceFieldRef"), e),
            (None, None) => e.required(path, "one of fieldRef and resourceFieldRef is required"),
            (Some(_), Some(_)) => {
                e.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        mode(f, "mode", &at, e);
    }
}

fn projected(s: &Value, at: &Path, e: &mut Errors) {
    mode(s, "defaultMode", at, e);
    for (i, p) in s.items_at(&["sources"]).iter().enumerate() {
        let path = at.child("sources").index(i);
        let mut found = 0;
        for (kind, x) in p.as_object().into_iter().flat_map(|m| m.iter()) {
            if x.is_null() {
                continue;
            }
            found += 1;
            let at = path.child(kind);
            if found > 1 {
                e.forbidden(&path, "may not specify more than 1 volume type per source");
                continue;
            }
            match kind.as_ref() {
                "secret" | "configMap" => {
                    required(x, &["name"], &at, e);
                    key_items(x, &at, e);
                }
                "downwardAPI" => downward_items(x, &at, e),
                "serviceAccountToken" => {
                    required(x, &["path"], &at, e);
                    let seconds = x.i64_at(&["expirationSeconds"]).unwrap_or(3600);
                    if seconds < 600 {
                        let text = "may not specify a duration less than 10 minutes";
                        e.invalid(&at.child("expirationSeconds"), seconds, text);
                    }
                    if seconds > 1 << 32 {
                        e.invalid(
                            &at.child("expirationSeconds"),
                            seconds,
                            "may not specify a duration larger than 2^32 seconds",
                        );
                    }
                    if let Some(p) = string(x, "path") {
                        containers::descending(p, &at.child("path"), e);
                    }
                }
                "clusterTrustBundle" => required(x, &["path"], &at, e),
                "podCertificate" => required(x, &["signerName", "keyType"], &at, e),
                _ => {}
            }
        }
        if found == 0 {
            e.required(&path, "must specify one of: secret, downwardAPI, configMap, serviceAccountToken, clusterTrustBundle or podCertificate");
        }
    }
}
