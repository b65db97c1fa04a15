//! What a list, watch or deletecollection selects: its namespace, and label and field selectors
//! resolved against what entries keep. Their text forms are `ironkeel_object`'s.

use std::collections::HashSet;
use std::sync::Arc;

use ironkeel_object::{FieldSelector, LabelSelector};

use crate::entry::Entry;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::storage::Row;

/// What a list or watch wants: selectors resolved against one stored resource.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Namespace; empty for all.
    pub namespace: String,
    /// Name, where one object alone is wanted.
    pub name: Option<String>,
    /// Labels.
    pub labels: LabelSelector,
    /// `(index into the entry's fields, value, equal)`.
    fields: Vec<(usize, String, bool)>,
    /// `metadata.namespace` and `metadata.name` terms that are not plain equality on the above.
    not_name: Vec<String>,
    not_namespace: Vec<String>,
    field_namespace: Option<String>,
    /// Only these keys.
    keys: Option<Arc<HashSet<String>>>,
}

/// A term about a field that must be read from the object in the version that the client speaks: what
/// entries keep is of the stored one, and a webhook stands between.
#[derive(Clone, Debug)]
pub struct FieldTerm {
    path: &'static str,
    value: String,
    equal: bool,
}

impl FieldTerm {
    /// Whether an entry that has been prepared for the row is selected.
    pub fn holds(terms: &[FieldTerm], registry: &Registry, row: &Row, entry: &Entry) -> bool {
        if terms.is_empty() {
            return true;
        }
        let Ok(object) = registry.tree(row, entry) else { return false };
        terms.iter().all(|t| (row.kind.hooks.field(&object, t.path).unwrap_or_default() == t.value) == t.equal)
    }
}

impl Selection {
    /// Takes out the terms that cannot be told from what entries keep; `selectable` as in
    /// [`Selection::new`].
    pub fn take_converted(&mut self, row: &Row, selectable: &[&'static str]) -> Vec<FieldTerm> {
        if row.converter.is_none() {
            return Vec::new();
        }
        let terms = std::mem::take(&mut self.fields).into_iter();
        terms.map(|(i, value, equal)| FieldTerm { path: selectable[i], value, equal }).collect()
    }

    /// Narrows the selection to these keys (`namespace/name`).
    pub fn keep(&mut self, keys: HashSet<String>) {
        self.keys = Some(Arc::new(keys));
    }

    /// Resolves selectors; a field that the kind cannot select by is a 400 as upstream's.
    pub fn new(
        namespace: &str,
        labels: LabelSelector,
        fields: &FieldSelector,
        selectable: &[&'static str],
    ) -> Result<Self, ApiError> {
        let mut s = Selection { namespace: namespace.to_owned(), labels, ..Selection::default() };
        for term in &fields.requirements {
            match (term.field.as_str(), !term.negated) {
                ("metadata.name", true) => {
                    if s.name.as_ref().is_some_and(|n| *n != term.value) {
                        s.not_name.push(term.value.clone());
                        s.not_name.extend(s.name.clone());
                    }
                    s.name = Some(term.value.clone());
                }
                ("metadata.name", false) => s.not_name.push(term.value.clone()),
                ("metadata.namespace", true) => s.field_namespace = Some(term.value.clone()),
                ("metadata.namespace", false) => s.not_namespace.push(term.value.clone()),
                (path, equal) => {
                    let i = selectable
                        .iter()
                        .position(|f| *f == path)
                        .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {path}")))?;
                    s.fields.push((i, term.value.clone(), equal));
                }
            }
        }
        Ok(s)
    }

    /// Everything of a namespace, or of all.
    pub fn all(namespace: &str) -> Self {
        Selection { namespace: namespace.to_owned(), ..Selection::default() }
    }

    /// The one namespace that anything selected is in.
    pub(crate) fn within(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|n| !n.is_empty()).or(self.field_namespace.as_deref())
    }

    /// Whether only namespace counts, so that no entry needs a look inside.
    pub fn is_whole_namespace(&self) -> bool {
        self.name.is_none()
            && self.labels.is_everything()
            && self.fields.is_empty()
            && self.not_name.is_empty()
            && self.not_namespace.is_empty()
            && self.field_namespace.is_none()
            && self.keys.is_none()
    }

    /// The one value of a field that is wanted, where there is one.
    pub(crate) fn wanted(&self, field: usize) -> Option<&str> {
        self.fields.iter().find(|(i, _, equal)| *i == field && *equal).map(|(_, value, _)| value.as_str())
    }

    /// Whether the entry is selected.
    pub fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || self.namespace == entry.namespace())
            && self.name.as_deref().is_none_or(|n| n == entry.name())
            && self.field_namespace.as_deref().is_none_or(|n| n == entry.namespace())
            && self.not_name.iter().all(|n| n != entry.name())
            && self.not_namespace.iter().all(|n| n != entry.namespace())
            && self.fields.iter().all(|(i, value, equal)| (entry.field(*i) == value) == *equal)
            && !self.labels.nothing
            && self.keys.as_ref().is_none_or(|k| k.contains(entry.key()))
            && self.labels.requirements.iter().all(|r| r.matches(entry.label(&r.key)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_field_that_the_kind_does_not_have_is_named() {
        let fields = FieldSelector::parse("metadata.name=a,status.phase!=Running").unwrap();
        let error = Selection::new("", LabelSelector::default(), &fields, &[]).unwrap_err();
        assert_eq!(error.message, "field label not supported: status.phase");
        let selection = Selection::new("", LabelSelector::default(), &fields, &["status.phase"]).unwrap();
        assert_eq!(selection.name.as_deref(), Some("a"));
        assert!(!selection.is_whole_namespace());
    }
}
