//! The two calls that make a write durable, behind a trait so that tests can make them slow or fail.
//!
//! Everything else (opening, renaming, reading) goes to the file system directly.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How log bytes reach the disk.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once everything written to `file` survives power loss.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real one: `pwrite` and `fdatasync`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
