//! The store: bytes under keys, with etcd's meaning.
//!
//! Every engine (embedded, etcd) implements [`Store`] and passes [`conformance`]. Revisions are one
//! counter for the whole store: every committed write takes the next one, so an object's
//! `resourceVersion` is the revision of its last write. What does not live here: objects, codecs,
//! caches (`registry`).

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

pub mod conformance;
mod layer;

pub use layer::Layer;

/// What encrypted values begin with (upstream's envelope); alone, it stands for one that cannot be decrypted.
pub const SEALED: &[u8] = b"k8s:enc:";

/// A point in the store's history; the first write makes 1. 0 means "now" in requests.
pub type Revision = u64;

/// A lease; 0 means none.
pub type LeaseId = i64;

/// One key with its value and its place in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in key-only answers.
    pub value: Bytes,
    /// Revision of the write that created the key (again, after a delete).
    pub create_revision: Revision,
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// The lease that the key lives and dies with; 0 for none.
    pub lease: LeaseId,
}

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// First key.
    pub start: Bytes,
    /// First key that is not wanted any more; empty for just `start`.
    pub end: Bytes,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// As of this revision; 0 for now.
    pub revision: Revision,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, Default)]
pub struct RangeAnswer {
    /// In key order.
    pub kvs: Vec<KeyValue>,
    /// How many keys the whole range holds at that revision.
    pub count: u64,
    /// The store's revision when it answered.
    pub revision: Revision,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key is absent.
    Absent,
    /// The key's last write was at this revision.
    ModRevision(Revision),
}

/// What came of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteAnswer {
    /// Durable, at this revision; `previous` is what stood there.
    Done {
        /// Revision of this write. A delete of an absent key takes none and answers the current one.
        revision: Revision,
        /// What stood under the key before.
        previous: Option<KeyValue>,
    },
    /// The condition did not hold; nothing was written.
    Conflict {
        /// What stands under the key now.
        current: Option<KeyValue>,
        /// The store's revision.
        revision: Revision,
    },
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchRange {
    /// First key.
    pub start: Bytes,
    /// First key that is not wanted any more; empty for just `start`.
    pub end: Bytes,
    /// First revision whose events are wanted; 0 for what comes after now.
    pub from: Revision,
    /// Deliver [`WatchItem::Progress`] when idle.
    pub progress: bool,
    /// Fill [`Event::previous`].
    pub previous: bool,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key-value after the change. Of a delete: the key, no value, `mod_revision` of the delete.
    pub kv: KeyValue,
    /// Whether the key was deleted (by a writer or by its lease).
    pub deleted: bool,
    /// What stood there before, when asked for and not yet compacted.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// Whether the key did not exist before.
    pub fn is_create(&self) -> bool {
        !self.deleted && self.kv.create_revision == self.kv.mod_revision
    }
}

/// What a watch delivers: every later event of its range once, in order of revision.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// All events of one revision or several, in order; never half a revision.
    Events(Vec<Event>),
    /// Everything up to and including this revision has been delivered.
    Progress(Revision),
}

/// A running watch. It ends with an error item: [`StoreError::Compacted`] when its place in history
/// is gone, [`StoreError::Closed`] when the store stops, [`StoreError::SlowWatcher`] when its buffer
/// ran over.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, StoreError>> + Send>>;

/// What an engine occupies.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// The store's revision.
    pub revision: Revision,
    /// Oldest revision that can still be read or watched from, as far as this process has learnt.
    pub compacted: Revision,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of live data, or of the pages that hold it; an engine may count them late.
    pub live_bytes: u64,
    /// Live keys.
    pub keys: u64,
    /// What the engine noticed at its last start (a torn tail cut off, say), for people.
    pub recovery: Option<String>,
}

/// Bytes under keys, with etcd's meaning. All methods may be called from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// One key, now (revision 0) or as of a revision; with it the store's revision.
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError>;

    /// Keys in order, from one consistent revision.
    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError>;

    /// Writes a key when `condition` holds. Answers after the write is durable.
    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError>;

    /// Deletes a key when `condition` holds. Answers after the delete is durable.
    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError>;

    /// Starts a watch; every event from `from` on is delivered, however late the caller polls.
    /// Answers the store's revision at the moment that the watch was in place.
    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError>;

    /// Forgets history below `revision`; reads and watches from before it fail with `Compacted`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// A lease of so many seconds; keys put with it are deleted when it expires.
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError>;

    /// Starts the lease's time anew.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Size and place in history.
    async fn status(&self) -> Result<StoreStatus, StoreError>;

    /// Whether other processes write the same data. Then a cache that follows a watch may be older than
    /// what others were told is written; [`Store::current_revision`] says how far it has to be.
    fn shared(&self) -> bool {
        false
    }

    /// The store's revision: never older than a write that anybody was told of before the call. Watches
    /// with [`WatchRange::progress`] reach it soon, whatever their range.
    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.status().await?.revision)
    }

    /// Whether the key's value would be kept in another form if it was put again as it is: encrypted
    /// with another key, say. Then a write that changes nothing is a write all the same.
    async fn stale(&self, _key: &[u8]) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// Why a store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision is older than the last compaction.
    #[error("revision {requested} has been compacted; the oldest is {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// Oldest revision that can be read.
        compacted: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future; the store is at {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// No such lease.
    #[error("lease {0} does not exist or has expired")]
    NoLease(LeaseId),
    /// The disk or the configured cap is full; reads go on.
    #[error("no space left for writes: {0}")]
    NoSpace(String),
    /// Value or key over the engine's limit.
    #[error("request is too large: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// What was asked for, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The disk failed; the write may or may not have happened. The store takes no further writes.
    #[error("i/o error on {path}: {reason}")]
    Io {
        /// File.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// Stored bytes do not match their checksum.
    #[error("{path} is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// File.
        path: String,
        /// Byte offset of the damaged record.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// The watcher did not keep up with its bounded buffer.
    #[error("the watcher fell more than {limit} events behind")]
    SlowWatcher {
        /// The buffer's limit, in events.
        limit: usize,
    },
    /// The store cannot be reached, or refuses; a later attempt may succeed. Of a write: it may or may
    /// not have happened.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The store is stopping; nothing will succeed any more.
    #[error("the store is not available: {0}")]
    Closed(String),
}

/// The first key after every key that starts with `prefix`: the `end` of a prefix range.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(&[0])
}
