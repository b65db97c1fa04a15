//! Watches: history from the index first, then live events from the writer thread.
//!
//! The hub's lock is the meeting point: the writer dispatches under it, and a watcher joins under it
//! after it has read everything that the index shows. So nothing is missed and nothing comes twice.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use ironkeel_store::{Event, Revision, StoreError, WatchItem, WatchRange};
use parking_lot::Mutex;

use crate::Shared;
use crate::index::in_range;
use crate::range_map::RangeMap;

/// Idle watchers that ask for progress learn a new revision this much after it, at the latest.
pub(crate) const PROGRESS_INTERVAL_MS: u64 = 100;
/// Revisions of history looked at under one hold of the index's lock.
const HISTORY_CHUNK: u64 = 1000;
/// Most events of one item.
const MAX_ITEM_EVENTS: usize = 1000;

/// A watcher's buffer between the writer thread and its stream.
#[derive(Default)]
struct Inbox {
    /// First revision that is wanted.
    next: Revision,
    events: VecDeque<Event>,
    /// To be told after `events`.
    progress: Option<Revision>,
    /// The last revision told by an event or as progress.
    told: Revision,
    ended: Option<StoreError>,
    waker: Option<Waker>,
}

struct Watcher {
    range: WatchRange,
    /// Most events of the inbox.
    limit: usize,
    inbox: Mutex<Inbox>,
}

impl Watcher {
    /// The range's end for the map: None when it has none.
    fn end(&self) -> Option<Bytes> {
        match &self.range.end[..] {
            [] => {
                let mut next = self.range.start.to_vec();
                next.push(0);
                Some(Bytes::from(next))
            }
            [0] => None,
            _ => Some(self.range.end.clone()),
        }
    }

    fn shape(&self, mut event: Event) -> Event {
        if !self.range.previous {
            event.previous = None;
        }
        event
    }
}

#[derive(Default)]
struct Live {
    last_id: u64,
    watchers: HashMap<u64, Arc<Watcher>>,
    ranges: RangeMap,
    /// How many of them ask for progress.
    progress: usize,
    closed: Option<StoreError>,
}

/// All live watchers.
#[derive(Default)]
pub(crate) struct Hub {
    live: Mutex<Live>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("watchers", &self.live.lock().watchers.len()).finish_non_exhaustive()
    }
}

impl Hub {
    /// Hands durable events to the watchers of their keys, each woken once. Answers whether anybody
    /// waits for progress.
    pub(crate) fn dispatch(&self, events: &[Event]) -> bool {
        let mut wake: Vec<Waker> = Vec::new();
        let mut over: Vec<u64> = Vec::new();
        let mut live = self.live.lock();
        if !live.watchers.is_empty() {
            for event in events {
                for id in live.ranges.covering(&event.kv.key) {
                    let Some(watcher) = live.watchers.get(id) else { continue };
                    let mut inbox = watcher.inbox.lock();
                    if event.kv.mod_revision < inbox.next || inbox.ended.is_some() {
                        continue;
                    }
                    let limit = watcher.limit;
                    if inbox.events.len() >= limit {
                        inbox.events = VecDeque::new();
                        inbox.ended = Some(StoreError::SlowWatcher { limit });
                        over.push(*id);
                    } else {
                        inbox.progress = None;
                        inbox.told = event.kv.mod_revision;
                        inbox.events.push_back(watcher.shape(event.clone()));
                    }
                    wake.extend(inbox.waker.take());
                }
            }
        }
        for id in over {
            live.remove(id);
        }
        let progress = live.progress > 0;
        drop(live);
        wake.into_iter().for_each(Waker::wake);
        progress
    }

    /// Tells idle watchers how far they are. Everything up to `revision` must be dispatched.
    pub(crate) fn tell_progress(&self, revision: Revision) {
        let mut wake: Vec<Waker> = Vec::new();
        let live = self.live.lock();
        for watcher in live.watchers.values().filter(|watcher| watcher.range.progress) {
            let mut inbox = watcher.inbox.lock();
            if inbox.told < revision && inbox.next <= revision + 1 {
                inbox.told = revision;
                inbox.progress = Some(revision);
                wake.extend(inbox.waker.take());
            }
        }
        drop(live);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Ends all watches, after what they already hold.
    pub(crate) fn close_all(&self, error: &StoreError) {
        let mut live = self.live.lock();
        live.closed = Some(error.clone());
        live.ranges = RangeMap::default();
        live.progress = 0;
        for watcher in mem::take(&mut live.watchers).into_values() {
            let mut inbox = watcher.inbox.lock();
            inbox.ended = Some(error.clone());
            let waker = inbox.waker.take();
            drop(inbox);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Live {
    fn join(&mut self, watcher: &Arc<Watcher>) -> u64 {
        self.last_id += 1;
        self.ranges.insert(self.last_id, &watcher.range.start, watcher.end().as_ref());
        self.progress += usize::from(watcher.range.progress);
        self.watchers.insert(self.last_id, watcher.clone());
        self.last_id
    }

    fn remove(&mut self, id: u64) {
        if let Some(watcher) = self.watchers.remove(&id) {
            self.ranges.remove(id, &watcher.range.start, watcher.end().as_ref());
            self.progress -= usize::from(watcher.range.progress);
        }
    }
}

/// Where a watch is.
enum Place {
    /// Reading history from this revision on; becomes live when there is no more.
    History(Revision),
    /// In the hub under this number.
    Live(u64),
    Ended,
}

/// A running watch.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    watcher: Arc<Watcher>,
    place: Place,
}

impl Watch {
    /// Starts a watch; answers the store's revision at that moment.
    pub(crate) fn start(shared: Arc<Shared>, range: WatchRange) -> Result<(Revision, Watch), StoreError> {
        let from = range.from;
        let watcher = Arc::new(Watcher { range, limit: shared.options.watch_buffer_events, inbox: Mutex::default() });
        let mut live = shared.hub.live.lock();
        if let Some(error) = &live.closed {
            return Err(error.clone());
        }
        let (revision, compacted) = {
            let index = shared.index.read();
            (index.revision, index.compacted)
        };
        if from != 0 && from < compacted {
            return Err(StoreError::Compacted { requested: from, compacted });
        }
        let place = if from == 0 || from > revision {
            let mut inbox = watcher.inbox.lock();
            inbox.next = from.max(revision + 1);
            inbox.told = revision;
            inbox.progress = (watcher.range.progress && from <= revision + 1).then_some(revision);
            drop(inbox);
            Place::Live(live.join(&watcher))
        } else {
            Place::History(from)
        };
        drop(live);
        let mut watch = Watch { shared, watcher, place };
        if let Place::History(from) = watch.place
            && revision - from < HISTORY_CHUNK
        {
            // A short way: go it now, so that a late poll finds its events even after a compaction.
            watch.read_history(from)?;
        }
        Ok((revision, watch))
    }

    /// Reads a chunk of history into the inbox; becomes live when that was the last.
    fn read_history(&mut self, from: Revision) -> Result<(), StoreError> {
        let read = |shared: &Shared, from: Revision| -> Result<(Vec<Event>, Revision, Revision), StoreError> {
            let index = shared.index.read();
            if from < index.compacted {
                return Err(StoreError::Compacted { requested: from, compacted: index.compacted });
            }
            let last = index.revision.min(from + HISTORY_CHUNK - 1);
            let range = &self.watcher.range;
            let events = (from..=last)
                .filter(|at| index.changed_key(*at).is_some_and(|key| in_range(key, &range.start, &range.end)))
                .filter_map(|at| index.change(at))
                .map(|event| self.watcher.shape(event))
                .collect();
            Ok((events, last + 1, index.revision))
        };
        if self.shared.index.read().revision >= from + HISTORY_CHUNK - 1 {
            let (events, next, _) = read(&self.shared, from)?;
            self.watcher.inbox.lock().events.extend(events);
            self.place = Place::History(next);
            return Ok(());
        }
        let mut live = self.shared.hub.live.lock();
        if let Some(error) = &live.closed {
            return Err(error.clone());
        }
        let (events, next, revision) = read(&self.shared, from)?;
        let mut inbox = self.watcher.inbox.lock();
        inbox.events.extend(events);
        if next <= revision {
            self.place = Place::History(next);
            return Ok(());
        }
        inbox.next = next;
        inbox.told = revision;
        inbox.progress = self.watcher.range.progress.then_some(revision);
        drop(inbox);
        self.place = Place::Live(live.join(&self.watcher));
        Ok(())
    }

    fn end(&mut self, error: StoreError) -> Poll<Option<Result<WatchItem, StoreError>>> {
        self.leave();
        Poll::Ready(Some(Err(error)))
    }

    fn leave(&mut self) {
        if let Place::Live(id) = self.place {
            self.shared.hub.live.lock().remove(id);
        }
        self.place = Place::Ended;
    }

    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchItem, StoreError>>> {
        let mut inbox = self.watcher.inbox.lock();
        if !inbox.events.is_empty() {
            let count = inbox.events.len().min(MAX_ITEM_EVENTS);
            let events = inbox.events.drain(..count).collect();
            if inbox.events.is_empty() && inbox.events.capacity() > MAX_ITEM_EVENTS {
                inbox.events = VecDeque::new();
            }
            return Poll::Ready(Some(Ok(WatchItem::Events(events))));
        }
        if let Some(revision) = inbox.progress.take() {
            return Poll::Ready(Some(Ok(WatchItem::Progress(revision))));
        }
        if let Some(error) = inbox.ended.take() {
            drop(inbox);
            return self.end(error);
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Stream for Watch {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.place {
            Place::Ended => Poll::Ready(None),
            Place::Live(_) => self.poll_live(cx),
            Place::History(from) => {
                if self.watcher.inbox.lock().events.is_empty()
                    && let Err(error) = self.read_history(from)
                {
                    return self.end(error);
                }
                if matches!(self.place, Place::Live(_)) || !self.watcher.inbox.lock().events.is_empty() {
                    return self.poll_live(cx);
                }
                // A chunk without an event of ours; let others run before the next.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.leave();
    }
}
