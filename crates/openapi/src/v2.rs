//! OpenAPI v2: one document for everything.

use serde_json::{Value, json};

use crate::definitions::{Definitions, Dialect};
use crate::operations::Operations;
use crate::{Row, roots};

/// `/openapi/v2`, as JSON.
pub fn openapi_v2(rows: &[Row<'_>]) -> Value {
    let mut definitions = Definitions::new(Dialect::V2);
    let mut operations = Operations::new(Dialect::V2, &mut definitions);
    for row in rows {
        operations.add(row);
    }
    roots::add_all(rows, Dialect::V2, operations.definitions, &mut operations.paths);
    let (paths, parameters) = operations.into_values();
    definitions.shared("WatchEvent", "", "v1");
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "1.36" },
        "paths": paths,
        "parameters": parameters,
        "definitions": definitions.into_value(),
        "securityDefinitions": { "BearerToken": {
            "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication",
        } },
        "security": [{ "BearerToken": [] }],
    })
}
