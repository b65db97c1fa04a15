//! Paths that tell about the API itself: groups, versions, resources, the server.

use serde_json::{Map, Value, json};

use crate::definitions::{Definitions, Dialect};
use crate::operations::{contents, group_words, tag};
use crate::{Row, group_versions, names};

const DISCOVERY: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const JSON: [&str; 1] = ["application/json"];

/// One such path.
struct Root {
    /// Without the slash at its end.
    path: String,
    tag: String,
    id: String,
    text: &'static str,
    /// A type of `meta/v1`, or `None` for text.
    answer: Option<&'static str>,
    consumes: &'static [&'static str],
    produces: &'static [&'static str],
}

/// The groups that are built in, each once.
fn groups<'a>(rows: &[Row<'a>]) -> Vec<&'a str> {
    let mut groups: Vec<&str> = group_versions(rows).into_iter().map(|gv| gv.0).collect();
    groups.dedup();
    groups.retain(|g| !g.is_empty() && rows.iter().any(|r| r.resource.group == *g && r.schema.is_none()));
    groups
}

fn discovery(path: String, tag: String, id: String, text: &'static str, answer: &'static str) -> Root {
    Root { path, tag, id, text, answer: Some(answer), consumes: &DISCOVERY, produces: &DISCOVERY }
}

fn all(rows: &[Row<'_>]) -> Vec<Root> {
    let versions = "get available API versions";
    let mut out = vec![
        discovery("/api".into(), "core".into(), "getCoreAPIVersions".into(), versions, "APIVersions"),
        discovery("/apis".into(), "apis".into(), "getAPIVersions".into(), versions, "APIGroupList"),
        Root {
            path: "/version".into(),
            tag: "version".into(),
            id: "getCodeVersion".into(),
            text: "get the version information for this server",
            answer: Some("Info"),
            consumes: &JSON,
            produces: &JSON,
        },
        Root {
            path: "/.well-known/openid-configuration".into(),
            tag: "WellKnown".into(),
            id: "getServiceAccountIssuerOpenIDConfiguration".into(),
            text: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            answer: None,
            consumes: &[],
            produces: &JSON,
        },
        Root {
            path: "/openid/v1/jwks".into(),
            tag: "openid".into(),
            id: "getServiceAccountIssuerOpenIDKeyset".into(),
            text: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            answer: None,
            consumes: &[],
            produces: &["application/jwk-set+json"],
        },
    ];
    for group in groups(rows) {
        let words = group_words(group);
        let id = format!("get{}APIGroup", crate::operations::capitalized(&words));
        out.push(discovery(format!("/apis/{group}"), words, id, "get information of a group", "APIGroup"));
    }
    out
}

/// The path that lists the resources of a built-in group version.
fn resources(group: &str, version: &str) -> Root {
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let capitalized = crate::operations::capitalized;
    let id = format!("get{}{}APIResources", capitalized(&group_words(group)), capitalized(version));
    discovery(path, tag(group, version), id, "get available resources", "APIResourceList")
}

fn put(root: &Root, dialect: Dialect, definitions: &mut Definitions, paths: &mut Map<String, Value>) {
    let schema = match root.answer {
        Some("Info") => definitions.special(names::VERSION_INFO),
        Some(kind) => definitions.shared(kind, "", "v1"),
        None => json!({ "type": "string" }),
    };
    let mut get = Map::new();
    get.insert("description".into(), root.text.into());
    get.insert("operationId".into(), root.id.as_str().into());
    get.insert("tags".into(), json!([root.tag]));
    let ok = match dialect {
        Dialect::V3 => json!({ "description": "OK", "content": contents(root.produces, &schema) }),
        Dialect::V2 => {
            if !root.consumes.is_empty() {
                get.insert("consumes".into(), json!(root.consumes));
            }
            get.insert("produces".into(), json!(root.produces));
            get.insert("schemes".into(), json!(["https"]));
            json!({ "description": "OK", "schema": schema })
        }
    };
    get.insert("responses".into(), json!({ "200": ok, "401": { "description": "Unauthorized" } }));
    paths.insert(format!("{}/", root.path), json!({ "get": get }));
}

/// Adds all of them.
pub(crate) fn add_all(
    rows: &[Row<'_>],
    dialect: Dialect,
    definitions: &mut Definitions,
    paths: &mut Map<String, Value>,
) {
    for root in all(rows) {
        put(&root, dialect, definitions, paths);
    }
    for (group, version) in group_versions(rows) {
        if rows.iter().any(|r| r.resource.group == group && r.resource.version == version && r.schema.is_none()) {
            put(&resources(group, version), dialect, definitions, paths);
        }
    }
}

/// Adds the one of a built-in group version.
pub(crate) fn add_resources(group: &str, version: &str, definitions: &mut Definitions, paths: &mut Map<String, Value>) {
    put(&resources(group, version), Dialect::V3, definitions, paths);
}

/// The documents that such paths have of their own in OpenAPI v3, without the slash at their begin.
pub(crate) fn documents(rows: &[Row<'_>]) -> Vec<String> {
    all(rows).into_iter().map(|r| r.path.trim_start_matches('/').to_owned()).collect()
}

/// One of [`documents`]: its paths.
pub(crate) fn document(rows: &[Row<'_>], path: &str, definitions: &mut Definitions) -> Option<Value> {
    let root = all(rows).into_iter().find(|r| r.path.trim_start_matches('/') == path)?;
    let mut paths = Map::new();
    put(&root, Dialect::V3, definitions, &mut paths);
    Some(paths.into())
}
