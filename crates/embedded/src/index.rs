//! The index in memory: for each key its versions down to the compacted revision, and the order of
//! changes.
//!
//! Readers hold its lock for a bounded number of keys at a time (`read`); only the writer thread
//! changes it, and the compactor prunes what nobody can ask for any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use ironkeel_store::{Event, KeyValue, LeaseId, Revision, StoreError};
use smallvec::SmallVec;

/// One version of one key.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) mod_revision: Revision,
    /// 0: the key was deleted at `mod_revision`.
    pub(crate) create_revision: Revision,
    pub(crate) lease: LeaseId,
    pub(crate) value: Bytes,
}

impl Version {
    pub(crate) fn deleted(&self) -> bool {
        self.create_revision == 0
    }

    pub(crate) fn key_value(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            lease: self.lease,
        }
    }
}

/// Oldest first. One version is the rule and needs no allocation of its own.
pub(crate) type Versions = SmallVec<[Version; 1]>;

/// A lease and the keys that live with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    pub(crate) ttl_seconds: i64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, Versions>,
    /// The key of every revision from `compacted` (or 1) to `revision`.
    changes: VecDeque<Bytes>,
    /// Changes before `compacted` whose superseded versions are still to be dropped.
    prunable: VecDeque<(Revision, Bytes)>,
    /// Revisions that a running read or snapshot needs, with how many.
    pins: BTreeMap<Revision, usize>,
    pub(crate) leases: HashMap<LeaseId, Lease>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) live_keys: u64,
    /// Keys and values of live keys.
    pub(crate) live_bytes: u64,
    /// Values that only history needs.
    pub(crate) history_bytes: u64,
}

impl Index {
    /// An index that knows nothing before `revision`; for reading a snapshot.
    pub(crate) fn at(revision: Revision) -> Index {
        Index { revision, compacted: revision, ..Index::default() }
    }

    /// Revision of the first of `changes`.
    fn first_change(&self) -> Revision {
        self.revision + 1 - self.changes.len() as u64
    }

    /// Resolves a requested revision (0 is now) and checks that it can be read.
    pub(crate) fn readable(&self, requested: Revision) -> Result<Revision, StoreError> {
        match requested {
            0 => Ok(self.revision),
            _ if requested > self.revision => Err(StoreError::FutureRevision { requested, current: self.revision }),
            _ if requested < self.compacted => Err(StoreError::Compacted { requested, compacted: self.compacted }),
            _ => Ok(requested),
        }
    }

    /// The key's live version now.
    pub(crate) fn current(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key)?.last().filter(|version| !version.deleted())
    }

    /// The key's live version as of a readable revision.
    pub(crate) fn as_of(&self, key: &[u8], revision: Revision) -> Option<KeyValue> {
        let (key, versions) = self.keys.get_key_value(key)?;
        Some(version_at(versions, revision)?.key_value(key))
    }

    /// Up to `scan` keys from `from` on, live or not, with their live version as of `revision`.
    /// Answers where to go on, or None at the end of the range.
    pub(crate) fn scan(
        &self,
        from: Bound<&[u8]>,
        end: &[u8],
        revision: Revision,
        scan: usize,
        mut each: impl FnMut(&Bytes, &Version),
    ) -> Option<Bytes> {
        // An upper bound before the lower one would panic in the tree.
        if let Bound::Included(start) | Bound::Excluded(start) = from
            && start >= end
            && !unbounded(end)
        {
            return None;
        }
        let upper = if unbounded(end) { Bound::Unbounded } else { Bound::Excluded(end) };
        for (scanned, (key, versions)) in self.keys.range::<[u8], _>((from, upper)).enumerate() {
            if let Some(version) = version_at(versions, revision) {
                each(key, version);
            }
            if scanned + 1 == scan {
                return Some(key.clone());
            }
        }
        None
    }

    /// The change at a revision from `compacted` on.
    pub(crate) fn change(&self, revision: Revision) -> Option<Event> {
        let at = revision.checked_sub(self.first_change())?;
        let key = self.changes.get(usize::try_from(at).ok()?)?;
        let versions = self.keys.get(key)?;
        let at = versions.iter().position(|version| version.mod_revision == revision)?;
        let previous = at.checked_sub(1).map(|before| &versions[before]).filter(|version| !version.deleted());
        Some(Event {
            kv: versions[at].key_value(key),
            deleted: versions[at].deleted(),
            previous: previous.map(|version| version.key_value(key)),
        })
    }

    /// The key of the change at a revision; cheaper than the change.
    pub(crate) fn changed_key(&self, revision: Revision) -> Option<&Bytes> {
        self.changes.get(usize::try_from(revision.checked_sub(self.first_change())?).ok()?)
    }

    /// Applies the next write, whose revision is one more than the last.
    pub(crate) fn apply(&mut self, key: Bytes, version: Version) -> Event {
        self.revision = version.mod_revision;
        let key = match self.keys.get_key_value(&key) {
            // One allocation for all versions and changes of a key.
            Some((known, _)) => known.clone(),
            None => key,
        };
        self.changes.push_back(key.clone());
        let deleted = version.deleted();
        let kv = version.key_value(&key);
        let versions = self.keys.entry(key.clone()).or_default();
        let previous = versions.last().filter(|last| !last.deleted()).map(|last| last.key_value(&key));
        versions.push(version);
        if let Some(previous) = &previous {
            self.live_keys -= 1;
            self.live_bytes -= (key.len() + previous.value.len()) as u64;
            self.history_bytes += previous.value.len() as u64;
            if previous.lease != kv.lease
                && let Some(lease) = self.leases.get_mut(&previous.lease)
            {
                lease.keys.remove(&key);
            }
        }
        if !deleted {
            self.live_keys += 1;
            self.live_bytes += (key.len() + kv.value.len()) as u64;
            if kv.lease != 0 {
                // A lease that is not known yet stands later in the log, or its end does.
                self.leases.entry(kv.lease).or_default().keys.insert(key);
            }
        }
        Event { kv, deleted, previous }
    }

    /// Puts a key of a snapshot in place.
    pub(crate) fn load(&mut self, key: Bytes, version: Version) {
        if version.mod_revision == self.revision {
            self.changes.push_back(key.clone());
        }
        if !version.deleted() {
            self.live_keys += 1;
            self.live_bytes += (key.len() + version.value.len()) as u64;
            if version.lease != 0 {
                self.leases.entry(version.lease).or_default().keys.insert(key.clone());
            }
        }
        self.keys.insert(key, SmallVec::from_buf([version]));
    }

    /// Whether the history takes more memory than it may.
    pub(crate) fn history_is_heavy(&self, limit: u64) -> bool {
        self.history_bytes > self.live_bytes.max(limit)
    }

    /// Forgets leases that are only known by keys: their end is not in the log any more.
    pub(crate) fn forget_unknown_leases(&mut self) {
        self.leases.retain(|_, lease| lease.ttl_seconds > 0);
    }

    /// Moves the compacted revision up. What that frees is dropped by [`Index::prune`].
    pub(crate) fn compact(&mut self, revision: Revision) {
        let first = self.first_change();
        let keep_from = revision.min(self.revision);
        if keep_from <= self.compacted {
            return;
        }
        self.compacted = keep_from;
        let gone = keep_from.saturating_sub(first) as usize;
        let gone = gone.min(self.changes.len());
        for (at, key) in self.changes.drain(..gone).enumerate() {
            self.prunable.push_back((first + at as u64, key));
        }
        if self.changes.capacity() > 4 * self.changes.len().max(1024) {
            self.changes.shrink_to(2 * self.changes.len());
        }
    }

    /// Drops superseded versions of up to `limit` changes; true when there is more to do now.
    pub(crate) fn prune(&mut self, limit: usize) -> bool {
        let floor = self.pins.keys().next().map_or(self.compacted, |pinned| self.compacted.min(*pinned));
        for _ in 0..limit {
            match self.prunable.front() {
                Some((revision, _)) if *revision < floor => {}
                _ => {
                    if self.prunable.is_empty() && self.prunable.capacity() > 1024 {
                        self.prunable = VecDeque::new();
                    }
                    return false;
                }
            }
            if let Some((_, key)) = self.prunable.pop_front() {
                self.prune_key(&key, floor);
            }
        }
        true
    }

    fn prune_key(&mut self, key: &Bytes, floor: Revision) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        // The change at the floor itself can still be watched, so its version stays even when it
        // is a delete.
        let mut keep = versions.partition_point(|version| version.mod_revision <= floor).saturating_sub(1);
        if versions[keep].deleted() && versions[keep].mod_revision < floor {
            keep += 1;
        }
        for version in versions.drain(..keep) {
            self.history_bytes = self.history_bytes.saturating_sub(version.value.len() as u64);
        }
        if versions.is_empty() {
            self.keys.remove(key);
        } else {
            versions.shrink_to_fit();
        }
    }

    /// Keeps a readable revision from being pruned until [`Index::unpin`].
    pub(crate) fn pin(&mut self, revision: Revision) {
        *self.pins.entry(revision).or_default() += 1;
    }

    pub(crate) fn unpin(&mut self, revision: Revision) {
        if let Some(count) = self.pins.get_mut(&revision) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&revision);
            }
        }
    }

    /// The version of a key that a snapshot as of `revision` holds: also a delete at just that
    /// revision, which can still be watched.
    pub(crate) fn tombstone_at(&self, revision: Revision) -> Option<Bytes> {
        let key = self.changed_key(revision).or_else(|| {
            // The change may wait to be pruned.
            let at = self.prunable.partition_point(|(changed, _)| *changed < revision);
            self.prunable.get(at).filter(|(changed, _)| *changed == revision).map(|(_, key)| key)
        })?;
        let versions = self.keys.get(key)?;
        versions.iter().any(|version| version.mod_revision == revision && version.deleted()).then(|| key.clone())
    }
}

/// etcd's "from this key on": an end of one zero byte.
fn unbounded(end: &[u8]) -> bool {
    end == [0]
}

/// Whether a key lies in a range; an empty end is just the start.
pub(crate) fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    if end.is_empty() { key == start } else { key >= start && (unbounded(end) || key < end) }
}

fn version_at(versions: &Versions, revision: Revision) -> Option<&Version> {
    versions.iter().rev().find(|version| version.mod_revision <= revision).filter(|version| !version.deleted())
}
