//! The work queue of a controller: a key is queued once, is never with two workers, and comes back later when asked.
//!
//! Answers to client-go's `util/workqueue` (the delaying and rate-limiting queue in one). There is no task behind it:
//! delayed keys become due when a worker asks for work.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_metrics::Series;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::queue_metrics::{self, QueueCounts, Working};

/// The first delay of a key that failed; it doubles with every further failure.
const RETRY_FIRST_MS: u64 = 5;
/// The longest delay of a key that failed.
const RETRY_LONGEST_MS: u64 = 1_000_000;

/// A queue of keys. Cloning shares it.
pub struct WorkQueue<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: Clone + Eq + Hash + Send + 'static> Default for WorkQueue<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

struct Inner<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    counts: Arc<Series<1, QueueCounts>>,
    /// With the time since when.
    ready: VecDeque<(T, Instant)>,
    /// Keys that need work: those in `ready`, and those in `processing` that were added again.
    dirty: HashSet<T>,
    /// With the time since when.
    processing: HashMap<T, Instant>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<T, u32>,
    closed: bool,
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Returns whether a worker has something new to take.
    fn add(&mut self, item: T) -> bool {
        if self.closed || !self.dirty.insert(item.clone()) {
            return false;
        }
        self.counts.adds.inc();
        if self.processing.contains_key(&item) {
            return false;
        }
        self.push(item);
        true
    }

    fn push(&mut self, item: T) {
        self.counts.depth.add(1);
        self.ready.push_back((item, Instant::now()));
    }

    fn take_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let item = entry.remove();
            self.due.remove(&item);
            self.add(item);
        }
    }
}

impl<T: Send> Working for Inner<T> {
    fn running(&self) -> Vec<Duration> {
        self.state.lock().processing.values().map(Instant::elapsed).collect()
    }
}

/// A queue is called after the file that makes it: `src/deployment.rs` makes the queue `deployment`.
fn name_of(place: &'static Location<'static>) -> &'static str {
    let path = place.file().trim_end_matches(".rs").trim_end_matches("/mod");
    path.rsplit_once("src/").map_or(path, |(_, name)| name)
}

impl<T: Clone + Eq + Hash + Send + 'static> WorkQueue<T> {
    /// An empty queue.
    #[track_caller]
    pub fn new() -> Self {
        let name = name_of(Location::caller());
        let state = State {
            counts: queue_metrics::counts(name),
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashMap::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            closed: false,
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), changed: Notify::new() });
        let weak = Arc::downgrade(&inner);
        queue_metrics::enter(name, weak);
        Self { inner }
    }

    /// Queues `item`, unless it is queued already. If a worker has it, it is queued when the worker is done.
    pub fn add(&self, item: T) {
        if self.inner.state.lock().add(item) {
            self.inner.changed.notify_one();
        }
    }

    /// Queues `item` after `delay`; of several delays for one item the earliest counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        let mut state = self.inner.state.lock();
        if state.closed {
            return;
        }
        // A year is for ever here, and keeps the instant within range.
        let at = Instant::now() + delay.min(Duration::from_secs(365 * 24 * 3600));
        if let Some(known) = state.due.get(&item).copied() {
            if known.0 <= at {
                return;
            }
            state.delayed.remove(&known);
        }
        state.sequence += 1;
        let key = (at, state.sequence);
        let earliest = state.delayed.first_key_value().is_none_or(|(first, _)| key < *first);
        state.delayed.insert(key, item.clone());
        state.due.insert(item, key);
        drop(state);
        if earliest {
            self.inner.changed.notify_one();
        }
    }

    /// Queues `item` after the delay that its failures so far have earned it.
    pub fn add_rate_limited(&self, item: T) {
        let delay = {
            let mut state = self.inner.state.lock();
            state.counts.retries.inc();
            let failures = state.failures.entry(item.clone()).or_insert(0);
            let delay = RETRY_FIRST_MS.saturating_mul(1 << (*failures).min(40)).min(RETRY_LONGEST_MS);
            *failures = failures.saturating_add(1);
            Duration::from_millis(delay)
        };
        self.add_after(item, delay);
    }

    /// Forgets `item`'s failures.
    pub fn forget(&self, item: &T) {
        self.inner.state.lock().failures.remove(item);
    }

    /// How often `item` failed since it was last forgotten.
    pub fn failures(&self, item: &T) -> u32 {
        self.inner.state.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// How many items wait for a worker now.
    pub fn len(&self) -> usize {
        self.inner.state.lock().ready.len()
    }

    /// Whether no item waits for a worker now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next item, when there is one; `None` once the queue is closed. Give it back with [`WorkQueue::done`].
    pub async fn get(&self) -> Option<T> {
        loop {
            let next_due = {
                let mut state = self.inner.state.lock();
                state.take_due(Instant::now());
                if state.closed {
                    return None;
                }
                if let Some((item, since)) = state.ready.pop_front() {
                    state.counts.depth.add(-1);
                    state.counts.waited.observe(since.elapsed().as_secs_f64());
                    state.dirty.remove(&item);
                    state.processing.insert(item.clone(), Instant::now());
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        // Wakes another worker: for the next item, or to keep time while this one works.
                        self.inner.changed.notify_one();
                    }
                    return Some(item);
                }
                state.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match next_due {
                Some(at) => {
                    tokio::select! {
                        () = self.inner.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.inner.changed.notified().await,
            }
        }
    }

    /// The worker is done with `item`; if it was added meanwhile, it is queued again.
    pub fn done(&self, item: &T) {
        let mut state = self.inner.state.lock();
        if let Some(since) = state.processing.remove(item) {
            state.counts.worked.observe(since.elapsed().as_secs_f64());
        }
        if state.dirty.contains(item) && !state.closed {
            state.push(item.clone());
            drop(state);
            self.inner.changed.notify_one();
        }
    }

    /// Ends the queue: waiting and later calls of [`WorkQueue::get`] return `None`.
    pub fn close(&self) {
        self.inner.state.lock().closed = true;
        self.inner.changed.notify_waiters();
        self.inner.changed.notify_one();
    }
}

/// Works on `queue` with `workers` tasks until `shutdown`; a worker's current item is finished first.
///
/// `work` returns `Ok(None)` when the item is in order, `Ok(Some(delay))` to see it again later, and an error to see it
/// again with a growing delay.
pub async fn run_workers<T, F, W, E>(queue: WorkQueue<T>, workers: usize, shutdown: CancellationToken, work: W)
where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    W: Fn(T) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Option<Duration>, E>> + Send,
    E: Display + Send,
{
    let work = Arc::new(work);
    let mut tasks = JoinSet::new();
    for _ in 0..workers.max(1) {
        let (queue, work) = (queue.clone(), work.clone());
        tasks.spawn(async move {
            while let Some(item) = queue.get().await {
                match work(item.clone()).await {
                    Ok(None) => queue.forget(&item),
                    Ok(Some(delay)) => {
                        queue.forget(&item);
                        queue.add_after(item.clone(), delay);
                    }
                    Err(error) => {
                        tracing::debug!(?item, %error, "will be tried again");
                        queue.add_rate_limited(item.clone());
                    }
                }
                queue.done(&item);
            }
            // The other workers sleep on the same signal.
            queue.inner.changed.notify_one();
        });
    }
    shutdown.cancelled().await;
    queue.close();
    while tasks.join_next().await.is_some() {}
}
