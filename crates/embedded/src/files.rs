//! The data directory: file names, creation that survives power loss, the lock, the active log.
//!
//! `NNNNNNNNNNNNNNNN.log` are log segments in order of their hexadecimal sequence;
//! `NNNNNNNNNNNNNNNN.snapshot` stands for everything before the segment of the same sequence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironkeel_store::{Revision, StoreError};

use crate::EmbeddedError;
use crate::disk::Disk;
use crate::record::{FileKind, HEADER_BYTES, Header};

const LOCK: &str = "LOCK";
const TEMPORARY: &str = "tmp";

/// A log segment that is not written any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    /// The store's revision after its last record.
    pub(crate) last_revision: Revision,
}

/// What stands on disk, the active segment's growth included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) snapshot_bytes: u64,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) active: u64,
    pub(crate) active_bytes: u64,
}

impl Files {
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.snapshot_bytes + self.active_bytes + self.sealed.iter().map(|segment| segment.bytes).sum::<u64>()
    }
}

pub(crate) fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.display().to_string(), reason: error.to_string() }
}

/// Whether the disk or a quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(crate) fn log_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.log"))
}

pub(crate) fn snapshot_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.snapshot"))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(|error| io_error(dir, &error))
}

/// Creates the data directory, for its owner's eyes only: it holds Secrets.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| io_error(dir, &error))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Takes the directory's lock for as long as the answered file is open.
pub(crate) fn lock(dir: &Path) -> Result<File, EmbeddedError> {
    let path = dir.join(LOCK);
    let failed = |error: io::Error| EmbeddedError::Store(io_error(&path, &error));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            return Err(EmbeddedError::Locked { path, pid: holder.trim().parse().unwrap_or(0) });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Removes temporary files: what a crash left of a segment or snapshot that never came to be. Only
/// before anybody writes.
pub(crate) fn remove_temporary(dir: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| io_error(dir, &error);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The sequences of all logs and of all snapshots, each in order.
pub(crate) fn list(dir: &Path) -> Result<(Vec<u64>, Vec<u64>), StoreError> {
    let failed = |error: io::Error| io_error(dir, &error);
    let (mut logs, mut snapshots) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let sequence = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
        match (path.extension().and_then(|extension| extension.to_str()), sequence) {
            (Some("log"), Some(sequence)) => logs.push(sequence),
            (Some("snapshot"), Some(sequence)) => snapshots.push(sequence),
            _ => {}
        }
    }
    logs.sort_unstable();
    snapshots.sort_unstable();
    Ok((logs, snapshots))
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, &error)),
        _ => Ok(()),
    }
}

/// Opens a new file under a temporary name; [`publish`] gives it its own.
pub(crate) fn create_temporary(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".");
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    Ok((file, temporary))
}

/// Makes a finished temporary file durable under its own name.
pub(crate) fn publish(disk: &dyn Disk, file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    disk.sync(file)?;
    fs::rename(temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Why a batch was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing of it stands in the log; later ones may fit.
    NoSpace(String),
    /// Nobody knows what stands on disk: no further writes.
    Failed(StoreError),
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct ActiveLog {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    file: File,
    path: PathBuf,
    pub(crate) sequence: u64,
    /// Length of the durable part, in bytes.
    pub(crate) bytes: u64,
}

impl ActiveLog {
    /// Goes on with an existing segment, whose first `bytes` are good and durable.
    pub(crate) fn resume(dir: &Path, disk: Arc<dyn Disk>, file: File, sequence: u64, bytes: u64) -> ActiveLog {
        ActiveLog { dir: dir.to_path_buf(), disk, file, path: log_path(dir, sequence), sequence, bytes }
    }

    /// Starts a segment.
    pub(crate) fn create(
        dir: &Path,
        disk: Arc<dyn Disk>,
        sequence: u64,
        revision: Revision,
        previous_bytes: u64,
    ) -> Result<ActiveLog, AppendError> {
        let path = log_path(dir, sequence);
        let attempt = || -> io::Result<File> {
            let (file, temporary) = create_temporary(&path)?;
            let header = Header { kind: FileKind::Log, sequence, revision, previous_bytes };
            let written =
                disk.write(&file, &header.encode(), 0).and_then(|()| publish(disk.as_ref(), &file, &temporary, &path));
            if let Err(error) = written {
                // Under either name: a segment that nobody writes must not stand at the end.
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
            Ok(file)
        };
        match attempt() {
            Ok(file) => Ok(ActiveLog::resume(dir, disk, file, sequence, HEADER_BYTES as u64)),
            Err(error) if is_full(&error) && !path.exists() => Err(AppendError::NoSpace(error.to_string())),
            Err(error) => Err(AppendError::Failed(io_error(&path, &error))),
        }
    }

    /// Starts the next segment; this one is sealed as it stands.
    pub(crate) fn next(&self, revision: Revision) -> Result<ActiveLog, AppendError> {
        ActiveLog::create(&self.dir, self.disk.clone(), self.sequence + 1, revision, self.bytes)
    }

    /// Writes a batch and returns once it is durable: one write, one sync.
    pub(crate) fn append(&mut self, batch: &[u8]) -> Result<(), AppendError> {
        if let Err(error) = self.disk.write(&self.file, batch, self.bytes) {
            let failed = AppendError::Failed(io_error(&self.path, &error));
            if !is_full(&error) {
                return Err(failed);
            }
            // The part that did fit must not stay: it would come back to life at the next start.
            return match self.file.set_len(self.bytes).and_then(|()| self.disk.sync(&self.file)) {
                Ok(()) => Err(AppendError::NoSpace(error.to_string())),
                Err(_) => Err(failed),
            };
        }
        self.disk.sync(&self.file).map_err(|error| AppendError::Failed(io_error(&self.path, &error)))?;
        self.bytes += batch.len() as u64;
        Ok(())
    }
}
