//! Why the server itself did not start or serve. What requests are answered is
//! [`ironkeel_registry::ApiError`].

use ironkeel_auth::AuthError;
use ironkeel_registry::ApiError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored objects could not be read, or the first ones not written.
    #[error("the API server did not start: {0}")]
    Start(#[from] ApiError),
    /// The configuration of authentication is wrong.
    #[error("authentication cannot be set up: {0}")]
    Auth(#[from] AuthError),
    /// A certificate authority that cannot be read.
    #[error("certificates: {0}")]
    Certificates(#[from] ironkeel_auth::PkiError),
    /// A webhook or an issuer that cannot be asked.
    #[error("webhooks and issuers: {0}")]
    Delegates(String),
    /// The audit policy or its backend is wrong.
    #[error("auditing cannot be set up: {0}")]
    Audit(#[from] ironkeel_audit::AuditError),
    /// Traces cannot be exported.
    #[error("failed to validate tracing configuration: {0}")]
    Tracing(#[from] ironkeel_trace::ConfigError),
    /// An in-process upgrade failed.
    #[error("the in-process connection failed: {0}")]
    Connection(#[from] hyper::Error),
}
