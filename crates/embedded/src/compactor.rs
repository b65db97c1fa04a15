//! The compactor thread: forgets old history, and gives its space back.
//!
//! Memory: superseded versions are dropped in small steps under the index's lock. Disk: sealed
//! segments that hold nothing newer than the compacted revision are replaced by a snapshot of the
//! live data at that revision, written beside running writes and put in place by a rename.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ironkeel_store::{Revision, StoreError};
use parking_lot::{Condvar, Mutex};

use crate::Shared;
use crate::files::{self, create_temporary, io_error, log_path, publish, snapshot_path};
use crate::read::SCAN_CHUNK;
use crate::record::{FileKind, Header, Record, RecordKind};
use crate::writer::Request;

/// Changes pruned under one hold of the index's lock.
const PRUNE_CHUNK: usize = 256;
/// Snapshot bytes gathered before a write.
const SNAPSHOT_BUFFER_BYTES: usize = 1 << 20;
/// When writes find no room, old data is rewritten for a gain of one over this share of what lives.
const ROOM_SHARE: u64 = 8;
/// Refused writes start a search for room at most this often, in milliseconds.
const ROOM_INTERVAL_MS: u64 = 1000;
/// History below the newest revision that a too long history is cut to: one over this share of it.
const HISTORY_CUT_SHARE: u64 = 2;

#[derive(Debug, Default)]
struct Wanted {
    stopping: bool,
    prune: bool,
    history_is_long: bool,
    room: bool,
}

/// What the other threads tell the compactor.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    wanted: Mutex<Wanted>,
    ready: Condvar,
}

impl Compactor {
    /// A compaction left something to drop.
    pub(crate) fn prune(&self) {
        self.tell(|wanted| &mut wanted.prune);
    }

    /// The history has more revisions, or takes more memory, than it may.
    pub(crate) fn history_is_long(&self) {
        self.tell(|wanted| &mut wanted.history_is_long);
    }

    /// A write found no room.
    pub(crate) fn need_room(&self) {
        self.tell(|wanted| &mut wanted.room);
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.tell(|wanted| &mut wanted.stopping);
    }

    fn tell(&self, which: impl Fn(&mut Wanted) -> &mut bool) {
        let mut wanted = self.wanted.lock();
        let flag = which(&mut wanted);
        if !*flag {
            *flag = true;
            self.ready.notify_one();
        }
    }

    fn stopping(&self) -> bool {
        self.wanted.lock().stopping
    }

    /// Waits for something to do; true for the end.
    fn wait(&self, deadline: Instant) -> Wanted {
        let mut wanted = self.wanted.lock();
        while !(wanted.stopping || wanted.prune || wanted.history_is_long || wanted.room) {
            if self.ready.wait_until(&mut wanted, deadline).timed_out() {
                break;
            }
        }
        let stopping = wanted.stopping;
        std::mem::replace(&mut *wanted, Wanted { stopping, ..Wanted::default() })
    }
}

/// The thread's body.
pub(crate) fn run(shared: &Arc<Shared>) {
    let interval = shared.options.compaction_interval;
    let mut due = Instant::now() + interval;
    // Compacted at the end of the interval, as upstream's API server does: what is older than that.
    let mut mark = shared.index.read().revision;
    let mut room_sought: Option<Instant> = None;
    loop {
        let mut wanted = shared.compactor.wait(due);
        if wanted.stopping {
            return;
        }
        if wanted.room {
            // Each refused write asks again; on a full disk every search costs a snapshot that fails.
            let interval = Duration::from_millis(ROOM_INTERVAL_MS);
            wanted.room = room_sought.is_none_or(|sought| sought.elapsed() >= interval);
            if wanted.room {
                room_sought = Some(Instant::now());
            }
        }
        let (revision, compacted, heavy) = {
            let index = shared.index.read();
            (index.revision, index.compacted, index.history_is_heavy(shared.options.history_bytes))
        };
        let mut target = 0;
        if Instant::now() >= due {
            target = mark;
            mark = revision;
            due = Instant::now() + interval;
        }
        if wanted.history_is_long {
            target = target.max(revision.saturating_sub(shared.options.history_revisions / HISTORY_CUT_SHARE));
            if heavy {
                target = target.max(revision - (revision - compacted) / HISTORY_CUT_SHARE);
            }
        }
        if wanted.room {
            // Better no history than no writes.
            target = revision;
        }
        if target > shared.index.read().compacted || wanted.room {
            compact(shared, target, wanted.room);
        }
        while shared.index.write().prune(PRUNE_CHUNK) {
            if shared.compactor.stopping() {
                return;
            }
        }
        if let Err(error) = reclaim(shared, wanted.room) {
            tracing::warn!(%error, "space of old data could not be given back; trying again at the next compaction");
        }
    }
}

fn compact(shared: &Shared, revision: Revision, room: bool) {
    let (answer, answered) = tokio::sync::oneshot::channel();
    if !shared.queue.push(Request::Compact { revision, room, answer }) {
        return;
    }
    if let Ok(Err(error)) = answered.blocking_recv() {
        tracing::warn!(%error, revision, "automatic compaction failed");
    }
}

/// Replaces what is old enough by a snapshot, when that gives back enough.
fn reclaim(shared: &Shared, need_room: bool) -> Result<(), StoreError> {
    let (revision, live_bytes) = {
        let mut index = shared.index.write();
        let revision = index.compacted;
        // The snapshot reads at this revision, whatever is compacted meanwhile.
        index.pin(revision);
        (revision, index.live_bytes)
    };
    let outcome = reclaim_at(shared, revision, live_bytes, need_room);
    shared.index.write().unpin(revision);
    outcome
}

fn reclaim_at(shared: &Shared, revision: Revision, live_bytes: u64, need_room: bool) -> Result<(), StoreError> {
    let (old, keep_from, old_bytes) = {
        let files = shared.files.lock();
        let old: Vec<u64> = files
            .sealed
            .iter()
            .take_while(|segment| segment.last_revision <= revision)
            .map(|segment| segment.sequence)
            .collect();
        let sealed_bytes: u64 = files.sealed.iter().take(old.len()).map(|segment| segment.bytes).sum();
        let keep_from = files.sealed.get(old.len()).map_or(files.active, |segment| segment.sequence);
        (old, keep_from, files.snapshot_bytes + sealed_bytes)
    };
    let least = if need_room {
        live_bytes + live_bytes / ROOM_SHARE
    } else {
        2 * live_bytes + shared.options.reclaim_min_bytes
    };
    if old.is_empty() || old_bytes <= least {
        return Ok(());
    }
    let started = Instant::now();
    let Some(snapshot_bytes) = write_snapshot(shared, keep_from, revision)? else { return Ok(()) };
    // The new snapshot stands: what it replaces may go. A crash in between is mended at the next open.
    let (logs, snapshots) = files::list(&shared.dir)?;
    for sequence in logs.into_iter().filter(|sequence| *sequence < keep_from) {
        files::remove(&log_path(&shared.dir, sequence))?;
    }
    for sequence in snapshots.into_iter().filter(|sequence| *sequence < keep_from) {
        files::remove(&snapshot_path(&shared.dir, sequence))?;
    }
    files::sync_dir(&shared.dir)?;
    {
        let mut files = shared.files.lock();
        files.snapshot_bytes = snapshot_bytes;
        files.sealed.drain(..old.len());
    }
    let took_ms = started.elapsed().as_millis();
    tracing::debug!(old_bytes, snapshot_bytes, took_ms, "gave the space of old data back");
    Ok(())
}

/// Writes the live data at a pinned revision; answers the file's length, or None when stopped.
fn write_snapshot(shared: &Shared, sequence: u64, revision: Revision) -> Result<Option<u64>, StoreError> {
    let path = snapshot_path(&shared.dir, sequence);
    let failed = |error: io::Error| io_error(&path, &error);
    let (file, temporary) = create_temporary(&path).map_err(failed)?;
    let header = Header { kind: FileKind::Snapshot, sequence, revision, previous_bytes: 0 };
    let mut buffer = header.encode().to_vec();
    let mut written = 0;
    let mut count = 0;
    let mut attempt = || -> io::Result<bool> {
        let mut flush = |buffer: &mut Vec<u8>, least: usize| -> io::Result<()> {
            if buffer.len() >= least {
                shared.disk.write(&file, buffer, written)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
            Ok(())
        };
        {
            let index = shared.index.read();
            for (id, lease) in &index.leases {
                encode(&mut buffer, RecordKind::LeaseGrant, revision, lease.ttl_seconds as u64, *id, &[], &[]);
                count += 1;
            }
            if let Some(key) = index.tombstone_at(revision) {
                encode(&mut buffer, RecordKind::Delete, revision, 0, 0, &key, &[]);
                count += 1;
            }
        }
        let mut after: Option<Bytes> = None;
        loop {
            if shared.compactor.stopping() {
                return Ok(false);
            }
            let mut chunk = Vec::with_capacity(SCAN_CHUNK);
            let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
            let next = shared.index.read().scan(from, &[0], revision, SCAN_CHUNK, |key, version| {
                chunk.push((key.clone(), version.clone()));
            });
            for (key, version) in chunk {
                let created = version.create_revision;
                encode(
                    &mut buffer,
                    RecordKind::Put,
                    version.mod_revision,
                    created,
                    version.lease,
                    &key,
                    &version.value,
                );
                count += 1;
                flush(&mut buffer, SNAPSHOT_BUFFER_BYTES)?;
            }
            match next {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        encode(&mut buffer, RecordKind::SnapshotEnd, revision, count, 0, &[], &[]);
        flush(&mut buffer, 1)?;
        publish(shared.disk.as_ref(), &file, &temporary, &path)?;
        Ok(true)
    };
    let outcome = attempt();
    if !matches!(outcome, Ok(true)) {
        // Best effort: a left-over is also removed at the next open.
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(outcome.map_err(failed)?.then_some(written))
}

fn encode(
    out: &mut Vec<u8>,
    kind: RecordKind,
    revision: Revision,
    create_revision: u64,
    lease: i64,
    key: &[u8],
    value: &[u8],
) {
    // Nothing of a snapshot is durable before all of it is.
    Record { kind, durable: 0, revision, create_revision, lease, key, value }.encode(out);
}
