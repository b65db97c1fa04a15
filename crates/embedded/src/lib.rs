//! The embedded store engine: an append-only log on disk and an index in memory.
//!
//! One writer thread commits whatever waits with one write and one sync (`writer`); readers go to
//! the index (`read`, `index`); watchers get history and then live events (`watch`); a compactor
//! thread forgets old history and gives its space back (`compactor`). docs/store.md draws the bytes
//! and says what happens after a crash. What does not live here: the meaning that every engine
//! shares and the suite that proves it (`ironkeel_store`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ironkeel_store::{
    Condition, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchRange,
    WatchStream, WriteAnswer,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

mod compactor;
mod disk;
mod files;
mod index;
mod range_map;
mod read;
mod record;
mod recovery;
mod watch;
mod writer;

pub use disk::{Disk, RealDisk};

use compactor::Compactor;
use files::Files;
use index::Index;
use record::MAX_RECORD_BYTES;
use watch::{Hub, Watch};
use writer::{Queue, Request, Write, Writer};

/// Default size at which a log segment is sealed, in bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Default limit of all files together, in bytes (etcd's largest recommended quota).
pub const MAX_BYTES: u64 = 8 << 30;
/// Default limit of key and value of one write, in bytes (etcd's default request limit).
pub const MAX_WRITE_BYTES: usize = 1536 << 10;
/// Default limit of a watcher's buffer, in events.
pub const WATCH_BUFFER_EVENTS: usize = 10_000;
/// Default interval of automatic compaction, in seconds (upstream's API server compacts as often).
/// History is kept for one to two intervals.
pub const COMPACTION_INTERVAL_SECONDS: u64 = 300;
/// Default limit of the history, in revisions.
pub const HISTORY_REVISIONS: u64 = 200_000;
/// Default limit of the values that only history needs, in bytes; no limit before they outweigh what
/// lives.
pub const HISTORY_BYTES: u64 = 64 << 20;
/// Default garbage below which no space is reclaimed, in bytes. Above it, old data is rewritten once it
/// takes twice the room of what lives.
pub const RECLAIM_MIN_BYTES: u64 = 16 << 20;

/// How a store is run. The defaults are for a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// See [`MAX_BYTES`]. Writes over it fail with `NoSpace`; deletes may go a little over it.
    pub max_bytes: u64,
    /// See [`MAX_WRITE_BYTES`]; never more than half of what a record can hold (128 MiB).
    pub max_write_bytes: usize,
    /// See [`WATCH_BUFFER_EVENTS`].
    pub watch_buffer_events: usize,
    /// See [`COMPACTION_INTERVAL_SECONDS`].
    pub compaction_interval: Duration,
    /// See [`HISTORY_REVISIONS`].
    pub history_revisions: u64,
    /// See [`HISTORY_BYTES`].
    pub history_bytes: u64,
    /// See [`RECLAIM_MIN_BYTES`].
    pub reclaim_min_bytes: u64,
    /// What makes writes durable; tests bring slow and failing ones.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            max_bytes: MAX_BYTES,
            max_write_bytes: MAX_WRITE_BYTES,
            watch_buffer_events: WATCH_BUFFER_EVENTS,
            compaction_interval: Duration::from_secs(COMPACTION_INTERVAL_SECONDS),
            history_revisions: HISTORY_REVISIONS,
            history_bytes: HISTORY_BYTES,
            reclaim_min_bytes: RECLAIM_MIN_BYTES,
            disk: Arc::new(RealDisk),
        }
    }
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Another process has the directory open.
    #[error("{path} is held by process {pid}: another instance runs on this data directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id; 0 when it has not written it yet.
        pid: u32,
    },
    /// A later release wrote the directory.
    #[error("{path} has format version {found}; this release reads up to version {supported}: use a newer release")]
    NewerFormat {
        /// The file that said so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this release knows.
        supported: u32,
    },
    /// The files could not be read, or are damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the threads, readers and watchers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: Options,
    disk: Arc<dyn Disk>,
    index: RwLock<Index>,
    files: Mutex<Files>,
    hub: Hub,
    queue: Queue,
    compactor: Compactor,
}

/// What has to end with the store.
#[derive(Debug)]
struct Running {
    writer: JoinHandle<()>,
    compactor: JoinHandle<()>,
    /// Its lock ends when it is closed.
    _lock: File,
}

/// The engine. Dropping it, like [`Embedded::close`], finishes waiting writes and releases the lock.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    note: Option<String>,
}

impl Embedded {
    /// Opens a data directory, and creates it when it is not there. Blocks while it reads the log.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Arc<Embedded>, EmbeddedError> {
        let dir = dir.as_ref();
        files::create_dir(dir)?;
        let lock = files::lock(dir)?;
        let disk = options.disk.clone();
        let recovered = recovery::recover(dir, &disk)?;
        if let Some(note) = &recovered.note {
            tracing::warn!(note, "the store was not closed cleanly");
        }
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            options,
            disk,
            index: RwLock::new(recovered.index),
            files: Mutex::new(recovered.files),
            hub: Hub::default(),
            queue: Queue::default(),
            compactor: Compactor::default(),
        });
        let spawn_failed = |error: std::io::Error| files::io_error(dir, &error);
        let writer = Writer::new(shared.clone(), recovered.log);
        let compacting = shared.clone();
        let compactor = std::thread::Builder::new()
            .name("store-compactor".to_owned())
            .spawn(move || compactor::run(&compacting))
            .map_err(spawn_failed)?;
        let writing = shared.clone();
        let writer = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            // Whatever ends the thread, nobody may wait for it afterwards.
            let _stop = StopOnDrop(writing);
            writer.run();
        });
        let writer = match writer {
            Ok(writer) => writer,
            Err(error) => {
                shared.compactor.stop();
                return Err(spawn_failed(error).into());
            }
        };
        let running = Mutex::new(Some(Running { writer, compactor, _lock: lock }));
        Ok(Arc::new(Embedded { shared, running, note: recovered.note }))
    }

    /// Finishes the waiting writes, ends all watches and releases the directory. Later calls fail
    /// with `Closed`.
    pub async fn close(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let shared = self.shared.clone();
        // The threads end after at most one batch; a runtime that is shutting down does not wait.
        let _ = tokio::task::spawn_blocking(move || stop(&shared, running)).await;
    }

    fn open_for_reads(&self) -> Result<(), StoreError> {
        if self.shared.queue.stopping() { Err(closed()) } else { Ok(()) }
    }

    async fn ask<T>(&self, request: impl FnOnce(writer::Answer<T>) -> Request) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        if !self.shared.queue.push(request(answer)) {
            return Err(closed());
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    fn check_size(&self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        let (size, limit) = (key.len() + value.len(), self.shared.options.max_write_bytes.min(MAX_RECORD_BYTES / 2));
        if size > limit { Err(StoreError::TooLarge { size, limit }) } else { Ok(()) }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().take() {
            stop(&self.shared, running);
        }
    }
}

struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.queue.abandon();
        self.0.hub.close_all(&closed());
    }
}

fn stop(shared: &Shared, running: Running) {
    // The compactor first: it may wait for the writer.
    shared.compactor.stop();
    let compactor = running.compactor.join();
    shared.queue.stop();
    if running.writer.join().is_err() || compactor.is_err() {
        tracing::error!("a thread of the store has panicked");
    }
}

fn closed() -> StoreError {
    StoreError::Closed("the store was closed".to_owned())
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.open_for_reads()?;
        let index = self.shared.index.read();
        let at = index.readable(revision)?;
        Ok((index.as_of(key, at), index.revision))
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        self.open_for_reads()?;
        read::range(&self.shared, range).await
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        self.check_size(&key, &value)?;
        self.ask(|answer| Request::Write(Write { key, value: Some(value), condition, lease, answer })).await
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        self.check_size(&key, &Bytes::new())?;
        self.ask(|answer| Request::Write(Write { key, value: None, condition, lease: 0, answer })).await
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        self.open_for_reads()?;
        let (revision, watch) = Watch::start(self.shared.clone(), range)?;
        Ok((revision, Box::pin(watch)))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(|answer| Request::Compact { revision, room: false, answer }).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        self.ask(|answer| Request::Grant { ttl_seconds, answer }).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|answer| Request::KeepAlive { lease, answer }).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|answer| Request::Revoke { lease, answer }).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.open_for_reads()?;
        let disk_bytes = self.shared.files.lock().disk_bytes();
        let index = self.shared.index.read();
        Ok(StoreStatus {
            revision: index.revision,
            compacted: index.compacted,
            disk_bytes,
            live_bytes: index.live_bytes,
            keys: index.live_keys,
            recovery: self.note.clone(),
        })
    }
}
