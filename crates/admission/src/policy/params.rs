//! Parameter objects: what a binding's `paramRef` names.

use std::collections::HashMap;
use std::sync::Arc;

use ironkeel_object::{LabelSelector, Value};
use ironkeel_registry::{Attributes, Entry, Reason, Registry, Row};
use parking_lot::Mutex;

use super::compiled::{Binding, Policy};
use crate::Cluster;

/// Parameters that are kept decoded; past it all are decoded anew.
const DECODED: usize = 4_096;
/// The same of what they are together as JSON, in bytes. A tree is some times as large.
const DECODED_MAX_BYTES: usize = 16 << 20;

/// The row of a policy's parameters; none where it has none.
pub(super) fn kind(c: &Cluster, policy: &Policy) -> Result<Option<Arc<Row>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(None) };
    let rows = c.registry.as_ref().map(|r| r.rows());
    let row = rows
        .iter()
        .flat_map(|rows| rows.iter())
        .find(|r| r.api_version == *api_version && r.kind_name() == kind && r.stored.is_some());
    row.cloned().map(Some).ok_or_else(|| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'")
    })
}

/// The parameters of a binding: one run each; one run without where nothing is to be looked for.
pub(super) async fn collect(
    c: &Cluster,
    a: &Attributes<'_>,
    kind: Option<&Arc<Row>>,
    binding: &Binding,
    decoded: &Decoded,
) -> Result<Vec<Option<Arc<Value>>>, String> {
    let (Some(row), Some(reference), Some(registry)) = (kind, &binding.param_ref, &c.registry) else {
        return Ok(vec![None]);
    };
    let named = reference.str_at(&["namespace"]).unwrap_or_default();
    let namespace = if !row.namespaced() {
        if !named.is_empty() {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        ""
    } else if !named.is_empty() {
        named
    } else if a.namespace.is_empty() {
        return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
    } else {
        a.namespace
    };
    let name = reference.str_at(&["name"]).unwrap_or_default();
    let selector = reference.get("selector").filter(|s| !s.is_null());
    let entries = match (name, selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector = LabelSelector::from_value(selector).map_err(|e| e.to_string())?;
            let home = row.home().map_err(|e| e.message)?;
            let all = home.cache.snapshot(namespace, "", |_| true).entries;
            home.cache.all_readable(namespace).map_err(|e| e.message)?;
            let meets = |e: &Arc<Entry>| selector.requirements.iter().all(|r| r.matches(e.label(&r.key)));
            all.into_iter().filter(|e| !selector.nothing && meets(e)).collect()
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (name, None) => match registry.get(row, namespace, name) {
            Err(e) if e.reason == Reason::NotFound => Vec::new(),
            found => vec![found.map_err(|e| e.message)?],
        },
    };
    if entries.is_empty() && reference.str_at(&["parameterNotFoundAction"]) == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let mut out = Vec::with_capacity(entries.len());
    for entry in &entries {
        out.push(Some(decoded.get(registry, row, entry).await?));
    }
    Ok(out)
}

/// The id of a row, and the key of an object of it.
type ParamKey = (usize, String);

/// Parameters as they were decoded last.
#[derive(Default)]
pub(super) struct Decoded(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    all: HashMap<ParamKey, Param>,
    /// What all are together as JSON, in bytes.
    size: usize,
}

/// A parameter of one revision.
struct Param {
    revision: u64,
    tree: Arc<Value>,
    size: usize,
}

impl Kept {
    fn get(&self, key: &ParamKey, revision: u64) -> Option<Arc<Value>> {
        self.all.get(key).filter(|param| param.revision == revision).map(|param| param.tree.clone())
    }

    fn insert(&mut self, key: ParamKey, param: Param) {
        if let Some(before) = self.all.remove(&key) {
            self.size -= before.size;
        }
        if self.all.len() >= DECODED || self.size + param.size > DECODED_MAX_BYTES {
            self.all.clear();
            self.size = 0;
        }
        self.size += param.size;
        self.all.insert(key, param);
    }
}

impl Decoded {
    async fn get(&self, registry: &Registry, row: &Row, entry: &Arc<Entry>) -> Result<Arc<Value>, String> {
        let key = (row.id, entry.key().to_owned());
        let known = self.0.lock().get(&key, entry.revision);
        if let Some(known) = known {
            return Ok(known);
        }
        let tree = Arc::new(registry.current(row, entry).await.map_err(|e| e.message)?);
        let param = Param { revision: entry.revision, tree: tree.clone(), size: entry.json_len() };
        self.0.lock().insert(key, param);
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_parameters_are_bounded_by_their_number_and_their_size() {
        let mut kept = Kept::default();
        let mut keep = |name: String, revision: u64, size: usize| {
            kept.insert((1, name), Param { revision, tree: Arc::default(), size });
            assert_eq!(kept.size, kept.all.values().map(|param| param.size).sum::<usize>());
            assert!(kept.size <= DECODED_MAX_BYTES && kept.all.len() <= DECODED);
            kept.all.len()
        };
        // Revisions of one take each other's place.
        assert_eq!((0..100).map(|revision| keep("a".to_owned(), revision, DECODED_MAX_BYTES / 2)).max(), Some(1));
        assert_eq!(keep("b".to_owned(), 1, DECODED_MAX_BYTES / 4), 2);
        assert_eq!(keep("c".to_owned(), 1, DECODED_MAX_BYTES / 2), 1, "too much together");
        assert_eq!((0..=DECODED).map(|i| keep(format!("d{i}"), 1, 1)).max(), Some(DECODED));
    }
}
