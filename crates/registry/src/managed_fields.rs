//! `metadata.managedFields`: who set what, kept up to date on every write.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_patch::ApplyOptions;

use crate::request::WriteRequest;

/// Notes what this write changed under its field manager.
pub(crate) fn track(new: &mut Value, old: Option<&Value>, request: &WriteRequest, now: &str) {
    let row = &request.row;
    let options = ApplyOptions {
        manager: &request.field_manager,
        api_version: &row.api_version,
        subresource: &request.subresource,
        now,
        type_id: crate::entry::stored_type(&row.kind),
    };
    ironkeel_patch::track_update(old, new, &options);
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
