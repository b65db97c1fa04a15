//! What types and fields are for, in upstream's words.
//!
//! The sentences come with the Rust types of the API; `build/main.rs` takes them from there while this crate is built,
//! and tells their format. They are decompressed while a document is made, and dropped with it; nothing but descriptions
//! is in them: what a field is, the tables say.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::DeflateDecoder;
use serde_json::{Map, Value, json};

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions"));
/// Ends a definition's name, a description, a property's name.
const PART: char = '\u{1f}';
/// Ends all that is said of one definition.
const RECORD: char = '\u{1e}';

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
    let mut unknown: BTreeMap<&str, &mut Map<String, Value>> =
        definitions.filter_map(|(name, definition)| Some((name.as_str(), definition.as_object_mut()?))).collect();
    let mut words = String::new();
    let read = DeflateDecoder::new(COMPRESSED).read_to_string(&mut words);
    read.expect("the build wrote it; every test of a description reads it");
    for record in words.split_terminator(RECORD) {
        let mut parts = record.split_terminator(PART);
        if let Some(definition) = parts.next().and_then(|name| unknown.remove(name)) {
            of_type(definition, parts, references_alone);
        }
    }
    for (name, definition) in unknown {
        if name.starts_with("io.k8s.") && name.ends_with("List") {
            of_list(name, definition, references_alone);
        } else {
            of_meta(name, definition, references_alone);
        }
    }
}

fn of_type<'w>(definition: &mut Map<String, Value>, mut words: impl Iterator<Item = &'w str>, references_alone: bool) {
    if let Some(text) = words.next().filter(|t| !t.is_empty()) {
        definition.insert("description".to_owned(), text.into());
    }
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    while let (Some(name), Some(text)) = (words.next(), words.next()) {
        if let Some(property) = properties.get_mut(name) {
            put(property, text.into(), references_alone);
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

/// Types of the API machinery that Rust has none of.
fn of_meta(name: &str, definition: &mut Map<String, Value>, references_alone: bool) {
    let text = match name.strip_prefix("io.k8s.apimachinery.pkg.apis.meta.v1.") {
        Some("APIGroup") => "A group: its name, its versions, and the one that is preferred.",
        Some("APIResource") => "One resource, and what can be done with it.",
        Some("APIVersions") => "The versions of the core group.",
        Some("GroupVersionForDiscovery") => "A group and a version in one text.",
        Some("Patch") => "A patch of any kind; its media type says which.",
        Some("ServerAddressByClientCIDR") => "Where clients of an address range reach the server.",
        Some("WatchEvent") => "One change to what is watched, and the object that it happened to.",
        _ => return,
    };
    definition.insert("description".to_owned(), text.into());
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let typed = ["APIGroup", "APIVersions"].iter().any(|t| name.ends_with(&format!(".{t}")));
    for (property, text) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if let Some(property) = properties.get_mut(property).filter(|_| typed) {
            put(property, text.into(), references_alone);
        }
    }
    if let Some(object) = properties.get_mut("object") {
        let text = "The object after it was added or changed, or before it was deleted; of an error the status.";
        put(object, text.into(), references_alone);
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
