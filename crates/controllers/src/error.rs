//! What goes wrong in a controller, and how the API's answers are told apart.

/// An error of a controller. All of them are retried, but for the two that end [`crate::run`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API answered with an error, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// Claiming objects failed.
    #[error(transparent)]
    Claim(#[from] ironkeel_informer::Error),
    /// An object cannot be written as JSON.
    #[error("cannot encode: {0}")]
    Encode(#[from] serde_json::Error),
    /// The name that a template hashes to is taken by something else; another hash is tried.
    #[error("{kind} {name} exists and is another's")]
    NameTaken {
        /// Kind of the object.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Content of a namespace is still there.
    #[error("namespace {namespace}: {left} objects are left")]
    ContentLeft {
        /// The namespace.
        namespace: String,
        /// How many objects.
        left: usize,
    },
    /// A selector, percentage or schedule does not parse.
    #[error("{what} {value:?} is not valid")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// What was found.
        value: String,
    },
    /// Another process leads now.
    #[error("leadership was lost")]
    LeadershipLost,
    /// A controller returned or panicked before the shutdown.
    #[error("a controller ended by itself: {controller}")]
    Ended {
        /// Which one, or the panic.
        controller: String,
    },
}

/// The status code of an answer of the API, if it was one.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether the object does not exist.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    code(error) == Some(404)
}

/// Whether the object exists already.
pub(crate) fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Whether the object changed since it was read.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// Whether nothing can be created because the namespace is being deleted.
pub(crate) fn namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Success when the object is not there any more.
pub(crate) fn unless_gone<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
