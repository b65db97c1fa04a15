//! What an EncryptionConfiguration may say; field paths, rules and words are upstream's. Secrets are
//! never quoted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{File, Key, Keys, KmsEntry, ProviderEntry};

const AES_KEY_BYTES: &[usize] = &[16, 24, 32];
const SECRETBOX_KEY_BYTES: &[usize] = &[32];
/// Kept in the store, but no resources.
const NO_RESOURCES: &[&str] = &["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"];

/// Plural and group of `secrets`, `deployments.apps`, `*.` or `*.*`.
pub(crate) fn group_resource(resource: &str) -> (&str, &str) {
    resource.split_once('.').unwrap_or((resource, ""))
}

/// As people write it.
pub(crate) fn shown(resource: (&str, &str)) -> String {
    match resource {
        ("*", "") => "*.".to_owned(),
        (plural, "") => plural.to_owned(),
        (plural, group) => format!("{plural}.{group}"),
    }
}

fn required(path: &str, why: &str) -> String {
    format!("{path}: Required value: {why}")
}

fn invalid(path: &str, value: &str, why: &str) -> String {
    format!("{path}: Invalid value: {value:?}: {why}")
}

pub(crate) fn validate(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    if file.resources.is_empty() {
        return vec![required("resources", "at least one resources is required")];
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, entry) in file.resources.iter().enumerate() {
        let (resources, providers) = (format!("resources[{i}].resources"), format!("resources[{i}].providers"));
        if entry.resources.is_empty() {
            wrong.push(required(&resources, &format!("at least one {resources} is required")));
        }
        overlap(&entry.resources, &resources, &mut wrong);
        for (j, resource) in entry.resources.iter().enumerate() {
            wrong.extend(resource_name(resource).map(|why| invalid(&format!("{resources}[{j}]"), resource, why)));
        }
        if entry.providers.is_empty() {
            wrong.push(required(&providers, &format!("at least one {providers} is required")));
        }
        for (j, entry) in entry.providers.iter().enumerate() {
            let path = format!("{providers}[{j}]");
            provider(entry, &path, &names, &mut wrong);
            names.extend(entry.kms.as_ref().map(|k| k.name.as_str()));
        }
    }
    wrong
}

fn overlap(resources: &[String], path: &str, wrong: &mut Vec<String>) {
    let (mut duplicate, mut overlap) = (false, false);
    let all: Vec<_> = resources.iter().map(|r| group_resource(r)).collect();
    for (i, one) in all.iter().enumerate() {
        for (j, other) in all.iter().enumerate() {
            if i == j {
                continue;
            }
            if one == other {
                duplicate = true;
            } else if *one == ("*", "*") || (one.1 == other.1 && (one.0 == "*" || other.0 == "*")) {
                overlap = true;
            }
        }
    }
    let shown = resources.join(" ");
    if duplicate {
        wrong.push(invalid(path, &shown, "the same resource cannot be specified multiple times"));
    }
    if overlap {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        wrong.push(invalid(path, &shown, why));
    }
}

fn resource_name(resource: &str) -> Option<&'static str> {
    let (plural, group) = group_resource(resource);
    if resource.chars().any(char::is_uppercase) {
        Some("resource name should not contain capital letters")
    } else if resource == "*" {
        Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources")
    } else if NO_RESOURCES.contains(&resource) {
        Some("resources which do not have REST API/s cannot be encrypted")
    } else if group == "events.k8s.io" {
        Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        )
    } else if group == "extensions" {
        Some("'extensions' group has been removed and cannot be used for encryption")
    } else if group == "*" && plural != "*" {
        Some("encrypting the same resource across groups is not supported")
    } else {
        None
    }
}

fn provider(entry: &ProviderEntry, path: &str, names: &[&str], wrong: &mut Vec<String>) {
    let found = [entry.kms.is_some(), entry.aesgcm.is_some(), entry.aescbc.is_some(), entry.secretbox.is_some()];
    match found.iter().filter(|f| **f).count() + usize::from(entry.identity) {
        0 => wrong.push(invalid(
            path,
            "",
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
        )),
        1 => {}
        _ => wrong.push(invalid(
            path,
            "REDACTED",
            "more than one provider specified in a single element, should split into different list elements",
        )),
    }
    if let Some(entry) = &entry.kms {
        kms(entry, &format!("{path}.kms"), names, wrong);
    }
    let each: [(&Option<Keys>, &str, &[usize]); 3] = [
        (&entry.aesgcm, "aesgcm", AES_KEY_BYTES),
        (&entry.aescbc, "aescbc", AES_KEY_BYTES),
        (&entry.secretbox, "secretbox", SECRETBOX_KEY_BYTES),
    ];
    for (keys, name, lengths) in each {
        let Some(keys) = keys else { continue };
        let path = format!("{path}.{name}.keys");
        if keys.keys.is_empty() {
            wrong.push(required(&path, "at least one keys is required"));
        }
        for (k, entry) in keys.keys.iter().enumerate() {
            key(entry, &format!("{path}[{k}]"), lengths, wrong);
        }
    }
}

fn key(key: &Key, path: &str, lengths: &[usize], wrong: &mut Vec<String>) {
    if key.name.is_empty() {
        wrong.push(required(&format!("{path}.name"), "name is a mandatory field for a key"));
    }
    let path = format!("{path}.secret");
    if key.secret.is_empty() {
        wrong.push(required(&path, "secret is a mandatory field for a key"));
        return;
    }
    match STANDARD.decode(&key.secret) {
        Err(_) => wrong.push(invalid(&path, "REDACTED", "secrets must be base64 encoded")),
        Ok(secret) if !lengths.contains(&secret.len()) => {
            let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
            let why = format!(
                "secret is not of the expected length, got {}, expected one of [{}]",
                secret.len(),
                lengths.join(" ")
            );
            wrong.push(invalid(&path, "REDACTED", &why));
        }
        Ok(_) => {}
    }
}

fn kms(entry: &KmsEntry, path: &str, names: &[&str], wrong: &mut Vec<String>) {
    let at = |field: &str| format!("{path}.{field}");
    if entry.name.is_empty() {
        wrong.push(required(&at("name"), "name is a mandatory field for a provider"));
    }
    if entry.name.contains(':') {
        let why = format!("invalid KMS provider name {}, must not contain ':'", entry.name);
        wrong.push(invalid(&at("name"), &entry.name, &why));
    }
    if names.contains(&entry.name.as_str()) {
        let why = format!("duplicate KMS provider name {}, names must be unique", entry.name);
        wrong.push(invalid(&at("name"), &entry.name, &why));
    }
    if entry.timeout().is_none_or(|t| t.is_zero()) {
        let shown = entry.timeout.clone().unwrap_or_default();
        wrong.push(invalid(&at("timeout"), &shown, "timeout should be a positive value"));
    }
    let endpoint = &entry.endpoint;
    match endpoint.split_once(':') {
        _ if endpoint.is_empty() => {
            wrong.push(invalid(&at("endpoint"), "", "endpoint is a mandatory field for a kms"));
        }
        Some(("unix", _)) => {}
        other => {
            let scheme = other.map(|(scheme, _)| scheme).unwrap_or_default();
            let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
            wrong.push(invalid(&at("endpoint"), endpoint, &why));
        }
    }
    match entry.api_version.as_str() {
        "v2" => {
            if let Some(size) = entry.cachesize {
                let size = size.to_string();
                wrong.push(format!("{}: Invalid value: {size}: cachesize is not supported in v2", at("cachesize")));
            }
        }
        // What no version means, too.
        "v1" | "" => wrong.push(invalid(
            &at("apiVersion"),
            "v1",
            "KMSv1 is deprecated and not supported here; use a plugin that speaks v2, with apiVersion: v2",
        )),
        other => wrong.push(invalid(
            &at("apiVersion"),
            other,
            "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
        )),
    }
}
