//! `coordination.k8s.io`: Lease and LeaseCandidate.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::{Path, TableContext, print, rules};

/// Lease.
pub(crate) struct Lease;
impl rules::Rules for Lease {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        if let Some(d) = o.i64_at(&["spec", "leaseDurationSeconds"]).filter(|d| *d <= 0) {
            e.invalid(&at.child("leaseDurationSeconds"), d, "must be greater than 0");
        }
        if let Some(t) = o.i64_at(&["spec", "leaseTransitions"]).filter(|t| *t < 0) {
            e.invalid(&at.child("leaseTransitions"), t, "must be greater than or equal to 0");
        }
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

/// LeaseCandidate.
pub(crate) struct Candidate;
impl rules::Rules for Candidate {
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
