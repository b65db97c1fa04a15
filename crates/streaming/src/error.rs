//! The crate's error.

use std::io;

/// Why a stream could not be served or forwarded.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The loopback listener could not be made.
    #[error("listen for streams on loopback: {0}")]
    Listen(#[source] io::Error),
    /// Too many URLs were given out and not used.
    #[error("too many streaming requests wait to be opened ({limit}); open or abandon one first")]
    TooManyRequests {
        /// How many may wait.
        limit: usize,
    },
    /// The request names no container or sandbox.
    #[error("missing required {0}")]
    Missing(&'static str),
    /// The backend does not know the container or sandbox.
    #[error("{0} not found")]
    NotFound(String),
    /// The container is not running.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The command could not be started.
    #[error("start {command:?}: {reason}")]
    Start {
        /// The command's first word.
        command: String,
        /// What the kernel or the runtime said.
        reason: String,
    },
    /// The port could not be reached in the sandbox.
    #[error("connect to port {port}: {source}")]
    Connect {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The backend failed for a reason of its own.
    #[error("{context}: {source}")]
    Backend {
        /// What was being done.
        context: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing a stream failed.
    #[error("stream: {0}")]
    Io(#[from] io::Error),
    /// A request could not be forwarded.
    #[error("forward the upgrade request: {0}")]
    Forward(#[from] hyper::Error),
    /// A target URL or header is not valid HTTP.
    #[error("forward the upgrade request: {0}")]
    Http(#[from] http::Error),
}
