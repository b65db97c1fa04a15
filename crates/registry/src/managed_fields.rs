//! `metadata.managedFields`: who set what, kept up to date on every write.

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value, is_print, quoted};
use ironkeel_patch::ApplyOptions;

use crate::custom::{schema_of, structure_of};
use crate::request::WriteRequest;
use crate::storage::Row;

/// Resources whose status writes leave the metadata alone (upstream's reset fields of the status
/// strategies); those of custom resources do too.
const STATUS_RESETS_METADATA: &[&str] = &[
    "apiservices",
    "devicetaintrules",
    "flowschemas",
    "podgroups",
    "prioritylevelconfigurations",
    "resourceclaims",
    "resourcepoolstatusrequests",
    "servicecidrs",
    "storageversionmigrations",
    "storageversions",
    "validatingadmissionpolicies",
    "volumeattachments",
];

/// Paths that a write to the row through this subresource cannot change (upstream's
/// `GetResetFields`): who sends them does not come to own them.
pub(crate) fn reset_fields(row: &Row, subresource: &str) -> &'static [&'static [&'static str]] {
    let custom = row.kind.custom.is_some();
    match (row.plural(), subresource) {
        ("certificatesigningrequests", "") => &[&["spec"], &["status"]],
        ("certificatesigningrequests", "status") => &[&["spec"], &["status", "conditions"]],
        ("certificatesigningrequests", "approval") => &[&["spec"], &["status", "certificate"]],
        (_, "") | ("namespaces", "finalize") => {
            if row.kind.resource.subresource("status").is_some() {
                &[&["status"]]
            } else {
                &[]
            }
        }
        ("deployments", "status") if !custom => &[&["spec"], &["metadata", "labels"]],
        ("pods", "status") if !custom => {
            &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]
        }
        (plural, "status") if custom || STATUS_RESETS_METADATA.contains(&plural) => &[&["metadata"], &["spec"]],
        (_, "status") => &[&["spec"]],
        ("pods", "ephemeralcontainers" | "resize") => &[&["status"], &["metadata"]],
        _ => &[],
    }
}

/// Notes what this write changed under its field manager.
pub(crate) fn track(new: &mut Value, old: Option<&Value>, request: &WriteRequest, now: &str) {
    let row = &request.row;
    let structure = structure_of(row);
    let options = ApplyOptions {
        manager: &request.field_manager,
        api_version: &row.api_version,
        subresource: &request.subresource,
        now,
        schema: schema_of(row, structure.as_ref()),
        reset: reset_fields(row, &request.subresource),
    };
    ironkeel_patch::track_update(old, new, &options);
}

/// `managedFields` as they were before admission, where it has left what nobody can read.
pub(crate) fn restore(object: &mut Value, before: Option<Value>, request: &WriteRequest) {
    let Some(problem) = ironkeel_patch::apply::managed_fields_problem(object) else { return };
    match before {
        Some(before) => _ = object.meta_mut().insert("managedFields", before),
        None => _ = object.meta_mut().remove("managedFields"),
    }
    request.warnings.lock().push(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
         admission controller; please fix your requests: {problem}"
    ));
}

/// Whether two objects differ only in the times of `managedFields`.
pub(crate) fn equal_but_times(new: &Value, old: &Value) -> bool {
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return false };
    if a.len() != b.len() || !a.iter().zip(b.iter()).all(|(x, y)| x.0 == y.0 && (x.0 == "metadata" || x.1 == y.1)) {
        return false;
    }
    let (Some(a), Some(b)) = (new.meta(), old.meta()) else { return false };
    if a.len() != b.len() || !a.iter().zip(b.iter()).all(|(x, y)| x.0 == y.0 && (x.0 == "managedFields" || x.1 == y.1))
    {
        return false;
    }
    let entries = |v: &Value| -> Vec<Value> {
        let list = v.items_at(&["metadata", "managedFields"]);
        list.iter()
            .map(|e| {
                let mut e = e.clone();
                if let Some(m) = e.as_object_mut() {
                    m.remove("time");
                }
                e
            })
            .collect()
    };
    entries(new) == entries(old)
}

/// Longest name of a field manager, in bytes.
const MANAGER_BYTES: usize = 128;
/// Longest name of a subresource, in bytes.
const SUBRESOURCE_BYTES: usize = 256;

/// Entries whose faults are told; a body has room for many more.
const TOLD: usize = 100;

/// What is wrong with the names in an object's `managedFields`.
pub(crate) fn errors(object: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    for (i, entry) in object.items_at(&["metadata", "managedFields"]).iter().enumerate() {
        if out.len() >= TOLD {
            break;
        }
        let at = Path::new("metadata").child("managedFields").index(i);
        let text = |key: &str| entry.str_at(&[key]).unwrap_or_default();
        let mut wrong = |field: &str, kind, message| out.push(FieldError { path: at.child(field), kind, message });
        let manager = text("manager");
        if manager.len() > MANAGER_BYTES {
            let why = format!("Too long: may not be more than {MANAGER_BYTES} bytes");
            wrong("manager", FieldErrorKind::TooLong, why);
        } else if let Some((at, c)) = manager.char_indices().find(|(_, c)| !is_print(*c)) {
            let shown = quoted(manager);
            let why = format!("Invalid value: {shown}: invalid character U+{:04X} (at position {at})", u32::from(c));
            wrong("manager", FieldErrorKind::Invalid, why);
        }
        if text("subresource").len() > SUBRESOURCE_BYTES {
            let why = format!("Too long: may not be more than {SUBRESOURCE_BYTES} bytes");
            wrong("subresource", FieldErrorKind::TooLong, why);
        }
    }
    out
}
