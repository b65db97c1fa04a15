//! Why auditing cannot be set up, or an event was not kept.

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The policy is not YAML or JSON.
    #[error("the audit policy cannot be read: {0}")]
    Decode(#[from] ironkeel_codec::DecodeError),
    /// The policy is of another kind or version.
    #[error("unknown group version field {found} in policy: audit.k8s.io/v1, Kind=Policy is supported")]
    Kind {
        /// What it says it is.
        found: String,
    },
    /// The policy has no rules.
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
    /// The policy breaks rules.
    #[error("the audit policy is invalid: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// `--audit-log-format`.
    #[error("invalid value {0:?} for audit-log-format: only \"json\" is supported")]
    Format(String),
    /// `--audit-log-mode`, `--audit-webhook-mode`.
    #[error("invalid value {0:?} for the audit mode: batch, blocking and blocking-strict are supported")]
    Mode(String),
    /// A backend refused an event.
    #[error("the audit backend {backend} failed: {reason}")]
    Backend {
        /// `log`, `webhook`.
        backend: &'static str,
        /// Its words.
        reason: String,
    },
}
