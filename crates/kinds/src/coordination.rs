//! `coordination.k8s.io`: Lease and LeaseCandidate.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::names::{self, NameRule};
use crate::pod_spec::string;
use crate::structural::Depth;
use crate::{Path, TableContext, print, rules};

/// Lease.
pub(crate) struct Lease;
impl rules::Rules for Lease {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        if let Some(d) = o.i64_at(&["spec", "leaseDurationSeconds"]).filter(|d| *d <= 0) {
            e.invalid(&at.child("leaseDurationSeconds"), d, "must be greater than 0");
        }
        let strategy = o.str_at(&["spec", "strategy"]);
        if let Some(s) = strategy {
            validate_strategy(s, &at.child("strategy"), e);
        }
        if strategy.is_none_or(str::is_empty) && string(&o["spec"], "preferredHolder").is_some() {
            e.forbidden(&at.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
        if let Some(t) = o.i64_at(&["spec", "leaseTransitions"]).filter(|t| *t < 0) {
            e.invalid(&at.child("leaseTransitions"), t, "must be greater than or equal to 0");
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn columns(&self) -> &'static str {
        "lease"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["spec", "holderIdentity"], ""), print::age(o, c)]
    }
}

fn validate_strategy(s: &str, at: &Path, e: &mut Errors) {
    let at = at.child("strategy");
    if s.contains('/') {
        e.invalid_each(&at, s, names::qualified(s));
    } else if s != "OldestEmulationVersion" {
        e.not_supported(&at, s, &["OldestEmulationVersion"]);
    }
}

/// `1.36.0`, with anything after a `-` or `+`; earlier parts weigh more.
fn semantic_version(text: &str) -> Option<[u64; 3]> {
    let numbers = text.split(['-', '+']).next()?;
    let part = |s: &str| {
        let plain = s == "0" || !s.starts_with('0');
        if plain && !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) { s.parse().ok() } else { None }
    };
    let parts: Vec<&str> = numbers.split('.').collect();
    let [major, minor, patch] = parts[..] else { return None };
    Some([part(major)?, part(minor)?, part(patch)?])
}

/// LeaseCandidate.
pub(crate) struct Candidate;
impl rules::Rules for Candidate {
    fn name_rule(&self) -> NameRule {
        NameRule::ConfigKey
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = &o["spec"];
        let text = |f: &str| spec.str_at(&[f]).unwrap_or_default();
        if text("leaseName").is_empty() {
            e.required(&at.child("leaseName"), "");
        }
        let (binary, emulated) = (text("binaryVersion"), text("emulationVersion"));
        let zero = [0, 0, 0];
        let mut parse = |f: &str, v: &str| {
            if v.is_empty() {
                return zero;
            }
            semantic_version(v).unwrap_or_else(|| {
                e.invalid(&at.child(f), v, "must be a valid semantic version");
                zero
            })
        };
        let emulated_version = parse("emulationVersion", emulated);
        let binary_version = parse("binaryVersion", binary);
        if binary.is_empty() {
            e.required(&at.child("binaryVersion"), "");
        } else if !emulated.is_empty() && binary_version < emulated_version {
            let text = "must be greater than or equal to `emulationVersion`";
            e.invalid(&at.child("binaryVersion"), binary, text);
        }
        match text("strategy") {
            "" => e.required(&at.child("strategy"), ""),
            s => {
                if s == "OldestEmulationVersion" && emulated_version == zero {
                    let text = "must be specified when `strategy` is 'OldestEmulationVersion'";
                    e.required(&at.child("emulationVersion"), text);
                }
                validate_strategy(s, &at.child("strategy"), e);
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        let name = |v: &Value| v.at(&["spec", "leaseName"]).cloned();
        e.immutable(&Path::new("spec").child("leaseName"), name(o).as_ref(), name(old).as_ref());
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("coordination.k8s.io", "v1beta1"))
    }
    fn columns(&self) -> &'static str {
        "leaseCandidate"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let text = |f: &str| print::text(o, &["spec", f], "");
        vec![text("leaseName"), text("binaryVersion"), text("emulationVersion"), print::age(o, c)]
    }
}
