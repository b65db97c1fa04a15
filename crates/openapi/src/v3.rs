//! OpenAPI v3: an index, and a document a group version.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use crate::definitions::{Definitions, Dialect};
use crate::operations::Operations;
use crate::{Row, api_version, group_versions, roots};

/// `/openapi/v3`: where each document is, with the hash (of a group and a version) that lets clients
/// keep it for ever.
pub fn openapi_v3_index(rows: &[Row<'_>], mut hash: impl FnMut(&str, &str) -> Option<String>) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(rows) {
        let Some(hash) = hash(group, version) else { continue };
        let root = if group.is_empty() { "api" } else { "apis" };
        let path = format!("{root}/{}", api_version(group, version));
        paths.insert(path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }));
    }
    for path in roots::documents(rows) {
        let Some(document) = openapi_v3_about(rows, &path) else { continue };
        let hash = content_hash(document.to_string().as_bytes());
        paths.insert(path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }));
    }
    json!({ "paths": paths })
}

/// The documents about the API itself: `api`, `apis`, `apis/<group>`, `version`, …
pub fn openapi_v3_about(rows: &[Row<'_>], path: &str) -> Option<Value> {
    let mut definitions = Definitions::new(Dialect::V3);
    let paths = roots::document(rows, path, &mut definitions)?;
    Some(document(paths, definitions))
}

fn document(paths: Value, definitions: Definitions) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "1.36" },
        "paths": paths,
        "components": {
            "schemas": definitions.into_value(),
            "securitySchemes": { "BearerToken": {
                "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication",
            } },
        },
    })
}

/// The hash of a group version's document; `None` where it is not served. It costs as much as the
/// document.
pub fn openapi_v3_hash(rows: &[Row<'_>], group: &str, version: &str) -> Option<String> {
    openapi_v3(rows, group, version).map(|document| content_hash(document.to_string().as_bytes()))
}

/// `/openapi/v3/apis/<group>/<version>` (or `/api/v1`); `None` where it is not served.
pub fn openapi_v3(rows: &[Row<'_>], group: &str, version: &str) -> Option<Value> {
    let mut definitions = Definitions::new(Dialect::V3);
    let mut operations = Operations::new(Dialect::V3, &mut definitions);
    let (mut any, mut custom) = (false, false);
    for row in rows.iter().filter(|r| r.resource.group == group && r.resource.version == version) {
        operations.add(row);
        any = true;
        custom |= row.schema.is_some();
    }
    if any && !custom {
        roots::add_resources(group, version, operations.definitions, &mut operations.paths);
    }
    let (paths, _) = operations.into_values();
    any.then(|| document(paths, definitions))
}

/// The hash of a document's bytes, for `?hash=` and ETags. It tells versions of a document apart;
/// it is not a seal.
pub fn content_hash(bytes: &[u8]) -> String {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016X}{:016X}", half(0), half(1))
}
