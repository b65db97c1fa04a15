//! Label selectors over labels.
//!
//! Answers to apimachinery's LabelSelectorAsSelector: an absent selector matches nothing, an empty one everything.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels, as objects carry them.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` matches `labels`. An unknown operator matches nothing.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let same = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    same && selector.match_expressions.iter().flatten().all(|requirement| {
        let values = requirement.values.as_deref().unwrap_or_default();
        let found = labels.get(&requirement.key);
        match requirement.operator.as_str() {
            "In" => found.is_some_and(|value| values.contains(value)),
            "NotIn" => found.is_none_or(|value| !values.contains(value)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    })
}

/// As [`matches`], for a selector that may be absent: then nothing matches.
pub fn matches_optional(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let none = Labels::new();
    selector.is_some_and(|selector| matches(selector, labels.unwrap_or(&none)))
}

/// Whether every pair of `wanted` is among `labels`: the selectors of Services and ReplicationControllers.
pub fn contains(wanted: &Labels, labels: Option<&Labels>) -> bool {
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether the selector asks for nothing, and so matches everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// The selector's string form, as `status.selector` of a scale and list queries have it.
pub fn to_query(selector: &LabelSelector) -> String {
    let mut parts: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for requirement in selector.match_expressions.iter().flatten() {
        let (key, values) = (&requirement.key, requirement.values.as_deref().unwrap_or_default().join(","));
        parts.push(match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        });
    }
    parts.sort();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(selector: &str, labels: &str, expected: bool) {
        let selector: LabelSelector = serde_json::from_str(selector).unwrap();
        let labels: Labels = serde_json::from_str(labels).unwrap();
        assert_eq!(matches(&selector, &labels), expected, "{selector:?} on {labels:?}");
    }

    #[test]
    fn selectors_match_as_the_api_says() {
        check("{}", r#"{"a":"1"}"#, true);
        check(r#"{"matchLabels":{"a":"1"}}"#, r#"{"a":"1","b":"2"}"#, true);
        check(r#"{"matchLabels":{"a":"1"}}"#, r#"{"a":"2"}"#, false);
        check(r#"{"matchExpressions":[{"key":"a","operator":"In","values":["1","2"]}]}"#, r#"{"a":"2"}"#, true);
        check(r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["1"]}]}"#, "{}", true);
        check(r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#, "{}", false);
        check(r#"{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}"#, "{}", true);
        assert!(!matches_optional(None, None));
    }

    #[test]
    fn a_selector_has_a_query_form() {
        let selector: LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"app":"a"},"matchExpressions":[{"key":"t","operator":"In","values":["x","y"]}]}"#,
        )
        .unwrap();
        assert_eq!(to_query(&selector), "app=a,t in (x,y)");
    }
}
