//! The columns of `kubectl get`, as a table in `kinds`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct FactColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    priority: i32,
}

/// The rows, from the text of columns.json.
pub(crate) fn columns(facts: &str) -> Result<String> {
    let all: BTreeMap<String, Vec<FactColumn>> = serde_json::from_str(facts).context("columns.json")?;
    let mut s = String::from(
        "use crate::ColumnDefinition;\n\npub(crate) static COLUMNS: &[(&str, &[ColumnDefinition])] = &[\n",
    );
    for (key, columns) in &all {
        writeln!(s, "    ({key:?}, &[")?;
        for c in columns {
            writeln!(
                s,
                "        ColumnDefinition::new({:?}, {:?}, {:?}, {:?}, {}),",
                c.name, c.kind, c.format, c.description, c.priority
            )?;
        }
        s.push_str("    ]),\n");
    }
    s.push_str("];\n");
    Ok(s)
}
