//! What can go wrong in the kubelet. User-facing waiting reasons (ErrImagePull, …) are not here but in
//! [`crate::pods::reason`]: an error is for us and for events, a reason is part of the API.

use std::{net::SocketAddr, path::PathBuf};

/// Everything that can fail in the kubelet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An API request failed.
    #[error("API request failed: {0}")]
    Api(Box<kube::Error>),
    /// A CRI call failed; the text is the runtime's own.
    #[error("{message}")]
    Cri {
        /// The call.
        call: &'static str,
        /// The gRPC status code.
        code: tonic::Code,
        /// The runtime's message.
        message: String,
    },
    /// A CRI answer lacked a field that the kubelet cannot do without.
    #[error("the runtime's answer to {call} has no {field}")]
    CriAnswer {
        /// The call.
        call: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A volume cannot be set up.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    Volume {
        /// The volume's name in the pod.
        volume: String,
        /// Why.
        reason: String,
    },
    /// A container's configuration refers to something absent or forbidden (CreateContainerConfigError).
    #[error("{0}")]
    ContainerConfig(String),
    /// The server's port cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The serving certificate, key or client CA is unusable.
    #[error("TLS configuration: {0}")]
    Tls(String),
    /// A static pod's manifest is unusable.
    #[error("static pod manifest {path}: {reason}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The journal refused an entry.
    #[error("journal: {0}")]
    Journal(#[from] ironkeel_journal::JournalError),
    /// The cgroup tree cannot be used.
    #[error("cgroup {path}: {source}")]
    Cgroup {
        /// The cgroup's path below the hierarchies.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A pod's memory limit would be below what it uses.
    #[error("attempting to set pod memory limit ({limit_bytes}) below current usage ({used_bytes})")]
    PodMemoryInUse {
        /// The limit.
        limit_bytes: i64,
        /// What is used.
        used_bytes: i64,
    },
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Adds the file and the action to an I/O error.
pub(crate) trait FileContext<T> {
    /// Wraps the error.
    fn file(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> FileContext<T> for std::io::Result<T> {
    fn file(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::File { action, path: path.into(), source })
    }
}

impl<T> FileContext<T> for Result<T, nix::Error> {
    fn file(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|errno| Error::File { action, path: path.into(), source: errno.into() })
    }
}
