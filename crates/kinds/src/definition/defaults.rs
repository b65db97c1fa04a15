//! Defaults inside a schema: pruned, and valid where they stand.

use ironkeel_object::Value;

use crate::Path;
use crate::custom::{Schema, check_default};
use crate::error::Errors;

/// Checks every default of a root schema.
pub(super) fn validate(s: &Schema, pruned: bool, at: &Path, e: &mut Errors) {
    below(s, pruned, false, at, e);
}

fn below(s: &Schema, pruned: bool, inside_meta: bool, at: &Path, e: &mut Errors) {
    if let Some(default) = &s.default {
        let place = at.child("default");
        let (clean, errors) = check_default(default, s);
        if pruned && !inside_meta && clean != *default {
            e.invalid(&place, default.clone(), "must not have unknown fields");
        }
        e.extend(
            errors
                .into_iter()
                .map(|mut f| {
                    // Paths start at the default; texts name them without it.
                    f.path = if f.path.as_str().is_empty() || f.path.as_str() == "<nil>" {
                        place.clone()
                    } else {
                        place.child(f.path.as_str())
                    };
                    f
                })
                .collect(),
        );
    }
    if let Some(items) = &s.items {
        below(items, pruned, inside_meta, &at.child("items"), e);
    }
    for (name, p) in &s.properties {
        let meta = inside_meta || (s.embedded && matches!(name.as_str(), "metadata" | "apiVersion" | "kind"));
        below(p, pruned, meta, &at.child("properties").key(name), e);
    }
}

/// Whether a schema holds defaults that pruning would change.
pub(super) fn has_unpruned(s: &Schema) -> bool {
    let own = s.default.as_ref().is_some_and(|d: &Value| check_default(d, s).0 != *d);
    own || s.items.as_deref().is_some_and(has_unpruned) || s.properties.values().any(has_unpruned)
}
