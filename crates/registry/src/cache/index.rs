//! Objects by one field: every kubelet lists and watches the pods of its node, and there are thousands of both.

use std::collections::HashMap;
use std::sync::Arc;

use crate::entry::Entry;

/// The index of one field, built when somebody first selects by it.
#[derive(Debug)]
pub(super) struct FieldIndex {
    /// Its place in the entries' extracts.
    pub(super) field: usize,
    /// Objects by its value, in key order. Those without a value are left out: they are whatever is not at its
    /// place yet, and may be most.
    values: HashMap<Box<str>, Vec<Arc<Entry>>>,
}

impl FieldIndex {
    pub(super) fn new<'a>(field: usize, entries: impl Iterator<Item = &'a Arc<Entry>>) -> Self {
        let mut index = FieldIndex { field, values: HashMap::new() };
        for entry in entries {
            index.put(entry);
        }
        index
    }

    /// The same index of other objects.
    pub(super) fn anew<'a>(&self, entries: impl Iterator<Item = &'a Arc<Entry>>) -> Self {
        FieldIndex::new(self.field, entries)
    }

    fn put(&mut self, entry: &Arc<Entry>) {
        let value = entry.field(self.field);
        if value.is_empty() {
            return;
        }
        let entries = match self.values.get_mut(value) {
            Some(entries) => entries,
            None => self.values.entry(value.into()).or_default(),
        };
        match entries.binary_search_by(|e| e.key().cmp(entry.key())) {
            Ok(at) => entries[at] = entry.clone(),
            Err(at) => entries.insert(at, entry.clone()),
        }
    }

    /// Takes one change: of a delete `entry` is what is gone.
    pub(super) fn change(&mut self, entry: &Arc<Entry>, previous: Option<&Entry>, deleted: bool) {
        if let Some(previous) = previous.filter(|p| deleted || p.field(self.field) != entry.field(self.field)) {
            self.take(previous);
        }
        if !deleted {
            self.put(entry);
        }
    }

    fn take(&mut self, entry: &Entry) {
        let value = entry.field(self.field);
        let Some(entries) = self.values.get_mut(value) else { return };
        if let Ok(at) = entries.binary_search_by(|e| e.key().cmp(entry.key())) {
            entries.remove(at);
        }
        if entries.is_empty() {
            self.values.remove(value);
        }
    }

    /// Objects with this value.
    pub(super) fn of(&self, value: &str) -> &[Arc<Entry>] {
        self.values.get(value).map_or(&[], Vec::as_slice)
    }
}
