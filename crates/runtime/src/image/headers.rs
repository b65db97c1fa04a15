//! Tar archives whose headers are bounded. The `tar` crate reads extended headers (PAX records, GNU's long names) into
//! memory, however long they say they are, before it gives out the entry that they belong to; here reading ends with
//! an error when there is more between two entries than [`MAX_HEADER_BYTES`]. Go's archive/tar has the same bound.

use std::cell::Cell;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::rc::Rc;

/// Most that an entry's headers may have together, in bytes.
const MAX_HEADER_BYTES: u64 = 1024 * 1024;
/// What an archive's sizes are multiples of, in bytes.
const BLOCK_BYTES: u64 = 512;

/// How far the archive was read, and how far it may be.
#[derive(Default)]
struct Position {
    at: Cell<u64>,
    end: Cell<u64>,
}

/// The archive's bytes, up to where it may be read.
pub(super) struct Bounded<R> {
    inner: R,
    position: Rc<Position>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Position { at, end } = &*self.position;
        let room = end.get().saturating_sub(at.get());
        if room == 0 && !buffer.is_empty() {
            let text = format!("the entry's header is longer than {MAX_HEADER_BYTES} bytes");
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        let most = buffer.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buffer[..most])?;
        at.set(at.get() + n as u64);
        Ok(n)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = self.inner.seek(to)?;
        self.position.at.set(at);
        Ok(at)
    }
}

/// An archive.
pub(super) struct Archive<R: Read> {
    archive: tar::Archive<Bounded<R>>,
    position: Rc<Position>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(inner: R) -> Self {
        let position = Rc::<Position>::default();
        Archive { archive: tar::Archive::new(Bounded { inner, position: position.clone() }), position }
    }

    /// Its entries, read through to the next.
    pub(super) fn entries(&mut self) -> Result<Entries<'_, R>> {
        let position = self.position.clone();
        Ok(Entries { entries: self.archive.entries()?, position, data_end: 0 })
    }

    /// Its entries, where what they hold can be passed over.
    pub(super) fn entries_with_seek(&mut self) -> Result<Entries<'_, R>>
    where
        R: Seek,
    {
        let position = self.position.clone();
        Ok(Entries { entries: self.archive.entries_with_seek()?, position, data_end: 0 })
    }
}

/// The entries of an archive, one after another.
pub(super) struct Entries<'a, R: Read> {
    entries: tar::Entries<'a, Bounded<R>>,
    position: Rc<Position>,
    /// Where the data of the latest ends.
    data_end: u64,
}

impl<'a, R: Read> Entries<'a, R> {
    /// The next, whose data may be read as far as it says.
    pub(super) fn next(&mut self) -> Result<Option<tar::Entry<'a, Bounded<R>>>> {
        let from = self.position.at.get().max(self.data_end);
        self.position.end.set(from.saturating_add(MAX_HEADER_BYTES));
        let Some(mut entry) = self.entries.next().transpose()? else { return Ok(None) };
        // A sparse file is smaller in the archive than it says it is: its header tells, unless a record before it does.
        let sparse = entry.header().entry_type().is_gnu_sparse();
        if sparse && has_record(&mut entry, b"size")? {
            return Err(Error::new(ErrorKind::InvalidData, "a sparse file has a record of its size"));
        }
        let bytes = if sparse { entry.header().entry_size()? } else { entry.size() };
        self.data_end =
            self.position.at.get().saturating_add(bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(bytes));
        self.position.end.set(u64::MAX);
        Ok(Some(entry))
    }
}

/// Whether the entry has a PAX record of that name.
fn has_record(entry: &mut tar::Entry<'_, impl Read>, name: &[u8]) -> Result<bool> {
    let Some(mut records) = entry.pax_extensions()? else { return Ok(false) };
    Ok(records.any(|record| record.is_ok_and(|record| record.key_bytes() == name)))
}
