//! Which part of an older object a part of a new one stands for, and whether it is still the same: what
//! ratcheting asks. Upstream's `CorrelatedObject`: members correlate by name and elements of lists of
//! type map by their keys; elements of other lists do not, so that such a list stays or changes whole.

use ironkeel_object::Value;

use super::schema::{ListKind, Schema};

/// A value, the one that it replaces, and the schema of both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correlated<'v> {
    value: &'v Value,
    old: &'v Value,
    schema: &'v Schema,
}

impl<'v> Correlated<'v> {
    pub(crate) fn new(value: &'v Value, old: &'v Value, schema: &'v Schema) -> Self {
        Correlated { value, old, schema }
    }

    /// The pair of a member; none where either lacks it or no schema describes it.
    pub(crate) fn member(&self, name: &str) -> Option<Correlated<'v>> {
        let schema = self.schema.member(name).0?;
        let member = |v: &'v Value| v.as_object()?.get(name);
        Some(Correlated { value: member(self.value)?, old: member(self.old)?, schema })
    }

    /// The pairs of a list's elements, in the order of the new one.
    pub(crate) fn elements(&self) -> Vec<Option<Correlated<'v>>> {
        let Some(items) = self.value.as_array() else { return Vec::new() };
        let (ListKind::Map(keys), Some(olds), Some(schema)) =
            (&self.schema.list, self.old.as_array(), self.schema.items.as_deref())
        else {
            return vec![None; items.len()];
        };
        let olds = by_key(olds, keys);
        let pair = |value: &'v Value| {
            let old = *olds.get(&key_of(value, keys)?)?;
            Some(Correlated { value, old, schema })
        };
        items.iter().map(pair).collect()
    }

    /// Whether nothing has changed. The order of a list of type map is no part of it; a member that no
    /// schema describes cannot be told to be the same.
    pub(crate) fn unchanged(&self) -> bool {
        match (self.value, self.old) {
            (Value::Array(new), Value::Array(old)) => {
                if new.len() != old.len() {
                    return false;
                }
                match self.schema.list {
                    ListKind::Map(_) => self.elements().iter().all(|e| e.is_some_and(|e| e.unchanged())),
                    _ => new == old,
                }
            }
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len() && new.keys().all(|name| self.member(name).is_some_and(|m| m.unchanged()))
            }
            (new, old) => new == old,
        }
    }
}

/// The elements of a list of type map by their keys; of equal ones the first.
pub(crate) fn by_key<'v>(list: &'v [Value], keys: &[String]) -> std::collections::HashMap<String, &'v Value> {
    let mut out = std::collections::HashMap::with_capacity(list.len());
    for element in list {
        if let Some(key) = key_of(element, keys) {
            out.entry(key).or_insert(element);
        }
    }
    out
}

/// The keys of an element as one text; none where one is absent or no scalar.
pub(crate) fn key_of(element: &Value, keys: &[String]) -> Option<String> {
    let members = element.as_object()?;
    let mut out = String::new();
    for key in keys {
        match members.get(key)? {
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
            scalar => out.push_str(&crate::error::shown(scalar)),
        }
        out.push('\0');
    }
    Some(out)
}
