//! The log backend: JSON lines in a file that is rotated by size, age and number.
//!
//! Rotated files are named as upstream's: `audit-2026-01-02T03-04-05.678.log` beside `audit.log`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::config::LogConfig;
use crate::error::AuditError;

/// Size at which a file is rotated where the configuration does not say, in mebibytes.
const DEFAULT_SIZE_MIB: u64 = 100;
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogFile {
    config: LogConfig,
    limit_bytes: u64,
    /// `None` for standard output.
    open: Option<Mutex<Open>>,
}

fn fault(path: &Path, source: io::Error) -> AuditError {
    AuditError::File { path: path.display().to_string(), source }
}

fn append(path: &Path) -> io::Result<Open> {
    // Who did what is not for everybody.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

impl LogFile {
    pub(crate) fn open(config: LogConfig) -> Result<Self, AuditError> {
        let size = if config.max_size_mib == 0 { DEFAULT_SIZE_MIB } else { config.max_size_mib };
        let open = if config.path.as_os_str() == "-" {
            None
        } else {
            if let Some(dir) = config.path.parent().filter(|d| !d.as_os_str().is_empty()) {
                std::fs::create_dir_all(dir).map_err(|e| fault(dir, e))?;
            }
            Some(Mutex::new(append(&config.path).map_err(|e| fault(&config.path, e))?))
        };
        Ok(LogFile { limit_bytes: size << 20, config, open })
    }

    /// Writes whole lines.
    pub(crate) fn write(&self, lines: &[u8]) -> io::Result<()> {
        let Some(open) = &self.open else {
            let mut out = io::stdout().lock();
            out.write_all(lines)?;
            return out.flush();
        };
        let mut open = open.lock();
        if open.bytes > 0 && open.bytes + lines.len() as u64 > self.limit_bytes {
            *open = self.rotate()?;
        }
        open.file.write_all(lines)?;
        open.bytes += lines.len() as u64;
        Ok(())
    }

    fn names(&self) -> (&Path, String, String) {
        let dir = self.config.path.parent().unwrap_or(Path::new("."));
        let text = |s: Option<&std::ffi::OsStr>| s.and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        let extension = text(self.config.path.extension());
        let dot = if extension.is_empty() { "" } else { "." };
        (dir, format!("{}-", text(self.config.path.file_stem())), format!("{dot}{extension}"))
    }

    fn rotate(&self) -> io::Result<Open> {
        let (dir, prefix, suffix) = self.names();
        let stamp = Timestamp::now().strftime(STAMP).to_string();
        std::fs::rename(&self.config.path, dir.join(format!("{prefix}{stamp}{suffix}")))?;
        self.prune();
        append(&self.config.path)
    }

    /// Removes rotated files that are too many or too old.
    fn prune(&self) {
        let (dir, prefix, suffix) = self.names();
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let mut rotated: Vec<(String, PathBuf)> = entries
            .flatten()
            .filter_map(|e| {
                let name = e.file_name().into_string().ok()?;
                let stamp = name.strip_prefix(&prefix)?.strip_suffix(&suffix)?.to_owned();
                stamp.starts_with(|c: char| c.is_ascii_digit()).then(|| (stamp, e.path()))
            })
            .collect();
        // Stamps sort by time; the newest come first.
        rotated.sort_by(|a, b| b.0.cmp(&a.0));
        let hours = i64::try_from(self.config.max_age_days).unwrap_or(i64::MAX).saturating_mul(24);
        let oldest = (hours > 0)
            .then(|| Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(hours)).ok())
            .flatten()
            .map(|t| t.strftime(STAMP).to_string());
        for (i, (stamp, path)) in rotated.iter().enumerate() {
            let too_many = self.config.max_backups > 0 && i >= self.config.max_backups;
            if (too_many || oldest.as_ref().is_some_and(|o| stamp < o))
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::warn!(%error, path = %path.display(), "a rotated audit log was not removed");
            }
        }
    }
}
