//! The journal's file: one JSON line an operation, appended and synced.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Entry;

/// Struck-out lines that may pile up before the file is written anew.
const REWRITE_AFTER_LINES: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
enum Line {
    Record { entry: Entry },
    Strike { entry: Entry },
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("journal {path}: {reason}")]
    Io {
        /// The journal's file.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// A line that is not the last cannot be read.
    #[error("journal {path} is damaged in line {line}: {reason}")]
    Damaged {
        /// The journal's file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What does not fit.
        reason: String,
    },
}

/// The open journal; a cheap handle to one file. Entries are synced to disk before `record` returns,
/// so what is made afterwards can be found after any crash.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    entries: BTreeSet<Entry>,
    lines: usize,
}

impl Journal {
    /// Opens or creates the journal at `path`. A torn last line (a crash while writing) is dropped.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let io = |reason| JournalError::Io { path: path.to_owned(), reason };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io)?;
        let mut entries = BTreeSet::new();
        let mut lines = 0;
        let mut good = 0;
        while let Some(length) = text[good..].iter().position(|b| *b == b'\n') {
            let bytes = &text[good..good + length];
            let line: Line = serde_json::from_slice(bytes).map_err(|e| JournalError::Damaged {
                path: path.to_owned(),
                line: lines + 1,
                reason: e.to_string(),
            })?;
            match line {
                Line::Record { entry } => drop(entries.insert(entry)),
                Line::Strike { entry } => drop(entries.remove(&entry)),
            }
            lines += 1;
            good += length + 1;
        }
        if good < text.len() {
            file.set_len(good as u64).map_err(io)?;
        }
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Journal { inner: Arc::new(Mutex::new(Inner { path: path.to_owned(), file, entries, lines })) })
    }

    /// Writes that `entry` is about to be made. Recording what is recorded already costs nothing.
    pub fn record(&self, entry: Entry) -> Result<(), JournalError> {
        let mut inner = self.inner.lock();
        if inner.entries.contains(&entry) {
            return Ok(());
        }
        inner.append(&Line::Record { entry: entry.clone() }, true)?;
        inner.entries.insert(entry);
        Ok(())
    }

    /// Writes that `entry` has been undone. A strike that a crash loses is harmless (undoing twice
    /// is a success), so it is not synced.
    pub fn strike(&self, entry: &Entry) -> Result<(), JournalError> {
        let mut inner = self.inner.lock();
        if !inner.entries.remove(entry) {
            return Ok(());
        }
        if inner.lines >= REWRITE_AFTER_LINES.max(2 * inner.entries.len()) {
            return inner.rewrite();
        }
        inner.append(&Line::Strike { entry: entry.clone() }, false)
    }

    /// What stands on the host now, as far as the journal knows.
    pub fn entries(&self) -> Vec<Entry> {
        self.inner.lock().entries.iter().cloned().collect()
    }
}

impl Inner {
    fn io(&self, reason: std::io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), reason }
    }

    fn append(&mut self, line: &Line, sync: bool) -> Result<(), JournalError> {
        let mut text = serde_json::to_vec(line).map_err(|e| self.io(e.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|e| self.io(e))?;
        if sync {
            self.file.sync_data().map_err(|e| self.io(e))?;
        }
        self.lines += 1;
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), JournalError> {
        let fresh = self.path.with_extension("new");
        let mut text = Vec::new();
        for entry in &self.entries {
            serde_json::to_writer(&mut text, &Line::Record { entry: entry.clone() }).map_err(|e| self.io(e.into()))?;
            text.push(b'\n');
        }
        let write = || -> std::io::Result<File> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            file.sync_data()?;
            std::fs::rename(&fresh, &self.path)?;
            Ok(file)
        };
        self.file = write().map_err(|e| self.io(e))?;
        self.lines = self.entries.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn link(name: &str) -> Entry {
        Entry::Link { name: name.into() }
    }

    #[test]
    fn what_was_recorded_and_not_struck_out_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        for name in ["a", "b", "a"] {
            journal.record(link(name)).unwrap();
        }
        journal.strike(&link("a")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().entries(), [link("b")]);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_damaged_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        Journal::open(&path).unwrap().record(link("a")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        let journal = Journal::open(&path).unwrap();
        journal.record(link("b")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().entries(), [link("a"), link("b")]);
        std::fs::write(&path, [b"{\n", &whole[..]].concat()).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged { line: 1, .. })));
    }

    #[test]
    fn the_file_does_not_grow_with_history() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        for i in 0..REWRITE_AFTER_LINES {
            journal.record(link(&i.to_string())).unwrap();
            journal.strike(&link(&i.to_string())).unwrap();
        }
        journal.record(link("last")).unwrap();
        drop(journal);
        assert!(std::fs::metadata(&path).unwrap().len() < 400_000);
        assert_eq!(Journal::open(&path).unwrap().entries(), [link("last")]);
    }
}
