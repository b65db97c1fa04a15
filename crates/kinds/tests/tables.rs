//! Columns and cells of `kubectl get`, against what upstream answers for the same objects (`tables.txt`).
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ironkeel_codec::{conform, parse_json};
use ironkeel_kinds::{TableContext, kind};
use ironkeel_object::Value;

/// A cell as `tables.txt` writes it: as text, ages as `AGE`.
fn shown(cell: &Value) -> Value {
    let text = match cell {
        Value::Null => return Value::Null,
        Value::String(s) => s.clone(),
        // As the script that made the file writes them.
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.as_i64().map_or_else(|| format!("{other:?}"), |i| i.to_string()),
    };
    let unit = |c: char| matches!(c, 's' | 'm' | 'h' | 'd');
    let age = text == "<invalid>"
        || (text.starts_with(|c: char| c.is_ascii_digit())
            && text.ends_with(unit)
            && text.chars().all(|c| c.is_ascii_digit() || unit(c))
            && text.matches(unit).count() <= 2);
    if age { "AGE".into() } else { text.into() }
}

#[test]
fn columns_and_cells_read_as_upstreams() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let mut faults = Vec::new();
    let mut rows = 0;
    while let Some(head) = lines.next() {
        let (version, plural) = head.split_once(' ').unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kind(group, version, plural).unwrap();
        let columns = lines.next().unwrap();
        let mut object = parse_json(lines.next().unwrap().as_bytes()).unwrap();
        let cells = parse_json(lines.next().unwrap().as_bytes()).unwrap();
        conform(&mut object, kind.resource.type_id, &mut Vec::new()).unwrap();
        let own: Vec<String> =
            kind.hooks.columns().iter().map(|c| format!("{}:{}:{}:{}", c.name, c.kind, c.format, c.priority)).collect();
        if own.join(" | ") != columns {
            faults.push(format!("{head}: columns {}, not {columns}", own.join(" | ")));
        }
        let context = TableContext { now_unix: 1_800_000_000 };
        let own: Vec<Value> = kind.hooks.cells(&object, &context).iter().map(shown).collect();
        if Value::from(own.clone()) != cells {
            faults.push(format!("{head}: {own:?}, not {cells:?}"));
        }
        rows += 1;
    }
    assert!(rows > 60, "{rows} rows");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
