//! Discovery documents and OpenAPI v2 and v3, out of the schema tables.
//!
//! Every function is pure: rows in, JSON out; the API server keeps the bytes. Rows come in the order
//! in which groups and versions are to be announced (built-in ones already are; custom resources
//! follow). What does not live here: structural checks of custom resources' schemas, and the sentences
//! that describe fields: those come with the Rust types of the API, while this crate is built.

mod custom;
mod definitions;
mod descriptions;
mod discovery;
mod exceptions;
mod gnostic;
mod names;
mod operations;
mod parameters;
mod roots;
mod v2;
mod v3;

pub use discovery::{
    AGGREGATED_V2, aggregated, api_group, api_group_list, api_resource_list, api_versions, root_paths, version,
};
pub use gnostic::openapi_v2_protobuf;
pub use names::definition_name;
pub use v2::openapi_v2;
pub use v3::{content_hash, openapi_v3, openapi_v3_about, openapi_v3_hash, openapi_v3_index};

use ironkeel_schema::Resource;
use serde_json::Value;

/// One served resource.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Names, verbs, scope.
    pub resource: &'a Resource,
    /// The OpenAPI v3 schema of a custom resource's version; `None` means that the schema tables
    /// describe the resource's type. Beside what the definition says, the schema's root may have
    /// `x-kubernetes-selectable-fields`.
    pub schema: Option<&'a Value>,
    /// Group and version of the form that is stored; `None` for what is not stored.
    pub stored: Option<(&'a str, &'a str)>,
}

impl<'a> From<&'a Resource> for Row<'a> {
    fn from(resource: &'a Resource) -> Self {
        Row { resource, schema: None, stored: None }
    }
}

/// The built-in resources, in order.
pub fn built_in() -> Vec<Row<'static>> {
    ironkeel_schema::resources().iter().map(Row::from).collect()
}

/// The group versions of `rows`, each once, in order.
pub fn group_versions<'a>(rows: &[Row<'a>]) -> Vec<(&'a str, &'a str)> {
    let mut seen = Vec::new();
    for row in rows {
        let gv = (row.resource.group, row.resource.version);
        if !seen.contains(&gv) {
            seen.push(gv);
        }
    }
    // A group's versions stand together, where the group was first met.
    let groups = |gv: &(&str, &str)| seen.iter().position(|s| s.0 == gv.0);
    let mut ordered = seen.clone();
    ordered.sort_by_key(groups);
    ordered
}

/// Sorts versions as discovery prefers them: `v2`, `v1`, `v2beta1`, `v1beta2`, `v1alpha1`, then names.
pub fn version_rank(version: &str) -> impl Ord + use<> {
    let number = |s: &str| s.parse::<u32>().ok().filter(|_| !s.is_empty());
    let parse = || {
        let rest = version.strip_prefix('v')?;
        for (stage, name) in [(1u8, "beta"), (2, "alpha")] {
            if let Some((major, minor)) = rest.split_once(name) {
                return Some((stage, u32::MAX - number(major)?, u32::MAX - number(minor)?));
            }
        }
        Some((0, u32::MAX - number(rest)?, 0))
    };
    let known = parse();
    (known.unwrap_or((3, 0, 0)), version.to_owned())
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
