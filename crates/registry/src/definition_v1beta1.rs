//! CustomResourceDefinitions as upstream keeps them: `apiextensions.k8s.io/v1beta1`, which nobody serves
//! any more. What stands once for all versions there belongs to each version in v1.

use ironkeel_object::{Map, ObjectMeta, Value};

/// Upstream's stored version.
pub(crate) const API_VERSION: &str = "apiextensions.k8s.io/v1beta1";

/// Makes a v1 object of a v1beta1 one.
pub(crate) fn to_v1(definition: &mut Value) {
    definition.set_gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let version = spec.remove("version");
    let mut versions = match spec.remove("versions") {
        Some(Value::Array(versions)) => versions,
        _ => Vec::new(),
    };
    if versions.is_empty()
        && let Some(name) = version
    {
        let mut only = Map::new();
        only.insert("name", name);
        only.insert("served", true);
        only.insert("storage", true);
        versions.push(Value::Object(only));
    }
    for (shared, own) in [
        ("validation", "schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ] {
        let Some(value) = spec.remove(shared) else { continue };
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            version.insert(own, value.clone());
        }
    }
    for version in &mut versions {
        let columns = version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
        for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(path) = column.remove("JSONPath") {
                column.insert("jsonPath", path);
            }
        }
    }
    spec.insert("versions", Value::Array(versions));
    // There the default was to keep unknown fields.
    if spec.get("preserveUnknownFields").is_none() {
        spec.insert("preserveUnknownFields", true);
    }
    if spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(false) {
        spec.remove("preserveUnknownFields");
    }
    let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) else { return };
    let (client, reviews) = (conversion.remove("webhookClientConfig"), conversion.remove("conversionReviewVersions"));
    if conversion.get("strategy").and_then(Value::as_str) == Some("Webhook") {
        let webhook = conversion.object("webhook");
        for (name, value) in [("clientConfig", client), ("conversionReviewVersions", reviews)] {
            if let Some(value) = value {
                webhook.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn converted(old: &str) -> serde_json::Value {
        let mut tree = ironkeel_codec::parse_json(old.as_bytes()).unwrap();
        to_v1(&mut tree);
        let mut bytes = Vec::new();
        ironkeel_codec::encode_json(&tree, &mut bytes);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn what_stands_once_goes_to_each_version() {
        let new = converted(
            r#"{"apiVersion":"apiextensions.k8s.io/v1beta1","kind":"CustomResourceDefinition","metadata":{"name":"a.b.c"},
            "spec":{"group":"b.c","version":"v1","preserveUnknownFields":false,
            "additionalPrinterColumns":[{"name":"Age","type":"date","JSONPath":".metadata.creationTimestamp"}],
            "validation":{"openAPIV3Schema":{"type":"object"}},"subresources":{"status":{}},
            "conversion":{"strategy":"Webhook","webhookClientConfig":{"url":"https://x"},"conversionReviewVersions":["v1"]},
            "versions":[{"name":"v1","served":true,"storage":true},{"name":"v2","served":true,"storage":false}]}}"#,
        );
        assert_eq!(new["apiVersion"], "apiextensions.k8s.io/v1");
        for version in new["spec"]["versions"].as_array().unwrap() {
            assert_eq!(version["schema"]["openAPIV3Schema"]["type"], "object");
            assert_eq!(version["additionalPrinterColumns"][0]["jsonPath"], ".metadata.creationTimestamp");
            assert!(version["subresources"]["status"].is_object());
        }
        let spec = new["spec"].as_object().unwrap();
        for gone in ["version", "validation", "subresources", "additionalPrinterColumns", "preserveUnknownFields"] {
            assert!(!spec.contains_key(gone), "{gone}");
        }
        assert_eq!(spec["conversion"]["webhook"]["clientConfig"]["url"], "https://x");
        assert_eq!(spec["conversion"]["webhook"]["conversionReviewVersions"][0], "v1");
    }

    #[test]
    fn a_version_alone_is_served_and_stored() {
        let new = converted(r#"{"spec":{"group":"b.c","version":"v1beta1"}}"#);
        let versions = serde_json::json!([{"name": "v1beta1", "served": true, "storage": true}]);
        assert_eq!(new["spec"]["versions"], versions);
        assert_eq!(new["spec"]["preserveUnknownFields"], true);
    }
}
