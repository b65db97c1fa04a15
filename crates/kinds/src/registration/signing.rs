//! CertificateSigningRequest and ClusterTrustBundle.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{ObjectMeta, Value};

use super::x509;
use crate::error::Errors;
use crate::pod_spec::string;
use crate::repeats::{repeated_text, repeated_whole};
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, strategy};

/// Shortest duration of a certificate.
const DURATION_MIN_SECONDS: i64 = 600;
/// Octets of a bundle.
const BUNDLE_MAX_BYTES: usize = 1024 * 1024;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that are true or absent.
const FINAL: &[&str] = &["Approved", "Denied", "Failed"];

fn of_type<'a>(o: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    o.items_at(&["status", "conditions"]).iter().filter(move |c| c.str_at(&["type"]).unwrap_or_default() == kind)
}

fn octets(text: Option<&str>) -> Vec<u8> {
    STANDARD.decode(text.unwrap_or_default()).unwrap_or_default()
}

/// CertificateSigningRequest.
pub(crate) struct SigningRequest;
impl rules::Rules for SigningRequest {
    fn owns_update(&self, subresource: Option<&str>) -> bool {
        subresource == Some("approval")
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        strategy::keep(o, old, "spec");
        match subresource {
            Some("approval") => {
                let conditions = o.at(&["status", "conditions"]).cloned();
                strategy::keep(o, old, "status");
                strategy::keep_metadata_for_status(o, old);
                if let Some(c) = conditions {
                    *o.slot(&["status", "conditions"]) = c;
                }
            }
            // Who may not decide keeps what was decided, as long as it is not added or taken away.
            Some("status") => {
                for kind in ["Approved", "Denied"] {
                    let before: Vec<Value> = of_type(old, kind).cloned().collect();
                    if before.len() != of_type(o, kind).count() {
                        continue;
                    }
                    let list = o.get_mut("status").and_then(|s| s.get_mut("conditions")).and_then(Value::as_array_mut);
                    let places = list.into_iter().flatten().filter(|c| c.str_at(&["type"]).unwrap_or_default() == kind);
                    places.zip(before).for_each(|(place, was)| *place = was);
                }
            }
            _ => {}
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        check(o, None, e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        check(o, Some(old), e);
        let at = Path::new("status");
        let path = at.child("conditions");
        for kind in FINAL {
            if of_type(o, kind).count() < of_type(old, kind).count() {
                e.forbidden(&path, &format!("updates may not remove a condition of type \"{kind}\""));
            }
        }
        for kind in ["Approved", "Denied"].into_iter().filter(|_| subresource != Some("approval")) {
            let (new, was): (Vec<_>, Vec<_>) = (of_type(o, kind).collect(), of_type(old, kind).collect());
            if new.len() > was.len() {
                e.forbidden(&path, &format!("updates may not add a condition of type \"{kind}\""));
            } else if new.len() == was.len() && new != was {
                e.forbidden(&path, &format!("updates may not modify a condition of type \"{kind}\""));
            }
        }
        let certificate = |o: &Value| o.str_at(&["status", "certificate"]).unwrap_or_default().to_owned();
        if certificate(o) != certificate(old) {
            let at = at.child("certificate");
            if subresource != Some("status") {
                e.forbidden(&at, "updates may not set certificate content");
            } else if !certificate(old).is_empty() {
                e.forbidden(&at, "updates may not modify existing certificate content");
            }
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::PathSegment
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "certificateSigningRequest"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let has = |kind: &str| of_type(o, kind).next().is_some();
        let mut status = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            status.push_str(",Failed");
        }
        if string(&o["status"], "certificate").is_some() {
            status.push_str(",Issued");
        }
        let duration = o.i64_at(&["spec", "expirationSeconds"]).map_or("<none>".to_owned(), print::human_duration);
        vec![
            print::age(o, c),
            print::text(o, &["spec", "signerName"], "<none>"),
            print::text(o, &["spec", "username"], ""),
            duration.into(),
            status.into(),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "spec.signerName").then(|| o.str_at(&["spec", "signerName"]).unwrap_or_default().to_owned())
    }
}

/// What holds of a request in whatever way it is written; faults that were there before may stay.
fn check(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let (at, spec) = (Path::new("spec"), &o["spec"]);
    if let Some(fault) = x509::signing_request_fault(&octets(spec.str_at(&["request"]))) {
        let shown = spec.get("request").cloned().unwrap_or_default();
        e.invalid(&at.child("request"), shown, fault);
    }
    let (usages, path) = (spec.items_at(&["usages"]), at.child("usages"));
    if usages.is_empty() {
        e.required(&path, "");
    }
    let before = old.map(|o| o["spec"].items_at(&["usages"])).unwrap_or_default();
    let known = |u: &Value| u.as_str().is_some_and(|u| USAGES.contains(&u));
    if before.iter().all(known) {
        for (i, u) in usages.iter().enumerate().filter(|(_, u)| !known(u)) {
            e.not_supported(&path.index(i), u.clone(), USAGES);
        }
    }
    if !repeated_whole(before).contains(&true) {
        let twice = repeated_whole(usages);
        for (i, u) in usages.iter().enumerate().filter(|(i, _)| twice[*i]) {
            e.duplicate(&path.index(i), u.clone());
        }
    }
    let signer = spec.str_at(&["signerName"]).unwrap_or_default();
    let legacy = |o: &Value| o.str_at(&["spec", "signerName"]) == Some(LEGACY_SIGNER);
    if signer == LEGACY_SIGNER && !old.is_some_and(legacy) {
        let text = "the legacy signerName is not allowed via this API version";
        e.invalid(&at.child("signerName"), signer, text);
    } else {
        names::signer(signer, &at.child("signerName"), e);
    }
    if let Some(s) = spec.i64_at(&["expirationSeconds"]).filter(|s| *s < DURATION_MIN_SECONDS) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        e.invalid(&at.child("expirationSeconds"), s, text);
    }
    conditions(o, old, e);
    let certificate = |o: &Value| octets(o.str_at(&["status", "certificate"]));
    let fault = |o: &Value| Some(certificate(o)).filter(|c| !c.is_empty()).and_then(|c| x509::issued_fault(&c));
    let lenient = old.is_some_and(|old| certificate(old) == certificate(o) || fault(old).is_some());
    if let Some(text) = fault(o).filter(|_| !lenient) {
        e.invalid(&Path::new("status").child("certificate"), "<certificate data>", &text);
    }
}

fn conditions(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let path = Path::new("status").child("conditions");
    let list = o.items_at(&["status", "conditions"]);
    let before = old.map(|o| o.items_at(&["status", "conditions"])).unwrap_or_default();
    let kind = |c: &Value| c.str_at(&["type"]).unwrap_or_default().to_owned();
    let twice = repeated_text(list, "type");
    let has = |list: &[Value], what: &str| list.iter().any(|c| kind(c) == what);
    let (both, unnamed) = (has(before, "Approved") && has(before, "Denied"), has(before, ""));
    let repeated = repeated_text(before, "type").contains(&true);
    let mut seen: HashSet<String> = HashSet::new();
    for (i, c) in list.iter().enumerate() {
        let (at, name) = (path.index(i), kind(c));
        if name.is_empty() && !unnamed {
            e.required(&at.child("type"), "");
        }
        let allowed: &[&str] = if FINAL.contains(&name.as_str()) { &["True"] } else { &["False", "True", "Unknown"] };
        match c.str_at(&["status"]).unwrap_or_default() {
            "" => e.required(&at.child("status"), ""),
            s if !allowed.contains(&s) => e.not_supported(&at.child("status"), s, allowed),
            _ => {}
        }
        let other = match name.as_str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "-",
        };
        if !both && seen.contains(other) {
            e.invalid(&path, name.as_str(), "Approved and Denied conditions are mutually exclusive");
        }
        if !repeated && twice[i] {
            e.duplicate(&at.child("type"), name.as_str());
        }
        seen.insert(name);
    }
}

/// ClusterTrustBundle.
pub(crate) struct TrustBundle;
impl rules::Rules for TrustBundle {
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        bundle_names(o, e);
        bundle(o.str_at(&["spec", "trustBundle"]).unwrap_or_default(), e);
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        let signer = bundle_names(o, e);
        let text = |o: &Value| o.str_at(&["spec", "trustBundle"]).unwrap_or_default().to_owned();
        if text(o) != text(old) {
            bundle(&text(o), e);
        }
        if signer != old.str_at(&["spec", "signerName"]).unwrap_or_default() {
            e.invalid(&Path::new("spec").child("signerName"), signer, "field is immutable");
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::Any
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("certificates.k8s.io", "v1beta1"))
    }
    fn columns(&self) -> &'static str {
        "clusterTrustBundle"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["spec", "signerName"], "<none>")]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "spec.signerName").then(|| o.str_at(&["spec", "signerName"]).unwrap_or_default().to_owned())
    }
}

/// The signer, which the name must begin with.
fn bundle_names<'a>(o: &'a Value, e: &mut Errors) -> &'a str {
    let signer = o.str_at(&["spec", "signerName"]).unwrap_or_default();
    for (field, name, prefix) in [("generateName", o.meta_str("generateName"), true), ("name", o.name(), false)] {
        if !name.is_empty() {
            e.invalid_each(&Path::new("metadata").child(field), name, names::trust_bundle(signer, name, prefix));
        }
    }
    if !signer.is_empty() {
        names::signer(signer, &Path::new("spec").child("signerName"), e);
    }
    signer
}

/// Certificates of authorities, each once.
fn bundle(text: &str, e: &mut Errors) {
    let at = Path::new("spec").child("trustBundle");
    if text.len() > BUNDLE_MAX_BYTES {
        e.too_long(&at, BUNDLE_MAX_BYTES);
        return;
    }
    let headers = x509::has_headers(text.as_bytes());
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let before = e.len();
    for (i, block) in x509::blocks(text.as_bytes()).enumerate() {
        let fault = if block.label != "CERTIFICATE" {
            Some(format!("entry {i} has bad block type: {}", block.label))
        } else if headers {
            Some(format!("entry {i} has PEM block headers"))
        } else {
            match x509::certificate(&block.contents) {
                None => Some(format!("entry {i} does not parse as X.509")),
                Some(c) if !c.is_ca() => Some(format!("entry {i} does not have the CA bit set")),
                Some(_) => None,
            }
        };
        match fault {
            Some(text) => e.invalid(&at, "<value omitted>", &text),
            None => seen.push(block.contents),
        }
    }
    if e.len() > before {
        return;
    }
    if seen.is_empty() {
        e.invalid(&at, "<value omitted>", "at least one trust anchor must be provided");
    }
    let mut places: HashMap<&[u8], Vec<String>> = HashMap::new();
    for (i, der) in seen.iter().enumerate() {
        places.entry(der).or_default().push(i.to_string());
    }
    for der in &seen {
        if let Some(all) = places.remove(der.as_slice()).filter(|all| all.len() > 1) {
            e.invalid(&at, "<value omitted>", &format!("duplicate trust anchor (indices [{}])", all.join(" ")));
        }
    }
}
