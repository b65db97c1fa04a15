//! Labels and label selectors as fields of objects: rules and text form. Matching lives in `object`.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::{Path, names};

/// A map of labels.
pub(crate) fn labels(value: Option<&Value>, path: &Path, e: &mut Errors) {
    for (k, v) in value.and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        e.invalid_each(path, k, names::qualified(k));
        let v = v.as_str().unwrap_or_default();
        e.invalid_each(path, v, names::label_value(v));
    }
}

/// `meta/v1.LabelSelector`.
pub(crate) fn label_selector(value: Option<&Value>, path: &Path, e: &mut Errors) {
    let Some(s) = value else { return };
    labels(s.get("matchLabels"), &path.child("matchLabels"), e);
    for (i, r) in s.items_at(&["matchExpressions"]).iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = r.items_at(&["values"]);
        match r.str_at(&["operator"]).unwrap_or_default() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    e.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    e.forbidden(&at.child("values"), text);
                }
            }
            other => e.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = r.str_at(&["key"]).unwrap_or_default();
        e.invalid_each(&at.child("key"), key, names::qualified(key));
        for (j, v) in values.iter().enumerate() {
            let v = v.as_str().unwrap_or_default();
            e.invalid_each(&at.child("values").index(j), v, names::label_value(v));
        }
    }
}

/// Whether a `meta/v1.LabelSelector` can be asked what it selects.
pub(crate) fn is_valid(selector: &Value) -> bool {
    let mut e = Errors::default();
    label_selector(Some(selector), &Path::default(), &mut e);
    e.len() == 0
}

/// Whether a `meta/v1.LabelSelector` selects by nothing (and so everything).
pub(crate) fn is_blank(value: Option<&Value>) -> bool {
    value.is_none_or(|s| {
        s.at(&["matchLabels"]).is_none_or(Value::is_empty) && s.items_at(&["matchExpressions"]).is_empty()
    })
}

/// Whether a `meta/v1.LabelSelector` selects these labels.
pub(crate) fn matches(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |k: &str| labels.and_then(|l| l.get(k)).and_then(Value::as_str);
    let pairs = selector.get("matchLabels").and_then(Value::as_object);
    pairs.into_iter().flat_map(|m| m.iter()).all(|(k, v)| label(k) == v.as_str())
        && selector.items_at(&["matchExpressions"]).iter().all(|r| {
            let have = label(r.str_at(&["key"]).unwrap_or_default());
            let listed = have.is_some_and(|h| r.items_at(&["values"]).iter().any(|v| v.as_str() == Some(h)));
            match r.str_at(&["operator"]).unwrap_or_default() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}

/// The text form of a plain map selector: `a=b,c=d`.
pub(crate) fn map_text(value: Option<&Value>) -> String {
    let pairs = value.and_then(Value::as_object).into_iter().flat_map(|m| m.iter());
    pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}

/// The text form of a `meta/v1.LabelSelector`, sorted by key as upstream writes it.
pub(crate) fn text(value: Option<&Value>) -> String {
    let Some(s) = value else { return String::new() };
    let mut parts: Vec<(String, String)> = Vec::new();
    for (k, v) in s.get("matchLabels").and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
        parts.push((k.to_string(), format!("{k}={}", v.as_str().unwrap_or_default())));
    }
    for r in s.items_at(&["matchExpressions"]) {
        let key = r.str_at(&["key"]).unwrap_or_default();
        let mut values: Vec<&str> = r.items_at(&["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let list = values.join(",");
        let part = match r.str_at(&["operator"]).unwrap_or_default() {
            "In" => format!("{key} in ({list})"),
            "NotIn" => format!("{key} notin ({list})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), part));
    }
    // Labels stand before expressions of the same key.
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts.into_iter().map(|(_, p)| p).collect::<Vec<_>>().join(",")
}
