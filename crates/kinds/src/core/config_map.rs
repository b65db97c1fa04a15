//! ConfigMap.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

pub(crate) struct Rules;

/// Bytes of all keys' values together, as etcd bears them.
pub(crate) const DATA_MAX_BYTES: usize = 1024 * 1024;

/// An immutable map's data never change, and it never becomes mutable again.
pub(crate) fn immutable(o: &Value, old: &Value, fields: &[&str], e: &mut Errors) {
    if old.get("immutable").and_then(Value::as_bool) != Some(true) {
        return;
    }
    if o.get("immutable").and_then(Value::as_bool) != Some(true) {
        e.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for f in fields {
        let (n, b) = (o.get(f), old.get(f));
        if !crate::equality::same(n, b) {
            e.forbidden(&Path::new(f), "field is immutable when `immutable` is set");
        }
    }
}

impl rules::Rules for Rules {
    fn validate(&self, o: &Value, e: &mut Errors) {
        let mut size = 0;
        let binary = o.get("binaryData").and_then(Value::as_object);
        for f in ["data", "binaryData"] {
            let at = Path::new(f);
            for (k, v) in o.get(f).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
                e.invalid_each(&at.key(k), k, names::config_key(k));
                if f == "data" && binary.is_some_and(|b| b.contains_key(k)) {
                    e.invalid(&at.key(k), k.as_ref(), "duplicate of key present in binaryData");
                }
                let bytes = v.as_str().map_or(0, str::len);
                size += if f == "data" { bytes } else { bytes / 4 * 3 };
            }
        }
        if size > DATA_MAX_BYTES {
            e.too_long(&Path::default(), DATA_MAX_BYTES);
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        immutable(o, old, &["data", "binaryData"], e);
    }
    fn tells_changes_first(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "configMap"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let count = |f: &str| o.get(f).and_then(Value::as_object).map_or(0, |m| m.len());
        vec![((count("data") + count("binaryData")) as i64).into(), print::age(o, c)]
    }
}
