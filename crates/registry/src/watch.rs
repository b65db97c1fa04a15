//! Watchers: a cursor into a resource's ring of changes, filtered by a selection.
//!
//! Bookmarks and the end of initial events are told here; frames, encodings and timeouts belong to
//! who streams them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cache::{Cache, Change, EventType};
use crate::entry::Entry;
use crate::error::ApiError;
use crate::selector::Selection;
use crate::wake::{Subscription, Target};

/// Most changes taken from the ring at once.
const BATCH_EVENTS: usize = 256;

/// What a watcher delivers.
#[derive(Clone, Debug)]
pub enum WatchedEvent {
    /// An object of the initial state.
    Initial(Arc<Entry>),
    /// All initial objects have been delivered; they stand at this revision.
    InitialEnd(u64),
    /// A change as this selection sees it.
    Change(Arc<Change>, EventType),
}

impl WatchedEvent {
    /// The type and the object as this watcher sees them; `None` for [`WatchedEvent::InitialEnd`].
    pub fn object(&self) -> Option<(EventType, Arc<Entry>)> {
        match self {
            WatchedEvent::Initial(entry) => Some((EventType::Added, entry.clone())),
            WatchedEvent::InitialEnd(_) => None,
            WatchedEvent::Change(c, EventType::Deleted) if !c.deleted => Some((EventType::Deleted, c.departed())),
            WatchedEvent::Change(c, kind) => Some((*kind, c.entry.clone())),
        }
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With the present state as initial events, then what comes.
    State,
    /// With the present state, and a mark behind it.
    StateWithEnd,
    /// With what comes after this revision.
    After(u64),
    /// With what comes after now, whatever now is.
    Now,
}

/// One watcher.
#[derive(Debug)]
pub struct Watcher {
    cache: Arc<Cache>,
    selection: Selection,
    cursor: u64,
    subscription: Subscription,
    applied: watch::Receiver<u64>,
    initial: std::vec::IntoIter<Arc<Entry>>,
    initial_end: Option<u64>,
    scratch: Vec<Arc<Change>>,
    /// Revision of the last change that was taken from the cache, or stands in the initial state.
    taken: u64,
    caught_up_at: u64,
    /// Changes up to this revision are known to the client, be they still to come here.
    known: u64,
}

impl Watcher {
    pub(crate) fn new(
        cache: Arc<Cache>,
        selection: Selection,
        start: WatchStart,
        target: Option<usize>,
        applied: watch::Receiver<u64>,
    ) -> Result<Self, ApiError> {
        let of_field = target.and_then(|field| Some(Target::Field(field, selection.wanted(field)?)));
        let of_name = selection.name.as_deref().map(Target::Name);
        let of_namespace = selection.within().map(Target::Namespace);
        let subscription = cache.subscribe(of_name.or(of_field).or(of_namespace));
        let now = *applied.borrow();
        let (cursor, taken, initial, initial_end) = match start {
            WatchStart::After(revision) => (cache.cursor_after(revision)?, 0, Vec::new(), None),
            WatchStart::Now => {
                let (last, cursor) = cache.position();
                (cursor, last, Vec::new(), None)
            }
            WatchStart::State | WatchStart::StateWithEnd => {
                let snapshot = cache.select(&selection, target, "", usize::MAX);
                let at = now.max(snapshot.last);
                (snapshot.cursor, at, snapshot.entries, (start == WatchStart::StateWithEnd).then_some(at))
            }
        };
        // One may have become unreadable meanwhile.
        cache.selected_readable(&selection)?;
        Ok(Watcher {
            cache,
            selection,
            cursor,
            subscription,
            applied,
            initial: initial.into_iter(),
            initial_end,
            scratch: Vec::new(),
            taken,
            caught_up_at: 0,
            known: if let WatchStart::After(revision) = start { revision } else { 0 },
        })
    }

    /// Waits for the next events and appends them to `out`. May append nothing. An error (410) ends
    /// the watch. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self, out: &mut Vec<WatchedEvent>) -> Result<(), ApiError> {
        if self.initial.len() > 0 {
            out.extend(self.initial.by_ref().take(BATCH_EVENTS).map(WatchedEvent::Initial));
            return Ok(());
        }
        if let Some(revision) = self.initial_end.take() {
            out.push(WatchedEvent::InitialEnd(revision));
            return Ok(());
        }
        loop {
            self.subscription.changed.borrow_and_update();
            if self.poll(out)? {
                return Ok(());
            }
            if self.cache.is_closed() || self.subscription.changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Takes what is there now; whether any of it is selected.
    fn poll(&mut self, out: &mut Vec<WatchedEvent>) -> Result<bool, ApiError> {
        let before = out.len();
        loop {
            let applied = *self.applied.borrow();
            self.cursor = self.cache.changes(
                self.subscription.places.as_deref(),
                self.cursor,
                BATCH_EVENTS,
                &mut self.scratch,
            )?;
            let Some(last) = self.scratch.last() else {
                // While a batch is applied, this cache is further than what all caches have reached.
                self.caught_up_at = applied.max(self.taken);
                return Ok(false);
            };
            self.taken = last.revision;
            for change in self.scratch.drain(..).filter(|c| c.revision > self.known) {
                if let Some(kind) = seen_as(&self.selection, &change) {
                    out.push(WatchedEvent::Change(change, kind));
                }
            }
            if out.len() > before {
                return Ok(true);
            }
        }
    }

    /// The revision up to which everything has been delivered, where nothing is waiting; what is
    /// waiting is appended to `out` instead.
    pub fn bookmark(&mut self, out: &mut Vec<WatchedEvent>) -> Result<Option<u64>, ApiError> {
        if self.initial.len() > 0 || self.initial_end.is_some() || self.poll(out)? {
            return Ok(None);
        }
        Ok(Some(self.caught_up_at).filter(|at| *at >= self.known))
    }
}

/// How a selection sees a change: entering is ADDED, leaving is DELETED.
fn seen_as(selection: &Selection, change: &Change) -> Option<EventType> {
    let before = change.previous.as_ref().is_some_and(|p| selection.matches(p));
    let after = !change.deleted && selection.matches(&change.entry);
    match (before, after) {
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;
    use ironkeel_object::Value;

    use super::*;
    use crate::cache::{Contents, Update};
    use crate::entry::Extract;

    fn update(key: &str, revision: u64) -> Update {
        let kind = ironkeel_kinds::kinds().first().unwrap();
        let bytes = Bytes::from_static(br#"{"metadata":{"name":"a"}}"#);
        let extract = Arc::new(Extract::of(&Value::object(), kind, &[]));
        (key.into(), Ok(Some(Arc::new(Entry::new(key, revision, bytes, extract)))), revision)
    }

    fn watcher(cache: &Arc<Cache>, start: WatchStart, applied: &watch::Sender<u64>) -> Watcher {
        Watcher::new(cache.clone(), Selection::all(""), start, None, applied.subscribe()).unwrap()
    }

    fn revisions(events: &[WatchedEvent]) -> Vec<u64> {
        let revision = |e: &WatchedEvent| match e {
            WatchedEvent::InitialEnd(at) => *at,
            other => other.object().unwrap().1.revision,
        };
        events.iter().map(revision).collect()
    }

    #[tokio::test]
    async fn a_bookmark_never_stands_below_an_event_that_was_sent() {
        let cache = Arc::new(Cache::default());
        let applied = watch::Sender::new(3);
        cache.reset(Contents::default(), 3);
        let mut events = Vec::new();
        let mut of_changes = watcher(&cache, WatchStart::After(3), &applied);
        // Of a batch one cache has its changes, while the others have not.
        cache.apply_all(vec![update("a", 5), update("b", 7)]);
        of_changes.next(&mut events).await.unwrap();
        assert_eq!(revisions(&events), [5, 7]);
        assert_eq!(of_changes.bookmark(&mut events).unwrap(), Some(7));
        // The same behind an initial state.
        events.clear();
        let mut of_state = watcher(&cache, WatchStart::StateWithEnd, &applied);
        of_state.next(&mut events).await.unwrap();
        of_state.next(&mut events).await.unwrap();
        assert_eq!(revisions(&events), [5, 7, 7]);
        assert_eq!(of_state.bookmark(&mut events).unwrap(), Some(7));
        let mut from_now = watcher(&cache, WatchStart::Now, &applied);
        assert_eq!(from_now.bookmark(&mut events).unwrap(), Some(7));
        // Other resources' changes move it on.
        applied.send_replace(9);
        for watcher in [&mut of_changes, &mut of_state, &mut from_now] {
            assert_eq!(watcher.bookmark(&mut events).unwrap(), Some(9));
        }
    }

    #[tokio::test]
    async fn who_watches_one_name_or_namespace_looks_at_nothing_else_and_is_never_too_late_for_it() {
        let cache = Arc::new(Cache::default());
        let applied = watch::Sender::new(0);
        cache.apply_all(vec![update("n/a", 1), update("n/b", 2), update("m/a", 3)]);
        let of = |selection: Selection, start| Watcher::new(cache.clone(), selection, start, None, applied.subscribe());
        let name = |name: &str| {
            let mut selection = Selection::all("");
            selection.name = Some(name.to_owned());
            selection
        };
        let mut events = Vec::new();
        // From before anybody asked for this.
        let mut early = of(name("a"), WatchStart::After(0)).unwrap();
        early.next(&mut events).await.unwrap();
        assert_eq!(revisions(&events), [1, 3]);
        events.clear();
        let mut of_name = of(name("b"), WatchStart::State).unwrap();
        let mut of_namespace = of(Selection::all("n"), WatchStart::After(2)).unwrap();
        let mut of_all = of(Selection::all(""), WatchStart::After(3)).unwrap();
        of_name.next(&mut events).await.unwrap();
        assert_eq!(revisions(&events), [2]);
        assert_eq!(of_namespace.bookmark(&mut events).unwrap(), Some(3));
        events.clear();
        let looked_at = cache.looked_at();
        let others = Cache::CAPACITY as u64 + 100;
        for revision in 4..others {
            cache.apply_all(vec![update("m/other", revision)]);
        }
        cache.apply_all(vec![update("n/b", others)]);
        of_name.next(&mut events).await.unwrap();
        of_namespace.next(&mut events).await.unwrap();
        assert_eq!(revisions(&events), [others, others]);
        assert_eq!(cache.looked_at() - looked_at, 2);
        assert!(of_all.next(&mut events).await.is_err(), "who wants every change has missed some");
        // What its own was is forgotten with the ring, and that there was some is not.
        let (ours, theirs) = (2 * others, 4 * others);
        let mut sleeper = of(Selection::all("n"), WatchStart::Now).unwrap();
        for revision in others + 1..theirs {
            let key = if revision == ours { "n/b" } else { "m/other" };
            cache.apply_all(vec![update(key, revision)]);
        }
        assert!(sleeper.next(&mut events).await.is_err());
        let places = cache.subscribe(Some(Target::Namespace("n"))).places.unwrap();
        assert!(places.is_empty(), "they take room for ever");
        of_name = of(name("b"), WatchStart::Now).unwrap();
        let others = theirs;
        // What was its own it may miss no more than anybody.
        for revision in others + 1..2 * others {
            cache.apply_all(vec![update("n/b", revision)]);
        }
        assert!(of_name.next(&mut events).await.is_err());
        let mut anew = of(name("b"), WatchStart::Now).unwrap();
        cache.reset(Contents::default(), 3 * others);
        assert!(anew.next(&mut events).await.is_err(), "what was read anew may have changed anything");
        assert!(early.next(&mut events).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bookmark_never_stands_above_an_event_that_is_still_to_come() {
        const AT_ONCE: u64 = 300;
        const ROUNDS: u64 = 100;
        let cache = Arc::new(Cache::default());
        let applied = Arc::new(watch::Sender::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let feed = std::thread::spawn({
            let (cache, applied, ended) = (cache.clone(), applied.clone(), ended.clone());
            move || {
                // Leases end: one revision, many keys.
                for revision in 1..=ROUNDS {
                    cache.apply_all((0..AT_ONCE).map(|i| update(&format!("k{i}"), revision)).collect());
                    cache.wake(revision);
                    applied.send_replace(revision);
                }
                ended.store(true, Ordering::Release);
            }
        });
        let mut joined = 0;
        while !ended.load(Ordering::Acquire) {
            let mut watcher = watcher(&cache, WatchStart::StateWithEnd, &applied);
            let (mut events, mut marked) = (Vec::new(), None);
            while marked.is_none() {
                watcher.next(&mut events).await.unwrap();
                for event in events.drain(..) {
                    if let WatchedEvent::InitialEnd(at) = event {
                        marked = Some(at);
                    }
                }
            }
            for _ in 0..200 {
                let mark = watcher.bookmark(&mut events).unwrap();
                for event in events.drain(..) {
                    let revision = event.object().unwrap().1.revision;
                    assert!(Some(revision) > marked, "{revision} comes after the mark {marked:?}");
                }
                if mark.is_some() {
                    assert!(mark >= marked, "{mark:?} is told after {marked:?}");
                    marked = mark;
                }
            }
            joined += 1;
        }
        feed.join().unwrap();
        assert!(joined > 0);
    }
}
