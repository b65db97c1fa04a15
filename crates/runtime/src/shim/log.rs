//! The CRI log: `<RFC 3339, nanoseconds> <stdout|stderr> <F|P> <line>`.
//!
//! A line longer than [`MAX_LINE_BYTES`] is cut into `P`artial pieces, as upstream's runtimes do.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Content of one log entry at most: 16 KiB.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
}

/// One stream's unfinished line.
#[derive(Default)]
pub(crate) struct LineBuffer(Vec<u8>);

impl LogFile {
    pub(crate) fn open(path: &Path) -> std::io::Result<LogFile> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
        Ok(LogFile { path: path.to_path_buf(), file })
    }

    pub(crate) fn reopen(&mut self) -> std::io::Result<()> {
        *self = LogFile::open(&self.path)?;
        Ok(())
    }

    /// Writes what is complete; a full disk loses lines rather than stopping the container.
    pub(crate) fn append(&mut self, stream: &str, line: &mut LineBuffer, data: &[u8]) {
        let mut out = Vec::with_capacity(data.len() + 128);
        let now = jiff::Timestamp::now();
        for &byte in data {
            if byte == b'\n' {
                entry(&mut out, now, stream, b'F', &line.0);
                line.0.clear();
            } else {
                line.0.push(byte);
                if line.0.len() == MAX_LINE_BYTES {
                    entry(&mut out, now, stream, b'P', &line.0);
                    line.0.clear();
                }
            }
        }
        let _ = self.file.write_all(&out);
    }

    /// The stream has ended: a last line without a newline is complete.
    pub(crate) fn finish(&mut self, stream: &str, line: &mut LineBuffer) {
        if !line.0.is_empty() {
            let mut out = Vec::new();
            entry(&mut out, jiff::Timestamp::now(), stream, b'F', &line.0);
            line.0.clear();
            let _ = self.file.write_all(&out);
        }
    }
}

fn entry(out: &mut Vec<u8>, now: jiff::Timestamp, stream: &str, tag: u8, line: &[u8]) {
    let _ = write!(out, "{now:.9} {stream} {} ", tag as char);
    out.extend_from_slice(line);
    out.push(b'\n');
}
