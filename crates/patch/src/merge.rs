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
    // Members come and go together at the end: one at a time, each would move all behind it.
    let (mut new, mut gone) = (Vec::new(), Vec::new());
    for (name, change) in patch.iter() {
        match (members.get_mut(name), change) {
            (Some(_), Value::Null) => gone.push(name.as_ref()),
            (None, Value::Null) => {}
            (Some(here), change) => merge_patch(here, change),
            (None, change) => {
                let mut value = Value::Null;
                merge_patch(&mut value, change);
                new.push((name.clone(), value));
            }
        }
    }
    if !gone.is_empty() {
        // A patch's members stand in order.
        members.retain(|name, _| gone.binary_search(&name).is_err());
    }
    members.extend(new);
}
