//! Keeps the watch caches at the store's state: one watch over `/registry/`, applied in order.
//!
//! Because every cache is fed by the same watch, one number says how far all of them are. A write
//! is answered only when the caches have reached it, so whatever was acknowledged is seen by every
//! later read without asking the store. (With a store that other servers write too, reads would
//! have to ask it for its revision first.)

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_store::{Event, Range, Store, StoreError, WatchItem, WatchRange, prefix_end};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::entry::{Entry, Extract, decode};
use crate::error::{ApiError, Reason};
use crate::storage::Stored;

const ROOT: &[u8] = b"/registry/";

/// Keys read at once when the caches are filled.
const FILL_KEYS: usize = 5_000;
/// So many revisions of history are replayed into the rings at the start.
const REPLAYED_REVISIONS: u64 = 4_096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    homes: BTreeMap<String, Arc<Stored>>,
    /// Extracts of values on their way through the store, by the address of their bytes; each
    /// holds its bytes, so that no address is used twice.
    hints: Mutex<HashMap<usize, (Bytes, Arc<Extract>)>>,
    applied: watch::Sender<u64>,
}

/// Takes its hint back when the write is over.
pub(crate) struct Hint<'a>(&'a Feed, usize);

impl Drop for Hint<'_> {
    fn drop(&mut self) {
        self.0.hints.lock().remove(&self.1);
    }
}

impl Feed {
    pub(crate) fn new(store: Arc<dyn Store>, stored: &[Arc<Stored>]) -> Self {
        let homes = stored.iter().map(|s| (s.prefix.clone(), s.clone())).collect();
        Feed { store, homes, hints: Mutex::default(), applied: watch::Sender::new(0) }
    }

    /// How far the caches are, to wait on.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// How far the caches are.
    pub(crate) fn revision(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Returns when the caches have reached `revision`.
    pub(crate) async fn reached(&self, revision: u64) -> Result<(), ApiError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        match applied.wait_for(|r| *r >= revision).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Closed("the watch cache has stopped".into()).into()),
        }
    }

    /// Announces the extract of a value that is about to be stored.
    pub(crate) fn hint(&self, value: &Bytes, extract: Arc<Extract>) -> Hint<'_> {
        let at = value.as_ptr() as usize;
        self.hints.lock().insert(at, (value.clone(), extract));
        Hint(self, at)
    }

    /// Reads the store into the caches as it was [`REPLAYED_REVISIONS`] ago (or as far back as its
    /// history goes), so that following it from there gives the rings their latest changes and
    /// clients' watches survive a restart. Answers that revision, and the store's own.
    pub(crate) async fn fill_from_history(&self) -> Result<(u64, u64), ApiError> {
        let status = self.store.status().await?;
        let base = status.revision.saturating_sub(REPLAYED_REVISIONS).max(status.compacted);
        if base == 0 {
            // All of history is there: the caches begin empty.
            for home in self.homes.values() {
                home.cache.reset(Vec::new(), 0);
            }
            return Ok((0, status.revision));
        }
        if base >= status.revision {
            let now = self.fill(0).await?;
            return Ok((now, now));
        }
        match self.fill(base).await {
            Ok(from) => Ok((from, status.revision)),
            Err(e) if e.reason == Reason::Expired => {
                let now = self.fill(0).await?;
                Ok((now, now))
            }
            Err(e) => Err(e),
        }
    }

    /// Reads the whole store as of `revision` (0: now) into the caches; answers the revision.
    pub(crate) async fn fill(&self, revision: u64) -> Result<u64, ApiError> {
        let mut entries: HashMap<&str, Vec<Arc<Entry>>> = HashMap::new();
        let end = prefix_end(ROOT);
        let mut range = Range { start: Bytes::from_static(ROOT), end, limit: FILL_KEYS, revision, ..Range::default() };
        loop {
            let answer = self.store.range(range.clone()).await?;
            if range.revision == 0 {
                range.revision = answer.revision;
            }
            let full = answer.kvs.len() == FILL_KEYS;
            if let Some(last) = answer.kvs.last().filter(|_| full) {
                range.start = [&last.key[..], &[0]].concat().into();
            }
            for kv in answer.kvs {
                let Some((home, key)) = self.home_of(&kv.key) else { continue };
                let extract = self.extract(home, &kv.value)?;
                let entry = Arc::new(Entry::new(key, kv.mod_revision, &kv.value, extract));
                entries.entry(&home.prefix).or_default().push(entry);
            }
            if !full {
                break;
            }
        }
        for (prefix, home) in &self.homes {
            home.cache.reset(entries.remove(prefix.as_str()).unwrap_or_default(), range.revision);
        }
        self.applied.send_replace(range.revision);
        Ok(range.revision)
    }

    fn home_of<'a, 'k>(&'a self, key: &'k [u8]) -> Option<(&'a Arc<Stored>, &'k str)> {
        let key = std::str::from_utf8(key).ok()?;
        let (prefix, home) = self.homes.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        Some((home, key.strip_prefix(prefix.as_str())?))
    }

    fn extract(&self, home: &Stored, value: &Bytes) -> Result<Arc<Extract>, ApiError> {
        if let Some((_, extract)) = self.hints.lock().get(&(value.as_ptr() as usize)) {
            return Ok(extract.clone());
        }
        Ok(Arc::new(Extract::of(&decode(value, home.kind.resource.type_id)?, &home.kind, &home.selectable)))
    }

    /// Follows the store until `shutdown`, or until the store closes.
    pub(crate) async fn follow(&self, mut from: u64, shutdown: CancellationToken) {
        loop {
            let range = WatchRange {
                start: Bytes::from_static(ROOT),
                end: prefix_end(ROOT),
                from: from + 1,
                progress: false,
                previous: false,
            };
            let ended = match self.store.watch(range).await {
                Ok((_, stream)) => self.consume(stream, &mut from, &shutdown).await,
                Err(e) => Some(e),
            };
            match ended {
                None => return,
                Some(StoreError::Closed(why)) => {
                    tracing::info!(%why, "the watch cache stops with the store");
                    return;
                }
                Some(StoreError::SlowWatcher { .. }) => {}
                Some(error) => {
                    tracing::warn!(%error, "the watch cache lost its place and is filled anew");
                    match self.fill(0).await {
                        Ok(revision) => from = revision,
                        Err(error) => {
                            tracing::error!(%error, "the watch cache cannot be filled");
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn consume(
        &self,
        mut stream: ironkeel_store::WatchStream,
        from: &mut u64,
        shutdown: &CancellationToken,
    ) -> Option<StoreError> {
        loop {
            let item = tokio::select! {
                item = stream.next() => item,
                () = shutdown.cancelled() => return None,
            };
            match item {
                Some(Ok(WatchItem::Events(events))) => {
                    let last = events.last().map_or(*from, |e| e.kv.mod_revision);
                    self.apply(&events);
                    *from = last;
                    self.applied.send_replace(last);
                }
                Some(Ok(WatchItem::Progress(revision))) => {
                    if revision > *from {
                        *from = revision;
                        self.applied.send_replace(revision);
                    }
                }
                Some(Err(error)) => return Some(error),
                None => return Some(StoreError::Closed("its watch ended".into())),
            }
        }
    }

    fn apply(&self, events: &[Event]) {
        let mut touched: Vec<(&Arc<Stored>, u64)> = Vec::new();
        for event in events {
            let Some((home, key)) = self.home_of(&event.kv.key) else { continue };
            let revision = event.kv.mod_revision;
            let entry = if event.deleted {
                None
            } else {
                match self.extract(home, &event.kv.value) {
                    Ok(extract) => Some(Arc::new(Entry::new(key, revision, &event.kv.value, extract))),
                    Err(error) => {
                        tracing::error!(key, %error, "an object in the store cannot be read; it is not served");
                        continue;
                    }
                }
            };
            home.cache.apply(key, entry, revision);
            match touched.iter_mut().find(|(h, _)| Arc::ptr_eq(h, home)) {
                Some((_, last)) => *last = revision,
                None => touched.push((home, revision)),
            }
        }
        for (home, revision) in touched {
            home.cache.wake(revision);
        }
    }
}
