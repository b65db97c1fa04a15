//! Rules for device taint rules.

use ironkeel_object::Value;

use super::names::{pool, taint};
use crate::error::Errors;
use crate::pod_spec::present;
use crate::pod_spec::storage_sources::csi_driver_name;
use crate::{Path, names};

/// A device taint rule, and the one before it.
pub(super) fn validate(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let (at, spec) = (Path::new("spec"), &o["spec"]);
    if let Some(s) = present(spec, "deviceSelector") {
        let at = at.child("deviceSelector");
        if let Some(d) = s.str_at(&["driver"]) {
            csi_driver_name(d, &at.child("driver"), e);
        }
        if let Some(p) = s.str_at(&["pool"]) {
            pool(p, &at.child("pool"), e);
        }
        if let Some(d) = s.str_at(&["device"]) {
            e.invalid_each(&at.child("device"), d, names::label(d));
        }
    }
    taint(&spec["taint"], old.map(|o| &o["spec"]["taint"]), &at.child("taint"), e);
}
