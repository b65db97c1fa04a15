//! What types and fields are for, in upstream's words.
//!
//! The sentences come with the Rust types of the API: each can write its JSON schema, and every
//! schema carries its descriptions. The schemas are made while a document is, and dropped with it;
//! nothing but descriptions is read from them: what a field is, the tables say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::generated::described::KINDS;

/// Adds a type, and what it refers to, to a generator.
pub(crate) type Add = fn(&mut SchemaGenerator);

pub(crate) fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Types that belong to no group's kinds.
const SHARED: &[(&str, Add)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", add::<v1::DeleteOptions>),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", add::<v1::ListMeta>),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", add::<v1::ObjectMeta>),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", add::<v1::Status>),
];

/// Of `apiVersion`.
pub(crate) const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. \
    Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. \
    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
/// Of `kind`.
pub(crate) const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers \
    may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. \
    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
/// Of `metadata`.
pub(crate) const METADATA: &str = "Standard object's metadata. \
    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
/// Of a list's `metadata`.
pub(crate) const LIST_METADATA: &str = "Standard list metadata. \
    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Of a list's `items`.
pub(crate) fn items(what: &str) -> String {
    format!(
        "List of {what}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
    )
}

/// Describes those of `definitions` that have known types, and their properties. Where
/// `references_alone` (OpenAPI v3), nothing may stand beside a reference.
pub(crate) fn describe<'d>(definitions: impl Iterator<Item = (&'d String, &'d mut Value)>, references_alone: bool) {
    let mut definitions: Vec<_> = definitions.collect();
    let mut generator = SchemaGenerator::default();
    for (name, add) in KINDS.iter().chain(SHARED) {
        if definitions.iter().any(|(n, _)| n == name) {
            add(&mut generator);
        }
    }
    let mut known = generator.take_definitions(false);
    for (name, definition) in &mut definitions {
        let Some(definition) = definition.as_object_mut() else { continue };
        match known.get_mut(name.as_str()).map(Value::take) {
            Some(Value::Object(words)) => of_type(definition, words, references_alone),
            _ if name.starts_with("io.k8s.") && name.ends_with("List") => of_list(name, definition, references_alone),
            _ => {}
        }
    }
}

fn of_type(definition: &mut Map<String, Value>, mut words: Map<String, Value>, references_alone: bool) {
    if let Some(text) = words.remove("description") {
        definition.insert("description".to_owned(), text);
    }
    let Some(Value::Object(mut words)) = words.remove("properties") else { return };
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        let text = words.get_mut(name).and_then(|w| w.as_object_mut()?.remove("description"));
        if let Some(text) = text {
            put(property, text, references_alone);
        }
    }
}

/// Lists are no types of their own in Rust.
fn of_list(name: &str, definition: &mut Map<String, Value>, references_alone: bool) {
    let list = name.rsplit('.').next().unwrap_or(name);
    let kind = list.trim_end_matches("List");
    definition.insert("description".to_owned(), format!("{list} is a list of {kind}").into());
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        match name.as_str() {
            "apiVersion" => put(property, API_VERSION.into(), references_alone),
            "kind" => put(property, KIND.into(), references_alone),
            "metadata" => put(property, LIST_METADATA.into(), references_alone),
            "items" => put(property, items(kind).into(), references_alone),
            _ => {}
        }
    }
}

fn put(property: &mut Value, text: Value, references_alone: bool) {
    if references_alone && property.get("$ref").is_some() {
        *property = json!({ "allOf": [property.take()] });
    }
    if let Some(property) = property.as_object_mut() {
        property.insert("description".to_owned(), text);
    }
}
