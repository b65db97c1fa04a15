//! Names that definitions of one group must share, and approval of protected groups.

use std::collections::BTreeSet;

use ironkeel_object::{ObjectMeta, Value};

use super::APPROVED_ANNOTATION;
use crate::error::shown;

/// What the approval annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// A link to the review.
    Approved,
    /// `unapproved…`: the author knows.
    Bypassed,
    /// Neither.
    Invalid,
    /// No annotation.
    Missing,
}

/// The state of a definition in a protected group (`k8s.io`, `kubernetes.io`) and its reason; `None`
/// in other groups.
pub fn approval(definition: &Value) -> Option<(Approval, String)> {
    let group = definition.str_at(&["spec", "group"]).unwrap_or_default();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|d| group == *d || group.strip_suffix(d).is_some_and(|rest| rest.ends_with('.')));
    if !protected {
        return None;
    }
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let text = definition.annotation(APPROVED_ANNOTATION).unwrap_or_default();
    let url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            && !rest.is_empty()
            && !rest.starts_with('/')
    });
    Some(if text.is_empty() {
        let why = format!("protected groups must have approval annotation \"{APPROVED_ANNOTATION}\", {SEE}");
        (Approval::Missing, why)
    } else if text.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {}", shown(&text.into())))
    } else if url {
        (Approval::Approved, format!("approved in {text}"))
    } else {
        let why = format!(
            "protected groups must have approval annotation \"{APPROVED_ANNOTATION}\" with either a URL or a reason starting with \"unapproved\", {SEE}"
        );
        (Approval::Invalid, why)
    })
}

/// The names that a definition gets among the others of its group, and the first conflict as reason
/// and message.
pub fn accepted_names(definition: &Value, others: &[&Value]) -> (Value, Option<(&'static str, String)>) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in others {
        let Some(names) = other.at(&["status", "acceptedNames"]) else { continue };
        let text = |f: &str| names.str_at(&[f]).filter(|n| !n.is_empty()).map(str::to_owned);
        resources.extend(["plural", "singular"].iter().filter_map(|f| text(f)));
        resources.extend(names.items_at(&["shortNames"]).iter().filter_map(Value::as_str).map(str::to_owned));
        kinds.extend(["kind", "listKind"].iter().filter_map(|f| text(f)));
    }
    let wanted = definition.at(&["spec", "names"]).cloned().unwrap_or_else(Value::object);
    let have = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_else(Value::object);
    let mut accepted = have.clone();
    let mut conflict = None;
    for (field, used, reason) in [
        ("plural", &resources, "PluralConflict"),
        ("singular", &resources, "SingularConflict"),
        ("shortNames", &resources, "ShortNamesConflict"),
        ("kind", &kinds, "KindConflict"),
        ("listKind", &kinds, "ListKindConflict"),
    ] {
        let names: Vec<&str> = match wanted.get(field) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(name)) => vec![name.as_str()],
            _ => Vec::new(),
        };
        let ours = |name: &str| match have.get(field) {
            Some(Value::Array(list)) => list.iter().any(|n| n.as_str() == Some(name)),
            Some(Value::String(own)) => own == name,
            _ => false,
        };
        let taken: Vec<String> = names
            .iter()
            .filter(|n| !ours(n) && used.contains(**n))
            .map(|n| format!("{} is already in use", shown(&(*n).into())))
            .collect();
        if taken.is_empty() {
            set(&mut accepted, field, wanted.get(field));
        } else {
            let message = if taken.len() == 1 { taken[0].clone() } else { format!("[{}]", taken.join(", ")) };
            conflict = Some((reason, message));
        }
    }
    set(&mut accepted, "categories", wanted.get("categories"));
    for required in ["plural", "kind"] {
        if accepted.get(required).is_none() {
            set(&mut accepted, required, Some(&"".into()));
        }
    }
    (accepted, conflict)
}

fn set(names: &mut Value, field: &'static str, value: Option<&Value>) {
    let Some(m) = names.as_object_mut() else { return };
    match value {
        Some(v) => _ = m.insert(field, v.clone()),
        None => _ = m.remove(field),
    }
}
