//! Keeps the watch caches at the store's state: one watch over `/registry/`, applied in order.
//!
//! Because every cache is fed by the same watch, one number says how far all of them are. A write
//! is answered only when the caches have reached it, so whatever was acknowledged is seen by every
//! later read without asking the store. With a store that other servers write too, a read that wants
//! the present asks the store for its revision first ([`Feed::fresh`]).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_store::{Event, KeyValue, Range, Store, StoreError, WatchItem, WatchRange, prefix_end};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cache::{Contents, Unreadable, Update};
use crate::entry::{Entry, Extract};
use crate::error::{ApiError, Reason};
use crate::media;
use crate::storage::Stored;

const ROOT: &[u8] = b"/registry/";

/// Keys read at once when the caches are filled.
const FILL_KEYS: usize = 5_000;
/// How long a read waits for the caches to be as new as the store, in milliseconds.
const FRESH_WAIT_MS: u64 = 3_000;
/// How long a store that cannot be read is left alone before the next attempt, in milliseconds.
const REFILL_WAIT_MS: u64 = 500;
/// So many revisions of history are replayed into the rings at the start.
const REPLAYED_REVISIONS: u64 = 4_096;

type Homes = BTreeMap<String, Vec<Arc<Stored>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    /// By prefix; two of one prefix while a custom resource is being replaced.
    homes: RwLock<Arc<Homes>>,
    /// Whoever reads the store into caches: one that comes while all are read would be in neither's sight.
    reading: tokio::sync::Mutex<()>,
    /// Extracts of values on their way through the store, by the address of their bytes; each
    /// holds its bytes, so that no address is used twice.
    hints: Mutex<HashMap<usize, (Bytes, Arc<Extract>)>>,
    applied: watch::Sender<u64>,
    /// The caches will not change any more.
    ended: AtomicBool,
}

/// Lets nobody wait for caches that nothing feeds.
struct End<'a>(&'a Feed);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.applied.send_modify(|_| {});
    }
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
        let homes: Homes = stored.iter().map(|s| (s.prefix.clone(), vec![s.clone()])).collect();
        Feed {
            store,
            homes: RwLock::new(Arc::new(homes)),
            reading: tokio::sync::Mutex::default(),
            hints: Mutex::default(),
            applied: watch::Sender::new(0),
            ended: AtomicBool::new(false),
        }
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
        let there = |r: &u64| *r >= revision || self.ended.load(Ordering::Acquire);
        match applied.wait_for(there).await {
            Ok(at) if *at >= revision => Ok(()),
            _ => Err(StoreError::Closed("the watch cache has stopped".into()).into()),
        }
    }

    /// Returns when the caches show whatever anybody was told is written, with a store that other
    /// servers write too (upstream's ConsistentListFromCache); at once with one of our own.
    pub(crate) async fn fresh(&self) -> Result<(), ApiError> {
        if !self.store.shared() {
            return Ok(());
        }
        let revision = self.store.current_revision().await?;
        if self.revision() >= revision {
            return Ok(());
        }
        let wait = std::time::Duration::from_millis(FRESH_WAIT_MS);
        match tokio::time::timeout(wait, self.reached(revision)).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable("its watch does not keep up".into()).into()),
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
            for home in self.homes.read().values().flatten() {
                home.cache.reset(Contents::default(), 0);
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
        let _one = self.reading.lock().await;
        let homes = self.homes.read().clone();
        let (at, mut entries) = loop {
            match self.read_all(&homes, revision).await {
                // The present was compacted between two pages: there is a newer one.
                Err(error) if revision == 0 && error.reason == Reason::Expired => {}
                read => break read?,
            }
        };
        for home in homes.values().flatten() {
            home.cache.reset(entries.remove(&address(home)).unwrap_or_default(), at);
        }
        self.applied.send_replace(at);
        Ok(at)
    }

    /// The entries of every home as of `revision` (0: now), and the revision.
    async fn read_all(&self, homes: &Homes, revision: u64) -> Result<(u64, HashMap<usize, Contents>), ApiError> {
        let mut read: HashMap<usize, Contents> = HashMap::new();
        let each = |kv: KeyValue| {
            let Some((found, key)) = home_of(homes, &kv.key) else { return };
            for home in found {
                self.read(home, key, &kv, read.entry(address(home)).or_default());
            }
        };
        let at = self.read_range(ROOT, revision, each).await?;
        Ok((at, read))
    }

    /// Takes what stands at a key: an object, or that it cannot be read, which must not keep the others from being
    /// served.
    fn read(&self, home: &Stored, key: &str, kv: &KeyValue, into: &mut Contents) {
        match self.entry(home, key, kv.mod_revision, &kv.value) {
            Ok(entry) => into.entries.push(entry),
            Err(error) => {
                let what = Unreadable { revision: kv.mod_revision, why: unread(home, key, &error) };
                into.unreadable.insert(key.into(), what);
            }
        }
    }

    /// Tries again to read what could not be read: its key may be configured by now.
    pub(crate) async fn mend(&self) {
        let homes = self.homes.read().clone();
        for home in homes.values().flatten() {
            let mut mended = Vec::new();
            for (key, what) in home.cache.unreadable() {
                let at = [home.prefix.as_str(), &key].concat();
                let Ok((Some(kv), _)) = self.store.get(at.as_bytes(), 0).await else { continue };
                if let Ok(entry) = self.entry(home, &key, kv.mod_revision, &kv.value)
                    && kv.mod_revision == what.revision
                {
                    tracing::info!(resource = home.plural, %key, "an object in the store can be read again");
                    mended.push(entry);
                }
            }
            if !mended.is_empty() {
                home.cache.mend(mended);
            }
        }
    }

    /// Begins to keep the cache of a resource that was not there before; returns when it is filled.
    pub(crate) async fn add(&self, home: &Arc<Stored>) -> Result<(), ApiError> {
        let one = self.reading.lock().await;
        home.cache.begin_filling();
        self.change_homes(|homes| homes.entry(home.prefix.clone()).or_default().push(home.clone()));
        let read = loop {
            match self.read_home(home).await {
                Err(error) if error.reason == Reason::Expired => {}
                read => break read,
            }
        };
        match read {
            Ok((at, read)) => {
                home.cache.filled(read, at);
                drop(one);
                self.reached(at).await
            }
            Err(error) => {
                self.remove(home);
                Err(error)
            }
        }
    }

    /// The entries of one home as they are now, and the revision.
    async fn read_home(&self, home: &Arc<Stored>) -> Result<(u64, Contents), ApiError> {
        let mut read = Contents::default();
        let each = |kv: KeyValue| {
            let key = kv.key.strip_prefix(home.prefix.as_bytes()).and_then(|k| std::str::from_utf8(k).ok());
            if let Some(key) = key {
                self.read(home, key, &kv, &mut read);
            }
        };
        let at = self.read_range(home.prefix.as_bytes(), 0, each).await?;
        Ok((at, read))
    }

    /// Keeps a cache no longer, and ends its watches.
    pub(crate) fn remove(&self, home: &Arc<Stored>) {
        self.change_homes(|homes| {
            if let Some(same) = homes.get_mut(&home.prefix) {
                same.retain(|h| !Arc::ptr_eq(h, home));
                if same.is_empty() {
                    homes.remove(&home.prefix);
                }
            }
        });
        home.cache.close();
    }

    fn change_homes(&self, change: impl FnOnce(&mut Homes)) {
        let mut homes = self.homes.write();
        let mut new = Homes::clone(&homes);
        change(&mut new);
        *homes = Arc::new(new);
    }

    /// Reads what stands below a prefix as of `revision` (0: now); answers the revision.
    async fn read_range(&self, prefix: &[u8], revision: u64, mut each: impl FnMut(KeyValue)) -> Result<u64, ApiError> {
        let mut range = Range {
            start: Bytes::copy_from_slice(prefix),
            end: prefix_end(prefix),
            limit: FILL_KEYS,
            revision,
            ..Range::default()
        };
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
                each(kv);
            }
            if !full {
                return Ok(range.revision);
            }
        }
    }

    /// The entry of stored bytes. A custom resource's are brought to what its present schema says:
    /// fields that it does not have are pruned, defaults that it has got since are filled in.
    fn entry(&self, home: &Stored, key: &str, revision: u64, value: &Bytes) -> Result<Arc<Entry>, ApiError> {
        let hint = self.hints.lock().get(&(value.as_ptr() as usize)).map(|(_, extract)| extract.clone());
        if let Some(extract) = hint.filter(|_| home.kind.custom.is_none() && !media::is_foreign(value)) {
            return Ok(Arc::new(Entry::new(key, revision, self.own(value), extract)));
        }
        let (extract, changed) = read_stored(home, value)?;
        Ok(Arc::new(Entry::new(key, revision, changed.unwrap_or_else(|| self.own(value)), extract)))
    }

    /// Bytes to keep: those of our own store are kept there too; those of another are a part of the
    /// message that they came in.
    fn own(&self, value: &Bytes) -> Bytes {
        if self.store.shared() { Bytes::copy_from_slice(value) } else { value.clone() }
    }

    /// Follows the store until `shutdown`, or until the store closes.
    pub(crate) async fn follow(&self, mut from: u64, shutdown: CancellationToken) {
        let _end = End(self);
        loop {
            let range = WatchRange {
                start: Bytes::from_static(ROOT),
                end: prefix_end(ROOT),
                from: from + 1,
                // Revisions of other prefixes move the caches on too.
                progress: true,
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
                    match self.refill(&shutdown).await {
                        Some(revision) => from = revision,
                        None => return,
                    }
                }
            }
        }
    }

    /// Fills the caches however long that takes; `None` when it is not to be.
    async fn refill(&self, shutdown: &CancellationToken) -> Option<u64> {
        loop {
            let error = match self.fill(0).await {
                Ok(revision) => return Some(revision),
                Err(error) => error,
            };
            tracing::error!(%error, "the watch cache cannot be filled");
            // What keeps values from being read may end: etcd comes back, or the service that has their key. A
            // closed store stays so.
            let closed = || async { matches!(self.store.status().await, Err(StoreError::Closed(_))) };
            if error.reason != Reason::ServiceUnavailable || closed().await {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(REFILL_WAIT_MS)) => {}
                () = shutdown.cancelled() => return None,
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
        let homes = self.homes.read().clone();
        let mut updates: Vec<(&Arc<Stored>, Vec<Update>)> = Vec::new();
        for event in events {
            let Some((found, key)) = home_of(&homes, &event.kv.key) else { continue };
            let revision = event.kv.mod_revision;
            for home in found {
                let entry = if event.deleted {
                    Ok(None)
                } else {
                    let read = self.entry(home, key, revision, &event.kv.value);
                    read.map(Some).map_err(|error| unread(home, key, &error))
                };
                let update = (key.into(), entry, revision);
                // The latest one first: neighbours are mostly of one resource.
                match updates.iter_mut().rev().find(|(h, _)| Arc::ptr_eq(h, home)) {
                    Some((_, of_home)) => of_home.push(update),
                    None => updates.push((home, vec![update])),
                }
            }
        }
        for (home, of_home) in updates {
            let last = of_home.last().map_or(0, |(_, _, revision)| *revision);
            home.cache.apply_all(of_home);
            home.cache.wake(last);
        }
    }
}

/// Tells the log of an object that cannot be read; answers why.
pub(crate) fn unread(home: &Stored, key: &str, error: &ApiError) -> Arc<str> {
    // What does not decode may be quoted, and may be secret.
    let why = error.message.trim_start_matches("Internal error occurred: ");
    let why = if home.plural == "secrets" && why != media::NO_PROVIDER { "it does not decode" } else { why };
    tracing::error!(resource = home.plural, key, why, "an object in the store cannot be read; it is not served");
    why.into()
}

/// Tells homes apart.
fn address(home: &Arc<Stored>) -> usize {
    Arc::as_ptr(home) as usize
}

fn home_of<'a, 'k>(homes: &'a Homes, key: &'k [u8]) -> Option<(&'a [Arc<Stored>], &'k str)> {
    let key = std::str::from_utf8(key).ok()?;
    let (prefix, found) = homes.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
    Some((found, key.strip_prefix(prefix.as_str())?))
}

/// What selectors need of stored bytes, and other bytes where the present schema says so.
pub(crate) fn read_stored(home: &Stored, value: &Bytes) -> Result<(Arc<Extract>, Option<Bytes>), ApiError> {
    let (mut tree, foreign) = media::from_store(home, value)?;
    let mut changed = foreign.then(|| media::canonical(&tree));
    if home.kind.custom.is_some() {
        let before = tree.clone();
        home.kind.hooks.from_stored(&mut tree);
        if tree != before {
            changed = Some(media::canonical(&tree));
        }
    }
    Ok((Arc::new(Extract::of(&tree, &home.kind, &home.selectable)), changed))
}
