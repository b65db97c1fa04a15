//! The watch cache of one stored resource: every object as an [`Entry`], and the latest changes.
//!
//! The feed (`feed`) alone writes here, in order of revision; readers take snapshots of pointers
//! under a short lock, watchers walk the shared ring of changes with a cursor each, so a watcher
//! costs no buffer of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::entry::{Entry, View};
use crate::error::ApiError;
use crate::selector::Selection;
use crate::wake::{Crowd, Places, Subscription, Target, Targets};

mod index;
mod snapshot;

use index::FieldIndex;
pub use snapshot::Snapshot;

/// Most changes that a resource's ring holds; a watcher further behind is answered 410.
const RING_EVENTS: usize = 16_384;
/// Most bytes of objects that a ring holds, once it has [`RING_MIN_EVENTS`].
const RING_BYTES: usize = 16 << 20;
/// So many of the latest changes keep what was encoded of them; a watcher further behind encodes for itself.
const FRAMED_EVENTS: usize = 512;
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

/// Tells the frames of one change from each other; no view is the JSON of the stored version.
type Framed = (Option<View>, EventType, Bytes);

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
    /// What has been encoded; `None` when it is no longer kept.
    frames: Mutex<Option<Vec<Framed>>>,
}

impl Change {
    pub(crate) fn new(revision: u64, entry: Arc<Entry>, previous: Option<Arc<Entry>>, deleted: bool) -> Self {
        let frames = Mutex::new(Some(Vec::new()));
        Change { revision, entry, previous, deleted, departed: OnceLock::new(), frames }
    }

    /// A frame of another form, made by `make` once and shared by all watchers of that form.
    pub fn frame(
        &self,
        view: View,
        kind: EventType,
        make: impl FnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Bytes, ApiError> {
        self.framed(Some(view), kind, make)
    }

    fn framed<E>(
        &self,
        view: Option<View>,
        kind: EventType,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut kept = self.frames.lock();
        let Some(frames) = kept.as_mut() else {
            drop(kept);
            return make();
        };
        if let Some((.., bytes)) = frames.iter().find(|(v, k, _)| *v == view && *k == kind) {
            return Ok(bytes.clone());
        }
        let made = make()?;
        frames.reserve_exact(1);
        frames.push((view, kind, made.clone()));
        Ok(made)
    }

    /// Keeps no frames any more: nearly all watchers are past this change.
    fn forget_frames(&self) {
        *self.frames.lock() = None;
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
        let made = self.framed(None, kind, || {
            let departed = kind == EventType::Deleted && !self.deleted;
            let entry = if departed { self.departed() } else { self.entry.clone() };
            let mut out = frame_head(kind.as_str(), entry.json_len());
            entry.json_pieces(|piece| out.extend_from_slice(piece));
            out.extend_from_slice(FRAME_TAIL);
            Ok::<_, std::convert::Infallible>(Bytes::from(out))
        });
        match made {
            Ok(frame) => frame,
        }
    }
}

/// `{"type":"ADDED","object":…}` and a line feed.
pub fn json_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = frame_head(kind, object.len());
    out.extend_from_slice(object);
    out.extend_from_slice(FRAME_TAIL);
    Bytes::from(out)
}

const FRAME_TAIL: &[u8] = b"}\n";

/// A frame up to its object, with room for that.
fn frame_head(kind: &str, object_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(object_bytes + 32);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Box<str>, Arc<Entry>>,
    index: Option<FieldIndex>,
    /// Bytes of their JSON.
    object_bytes: usize,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// Sequence number of the ring's first change.
    first: u64,
    /// The same when everything was read last: whoever stands before it knows another state.
    floor: u64,
    /// Watches from this revision on can be served.
    window: u64,
    /// Revision of the last change, as far as it is known.
    last: u64,
    /// The objects were read as they stood at this revision.
    read_at: u64,
    /// Changes that came while the objects were still being read.
    filling: Option<Vec<Update>>,
    /// Nothing comes any more: the resource is served no longer, or anew.
    closed: bool,
    /// Objects whose stored bytes cannot be read, by key; `objects` has what they were before, if that is known.
    unreadable: BTreeMap<Box<str>, Unreadable>,
}

/// What the store has of an object that nobody can read.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    /// Of the bytes.
    pub(crate) revision: u64,
    /// Why not.
    pub(crate) why: Arc<str>,
}

/// All objects of a resource, as they were read from the store.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) unreadable: BTreeMap<Box<str>, Unreadable>,
}

impl State {
    fn reset(&mut self, contents: Contents, revision: u64) {
        let Contents { mut entries, unreadable } = contents;
        entries.extend(unreadable.keys().filter_map(|key| self.objects.get(key).cloned()));
        self.unreadable = unreadable;
        let end = self.end();
        // What was deleted before leaves no trace, so any revision up to this one may have changed something.
        self.last = revision;
        self.object_bytes = entries.iter().map(|e| e.json_len()).sum();
        self.objects = entries.into_iter().map(|e| (e.key().into(), e)).collect();
        self.index = self.index.take().map(|index| index.anew(self.objects.values()));
        self.begin_anew(end + 1, revision);
        self.read_at = revision;
    }

    /// Whoever knows what was before learns no more from here.
    fn begin_anew(&mut self, first: u64, revision: u64) {
        self.ring.clear();
        self.ring_bytes = 0;
        self.first = first;
        self.floor = first;
        self.window = revision;
    }

    /// Takes an object; answers what it was before.
    fn put(&mut self, key: Box<str>, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let previous = match self.objects.get_mut(&*key) {
            Some(slot) => Some(std::mem::replace(slot, entry.clone())),
            None => {
                self.objects.insert(key, entry.clone());
                None
            }
        };
        let gone = previous.as_ref().map_or(0, |p| p.json_len());
        self.object_bytes = (self.object_bytes + entry.json_len()).saturating_sub(gone);
        if let Some(index) = &mut self.index {
            index.change(&entry, previous.as_deref(), false);
        }
        previous
    }

    /// Takes an object out.
    fn take(&mut self, key: &str) -> Option<Arc<Entry>> {
        let gone = self.objects.remove(key)?;
        self.object_bytes = self.object_bytes.saturating_sub(gone.json_len());
        if let Some(index) = &mut self.index {
            index.change(&gone, Some(&gone), true);
        }
        Some(gone)
    }

    /// Sequence number behind the ring's last change.
    fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }
}

/// Key, new state (`None`: it is gone; or why that cannot be read), revision.
pub(crate) type Update = (Box<str>, Result<Option<Arc<Entry>>, Arc<str>>, u64);

/// Whether a key is one of a namespace; all are of none.
fn is_inside(key: &str, namespace: &str) -> bool {
    key.strip_prefix(namespace).is_some_and(|rest| namespace.is_empty() || rest.starts_with('/'))
}

/// What is answered of an object that cannot be read.
pub(crate) fn unreadable(key: &str, why: &str) -> ApiError {
    ApiError::internal(format!("{key} cannot be read from the store: {why}"))
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    state: RwLock<State>,
    /// Watchers of every change.
    everybody: Arc<Crowd>,
    /// Watchers of one name, one value of a field or one namespace.
    targets: Mutex<Targets>,
    version: AtomicU64,
    /// Whether there are objects that cannot be read.
    damaged: AtomicBool,
    /// Changes that have come, and how often everything was replaced.
    received: AtomicU64,
    initializations: AtomicU64,
    /// Objects and changes that readers of many have passed by.
    looked_at: AtomicU64,
}

/// What a reader has not seen yet; see [`Cache::follow`].
#[derive(Debug)]
pub enum Followed {
    /// Every object: the reader is new, or too far behind.
    Anew(Vec<Arc<Entry>>),
    /// The changes since the last look, in order.
    Since(Vec<Arc<Change>>),
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            state: RwLock::default(),
            everybody: Arc::default(),
            targets: Mutex::default(),
            version: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
            received: AtomicU64::new(0),
            initializations: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
        }
    }
}

impl Cache {
    /// Replaces everything: at the start, and after the feed lost its place. Watchers from before
    /// are answered 410.
    pub(crate) fn reset(&self, contents: Contents, revision: u64) {
        self.initializations.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.write();
        state.reset(contents, revision);
        self.note_damage(&state);
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        self.wake_everybody(revision);
    }

    fn note_damage(&self, state: &State) {
        self.damaged.store(!state.unreadable.is_empty(), Ordering::Release);
    }

    /// Objects that cannot be read, with their keys.
    pub(crate) fn unreadable(&self) -> BTreeMap<Box<str>, Unreadable> {
        if !self.damaged.load(Ordering::Acquire) {
            return BTreeMap::new();
        }
        self.state.read().unreadable.clone()
    }

    /// Whether one object (`namespace/name` or `name`) can be read, if it is there.
    ///
    /// # Errors
    /// 500 with the reason, as upstream answers.
    pub(crate) fn readable(&self, key: &str) -> Result<(), ApiError> {
        if !self.damaged.load(Ordering::Acquire) {
            return Ok(());
        }
        self.state.read().unreadable.get(key).map_or(Ok(()), |what| Err(unreadable(key, &what.why)))
    }

    /// Whether all objects of a namespace (all at all, where it is empty) can be read.
    ///
    /// # Errors
    /// 500 that names the first that cannot: a list without it would say that it is gone.
    pub fn all_readable(&self, namespace: &str) -> Result<(), ApiError> {
        self.first_unreadable(namespace, None)
    }

    fn first_unreadable(&self, namespace: &str, name: Option<&str>) -> Result<(), ApiError> {
        if !self.damaged.load(Ordering::Acquire) {
            return Ok(());
        }
        let state = self.state.read();
        let meant = |key: &str| is_inside(key, namespace) && name.is_none_or(|n| key.rsplit('/').next() == Some(n));
        let found = state.unreadable.iter().find(|(key, _)| meant(key));
        found.map_or(Ok(()), |(key, what)| Err(unreadable(key, &what.why)))
    }

    /// The same for what is selected.
    pub fn selected_readable(&self, selection: &Selection) -> Result<(), ApiError> {
        self.first_unreadable(selection.within().unwrap_or_default(), selection.name.as_deref())
    }

    /// Takes objects whose bytes can be read now, unless they have changed meanwhile.
    pub(crate) fn mend(&self, entries: Vec<Arc<Entry>>) {
        let mut state = self.state.write();
        for entry in entries {
            if state.unreadable.get(entry.key()).is_some_and(|what| what.revision == entry.revision) {
                state.unreadable.remove(entry.key());
                state.put(entry.key().into(), entry);
            }
        }
        let (first, last) = (state.end() + 1, state.last);
        state.begin_anew(first, last);
        self.note_damage(&state);
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        self.wake_everybody(last);
    }

    fn wake_everybody(&self, revision: u64) {
        self.targets.lock().wake_all(revision);
        self.everybody.wake_now(revision);
    }

    /// From now on changes are kept back until [`Cache::filled`].
    pub(crate) fn begin_filling(&self) {
        self.state.write().filling = Some(Vec::new());
    }

    /// Takes the objects as they stood at `revision`, then what has changed since. Nothing comes in between.
    pub(crate) fn filled(&self, contents: Contents, revision: u64) {
        self.initializations.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.write();
        let pending = state.filling.take();
        // The feed may have read everything anew meanwhile.
        if state.read_at <= revision {
            state.reset(contents, revision);
        }
        for update in pending.into_iter().flatten() {
            self.change(&mut state, update);
        }
        self.note_damage(&state);
        let last = state.last;
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        self.wake_everybody(last);
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.state.write().closed = true;
        self.wake_everybody(self.everybody.revision());
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.read().closed
    }

    /// Applies changes, all at once: nobody sees a part of a revision, so whoever has taken the last change
    /// of the ring knows everything up to its revision.
    pub(crate) fn apply_all(&self, updates: Vec<Update>) {
        let mut state = self.state.write();
        if let Some(pending) = &mut state.filling {
            pending.extend(updates);
            return;
        }
        let floor = state.floor;
        for update in updates {
            self.change(&mut state, update);
        }
        self.note_damage(&state);
        let cut = (state.floor > floor).then_some(state.last);
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        if let Some(revision) = cut {
            self.wake_everybody(revision);
        }
    }

    fn change(&self, state: &mut State, (key, entry, revision): Update) {
        self.received.fetch_add(1, Ordering::Relaxed);
        // What the objects were read with already. One revision may change more objects than the ring holds.
        if revision <= state.read_at {
            return;
        }
        if let Err(why) = &entry {
            state.unreadable.insert(key, Unreadable { revision, why: why.clone() });
            state.last = revision;
            state.begin_anew(state.end() + 1, revision);
            return;
        }
        if state.unreadable.remove(&*key).is_some() {
            // What it was before is not known to everybody: nobody can be told what has changed.
            match entry {
                Ok(Some(entry)) => drop(state.put(key, entry)),
                _ => drop(state.take(&key)),
            }
            state.last = revision;
            state.begin_anew(state.end() + 1, revision);
            return;
        }
        let (entry, previous, deleted) = match entry {
            Ok(Some(entry)) => {
                let previous = state.put(key, entry.clone());
                (entry, previous, false)
            }
            _ => match state.take(&key) {
                Some(previous) => (Arc::new(previous.at_revision(revision)), Some(previous), true),
                None => return,
            },
        };
        state.last = revision;
        state.ring_bytes += entry.json_len();
        self.targets.lock().touch(&entry, previous.as_deref(), state.end(), state.first);
        state.ring.push_back(Arc::new(Change::new(revision, entry, previous, deleted)));
        if let Some(old) = state.ring.len().checked_sub(FRAMED_EVENTS + 1).and_then(|at| state.ring.get(at)) {
            old.forget_frames();
        }
        if state.end().is_multiple_of(RING_EVENTS as u64) {
            self.targets.lock().forget_before(state.first);
        }
        while state.ring.len() > RING_EVENTS || (state.ring_bytes > RING_BYTES && state.ring.len() > RING_MIN_EVENTS) {
            if let Some(gone) = state.ring.pop_front() {
                state.ring_bytes -= gone.entry.json_len();
                state.window = gone.revision;
                state.first += 1;
            }
        }
    }

    /// What a watcher waits on: every change, or those that touch its target.
    pub(crate) fn subscribe(&self, target: Option<Target<'_>>) -> Subscription {
        let state = self.state.read();
        let targeted = target.and_then(|target| self.targets.lock().subscribe(target, state.end()));
        targeted.unwrap_or_else(|| Subscription { changed: self.everybody.subscribe(), places: None })
    }

    /// Wakes the watchers, after a batch of changes.
    pub(crate) fn wake(&self, revision: u64) {
        self.targets.lock().wake(revision);
        self.everybody.wake(revision);
    }

    /// Most changes that a cache keeps.
    pub const CAPACITY: usize = RING_EVENTS;

    /// Changes that have come so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How often everything was read anew.
    pub fn initializations(&self) -> u64 {
        self.initializations.load(Ordering::Relaxed)
    }

    /// Changes whenever any object changes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// One object by `namespace/name` or `name`.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// One object, and the revision of the last change of any: a watch from there on misses nothing of it.
    pub(crate) fn get_at(&self, key: &str) -> (Option<Arc<Entry>>, u64) {
        let state = self.state.read();
        (state.objects.get(key).cloned(), state.last)
    }

    /// How many objects and changes have been looked at by who reads more than one: what reading costs.
    pub fn looked_at(&self) -> u64 {
        self.looked_at.load(Ordering::Relaxed)
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Bytes of all objects as JSON.
    pub fn bytes(&self) -> usize {
        self.state.read().object_bytes
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Revision of the last change.
    pub fn last(&self) -> u64 {
        self.state.read().last
    }

    /// What changed in a namespace since `cursor`, which moves on: for who keeps a sum over all objects
    /// and looks at each change once. A cursor of none begins with every object.
    pub fn follow(&self, cursor: &mut Option<u64>, namespace: &str) -> Followed {
        let state = self.state.read();
        match cursor.replace(state.end()) {
            Some(at) if at >= state.first => {
                let news = state.ring.range((at - state.first) as usize..);
                self.looked_at.fetch_add(news.len() as u64, Ordering::Relaxed);
                Followed::Since(news.filter(|c| is_inside(c.entry.key(), namespace)).cloned().collect())
            }
            _ => {
                drop(state);
                let all = self.snapshot(namespace, "", |_| true);
                *cursor = Some(all.cursor);
                Followed::Anew(all.entries)
            }
        }
    }

    /// Revision of the last change, and the cursor behind it.
    pub(crate) fn position(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.last, state.end())
    }

    /// The cursor of the first change after `revision`, or 410.
    pub(crate) fn cursor_after(&self, revision: u64) -> Result<u64, ApiError> {
        let state = self.state.read();
        if revision < state.window {
            return Err(ApiError::too_old(revision, state.window));
        }
        Ok(state.first + state.ring.partition_point(|c| c.revision <= revision) as u64)
    }

    /// Up to `most` changes from `cursor` on, of those at `places` where there are any, and the cursor behind them;
    /// 410 when the ring has moved past one of them.
    pub(crate) fn changes(
        &self,
        places: Option<&Places>,
        cursor: u64,
        most: usize,
        out: &mut Vec<Arc<Change>>,
    ) -> Result<u64, ApiError> {
        let state = self.state.read();
        let too_old = || ApiError::too_old(0, state.window);
        let end = state.end();
        let before = out.len();
        let cursor = match places {
            Some(places) if cursor >= places.from() => {
                let found = places.after(cursor, most, state.first).filter(|_| cursor >= state.floor);
                let found = found.ok_or_else(too_old)?;
                out.extend(found.iter().filter_map(|at| state.ring.get((at - state.first) as usize).cloned()));
                found.last().filter(|_| found.len() == most).map_or(end, |last| last + 1)
            }
            places => {
                let from = cursor.checked_sub(state.first).ok_or_else(too_old)?;
                let to = places.map_or(end, Places::from).min(cursor.saturating_add(most as u64)).max(cursor);
                out.extend(state.ring.range(from as usize..(to - state.first) as usize).cloned());
                to
            }
        };
        self.looked_at.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use bytes::Bytes;
    use ironkeel_object::Value;

    use super::*;
    use crate::entry::Extract;

    fn entry(key: &str, revision: u64) -> Arc<Entry> {
        let kind = ironkeel_kinds::kinds().first().expect("there are kinds");
        let bytes = Bytes::from_static(br#"{"metadata":{"name":"a"}}"#);
        Arc::new(Entry::new(key, revision, bytes, Arc::new(Extract::of(&Value::object(), kind, &[]))))
    }

    fn contents(entries: Vec<Arc<Entry>>) -> Contents {
        Contents { entries, ..Contents::default() }
    }

    impl Cache {
        /// One change, as if it was all that came.
        pub(crate) fn apply(&self, key: &str, entry: Option<Arc<Entry>>, revision: u64) {
            self.apply_all(vec![(key.into(), Ok(entry), revision)]);
        }
    }

    #[test]
    fn what_comes_while_a_cache_is_filled_is_neither_lost_nor_overtaken() {
        const CHANGES: u64 = 400;
        for _ in 0..200 {
            let cache = Arc::new(Cache::default());
            let done = Arc::new(AtomicU64::new(0));
            let start = Arc::new(Barrier::new(2));
            cache.begin_filling();
            let feed = std::thread::spawn({
                let (cache, done, start) = (cache.clone(), done.clone(), start.clone());
                move || {
                    start.wait();
                    for revision in 1..=CHANGES {
                        cache.apply("a", Some(entry("a", revision)), revision);
                        done.store(revision, Ordering::Release);
                    }
                }
            });
            start.wait();
            while done.load(Ordering::Acquire) < CHANGES / 4 {
                std::hint::spin_loop();
            }
            let at = done.load(Ordering::Acquire);
            cache.filled(contents(vec![entry("a", at)]), at);
            feed.join().expect("the feed ends");
            assert_eq!(cache.get("a").map(|e| e.revision), Some(CHANGES));
            let mut seen = Vec::new();
            let cursor = cache.cursor_after(at).expect("the ring begins where the objects were read");
            cache.changes(None, cursor, usize::MAX >> 1, &mut seen).expect("all changes are there");
            let revisions: Vec<u64> = seen.iter().map(|c| c.revision).collect();
            assert_eq!(revisions, (at + 1..=CHANGES).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cache_read_anew_while_it_is_filled_keeps_the_newer_state() {
        let cache = Cache::default();
        cache.begin_filling();
        cache.reset(contents(vec![entry("a", 7)]), 9);
        cache.apply("b", Some(entry("b", 10)), 10);
        cache.filled(contents(vec![entry("a", 3)]), 4);
        assert_eq!(cache.get("a").map(|e| e.revision), Some(7));
        assert_eq!(cache.get("b").map(|e| e.revision), Some(10));
        assert!(cache.cursor_after(8).is_err(), "nobody knows what was between 4 and 9");
    }

    #[test]
    fn a_follower_is_shown_each_change_of_its_namespace_once() {
        let cache = Cache::default();
        cache.apply("n/a", Some(entry("n/a", 1)), 1);
        let mut cursor = None;
        let Followed::Anew(all) = cache.follow(&mut cursor, "n") else { panic!("a new reader is shown all") };
        assert_eq!(all.len(), 1);
        cache.apply("n/b", Some(entry("n/b", 2)), 2);
        cache.apply("nn/c", Some(entry("nn/c", 3)), 3);
        cache.apply("n/a", None, 4);
        let Followed::Since(news) = cache.follow(&mut cursor, "n") else { panic!("the ring holds the changes") };
        let seen: Vec<_> = news.iter().map(|c| (c.revision, c.deleted, c.previous.is_some())).collect();
        assert_eq!(seen, [(2, false, false), (4, true, true)]);
        assert!(matches!(cache.follow(&mut cursor, "n"), Followed::Since(none) if none.is_empty()));
        for revision in 5..=(RING_EVENTS as u64 + 5) {
            cache.apply("o/d", Some(entry("o/d", revision)), revision);
        }
        let Followed::Anew(all) = cache.follow(&mut cursor, "n") else { panic!("who is too far behind begins anew") };
        assert_eq!(all.iter().map(|e| e.key()).collect::<Vec<_>>(), ["n/b"]);
        cache.reset(contents(vec![entry("n/a", 7)]), 90_000);
        assert!(matches!(cache.follow(&mut cursor, "n"), Followed::Anew(all) if all.len() == 1));
    }

    #[test]
    fn one_revision_may_change_more_than_the_ring_holds() {
        let cache = Cache::default();
        let many = RING_EVENTS + 500;
        let update = |i| {
            let key = format!("k{i}");
            (key.as_str().into(), Ok(Some(entry(&key, 1))), 1)
        };
        cache.apply_all((0..many).map(update).collect());
        assert_eq!(cache.len(), many);
        assert!(cache.cursor_after(0).is_err(), "who was not told of some of it begins anew");
    }

    #[test]
    fn a_state_read_late_is_not_taken_for_an_earlier_one() {
        let cache = Cache::default();
        // What changed last before 9 was a delete.
        cache.reset(contents(vec![entry("a", 3)]), 9);
        assert_eq!((cache.last(), cache.snapshot("", "", |_| true).last), (9, 9));
    }
}
