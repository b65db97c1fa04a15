//! What is served: `/api`, `/apis`, group and version lists, the aggregated form, `/version`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ironkeel_schema::{Scope, Subresource};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{Row, api_version, group_versions};

/// Bytes of the digest that a storage version's hash keeps.
const STORAGE_VERSION_HASH_BYTES: usize = 8;

/// Accept parameters (and content type) of the aggregated discovery.
pub const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`: the versions of the core group.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// `/apis`: every other group.
pub fn api_group_list(rows: &[Row<'_>]) -> Value {
    let groups: Vec<Value> = groups(rows).into_iter().filter(|g| !g.is_empty()).map(|g| group_body(rows, g)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`; `None` where the group is not served.
pub fn api_group(rows: &[Row<'_>], group: &str) -> Option<Value> {
    rows.iter().any(|r| r.resource.group == group).then(|| {
        let mut body = group_body(rows, group);
        body["kind"] = "APIGroup".into();
        body["apiVersion"] = "v1".into();
        body
    })
}

/// `/apis/<group>/<version>` and `/api/v1`; `None` where it is not served.
pub fn api_resource_list(rows: &[Row<'_>], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for row in rows.iter().filter(|r| r.resource.group == group && r.resource.version == version) {
        resource_entries(row, &mut resources);
    }
    if resources.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(group, version),
        "resources": resources,
    }))
}

/// The aggregated discovery of `/api` (`core`) or `/apis`.
pub fn aggregated(rows: &[Row<'_>], core: bool) -> Value {
    let items: Vec<Value> = groups(rows)
        .into_iter()
        .filter(|g| g.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = versions(rows, group).map(|v| aggregated_version(rows, group, v)).collect();
            let metadata = if core { json!({}) } else { json!({ "name": group }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

/// `/`: every path worth knowing.
pub fn root_paths(rows: &[Row<'_>]) -> Value {
    let mut paths = vec!["/.well-known/openid-configuration".to_owned(), "/api".to_owned(), "/apis".to_owned()];
    for group in groups(rows) {
        if group.is_empty() {
            paths.push("/api/v1".to_owned());
        } else {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions(rows, group).map(|v| format!("/apis/{group}/{v}")));
        }
    }
    let others =
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];
    paths.extend(others.map(str::to_owned));
    paths.sort();
    json!({ "paths": paths })
}

/// `/version`. `commit` and `build_date` (RFC 3339) may be empty.
pub fn version(commit: &str, build_date: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.2+ironkeel",
        "gitCommit": commit,
        "gitTreeState": "clean",
        "buildDate": build_date,
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

fn groups<'a>(rows: &[Row<'a>]) -> Vec<&'a str> {
    let mut groups: Vec<&str> = group_versions(rows).into_iter().map(|gv| gv.0).collect();
    groups.dedup();
    groups
}

fn versions<'a>(rows: &[Row<'a>], group: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    group_versions(rows).into_iter().filter(move |gv| gv.0 == group).map(|gv| gv.1)
}

fn group_body(rows: &[Row<'_>], group: &str) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for (g, v) in group_versions(rows) {
        if g == group {
            all.push(json!({ "groupVersion": api_version(g, v), "version": v }));
        }
    }
    let preferred = all.first().cloned();
    json!({ "name": group, "versions": all, "preferredVersion": preferred })
}

/// Names the form that objects are stored in (upstream's `StorageVersionHash`).
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    STANDARD.encode(&digest[..STORAGE_VERSION_HASH_BYTES])
}

fn resource_entries(row: &Row<'_>, out: &mut Vec<Value>) {
    let r = row.resource;
    let namespaced = r.scope == Scope::Namespaced;
    let mut entry = Map::new();
    entry.insert("name".into(), r.plural.into());
    entry.insert("singularName".into(), r.singular.into());
    entry.insert("namespaced".into(), namespaced.into());
    entry.insert("kind".into(), r.kind.into());
    entry.insert("verbs".into(), json!(r.verbs));
    if !r.short_names.is_empty() {
        entry.insert("shortNames".into(), json!(r.short_names));
    }
    if !r.categories.is_empty() {
        entry.insert("categories".into(), json!(r.categories));
    }
    if let Some((group, version)) = row.stored {
        entry.insert("storageVersionHash".into(), storage_version_hash(group, version, r.kind).into());
    }
    out.push(Value::Object(entry));
    for sub in r.subresources.iter() {
        let mut entry = Map::new();
        entry.insert("name".into(), format!("{}/{}", r.plural, sub.name).into());
        entry.insert("singularName".into(), "".into());
        entry.insert("namespaced".into(), namespaced.into());
        if let (Some(group), Some(version)) = (sub.group, sub.version) {
            entry.insert("group".into(), group.into());
            entry.insert("version".into(), version.into());
        }
        entry.insert("kind".into(), sub.kind.into());
        entry.insert("verbs".into(), json!(sub.verbs));
        out.push(Value::Object(entry));
    }
}

fn aggregated_version(rows: &[Row<'_>], group: &str, version: &str) -> Value {
    let of_version = rows.iter().filter(|r| r.resource.group == group && r.resource.version == version);
    let resources: Vec<Value> = of_version.map(aggregated_resource).collect();
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

/// The kind of an answer. Built-in resources leave out the group version that they stand in; custom ones name it.
fn response_kind(row: &Row<'_>, group: Option<&str>, version: Option<&str>, kind: &str) -> Value {
    let custom = row.schema.is_some();
    let or = |own: Option<&'_ str>, of: &'static str| own.unwrap_or(if custom { of } else { "" }).to_owned();
    let (of_group, of_version) = (row.resource.group, row.resource.version);
    json!({ "group": or(group, of_group), "version": or(version, of_version), "kind": kind })
}

fn aggregated_resource(row: &Row<'_>) -> Value {
    let r = row.resource;
    let mut entry = Map::new();
    entry.insert("resource".into(), r.plural.into());
    entry.insert("responseKind".into(), response_kind(row, None, None, r.kind));
    entry.insert("scope".into(), if r.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" }.into());
    entry.insert("singularResource".into(), r.singular.into());
    entry.insert("verbs".into(), json!(r.verbs));
    if !r.short_names.is_empty() {
        entry.insert("shortNames".into(), json!(r.short_names));
    }
    if !r.categories.is_empty() {
        entry.insert("categories".into(), json!(r.categories));
    }
    if !r.subresources.is_empty() {
        entry.insert("subresources".into(), r.subresources.iter().map(|s| aggregated_subresource(row, s)).collect());
    }
    Value::Object(entry)
}

fn aggregated_subresource(row: &Row<'_>, sub: &Subresource) -> Value {
    json!({
        "subresource": sub.name,
        "responseKind": response_kind(row, sub.group, sub.version, sub.kind),
        "verbs": sub.verbs,
    })
}
