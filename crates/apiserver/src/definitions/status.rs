//! The conditions of a definition: NamesAccepted, Established, NonStructuralSchema,
//! KubernetesAPIApprovalPolicyConformant.

use ironkeel_kinds::definition::{self, Approval};
use ironkeel_object::{Map, Value};

/// The status that a definition should have, but for `Established`, and whether it may be established
/// now.
pub(super) fn wanted(definition: &Value, others: &[&Value], now: &str) -> (Value, bool) {
    let mut status = definition.get("status").cloned().unwrap_or_else(Value::object);
    if let Some((state, why)) = definition::approval(definition) {
        let (value, reason) = match state {
            Approval::Approved => ("True", "ApprovedAnnotation"),
            Approval::Bypassed => ("False", "UnapprovedAnnotation"),
            Approval::Invalid => ("False", "InvalidAnnotation"),
            Approval::Missing => ("False", "MissingAnnotation"),
        };
        set(&mut status, "KubernetesAPIApprovalPolicyConformant", value, reason, &why, now);
    }
    match definition::structural_violations(definition).as_slice() {
        [] => remove(&mut status, "NonStructuralSchema"),
        [one] => set(&mut status, "NonStructuralSchema", "True", "Violations", one, now),
        many => {
            let all = format!("[{}]", many.join(", "));
            set(&mut status, "NonStructuralSchema", "True", "Violations", &all, now);
        }
    }
    let (names, conflict) = definition::accepted_names(definition, others);
    if status.get("acceptedNames") != Some(&names) {
        *status.slot(&["acceptedNames"]) = names;
    }
    let accepted = conflict.is_none();
    match &conflict {
        None => set(&mut status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set(&mut status, "NamesAccepted", "False", reason, message, now),
    }
    let established = definition::is_true(definition, "Established");
    if !established && !accepted {
        set(&mut status, "Established", "False", "NotAccepted", "not all names are accepted", now);
    }
    let broken = definition::has_invalid_bundle(definition);
    if !established && accepted && broken {
        let why = "The conversion webhook CABundle is invalid";
        set(&mut status, "Established", "False", "InvalidCABundle", why, now);
    }
    (status, accepted && !established && !broken)
}

/// Marks a definition that is served.
pub(super) fn establish(status: &mut Value, now: &str) {
    set(status, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now);
}

/// Sets a condition; its time moves with its status alone.
pub(super) fn set(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str, now: &str) {
    let slot = status.slot(&["conditions"]);
    if slot.as_array().is_none() {
        *slot = Value::Array(Vec::new());
    }
    let Some(all) = slot.as_array_mut() else { return };
    let found = all.iter_mut().find(|c| c.str_at(&["type"]) == Some(kind));
    let since = found.as_ref().filter(|c| c.str_at(&["status"]) == Some(value));
    let since = since.and_then(|c| c.str_at(&["lastTransitionTime"])).unwrap_or(now).to_owned();
    let mut c = Map::new();
    c.insert("lastTransitionTime", since);
    c.insert("message", message);
    c.insert("reason", reason);
    c.insert("status", value);
    c.insert("type", kind);
    match found {
        Some(there) => {
            if let Some(generation) = there.get("observedGeneration") {
                c.insert("observedGeneration", generation.clone());
            }
            *there = Value::Object(c);
        }
        None => all.push(Value::Object(c)),
    }
}

fn remove(status: &mut Value, kind: &str) {
    if let Some(all) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        all.retain(|c| c.str_at(&["type"]) != Some(kind));
    }
}
