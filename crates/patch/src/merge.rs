//! JSON merge patch, RFC 7386.

use ironkeel_object::Value;

/// Merges `patch` into `target`: objects member by member, null removes, anything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !matches!(target, Value::Object(_)) {
        *target = Value::object();
    }
    let Value::Object(members) = target else { return };
    for (name, change) in patch.iter() {
        match change {
            Value::Null => _ = members.remove(name),
            Value::Object(_) => merge_patch(members.entry(name.clone(), Value::object), change),
            other => _ = members.insert(name.clone(), other.clone()),
        }
    }
}
