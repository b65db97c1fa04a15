//! `meta.k8s.io/v1.Table`: the form in which `kubectl get` reads objects.

use ironkeel_kinds::TableContext;
use ironkeel_object::{Map, Value};
use ironkeel_registry::Row;

use crate::answer::{IncludeObject, partial_metadata};

/// An empty table, with its columns where `columns` says so.
pub(crate) fn begin(row: &Row, beta: bool, columns: bool) -> Value {
    let mut out = Map::new();
    out.insert("apiVersion", if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" });
    out.insert("kind", "Table");
    out.insert("metadata", Map::new());
    if columns {
        let definitions: Vec<Value> = row
            .kind
            .hooks
            .columns()
            .iter()
            .map(|c| {
                let mut m = Map::new();
                m.insert("name", c.name.clone());
                m.insert("type", c.kind.clone());
                m.insert("format", c.format.clone());
                m.insert("description", c.description.clone());
                m.insert("priority", c.priority);
                Value::Object(m)
            })
            .collect();
        out.insert("columnDefinitions", definitions);
    } else {
        out.insert("columnDefinitions", Value::Null);
    }
    out.insert("rows", Value::Array(Vec::new()));
    Value::Object(out)
}

/// One row.
pub(crate) fn row_of(row: &Row, object: &Value, include: IncludeObject, beta: bool, now_unix: i64) -> Value {
    let mut out = Map::new();
    out.insert("cells", row.kind.hooks.cells(object, &TableContext { now_unix }));
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            out.insert("object", partial_metadata(object, beta));
        }
        IncludeObject::Object => {
            out.insert("object", object.clone());
        }
    }
    Value::Object(out)
}

/// Appends a row.
pub(crate) fn push(table: &mut Value, row: &Row, object: &Value, include: IncludeObject, beta: bool, now: i64) {
    let new = row_of(row, object, include, beta, now);
    if let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) {
        rows.push(new);
    }
}
