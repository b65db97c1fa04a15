//! What can go wrong in the runtime, and the gRPC status it becomes.

use std::path::Path;

/// The runtime's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such sandbox, container or image.
    #[error("{kind} {id} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The request cannot be met as it is written.
    #[error("{0}")]
    Invalid(String),
    /// The object is not in a state that allows this.
    #[error("{0}")]
    Precondition(String),
    /// This runtime cannot do it.
    #[error("not supported by this runtime: {0}")]
    Unsupported(&'static str),
    /// The deadline passed.
    #[error("{0}")]
    Timeout(String),
    /// A system call failed.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file of images or records cannot be understood.
    #[error("{what}: {source}")]
    Format {
        /// Which file or document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The shim refused or failed.
    #[error("{0}")]
    Shim(String),
    /// The pod network refused.
    #[error("setting up the pod network: {0}")]
    Network(#[from] ironkeel_cni::PodNetworkError),
    /// The streaming server refused.
    #[error(transparent)]
    Streaming(#[from] ironkeel_streaming::StreamError),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] ironkeel_journal::JournalError),
    /// The registry refused, or could not be reached.
    #[error("pulling {image}: {}", with_causes(&**source))]
    Registry {
        /// The image.
        image: String,
        /// Why.
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// What was pulled or imported does not have the digest that it should.
    #[error("{what}: digest is {found}, expected {expected}")]
    Digest {
        /// Which blob.
        what: String,
        /// As computed.
        found: String,
        /// As announced.
        expected: String,
    },
}

impl Error {
    /// For `map_err` around a system call.
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let step = step.into();
        move |source| Error::Io { step, source }
    }

    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::io(format!("{verb} {}", path.display()))
    }

    pub(crate) fn format(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Error {
        let what = what.into();
        move |source| Error::Format { what, source }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound { .. } => tonic::Status::not_found(text),
            Error::Invalid(_) | Error::Format { .. } => tonic::Status::invalid_argument(text),
            Error::Precondition(_) => tonic::Status::failed_precondition(text),
            Error::Unsupported(_) => tonic::Status::unimplemented(text),
            Error::Timeout(_) => tonic::Status::deadline_exceeded(text),
            _ => tonic::Status::unknown(text),
        }
    }
}

/// Runs file-system work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(joined) => match joined.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Precondition("the runtime is stopping".into())),
        },
    }
}

/// An error with the whole chain of its causes: outermost words rarely say what failed, and "connection
/// refused" stands in the last.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
