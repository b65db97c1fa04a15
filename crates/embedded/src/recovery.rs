//! Opening a data directory: reading the snapshot and the log segments back into an index.
//!
//! The rules (docs/store.md): the last records of the last segment may be torn, and are cut off; any
//! other damage stops the open with its path and offset, and nothing on disk is changed.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ironkeel_store::{Revision, StoreError};

use crate::EmbeddedError;
use crate::disk::Disk;
use crate::files::{self, ActiveLog, AppendError, Files, Sealed, io_error, log_path, snapshot_path};
use crate::index::{Index, Version};
use crate::record::{FORMAT_VERSION, FileKind, HEADER_BYTES, Header, HeaderError, Record, RecordKind};

/// A data directory, read back.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) files: Files,
    pub(crate) log: ActiveLog,
    /// What was cut off, for people.
    pub(crate) note: Option<String>,
}

/// A file read whole.
struct Stored {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Header,
}

impl Stored {
    fn read(path: PathBuf, kind: FileKind, sequence: u64) -> Result<Stored, EmbeddedError> {
        let bytes = fs::read(&path).map_err(|error| io_error(&path, &error))?;
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(HeaderError::Newer(found)) => {
                return Err(EmbeddedError::NewerFormat { path, found, supported: FORMAT_VERSION });
            }
            Err(HeaderError::Damaged(reason)) => return Err(corrupt(&path, 0, reason).into()),
        };
        if header.kind != kind || header.sequence != sequence {
            return Err(corrupt(&path, 0, "the header belongs to another file").into());
        }
        Ok(Stored { path, bytes, header })
    }
}

fn corrupt(path: &Path, offset: usize, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt { path: path.display().to_string(), offset: offset as u64, reason: reason.into() }
}

/// Reads everything back and makes it durable before anybody sees it.
pub(crate) fn recover(dir: &Path, disk: &Arc<dyn Disk>) -> Result<Recovered, EmbeddedError> {
    files::remove_temporary(dir)?;
    let (logs, snapshots) = files::list(dir)?;
    let mut files = Files::default();
    let mut index = Index::default();
    let first = snapshots.last().copied().unwrap_or(1);
    if let Some(sequence) = snapshots.last() {
        let stored = Stored::read(snapshot_path(dir, *sequence), FileKind::Snapshot, *sequence)?;
        files.snapshot_bytes = stored.bytes.len() as u64;
        index = load_snapshot(&stored)?;
    }
    let snapshot_revision = index.revision;
    let mut compacted = index.compacted;

    let kept: Vec<u64> = logs.iter().copied().filter(|sequence| *sequence >= first).collect();
    let mut note = None;
    let mut previous: Option<(PathBuf, u64)> = None;
    let mut active = None;
    for (expected, sequence) in (first..).zip(&kept) {
        if *sequence != expected {
            return Err(corrupt(&log_path(dir, expected), 0, "the segment is missing").into());
        }
        let last = Some(sequence) == kept.last();
        let stored = Stored::read(log_path(dir, *sequence), FileKind::Log, *sequence)?;
        if let Some((path, bytes)) = &previous
            && *bytes != stored.header.previous_bytes
        {
            let reason = format!("the segment had {} bytes when it was sealed", stored.header.previous_bytes);
            return Err(corrupt(path, *bytes as usize, reason).into());
        }
        if stored.header.revision > index.revision {
            let reason = format!("it goes on after revision {}, not {}", stored.header.revision, index.revision);
            return Err(corrupt(&stored.path, 0, reason).into());
        }
        let good = replay(&stored, last, snapshot_revision, &mut index, &mut compacted)?;
        if last {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&stored.path)
                .map_err(|error| io_error(&stored.path, &error))?;
            note = make_durable(disk.as_ref(), &file, &stored, good)?;
            (files.active, files.active_bytes) = (*sequence, good as u64);
            active = Some(ActiveLog::resume(dir, disk.clone(), file, *sequence, good as u64));
        } else {
            let bytes = stored.bytes.len() as u64;
            files.sealed.push(Sealed { sequence: *sequence, bytes, last_revision: index.revision });
            previous = Some((stored.path, bytes));
        }
    }
    let log = match active {
        Some(log) => log,
        None if snapshots.is_empty() && logs.is_empty() => {
            let log = ActiveLog::create(dir, disk.clone(), first, 0, 0).map_err(|error| match error {
                AppendError::NoSpace(reason) => StoreError::NoSpace(reason),
                AppendError::Failed(error) => error,
            })?;
            (files.active, files.active_bytes) = (log.sequence, log.bytes);
            log
        }
        None => return Err(corrupt(&log_path(dir, first), 0, "the segment is missing").into()),
    };

    // What the newest snapshot stands for may have survived a crash between its rename and here.
    let mut removed = false;
    for path in (logs.iter().filter(|sequence| **sequence < first).map(|sequence| log_path(dir, *sequence)))
        .chain(snapshots.iter().filter(|sequence| **sequence < first).map(|sequence| snapshot_path(dir, *sequence)))
    {
        files::remove(&path)?;
        removed = true;
    }
    if removed {
        files::sync_dir(dir)?;
    }
    index.forget_unknown_leases();
    index.compact(compacted);
    while index.prune(usize::MAX) {}
    Ok(Recovered { index, files, log, note })
}

fn load_snapshot(stored: &Stored) -> Result<Index, StoreError> {
    let mut index = Index::at(stored.header.revision);
    let mut offset = HEADER_BYTES;
    let mut count = 0;
    loop {
        // A snapshot is whole before it gets its name: every kind of damage is fatal.
        let (record, next) =
            Record::decode(&stored.bytes, offset).map_err(|reason| corrupt(&stored.path, offset, reason))?;
        match record.kind {
            RecordKind::Put | RecordKind::Delete => index.load(Bytes::copy_from_slice(record.key), version(&record)),
            RecordKind::LeaseGrant => {
                index.leases.entry(record.lease).or_default().ttl_seconds = record.create_revision as i64;
            }
            RecordKind::SnapshotEnd if record.create_revision == count && next == stored.bytes.len() => {
                return Ok(index);
            }
            _ => return Err(corrupt(&stored.path, offset, "a record that does not belong into a snapshot")),
        }
        offset = next;
        count += 1;
    }
}

/// Applies a segment's records; answers the length of its good part.
fn replay(
    stored: &Stored,
    last: bool,
    snapshot_revision: Revision,
    index: &mut Index,
    compacted: &mut Revision,
) -> Result<usize, StoreError> {
    let mut offset = HEADER_BYTES;
    while offset < stored.bytes.len() {
        let (record, next) = match Record::decode(&stored.bytes, offset) {
            Ok(decoded) => decoded,
            Err(reason) if !last => return Err(corrupt(&stored.path, offset, reason)),
            Err(reason) => match Record::find_later_batch(&stored.bytes, offset) {
                Some(later) => {
                    let reason = format!("{reason}; a later write stands at offset {later}");
                    return Err(corrupt(&stored.path, offset, reason));
                }
                None => return Ok(offset),
            },
        };
        match record.kind {
            RecordKind::Put | RecordKind::Delete if record.revision <= snapshot_revision => {}
            RecordKind::Put | RecordKind::Delete if record.revision == index.revision + 1 => {
                index.apply(Bytes::copy_from_slice(record.key), version(&record));
            }
            RecordKind::LeaseGrant => {
                index.leases.entry(record.lease).or_default().ttl_seconds = record.create_revision as i64;
            }
            RecordKind::LeaseRevoke => {
                index.leases.remove(&record.lease);
            }
            RecordKind::Compact => *compacted = record.revision.max(*compacted),
            RecordKind::Put | RecordKind::Delete => {
                let reason = format!("revision {} follows revision {}", record.revision, index.revision);
                return Err(corrupt(&stored.path, offset, reason));
            }
            RecordKind::SnapshotEnd => {
                return Err(corrupt(&stored.path, offset, "a record that does not belong into a log"));
            }
        }
        offset = next;
    }
    Ok(offset)
}

fn version(record: &Record<'_>) -> Version {
    let put = record.kind == RecordKind::Put;
    Version {
        mod_revision: record.revision,
        create_revision: if put { record.create_revision } else { 0 },
        lease: if put { record.lease } else { 0 },
        value: Bytes::copy_from_slice(record.value),
    }
}

/// Cuts a torn tail off. Syncs in any case: after a kill, the tail may stand in the page cache only.
fn make_durable(disk: &dyn Disk, file: &File, stored: &Stored, good: usize) -> Result<Option<String>, StoreError> {
    let torn = stored.bytes.len() - good;
    let cut = if torn > 0 { file.set_len(good as u64) } else { Ok(()) };
    cut.and_then(|()| disk.sync(file)).map_err(|error| io_error(&stored.path, &error))?;
    if torn == 0 {
        return Ok(None);
    }
    let path = stored.path.display();
    Ok(Some(format!("cut {torn} bytes of an unfinished write off {path} at offset {good}")))
}
