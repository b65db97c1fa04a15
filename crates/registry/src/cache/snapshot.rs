//! Reading a watch cache: what stands in it now, in key order.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Cache;
use super::index::FieldIndex;
use crate::entry::Entry;
use crate::selector::Selection;

/// A consistent view: objects in key order and the revision they stand at.
#[derive(Debug)]
pub struct Snapshot {
    /// In key order.
    pub entries: Vec<Arc<Entry>>,
    /// Revision of the last change of this resource.
    pub last: u64,
    /// Where a watch goes on from here.
    pub(crate) cursor: u64,
    /// How many objects were looked at.
    pub(crate) scanned: usize,
    /// How many are selected beyond those asked for, where that was counted.
    pub(crate) left_out: usize,
}

impl Cache {
    /// What is selected, from `start` on and `most` at most; those left out are counted where everything of a
    /// namespace is selected. `indexed` is the field whose values are kept apart.
    pub(crate) fn select(&self, selection: &Selection, indexed: Option<usize>, start: &str, most: usize) -> Snapshot {
        let by_field = indexed.and_then(|field| Some((field, selection.wanted(field).filter(|v| !v.is_empty())?)));
        let Some((field, value)) = by_field else {
            let whole = selection.is_whole_namespace();
            return self.scan(&selection.namespace, start, most, whole, |e| whole || selection.matches(e));
        };
        if self.state.read().index.as_ref().is_none_or(|index| index.field != field) {
            let mut state = self.state.write();
            state.index = Some(FieldIndex::new(field, state.objects.values()));
        }
        let state = self.state.read();
        let all = state.index.as_ref().map_or(&[][..], |index| index.of(value));
        let from = all.partition_point(|e| e.key() < start);
        let mut scanned = 0;
        let selected = all[from..].iter().inspect(|_| scanned += 1).filter(|e| selection.matches(e));
        let entries = selected.take(most).cloned().collect();
        self.looked_at.fetch_add(scanned as u64, Ordering::Relaxed);
        Snapshot { entries, left_out: 0, scanned, last: state.last, cursor: state.end() }
    }

    /// Objects of a namespace (empty: of all) from `start` on that `wanted` selects.
    pub fn snapshot(&self, namespace: &str, start: &str, wanted: impl Fn(&Entry) -> bool) -> Snapshot {
        self.scan(namespace, start, usize::MAX, false, wanted)
    }

    /// As [`Cache::snapshot`], `most` at most; the others are counted where that is asked for.
    fn scan(
        &self,
        namespace: &str,
        start: &str,
        most: usize,
        count: bool,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Snapshot {
        let state = self.state.read();
        let from = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = if start > from.as_str() { start.to_owned() } else { from };
        let mut scanned = 0;
        let mut selected = state
            .objects
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            .take_while(|(key, _)| {
                namespace.is_empty()
                    || (key.starts_with(namespace) && key.as_bytes().get(namespace.len()) == Some(&b'/'))
            })
            .inspect(|_| scanned += 1)
            .filter(|(_, entry)| wanted(entry));
        let entries = selected.by_ref().take(most).map(|(_, entry)| entry.clone()).collect();
        let left_out = if count { selected.count() } else { 0 };
        self.looked_at.fetch_add(scanned as u64, Ordering::Relaxed);
        self.looked_at.fetch_add(scanned as u64, Ordering::Relaxed);
        Snapshot { entries, scanned, left_out, last: state.last, cursor: state.end() }
    }
}
