//! Projected volumes: several sources in one folder, no path twice.

use std::collections::HashSet;

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::storage_sources::required;
use crate::pod_spec::volumes::{downward_file, key_to_path, mode};
use crate::pod_spec::{containers, present, string};
use crate::{Path, names, selector};

const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const CERTIFICATE_MIN_SECONDS: i64 = 3600;
const CERTIFICATE_MAX_SECONDS: i64 = 91 * 24 * 3600;
const KUBERNETES_CERTIFICATE_MAX_SECONDS: i64 = 24 * 3600;
const TOKEN_MIN_SECONDS: i64 = 600;
const TOKEN_MAX_SECONDS: i64 = 1 << 32;

struct Paths<'a> {
    seen: HashSet<&'a str>,
}

impl<'a> Paths<'a> {
    fn add(&mut self, path: &'a str, shown: &str, at: &Path, e: &mut Errors) {
        if !self.seen.insert(path) {
            e.invalid(at, shown, "conflicting duplicate paths");
        }
    }
}

/// The volume source `projected`.
pub(crate) fn validate(s: &Value, at: &Path, e: &mut Errors) {
    mode(s, "defaultMode", at, e);
    let mut paths = Paths { seen: HashSet::new() };
    for (i, p) in s.items_at(&["sources"]).iter().enumerate() {
        let path = at.child("sources").index(i);
        let mut found = 0;
        for kind in ["secret", "configMap"] {
            let Some(x) = present(p, kind) else { continue };
            found += 1;
            let own = path.child(kind);
            required(x, &["name"], &own, e);
            for (j, k) in x.items_at(&["items"]).iter().enumerate() {
                key_to_path(k, &own.child("items").index(j), e);
                if let Some(to) = string(k, "path") {
                    paths.add(to, x.str_at(&["name"]).unwrap_or_default(), at, e);
                }
            }
        }
        if let Some(x) = present(p, "downwardAPI") {
            found += 1;
            for f in x.items_at(&["items"]) {
                downward_file(f, &path.child("downwardAPI"), e);
                if let Some(to) = string(f, "path") {
                    paths.add(to, to, at, e);
                }
            }
        }
        if let Some(x) = present(p, "serviceAccountToken") {
            found += 1;
            token(x, at, &path.child("serviceAccountToken"), e);
        }
        if let Some(x) = present(p, "clusterTrustBundle") {
            found += 1;
            let own = path.child("clusterTrustBundle");
            bundle(x, &own, e);
            let to = x.str_at(&["path"]).unwrap_or_default();
            if to.is_empty() {
                e.required(&own.child("path"), "");
            }
            containers::local_path(to, &own.child("path"), e);
            paths.add(to, to, at, e);
        }
        if let Some(x) = present(p, "podCertificate") {
            found += 1;
            certificate(x, at, &path.child("podCertificate"), &mut paths, e);
        }
        if found > 1 {
            e.forbidden(&path, "may not specify more than 1 volume type per source");
        }
    }
}

fn token(x: &Value, at: &Path, own: &Path, e: &mut Errors) {
    let seconds = x.i64_at(&["expirationSeconds"]).unwrap_or(0);
    if seconds < TOKEN_MIN_SECONDS {
        e.invalid(&own.child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > TOKEN_MAX_SECONDS {
        e.invalid(&own.child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds");
    }
    match string(x, "path") {
        None => e.required(&at.child("path"), ""),
        Some(p) => containers::local_path(p, &at.child("path"), e),
    }
}

fn bundle(x: &Value, own: &Path, e: &mut Errors) {
    match (x.str_at(&["name"]), x.str_at(&["signerName"])) {
        (Some(_), Some(_)) => e.invalid(own, x.clone(), "only one of name and signerName may be used"),
        (Some(name), None) => {
            let at = own.child("name");
            if name.is_empty() {
                e.required(&at, "must be a valid object name");
            }
            let signer = name.rfind(':').map(|i| name[..i].replace(':', "/")).unwrap_or_default();
            for m in names::trust_bundle(&signer, name, false) {
                e.invalid(&at, name, &format!("not a valid clustertrustbundlename: {m}"));
            }
            if let Some(s) = present(x, "labelSelector") {
                e.invalid(&own.child("labelSelector"), s.clone(), "labelSelector must be unset if name is specified");
            }
        }
        (None, Some(signer)) => {
            let at = own.child("signerName");
            if signer.is_empty() {
                e.required(&at, "must be a valid signer name");
            }
            names::signer(signer, &at, e);
            selector::label_selector(x.get("labelSelector"), &own.child("labelSelector"), e);
        }
        (None, None) => e.required(own, "either name or signerName must be specified"),
    }
}

fn certificate<'a>(x: &'a Value, at: &Path, own: &Path, paths: &mut Paths<'a>, e: &mut Errors) {
    let signer = x.str_at(&["signerName"]).unwrap_or_default();
    names::signer(signer, &own.child("signerName"), e);
    let key = x.str_at(&["keyType"]).unwrap_or_default();
    if !KEY_TYPES.contains(&key) {
        e.not_supported(&own.child("keyType"), key, KEY_TYPES);
    }
    if let Some(seconds) = x.i64_at(&["maxExpirationSeconds"]) {
        let at = own.child("maxExpirationSeconds");
        if seconds < CERTIFICATE_MIN_SECONDS {
            e.invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        let host = signer.split('/').next().unwrap_or_default();
        let own_signer = host == "kubernetes.io" || host.ends_with(".kubernetes.io");
        let max = if own_signer { KUBERNETES_CERTIFICATE_MAX_SECONDS } else { CERTIFICATE_MAX_SECONDS };
        if seconds > max {
            e.invalid(&at, seconds, &format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
    let mut count = 0;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let Some(p) = string(x, field) else { continue };
        count += 1;
        containers::local_path(p, &own.child(field), e);
        paths.add(p, p, at, e);
    }
    if count == 0 {
        e.required(own, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}
