//! The watch cache of one stored resource: every object as an [`Entry`], and the latest changes.
//!
//! The feed (`feed`) alone writes here, in order of revision; readers take snapshots of pointers
//! under a short lock, watchers walk the shared ring of changes with a cursor each, so a watcher
//! costs no buffer of its own.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::entry::Entry;
use crate::error::ApiError;

/// Most changes that a resource's ring holds; a watcher further behind is answered 410.
const RING_EVENTS: usize = 16_384;
/// Most bytes of objects that a ring holds, once it has [`RING_MIN_EVENTS`].
const RING_BYTES: usize = 16 << 20;
/// So many changes are kept whatever their size.
const RING_MIN_EVENTS: usize = 512;

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// New to the selection.
    Added,
    /// Changed.
    Modified,
    /// Gone from the selection.
    Deleted,
}

impl EventType {
    /// The text of `WatchEvent.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// Revision of the change.
    pub revision: u64,
    /// The state after it; of a delete the last state, under the delete's revision.
    pub entry: Arc<Entry>,
    /// The state before it.
    pub previous: Option<Arc<Entry>>,
    /// Whether the object is gone.
    pub deleted: bool,
    /// The previous state under this change's revision: what a watcher sees whose selection it left.
    departed: OnceLock<Arc<Entry>>,
    frames: [OnceLock<Bytes>; 3],
}

impl Change {
    pub(crate) fn new(revision: u64, entry: Arc<Entry>, previous: Option<Arc<Entry>>, deleted: bool) -> Self {
        Change { revision, entry, previous, deleted, departed: OnceLock::new(), frames: Default::default() }
    }

    /// The previous state under this change's revision.
    pub fn departed(&self) -> Arc<Entry> {
        self.departed
            .get_or_init(|| match &self.previous {
                Some(previous) if !self.deleted => Arc::new(previous.at_revision(self.revision)),
                _ => self.entry.clone(),
            })
            .clone()
    }

    /// The line of a JSON watch of the stored version, encoded once for all watchers.
    pub fn json_frame(&self, kind: EventType) -> Bytes {
        self.frames[kind as usize]
            .get_or_init(|| {
                let departed = kind == EventType::Deleted && !self.deleted;
                let entry = if departed { self.departed() } else { self.entry.clone() };
                json_frame(kind.as_str(), &entry.json)
            })
            .clone()
    }
}

/// `{"type":"ADDED","object":…}` and a line feed.
pub fn json_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Box<str>, Arc<Entry>>,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// Sequence number of the ring's first change.
    first: u64,
    /// Watches from this revision on can be served.
    window: u64,
    /// Revision of the last change.
    last: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    state: RwLock<State>,
    /// Revision of the last change; wakes watchers.
    pub(crate) changed: watch::Sender<u64>,
    version: AtomicU64,
}

/// A consistent view: objects in key order and the revision they stand at.
#[derive(Debug)]
pub struct Snapshot {
    /// In key order.
    pub entries: Vec<Arc<Entry>>,
    /// Revision of the last change of this resource.
    pub last: u64,
    /// Where a watch goes on from here.
    pub(crate) cursor: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { state: RwLock::default(), changed: watch::Sender::new(0), version: AtomicU64::new(0) }
    }
}

impl Cache {
    /// Replaces everything: at the start, and after the feed lost its place. Watchers from before
    /// are answered 410.
    pub(crate) fn reset(&self, entries: Vec<Arc<Entry>>, revision: u64) {
        let mut state = self.state.write();
        let end = state.first + state.ring.len() as u64;
        state.last = entries.iter().map(|e| e.revision).max().unwrap_or(0);
        state.objects = entries.into_iter().map(|e| (e.key().into(), e)).collect();
        state.ring.clear();
        state.ring_bytes = 0;
        state.first = end + 1;
        state.window = revision;
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        self.changed.send_replace(revision);
    }

    /// Applies one change. `None` for a delete.
    pub(crate) fn apply(&self, key: &str, entry: Option<Arc<Entry>>, revision: u64) {
        let mut state = self.state.write();
        let (entry, previous, deleted) = match entry {
            Some(entry) => {
                let previous = match state.objects.get_mut(key) {
                    Some(slot) => Some(std::mem::replace(slot, entry.clone())),
                    None => {
                        state.objects.insert(key.into(), entry.clone());
                        None
                    }
                };
                (entry, previous, false)
            }
            None => match state.objects.remove(key) {
                Some(previous) => (Arc::new(previous.at_revision(revision)), Some(previous), true),
                None => return,
            },
        };
        state.last = revision;
        state.ring_bytes += entry.json.len();
        state.ring.push_back(Arc::new(Change::new(revision, entry, previous, deleted)));
        while state.ring.len() > RING_EVENTS || (state.ring_bytes > RING_BYTES && state.ring.len() > RING_MIN_EVENTS) {
            if let Some(gone) = state.ring.pop_front() {
                state.ring_bytes -= gone.entry.json.len();
                state.window = gone.revision;
                state.first += 1;
            }
        }
        drop(state);
        self.version.store(revision, Ordering::Release);
    }

    /// Wakes the watchers, after a batch.
    pub(crate) fn wake(&self, revision: u64) {
        self.changed.send_replace(revision);
    }

    /// Changes whenever any object changes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// One object by `namespace/name` or `name`.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Revision of the last change.
    pub fn last(&self) -> u64 {
        self.state.read().last
    }

    /// Objects of a namespace (empty: of all) from `start` on that `wanted` selects.
    pub fn snapshot(&self, namespace: &str, start: &str, wanted: impl Fn(&Entry) -> bool) -> Snapshot {
        let state = self.state.read();
        let from = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = if start > from.as_str() { start.to_owned() } else { from };
        let entries = state
            .objects
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            .take_while(|(key, _)| {
                namespace.is_empty()
                    || (key.starts_with(namespace) && key.as_bytes().get(namespace.len()) == Some(&b'/'))
            })
            .filter(|(_, entry)| wanted(entry))
            .map(|(_, entry)| entry.clone())
            .collect();
        Snapshot { entries, last: state.last, cursor: state.first + state.ring.len() as u64 }
    }

    /// The cursor of the first change after `revision`, or 410.
    pub(crate) fn cursor_after(&self, revision: u64) -> Result<u64, ApiError> {
        let state = self.state.read();
        if revision < state.window {
            return Err(ApiError::too_old(revision, state.window));
        }
        Ok(state.first + state.ring.partition_point(|c| c.revision <= revision) as u64)
    }

    /// Up to `most` changes from `cursor` on; 410 when the ring has moved past it.
    pub(crate) fn changes(&self, cursor: u64, most: usize, out: &mut Vec<Arc<Change>>) -> Result<u64, ApiError> {
        let state = self.state.read();
        if cursor < state.first {
            return Err(ApiError::too_old(0, state.window));
        }
        let from = (cursor - state.first) as usize;
        let to = state.ring.len().min(from + most);
        if from >= to {
            return Ok(cursor);
        }
        out.extend(state.ring.range(from..to).cloned());
        Ok(state.first + to as u64)
    }
}
