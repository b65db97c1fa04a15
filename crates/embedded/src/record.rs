//! The bytes on disk: file headers and records. docs/store.md draws them.
//!
//! What does not live here: files and their names (`files`), what a record means for the index
//! (`recovery`).

use ironkeel_store::{LeaseId, Revision};

/// The newest format that this engine writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Length of the header of every file, in bytes.
pub(crate) const HEADER_BYTES: usize = 48;
/// Length of a record's length and checksum, in bytes.
const FRAME_BYTES: usize = 8;
/// Length of a record's fixed fields after the frame, in bytes.
const FIXED_BYTES: usize = 40;
/// No record is longer, in bytes; a longer length field is damage.
pub(crate) const MAX_RECORD_BYTES: usize = 256 << 20;

const MAGIC: [u8; 8] = *b"IRONKEEL";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Records in commit order.
    Log,
    /// The live data at one revision.
    Snapshot,
}

/// The first bytes of every file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    /// The file's place in the order of files; also its name.
    pub(crate) sequence: u64,
    /// Log: the store's revision before its first record. Snapshot: the revision that it shows.
    pub(crate) revision: Revision,
    /// Log: length of the log before it, in bytes; 0 when there is none.
    pub(crate) previous_bytes: u64,
}

/// Why a header cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Damage.
    Damaged(&'static str),
    /// Written by a later release.
    Newer(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12] = match self.kind {
            FileKind::Log => 1,
            FileKind::Snapshot => 2,
        };
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.revision.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Magic, version and checksum stand at the same place in every format version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return Err(HeaderError::Damaged("the file is shorter than its header"));
        };
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged("not a store file (bad magic)"));
        }
        if crc32fast::hash(&bytes[..44]) != u32_at(bytes, 44) {
            return Err(HeaderError::Damaged("the header does not match its checksum"));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer(version));
        }
        let kind = match bytes[12] {
            1 => FileKind::Log,
            2 => FileKind::Snapshot,
            _ => return Err(HeaderError::Damaged("unknown kind of file")),
        };
        Ok(Header { kind, sequence: u64_at(bytes, 16), revision: u64_at(bytes, 24), previous_bytes: u64_at(bytes, 32) })
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// Key, value, lease, create revision.
    Put = 1,
    /// Key.
    Delete = 2,
    /// Lease; its seconds in `create_revision`.
    LeaseGrant = 3,
    /// Lease; its keys' deletes come before it.
    LeaseRevoke = 4,
    /// History below `revision` is forgotten.
    Compact = 5,
    /// Last record of a snapshot; the number of records before it in `create_revision`.
    SnapshotEnd = 6,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        Some(match byte {
            1 => RecordKind::Put,
            2 => RecordKind::Delete,
            3 => RecordKind::LeaseGrant,
            4 => RecordKind::LeaseRevoke,
            5 => RecordKind::Compact,
            6 => RecordKind::SnapshotEnd,
            _ => return None,
        })
    }
}

/// One record; key and value borrow from the file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: RecordKind,
    /// Everything before this offset of the file was durable when the record was written. A record
    /// that is damaged before the `durable` of a later one did not tear: it rotted.
    pub(crate) durable: u64,
    pub(crate) revision: Revision,
    pub(crate) create_revision: Revision,
    pub(crate) lease: LeaseId,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = (FIXED_BYTES + self.key.len() + self.value.len()) as u32;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(self.kind as u8);
        out.extend_from_slice(&[0; 3]);
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.durable.to_le_bytes());
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.create_revision.to_le_bytes());
        out.extend_from_slice(&self.lease.to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
        let crc = checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record at `offset`; also answers the offset of the next.
    pub(crate) fn decode(file: &'a [u8], offset: usize) -> Result<(Record<'a>, usize), &'static str> {
        let rest = file.get(offset..).unwrap_or_default();
        if rest.len() < FRAME_BYTES {
            return Err("the file ends within a record's length");
        }
        let length = u32_at(rest, 0) as usize;
        if !(FIXED_BYTES..=MAX_RECORD_BYTES).contains(&length) {
            return Err("impossible record length");
        }
        let Some(bytes) = rest.get(..FRAME_BYTES + length) else {
            return Err("the file ends within a record");
        };
        // Cheap checks first: looking for the next whole record tries every offset.
        let Some(kind) = RecordKind::from_byte(bytes[8]) else {
            return Err("unknown record type");
        };
        let key_len = u32_at(bytes, 12) as usize;
        if key_len > length - FIXED_BYTES {
            return Err("the key is longer than its record");
        }
        let durable = u64_at(bytes, 16);
        if durable > offset as u64 {
            return Err("the record names a durable offset after itself");
        }
        if checksum(bytes) != u32_at(bytes, 4) {
            return Err("the record does not match its checksum");
        }
        let body = &bytes[FRAME_BYTES + FIXED_BYTES..];
        let record = Record {
            kind,
            durable,
            revision: u64_at(bytes, 24),
            create_revision: u64_at(bytes, 32),
            lease: u64_at(bytes, 40) as i64,
            key: &body[..key_len],
            value: &body[key_len..],
        };
        Ok((record, offset + bytes.len()))
    }

    /// The first whole record after `offset` whose writer knew the bytes at `offset` to be durable.
    pub(crate) fn find_later_batch(file: &[u8], offset: usize) -> Option<usize> {
        (offset + 1..file.len().saturating_sub(FRAME_BYTES + FIXED_BYTES - 1))
            .find(|at| matches!(Record::decode(file, *at), Ok((record, _)) if record.durable > offset as u64))
    }
}

/// Over the length and everything after the checksum.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[FRAME_BYTES..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
