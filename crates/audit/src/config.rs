//! What the server's `--audit-*` flags say.

use std::path::PathBuf;
use std::time::Duration;

use crate::batch::{BatchConfig, Mode};
use crate::error::AuditError;
use crate::truncate::Truncate;

/// Wait before a webhook is asked a second time, in seconds (upstream's default).
const INITIAL_BACKOFF_SECONDS: u64 = 10;

/// `--audit-policy-file` and the backends. Without a policy file nothing is audited.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `--audit-policy-file`.
    pub policy_file: Option<PathBuf>,
    /// `--audit-log-*`.
    pub log: Option<LogConfig>,
    /// `--audit-webhook-*`.
    pub webhook: Option<WebhookConfig>,
}

/// The webhook backend; who can speak HTTP adds it ([`crate::Auditor::with_backend`]).
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// `--audit-webhook-config-file`.
    pub kubeconfig: PathBuf,
    /// `--audit-webhook-mode`.
    pub mode: Mode,
    /// `--audit-webhook-batch-*`, for [`Mode::Batch`].
    pub batch: BatchConfig,
    /// `--audit-webhook-truncate-*`.
    pub truncate: Option<Truncate>,
    /// `--audit-webhook-initial-backoff`: the wait before the second attempt.
    pub initial_backoff: Duration,
}

impl WebhookConfig {
    /// Upstream's defaults: in batches.
    pub fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        WebhookConfig {
            kubeconfig: kubeconfig.into(),
            mode: Mode::Batch,
            batch: BatchConfig::webhook(),
            truncate: None,
            initial_backoff: Duration::from_secs(INITIAL_BACKOFF_SECONDS),
        }
    }
}

/// The log backend.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `--audit-log-path`; `-` means standard output.
    pub path: PathBuf,
    /// `--audit-log-maxsize`: size at which the file is rotated, in mebibytes; 0 means 100.
    pub max_size_mib: u64,
    /// `--audit-log-maxage`: days that rotated files are kept; 0 means for ever.
    pub max_age_days: u64,
    /// `--audit-log-maxbackup`: rotated files that are kept; 0 means all.
    pub max_backups: usize,
    /// `--audit-log-mode`.
    pub mode: Mode,
    /// `--audit-log-batch-*`, for [`Mode::Batch`].
    pub batch: BatchConfig,
    /// `--audit-log-truncate-*`.
    pub truncate: Option<Truncate>,
}

impl LogConfig {
    /// Upstream's defaults: blocking, never rotated before 100 MiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        LogConfig {
            path: path.into(),
            max_size_mib: 0,
            max_age_days: 0,
            max_backups: 0,
            mode: Mode::Blocking,
            batch: BatchConfig::log(),
            truncate: None,
        }
    }
}

impl Config {
    /// Checks `--audit-log-format`.
    ///
    /// # Errors
    /// For everything but `json`; the legacy format is absent.
    pub fn from_log_format(format: &str) -> Result<(), AuditError> {
        if format == "json" { Ok(()) } else { Err(AuditError::Format(format.to_owned())) }
    }
}
