//! Environment of a container, and references to fields, resources and keys.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{containers, present, string};
use crate::{Path, names, print};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `env` and `envFrom`.
pub(crate) fn validate(c: &Value, at: &Path, e: &mut Errors) {
    for (i, v) in c.items_at(&["env"]).iter().enumerate() {
        let at = at.child("env").index(i);
        match string(v, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) => e.invalid_each(&at.child("name"), n, names::env_var(n)),
        }
        if let Some(from) = present(v, "valueFrom") {
            value_from(v, from, &at.child("valueFrom"), e);
        }
    }
    let path = at.child("envFrom");
    for (i, s) in c.items_at(&["envFrom"]).iter().enumerate() {
        let at = path.index(i);
        if let Some(p) = string(s, "prefix") {
            e.invalid_each(&at.child("prefix"), p, names::env_var(p));
        }
        let mut sources = 0;
        for source in ["configMapRef", "secretRef"] {
            let Some(r) = present(s, source) else { continue };
            sources += 1;
            let at = at.child(source).child("name");
            match string(r, "name") {
                None => e.required(&at, ""),
                Some(n) => e.invalid_each(&at, n, names::subdomain(n)),
            }
        }
        match sources {
            0 => e.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => e.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(v: &Value, from: &Value, at: &Path, e: &mut Errors) {
    let mut sources = 0;
    for source in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let Some(r) = present(from, source) else { continue };
        sources += 1;
        let at = at.child(source);
        match source {
            "fieldRef" => field_ref(r, ENV_FIELDS, &at, e),
            "resourceFieldRef" => resource_ref(r, false, &at, e),
            "fileKeyRef" => {
                for f in ["key", "volumeName", "path"] {
                    if string(r, f).is_none() {
                        e.required(&at.child(f), "");
                    }
                }
                if let Some(k) = string(r, "key") {
                    e.invalid_each(&at.child("key"), k, names::env_var(k));
                }
                if let Some(v) = string(r, "volumeName") {
                    e.invalid_each(&at.child("volumeName"), v, names::label(v));
                }
                if let Some(p) = string(r, "path") {
                    containers::no_backsteps(p, &at.child("path"), e);
                }
            }
            _ => key_ref(r, &at, e),
        }
    }
    if sources == 0 {
        let text =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        e.invalid(at, "", text);
    } else if string(v, "value").is_some() {
        e.invalid(at, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        e.invalid(at, "", "may not have more than one field specified at a time");
    }
}

fn key_ref(r: &Value, at: &Path, e: &mut Errors) {
    let name = r.str_at(&["name"]).unwrap_or_default();
    e.invalid_each(&at.child("name"), name, names::subdomain(name));
    match string(r, "key") {
        None => e.required(&at.child("key"), ""),
        Some(k) => e.invalid_each(&at.child("key"), k, names::config_key(k)),
    }
}

/// `fieldRef` of the downward API; `allowed` besides labels and annotations by key.
pub(crate) fn field_ref(r: &Value, allowed: &[&str], at: &Path, e: &mut Errors) {
    if string(r, "apiVersion").is_none() {
        e.required(&at.child("apiVersion"), "");
        return;
    }
    let Some(field) = string(r, "fieldPath") else {
        e.required(&at.child("fieldPath"), "");
        return;
    };
    if let Some(v) = string(r, "apiVersion").filter(|v| *v != "v1") {
        let text = format!("error converting fieldPath: unsupported pod version: {v}");
        e.invalid(&at.child("fieldPath"), field, &text);
        return;
    }
    if let Some((path, key)) = field.strip_suffix("']").and_then(|f| f.split_once("['")) {
        match path {
            "metadata.annotations" => e.invalid_each(at, key, names::qualified(&key.to_lowercase())),
            "metadata.labels" => e.invalid_each(at, key, names::qualified(key)),
            _ => e.invalid(at, path, "does not support subscript"),
        }
        return;
    }
    const KNOWN: &[&str] =
        &["metadata.labels", "metadata.annotations", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
    if !allowed.contains(&field) {
        if ENV_FIELDS.contains(&field) || KNOWN.contains(&field) {
            e.not_supported(&at.child("fieldPath"), field, allowed);
        } else {
            let text = format!("error converting fieldPath: field label not supported: {field}");
            e.invalid(&at.child("fieldPath"), field, &text);
        }
    }
}

/// `resourceFieldRef` of the downward API.
pub(crate) fn resource_ref(r: &Value, in_volume: bool, at: &Path, e: &mut Errors) {
    let resource = r.str_at(&["resource"]).unwrap_or_default();
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && string(r, "containerName").is_none() {
        e.required(&at.child("containerName"), "");
    } else if resource.is_empty() {
        e.required(&at.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        e.not_supported(&at.child("resource"), resource, RESOURCES);
    }
    let divisor = print::scalar(r.get("divisor"));
    if divisor.is_empty() || divisor == "0" {
        return;
    }
    const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (allowed, what) = match resource.split_once('.').map_or("", |(_, r)| r) {
        "cpu" => (&["1m", "1"][..], "cpu"),
        "memory" => (SIZES, "memory"),
        "ephemeral-storage" => (SIZES, "local ephemeral storage"),
        _ if huge => (SIZES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.as_str()) {
        let list = if what == "cpu" { "1m and 1".to_owned() } else { SIZES.join(", ") };
        let text = format!("only divisor's values {list} are supported with the {what} resource");
        e.invalid(&at.child("divisor"), resource, &text);
    }
}
