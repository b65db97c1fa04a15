//! The writer thread: group commit.
//!
//! Whatever waits when the disk is ready becomes one batch: one write, one sync, then the index,
//! the watchers and the answers. There is no delay timer; a writer alone waits for one sync.
//! Conditions are checked in commit order against what the batch before them has put.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ironkeel_store::{Condition, Event, KeyValue, LeaseId, Revision, StoreError, WriteAnswer};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::Shared;
use crate::files::{ActiveLog, AppendError, Sealed};
use crate::index::Version;
use crate::record::{HEADER_BYTES, Record, RecordKind};
use crate::watch::PROGRESS_INTERVAL_MS;

/// Most bytes of one batch; more waiting writes go into the next.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// The index's lock is given up after so many applied writes.
const APPLY_CHUNK: usize = 256;
/// An expired lease whose deletes failed is tried again after this.
const EXPIRY_RETRY_MS: u64 = 1000;
/// Deletes may go over `max_bytes` by this share of it (one over it): how else to get below again.
const DELETE_HEADROOM_SHARE: u64 = 16;
/// A sync that takes longer is worth a line in the log, in milliseconds.
const SLOW_SYNC_MS: u128 = 1000;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A conditional write, waiting.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: Bytes,
    /// None deletes.
    pub(crate) value: Option<Bytes>,
    pub(crate) condition: Condition,
    pub(crate) lease: LeaseId,
    pub(crate) answer: Answer<WriteAnswer>,
}

/// What the writer thread is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Write(Write),
    Grant {
        ttl_seconds: i64,
        answer: Answer<LeaseId>,
    },
    KeepAlive {
        lease: LeaseId,
        answer: Answer<()>,
    },
    Revoke {
        lease: LeaseId,
        answer: Answer<()>,
    },
    /// With `room`, the active segment is sealed in any case, so that its space can be reclaimed.
    Compact {
        revision: Revision,
        room: bool,
        answer: Answer<()>,
    },
}

#[derive(Debug, Default)]
struct Waiting {
    requests: Vec<Request>,
    stopping: bool,
}

/// Where requests wait. Its length is bounded by the callers: each waits for its answer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

impl Queue {
    /// False when the writer does not take requests any more.
    pub(crate) fn push(&self, request: Request) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.stopping {
            return false;
        }
        waiting.requests.push(request);
        let first = waiting.requests.len() == 1;
        drop(waiting);
        if first {
            self.ready.notify_one();
        }
        true
    }

    /// Lets the writer finish what waits, and end.
    pub(crate) fn stop(&self) {
        self.waiting.lock().stopping = true;
        self.ready.notify_one();
    }

    /// Takes nothing more and drops what waits, whose callers then learn that nobody answers.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.stopping = true;
        waiting.requests.clear();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.waiting.lock().stopping
    }

    /// Takes all that waits, or nothing at `deadline`. None when stopped and drained.
    fn take(&self, deadline: Option<Instant>) -> Option<Vec<Request>> {
        let mut waiting = self.waiting.lock();
        loop {
            if !waiting.requests.is_empty() {
                return Some(std::mem::take(&mut waiting.requests));
            }
            if waiting.stopping {
                return None;
            }
            match deadline {
                None => self.ready.wait(&mut waiting),
                Some(deadline) => {
                    if self.ready.wait_until(&mut waiting, deadline).timed_out() && waiting.requests.is_empty() {
                        return Some(Vec::new());
                    }
                }
            }
        }
    }
}

/// When each lease ends; only the writer thread knows.
#[derive(Debug, Default)]
struct Deadlines {
    by_lease: HashMap<LeaseId, Instant>,
    in_order: BTreeSet<(Instant, LeaseId)>,
}

impl Deadlines {
    fn set(&mut self, lease: LeaseId, at: Instant) {
        self.remove(lease);
        self.by_lease.insert(lease, at);
        self.in_order.insert((at, lease));
    }

    fn remove(&mut self, lease: LeaseId) {
        if let Some(at) = self.by_lease.remove(&lease) {
            self.in_order.remove(&(at, lease));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|(at, _)| *at)
    }
}

/// State of the writer thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    log: ActiveLog,
    deadlines: Deadlines,
    last_lease: LeaseId,
    /// Set after a failed sync: nothing is written any more.
    failed: Option<StoreError>,
    /// When idle watchers are told the revision next.
    progress_due: Option<Instant>,
    batch: Vec<u8>,
}

/// A write that passed its condition, on its way to the disk.
struct Passed {
    key: Bytes,
    version: Version,
    previous: Option<KeyValue>,
}

/// What to answer once the batch is durable.
enum Verdict {
    /// The n-th passed write.
    Passed(usize),
    Answer(Result<WriteAnswer, StoreError>),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, log: ActiveLog) -> Writer {
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        // Leases start anew: nobody could keep them alive while the store was away.
        for (id, lease) in &shared.index.read().leases {
            deadlines.set(*id, now + seconds(lease.ttl_seconds));
        }
        let last_lease = deadlines.by_lease.keys().copied().max().unwrap_or(0);
        Writer { shared, log, deadlines, last_lease, failed: None, progress_due: None, batch: Vec::new() }
    }

    /// The thread's body.
    pub(crate) fn run(mut self) {
        loop {
            let deadline = [self.deadlines.next(), self.progress_due].into_iter().flatten().min();
            let Some(requests) = self.shared.queue.take(deadline) else { break };
            self.serve(requests);
            let now = Instant::now();
            self.expire(now);
            if self.progress_due.is_some_and(|due| due <= now) {
                self.progress_due = None;
                let revision = self.shared.index.read().revision;
                self.shared.hub.tell_progress(revision);
            }
        }
        self.shared.hub.close_all(&StoreError::Closed("the store was closed".to_owned()));
    }

    /// Writes go together; everything else is a batch of its own, in its place in the order.
    fn serve(&mut self, requests: Vec<Request>) {
        let mut writes = Vec::new();
        let mut bytes = 0;
        for request in requests {
            if let Request::Write(write) = request {
                bytes += write.key.len() + write.value.as_ref().map_or(0, Bytes::len);
                writes.push(write);
                if bytes >= MAX_BATCH_BYTES {
                    self.commit(std::mem::take(&mut writes));
                    bytes = 0;
                }
                continue;
            }
            self.commit(std::mem::take(&mut writes));
            bytes = 0;
            // A caller that has gone away needs no answer.
            match request {
                Request::Write(_) => {}
                Request::Grant { ttl_seconds, answer } => drop(answer.send(self.grant(ttl_seconds))),
                Request::KeepAlive { lease, answer } => drop(answer.send(self.keep_alive(lease))),
                Request::Revoke { lease, answer } => drop(answer.send(self.revoke(lease))),
                Request::Compact { revision, room, answer } => drop(answer.send(self.compact(revision, room))),
            }
        }
        self.commit(writes);
    }

    fn commit(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let only_deletes = writes.iter().all(|write| write.value.is_none());
        let (passed, mut verdicts) = self.judge(&writes);
        let start = self.shared.index.read().revision;
        let outcome = if passed.is_empty() {
            Ok(())
        } else {
            self.batch.clear();
            for write in &passed {
                self.encode(write);
            }
            self.append(only_deletes)
        };
        let mut answers = Vec::new();
        match outcome {
            Ok(()) => answers = self.publish(passed),
            Err(error) => {
                // Also conflicts: they may be with writes that did not happen.
                verdicts = writes.iter().map(|_| Verdict::Answer(Err(error.clone()))).collect();
            }
        }
        let mut previous: Vec<Option<KeyValue>> = answers;
        for (write, verdict) in writes.into_iter().zip(verdicts) {
            let answer = match verdict {
                Verdict::Answer(answer) => answer,
                Verdict::Passed(at) => {
                    Ok(WriteAnswer::Done { revision: start + 1 + at as u64, previous: previous[at].take() })
                }
            };
            drop(write.answer.send(answer));
        }
    }

    /// Checks each write's condition against the index and the writes before it.
    fn judge(&self, writes: &[Write]) -> (Vec<Passed>, Vec<Verdict>) {
        let index = self.shared.index.read();
        let mut revision = index.revision;
        let mut pending: HashMap<&[u8], usize> = HashMap::new();
        let mut passed: Vec<Passed> = Vec::with_capacity(writes.len());
        let mut verdicts = Vec::with_capacity(writes.len());
        for write in writes {
            let current = match pending.get(&write.key[..]) {
                Some(at) => Some(&passed[*at].version).filter(|version| !version.deleted()),
                None => index.current(&write.key),
            };
            let holds = match write.condition {
                Condition::Always => true,
                Condition::Absent => current.is_none(),
                Condition::ModRevision(wanted) => current.is_some_and(|version| version.mod_revision == wanted),
            };
            let stands = || current.map(|version| version.key_value(&write.key));
            if !holds {
                verdicts.push(Verdict::Answer(Ok(WriteAnswer::Conflict { current: stands(), revision })));
                continue;
            }
            if write.value.is_none() && current.is_none() {
                verdicts.push(Verdict::Answer(Ok(WriteAnswer::Done { revision, previous: None })));
                continue;
            }
            if write.lease != 0 && !index.leases.contains_key(&write.lease) {
                verdicts.push(Verdict::Answer(Err(StoreError::NoLease(write.lease))));
                continue;
            }
            revision += 1;
            let create_revision = match (&write.value, current) {
                (None, _) => 0,
                (Some(_), Some(version)) => version.create_revision,
                (Some(_), None) => revision,
            };
            let version = Version {
                mod_revision: revision,
                create_revision,
                lease: write.lease,
                value: write.value.clone().unwrap_or_default(),
            };
            let previous = stands();
            pending.insert(&write.key, passed.len());
            verdicts.push(Verdict::Passed(passed.len()));
            passed.push(Passed { key: write.key.clone(), version, previous });
        }
        (passed, verdicts)
    }

    fn encode(&mut self, write: &Passed) {
        let version = &write.version;
        Record {
            kind: if version.deleted() { RecordKind::Delete } else { RecordKind::Put },
            durable: self.log.bytes,
            revision: version.mod_revision,
            create_revision: version.create_revision,
            lease: version.lease,
            key: &write.key,
            value: &version.value,
        }
        .encode(&mut self.batch);
    }

    fn encode_control(&mut self, kind: RecordKind, revision: Revision, lease: LeaseId, ttl_seconds: i64) {
        let create_revision = ttl_seconds as u64;
        let durable = self.log.bytes;
        Record { kind, durable, revision, create_revision, lease, key: &[], value: &[] }.encode(&mut self.batch);
    }

    /// Makes the batch durable, in a new segment when the active one is full.
    fn append(&mut self, frees: bool) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let wanted = self.shared.files.lock().disk_bytes() + self.batch.len() as u64;
        let cap = self.shared.options.max_bytes;
        let cap = if frees { cap.saturating_add(cap / DELETE_HEADROOM_SHARE) } else { cap };
        if wanted > cap {
            self.shared.compactor.need_room();
            return Err(StoreError::NoSpace(format!("the store would grow over its limit of {cap} bytes")));
        }
        let started = Instant::now();
        let outcome = self.log.append(&self.batch);
        let took_ms = started.elapsed().as_millis();
        if took_ms > SLOW_SYNC_MS {
            tracing::warn!(took_ms, bytes = self.batch.len(), "slow disk: a batch took long to become durable");
        }
        if self.batch.capacity() > 2 * MAX_BATCH_BYTES {
            self.batch = Vec::new();
        }
        outcome.map_err(|error| self.append_failed(error))?;
        self.shared.files.lock().active_bytes = self.log.bytes;
        Ok(())
    }

    fn append_failed(&mut self, error: AppendError) -> StoreError {
        match error {
            AppendError::NoSpace(reason) => {
                self.shared.compactor.need_room();
                StoreError::NoSpace(reason)
            }
            AppendError::Failed(error) => {
                tracing::error!(%error, "the store takes no further writes");
                self.failed = Some(error.clone());
                error
            }
        }
    }

    /// Shows durable writes to readers and watchers, and rotates a full segment.
    fn publish(&mut self, passed: Vec<Passed>) -> Vec<Option<KeyValue>> {
        let mut events: Vec<Event> = Vec::with_capacity(passed.len());
        let mut previous = Vec::with_capacity(passed.len());
        let mut passed = passed.into_iter();
        loop {
            let mut index = self.shared.index.write();
            let before = events.len();
            for write in passed.by_ref().take(APPLY_CHUNK) {
                previous.push(write.previous);
                events.push(index.apply(write.key, write.version));
            }
            let (revision, compacted) = (index.revision, index.compacted);
            let options = &self.shared.options;
            let heavy = index.history_is_heavy(options.history_bytes);
            drop(index);
            if events.len() == before {
                break;
            }
            if heavy || revision - compacted > options.history_revisions {
                self.shared.compactor.history_is_long();
            }
        }
        if self.shared.hub.dispatch(&events) && self.progress_due.is_none() {
            self.progress_due = Some(Instant::now() + Duration::from_millis(PROGRESS_INTERVAL_MS));
        }
        if self.log.bytes >= self.shared.options.segment_bytes {
            self.rotate();
        }
        previous
    }

    /// Seals the active segment. A full disk only means that it grows on.
    fn rotate(&mut self) {
        let revision = self.shared.index.read().revision;
        match self.log.next(revision) {
            Ok(next) => {
                let sealed = Sealed { sequence: self.log.sequence, bytes: self.log.bytes, last_revision: revision };
                let mut files = self.shared.files.lock();
                files.sealed.push(sealed);
                (files.active, files.active_bytes) = (next.sequence, next.bytes);
                self.log = next;
            }
            Err(AppendError::NoSpace(reason)) => tracing::warn!(reason, "no space for a new log segment"),
            Err(error) => drop(self.append_failed(error)),
        }
    }

    fn grant(&mut self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        let ttl_seconds = ttl_seconds.max(1);
        // Time-based, so that a lease that was revoked before a restart is not given again.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let lease = (self.last_lease + 1).max((now.as_millis() as i64) << 12);
        let revision = self.shared.index.read().revision;
        self.batch.clear();
        self.encode_control(RecordKind::LeaseGrant, revision, lease, ttl_seconds);
        self.append(false)?;
        self.last_lease = lease;
        self.shared.index.write().leases.entry(lease).or_default().ttl_seconds = ttl_seconds;
        self.deadlines.set(lease, Instant::now() + seconds(ttl_seconds));
        Ok(lease)
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.deadlines.by_lease.get(&lease).is_none_or(|deadline| *deadline <= now) {
            return Err(StoreError::NoLease(lease));
        }
        let ttl_seconds = self.shared.index.read().leases.get(&lease).map_or(0, |lease| lease.ttl_seconds);
        self.deadlines.set(lease, now + seconds(ttl_seconds));
        Ok(())
    }

    /// Deletes the lease's keys and the lease in one batch; its end is the batch's last record, so
    /// that a torn batch leaves a lease that ends again.
    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let passed = {
            let index = self.shared.index.read();
            let keys = &index.leases.get(&lease).ok_or(StoreError::NoLease(lease))?.keys;
            let live = keys.iter().filter_map(|key| Some((key, index.current(key)?)));
            let delete = |(at, (key, version)): (usize, (&Bytes, &Version))| Passed {
                key: key.clone(),
                version: Version {
                    mod_revision: index.revision + 1 + at as u64,
                    create_revision: 0,
                    lease: 0,
                    value: Bytes::new(),
                },
                previous: Some(version.key_value(key)),
            };
            live.enumerate().map(delete).collect::<Vec<_>>()
        };
        self.batch.clear();
        for write in &passed {
            self.encode(write);
        }
        let revision = self.shared.index.read().revision + passed.len() as u64;
        self.encode_control(RecordKind::LeaseRevoke, revision, lease, 0);
        self.append(true)?;
        self.publish(passed);
        self.shared.index.write().leases.remove(&lease);
        self.deadlines.remove(lease);
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, lease)) = self.deadlines.in_order.first().copied() {
            if at > now {
                return;
            }
            match self.revoke(lease) {
                Ok(()) | Err(StoreError::NoLease(_)) => self.deadlines.remove(lease),
                Err(error) => {
                    tracing::warn!(lease, %error, "an expired lease's keys could not be deleted; trying again");
                    self.deadlines.set(lease, now + Duration::from_millis(EXPIRY_RETRY_MS));
                }
            }
        }
    }

    /// Compaction is remembered in the log when there is room; it holds in memory in any case.
    fn compact(&mut self, revision: Revision, room: bool) -> Result<(), StoreError> {
        let (compacted, live_bytes) = {
            let index = self.shared.index.read();
            index.readable(revision)?;
            (index.compacted, index.live_bytes)
        };
        if revision > compacted {
            self.batch.clear();
            self.encode_control(RecordKind::Compact, revision, 0, 0);
            match self.append(true) {
                Ok(()) | Err(StoreError::NoSpace(_)) => {}
                Err(error) => return Err(error),
            }
            self.shared.index.write().compact(revision);
        }
        // Only sealed segments can be replaced by a snapshot.
        let reclaim_min_bytes = self.shared.options.reclaim_min_bytes;
        let disk_bytes = self.shared.files.lock().disk_bytes();
        let much = self.log.bytes > reclaim_min_bytes || disk_bytes > 2 * live_bytes + reclaim_min_bytes;
        if (much || room) && self.log.bytes > HEADER_BYTES as u64 {
            self.rotate();
        }
        self.shared.compactor.prune();
        Ok(())
    }
}

fn seconds(ttl_seconds: i64) -> Duration {
    // A century is for ever, and Instant cannot hold much more.
    Duration::from_secs(ttl_seconds.clamp(0, 100 * 365 * 86_400) as u64)
}
