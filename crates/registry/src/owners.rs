//! Owner references that stand twice: kept once, and the client is warned.

use std::collections::HashSet;

use ironkeel_object::{ObjectMeta, Value};

use crate::request::WriteRequest;

/// Keeps the first of equal owner references.
pub(crate) fn keep_once(object: &mut Value, request: &WriteRequest) {
    let list = object.items_at(&["metadata", "ownerReferences"]);
    if list.len() < 2 {
        return;
    }
    let mut seen = HashSet::new();
    let (kept, repeated): (Vec<_>, Vec<_>) = list.iter().cloned().partition(|owner| seen.insert(format!("{owner:?}")));
    if repeated.is_empty() {
        return;
    }
    let uids: Vec<&str> = repeated.iter().map(|owner| owner.str_at(&["uid"]).unwrap_or_default()).collect();
    request.warnings.lock().push(format!(
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject \
         such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        uids.join(", ")
    ));
    object.meta_mut().insert("ownerReferences", kept);
}
