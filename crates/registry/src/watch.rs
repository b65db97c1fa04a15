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
use crate::wake::Target;

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
    changed: watch::Receiver<u64>,
    applied: watch::Receiver<u64>,
    initial: std::vec::IntoIter<Arc<Entry>>,
    initial_end: Option<u64>,
    scratch: Vec<Arc<Change>>,
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
        let changed = cache.subscribe(selection.name.as_deref().map(Target::Name).or(of_field));
        let now = *applied.borrow();
        let (cursor, initial, initial_end) = match start {
            WatchStart::After(revision) => (cache.cursor_after(revision)?, Vec::new(), None),
            WatchStart::Now => (cache.snapshot("", "", |_| false).cursor, Vec::new(), None),
            WatchStart::State | WatchStart::StateWithEnd => {
                let snapshot = cache.snapshot(&selection.namespace, "", |e| selection.matches(e));
                let at = now.max(snapshot.last);
                (snapshot.cursor, snapshot.entries, (start == WatchStart::StateWithEnd).then_some(at))
            }
        };
        Ok(Watcher {
            cache,
            selection,
            cursor,
            changed,
            applied,
            initial: initial.into_iter(),
            initial_end,
            scratch: Vec::new(),
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
            self.changed.borrow_and_update();
            if self.poll(out)? {
                return Ok(());
            }
            if self.cache.is_closed() || self.changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Takes what is there now; whether any of it is selected.
    fn poll(&mut self, out: &mut Vec<WatchedEvent>) -> Result<bool, ApiError> {
        let before = out.len();
        loop {
            let applied = *self.applied.borrow();
            self.cursor = self.cache.changes(self.cursor, BATCH_EVENTS, &mut self.scratch)?;
            if self.scratch.is_empty() {
                self.caught_up_at = applied;
                return Ok(false);
            }
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
