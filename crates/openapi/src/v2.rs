//! OpenAPI v2: one document for everything.

use serde_json::{Value, json};

use crate::Row;
use crate::definitions::{Definitions, Dialect};
use crate::operations::Operations;

/// `/openapi/v2`, as JSON.
pub fn openapi_v2(rows: &[Row<'_>]) -> Value {
    let mut definitions = Definitions::new(Dialect::V2);
    let mut operations = Operations::new(Dialect::V2, &mut definitions);
    for row in rows {
        operations.add(row);
    }
    let paths = operations.into_value();
    definitions.shared("WatchEvent", "", "v1");
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.36.2+ironkeel" },
        "paths": paths,
        "definitions": definitions.into_value(),
        "securityDefinitions": { "BearerToken": {
            "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer token",
        } },
        "security": [{ "BearerToken": [] }],
    })
}
