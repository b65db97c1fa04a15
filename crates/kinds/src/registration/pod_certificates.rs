//! PodCertificateRequest: what a kubelet asks for a pod, and what a signer answers. That an issued
//! certificate begins about now is not checked, for nothing here reads a clock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::Value;

use super::x509::{self, KeyFault};
use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, metadata, names, print, rules, selector, status};

const UID_MAX_BYTES: usize = 128;
const EXPIRATION_MIN_SECONDS: i64 = 3600;
const EXPIRATION_DEFAULT_SECONDS: i64 = 86400;
/// 91 days.
const EXPIRATION_MAX_SECONDS: i64 = 7_862_400;
/// What Kubernetes' own signers allow.
const OWN_EXPIRATION_MAX_SECONDS: i64 = 86400;
const KEY_MAX_BYTES: usize = 10 * 1024;
const PROOF_MAX_BYTES: usize = 10 * 1024;
const STUB_MAX_BYTES: usize = 10 * 1024;
const CHAIN_MAX_BYTES: usize = 100 * 1024;
/// How far from its ends a certificate may be renewed.
const REFRESH_MARGIN_SECONDS: i64 = 600;
const DECISIONS: &[&str] = &["Issued", "Denied", "Failed"];

fn octets(v: &Value, f: &str) -> Vec<u8> {
    STANDARD.decode(v.str_at(&[f]).unwrap_or_default()).unwrap_or_default()
}

fn is(o: &Value, kind: &str) -> bool {
    let decided = |c: &&Value| c.str_at(&["type"]) == Some(kind) && c.str_at(&["status"]) == Some("True");
    o.items_at(&["status", "conditions"]).iter().any(|c| decided(&c))
}

/// PodCertificateRequest.
pub(crate) struct PodRequest;
impl rules::Rules for PodRequest {
    fn default(&self, o: &mut Value) {
        if o.at(&["spec", "maxExpirationSeconds"]).is_none_or(Value::is_null) {
            *o.slot(&["spec", "maxExpirationSeconds"]) = EXPIRATION_DEFAULT_SECONDS.into();
        }
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let (at, spec) = (Path::new("spec"), &o["spec"]);
        let text = |f: &str| spec.str_at(&[f]).unwrap_or_default();
        names::signer(text("signerName"), &at.child("signerName"), e);
        user_annotations(spec.get("unverifiedUserAnnotations"), &at.child("unverifiedUserAnnotations"), e);
        for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")]
        {
            e.invalid_each(&at.child(name), text(name), names::subdomain(text(name)));
            if text(uid).is_empty() {
                e.invalid(&at.child(uid), "", "must not be empty");
            }
            if text(uid).len() > UID_MAX_BYTES {
                e.too_long(&at.child(uid), UID_MAX_BYTES);
            }
        }
        let own = text("signerName").starts_with("kubernetes.io/");
        let max = if own { OWN_EXPIRATION_MAX_SECONDS } else { EXPIRATION_MAX_SECONDS };
        let Some(seconds) = spec.i64_at(&["maxExpirationSeconds"]) else {
            e.required(&at.child("maxExpirationSeconds"), "must be set");
            return;
        };
        if !(EXPIRATION_MIN_SECONDS..=max).contains(&seconds) {
            let text = format!("must be in the range [{EXPIRATION_MIN_SECONDS}, {max}]");
            e.invalid(&at.child("maxExpirationSeconds"), seconds, &text);
        }
        let (stub, key, proof) =
            (octets(spec, "stubPKCS10Request"), octets(spec, "pkixPublicKey"), octets(spec, "proofOfPossession"));
        match (stub.is_empty(), key.is_empty(), proof.is_empty()) {
            (false, true, true) => stub_request(&stub, &at.child("stubPKCS10Request"), e),
            (true, false, false) => key_and_proof(&key, &proof, text("podUID"), &at, e),
            _ => e.invalid_bare(
                &at,
                "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
            ),
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            answer(o, old, e);
        } else if !equality::equal_as("certificates/v1beta1.PodCertificateRequestSpec", &o["spec"], &old["spec"]) {
            let spec = o.get("spec").cloned().unwrap_or_else(Value::object);
            e.invalid(&Path::new("spec"), spec, "field is immutable");
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "podCertificateRequest"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        let text = |f: &str| print::text(o, &["spec", f], "");
        let known = |c: &&Value| c.str_at(&["type"]).is_some_and(|t| DECISIONS.contains(&t));
        let state = o.items_at(&["status", "conditions"]).iter().rfind(known).and_then(|c| c.str_at(&["type"]));
        let notes = selector::map_text(o.at(&["spec", "unverifiedUserAnnotations"]));
        vec![
            text("podName"),
            text("serviceAccountName"),
            text("nodeName"),
            text("signerName"),
            state.unwrap_or("Pending").into(),
            print::non_empty(notes, "<none>"),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        let known = matches!(path, "spec.signerName" | "spec.podName" | "spec.nodeName");
        known.then(|| o.str_at(&["spec", path.trim_start_matches("spec.")]).unwrap_or_default().to_owned())
    }
}

/// Annotations whose keys have a domain.
fn user_annotations(value: Option<&Value>, at: &Path, e: &mut Errors) {
    let all = value.and_then(Value::as_object);
    for key in all.into_iter().flat_map(|m| m.keys()) {
        let key = key.to_lowercase();
        let messages = names::qualified(&key);
        if messages.is_empty() && !key.contains('/') {
            e.invalid(at, key.as_str(), "must be a domain-prefixed key (such as \"acme.io/foo\")");
        }
        e.invalid_each(at, &key, messages);
    }
    let bytes: usize =
        all.into_iter().flat_map(|m| m.iter()).map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if bytes > metadata::ANNOTATIONS_MAX_BYTES {
        e.too_long(at, metadata::ANNOTATIONS_MAX_BYTES);
    }
}

fn stub_request(der: &[u8], at: &Path, e: &mut Errors) {
    if der.len() > STUB_MAX_BYTES {
        e.too_long(at, STUB_MAX_BYTES);
        return;
    }
    let Some(request) = x509::request(der) else {
        e.invalid_bare(at, "must be a valid PKCS#10 CSR");
        return;
    };
    match x509::key_fault(&request.certification_request_info.subject_pki) {
        Some(KeyFault::Curve(name)) => {
            let text = "elliptic public keys must use curve P256, P384, or P521";
            e.invalid(at, format!("curve {name}"), text);
        }
        Some(KeyFault::Size(bits)) => rsa_size(bits, at, e),
        Some(KeyFault::Kind) => {
            e.invalid_bare(at, "unknown public key type; supported types are Ed25519, ECDSA, and RSA");
        }
        None if !x509::is_signed(&request) => e.invalid_bare(at, "invalid signature"),
        None => {}
    }
}

fn rsa_size(bits: usize, at: &Path, e: &mut Errors) {
    e.invalid(at, format!("{bits}-bit modulus"), "RSA keys must have modulus size 3072 or 4096");
}

fn key_and_proof(der: &[u8], proof: &[u8], uid: &str, at: &Path, e: &mut Errors) {
    let (key_at, proof_at) = (at.child("pkixPublicKey"), at.child("proofOfPossession"));
    if der.len() > KEY_MAX_BYTES {
        e.too_long(&key_at, KEY_MAX_BYTES);
        return;
    }
    if proof.len() > PROOF_MAX_BYTES {
        e.too_long(&proof_at, PROOF_MAX_BYTES);
        return;
    }
    let shown = || STANDARD.encode(der);
    let Some(key) = x509::public_key(der) else {
        e.invalid(&key_at, shown(), "must be a valid PKIX-serialized public key");
        return;
    };
    match x509::key_fault(&key) {
        Some(KeyFault::Curve(name)) => {
            e.invalid(&key_at, format!("curve {name}"), "elliptic public keys must use curve P256 or P384");
        }
        Some(KeyFault::Size(bits)) => rsa_size(bits, &key_at, e),
        Some(KeyFault::Kind) => {
            e.invalid(&key_at, shown(), "unknown public key type; supported types are Ed25519, ECDSA, and RSA");
        }
        None if !x509::proves(&key, uid.as_bytes(), proof) => {
            e.invalid_bare(&proof_at, "could not verify proof-of-possession signature");
        }
        None => {}
    }
}

/// What a signer writes into the status: one decision, for good.
fn answer(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("status");
    let path = at.child("conditions");
    let list = o.items_at(&["status", "conditions"]);
    let start = e.len();
    let mut decided = 0;
    for (i, c) in list.iter().enumerate() {
        // Upstream writes the place with a dot before the number.
        let at = Path::new(&format!("{path}.[{i}]"));
        let kind = c.str_at(&["type"]).unwrap_or_default();
        if !DECISIONS.contains(&kind) {
            e.not_supported(&at.child("type"), kind, DECISIONS);
            continue;
        }
        decided += 1;
        if decided > 1 {
            let text = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            e.invalid(&at.child("type"), kind, text);
        }
        let status = c.str_at(&["status"]).unwrap_or_default();
        if status != "True" {
            e.not_supported(&at.child("status"), status, &["True"]);
        }
    }
    status::conditions(list, &path, e);
    if e.len() > start {
        return;
    }
    let same = equality::same(o.get("status"), old.get("status"));
    if DECISIONS.iter().any(|d| is(old, d)) {
        if !same {
            e.invalid_bare(&at, "immutable after PodCertificateRequest is issued, denied, or failed");
        }
    } else if is(o, "Denied") || is(o, "Failed") {
        let others = o["status"].as_object().is_some_and(|s| s.iter().any(|(k, v)| k != "conditions" && !v.is_empty()));
        if others {
            let text = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
            e.invalid_bare(&at, text);
        }
    } else if is(o, "Issued") {
        issued(o, old, e);
    } else if !same {
        e.invalid_bare(&at, "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"");
    }
}

/// The chain and its times.
fn issued(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("status");
    let (chain_at, status) = (at.child("certificateChain"), &o["status"]);
    let chain = status.str_at(&["certificateChain"]).unwrap_or_default();
    if chain.len() > CHAIN_MAX_BYTES {
        e.too_long(&chain_at, CHAIN_MAX_BYTES);
        return;
    }
    let blocks: Vec<_> = x509::blocks(chain.as_bytes()).collect();
    let mut bad = |text: &str| e.invalid(&chain_at, chain, text);
    let Some(first) = blocks.first() else {
        return bad("issued certificate chain must contain at least one certificate");
    };
    if first.label != "CERTIFICATE" {
        return bad("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Some(leaf) = x509::certificate(&first.contents) else {
        return bad("leaf certificate does not parse as valid X.509");
    };
    let (stub, key) = (octets(&old["spec"], "stubPKCS10Request"), octets(&old["spec"], "pkixPublicKey"));
    let wanted = x509::request(&stub)
        .map(|r| r.certification_request_info.subject_pki.raw.to_vec())
        .or_else(|| x509::public_key(&key).map(|k| k.raw.to_vec()));
    if wanted.as_deref() != Some(leaf.public_key().raw) {
        return bad("leaf certificate was not issued to the requested public key");
    }
    let time = |f: &str| status.str_at(&[f]).and_then(print::unix);
    let (not_before, not_after, refresh) = (time("notBefore"), time("notAfter"), time("beginRefreshAt"));
    const CONSISTENT: &str = "must be present and consistent with the issued certificate";
    for (field, value, text) in [
        ("notBefore", not_before, CONSISTENT),
        ("notAfter", not_after, CONSISTENT),
        ("beginRefreshAt", refresh, "must be present and in the range [notbefore+10min, notafter-10min]"),
    ] {
        if value.is_none() {
            e.required(&at.child(field), text);
        }
    }
    let (Some(not_before), Some(not_after), Some(refresh)) = (not_before, not_after, refresh) else { return };
    let shown = |f: &str| status.str_at(&[f]).unwrap_or_default().to_owned();
    let validity = leaf.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let max = o.i64_at(&["spec", "maxExpirationSeconds"]).unwrap_or(0);
    if not_before != begin {
        let text = "must be set to the NotBefore time encoded in the leaf certificate";
        e.invalid(&at.child("notBefore"), shown("notBefore"), text);
    } else if not_after != end {
        let text = "must be set to the NotAfter time encoded in the leaf certificate";
        e.invalid(&at.child("notAfter"), shown("notAfter"), text);
    } else if end - begin < EXPIRATION_MIN_SECONDS {
        e.invalid(&chain_at, end - begin, "leaf certificate lifetime must be >= 1 hour");
    } else if end - begin > max {
        let text = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})");
        e.invalid(&chain_at, end - begin, &text);
    } else if refresh < begin + REFRESH_MARGIN_SECONDS {
        let text = "must be at least 10 minutes after status.notBefore";
        e.invalid(&at.child("beginRefreshAt"), shown("beginRefreshAt"), text);
    } else if refresh > end - REFRESH_MARGIN_SECONDS {
        let text = "must be at least 10 minutes before status.notAfter";
        e.invalid(&at.child("beginRefreshAt"), shown("beginRefreshAt"), text);
    } else {
        for block in &blocks[1..] {
            if block.label != "CERTIFICATE" {
                let text = "issued certificate chain must consist entirely of CERTFICATE PEM blocks";
                e.invalid(&chain_at, chain, text);
                return;
            }
            if x509::certificate(&block.contents).is_none() {
                e.invalid(&chain_at, chain, "intermediate certificate does not parse as valid X.509");
                return;
            }
        }
    }
}
