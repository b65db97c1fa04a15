//! What can go wrong before and during calls, and what etcd's words mean to a store.

use std::error::Error as _;
use std::path::PathBuf;

use ironkeel_store::{LeaseId, StoreError};
use tonic::{Code, ConnectError, Status};

/// Why an etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// None was given.
    #[error("no etcd endpoint is given: pass --etcd-servers")]
    NoEndpoints,
    /// Not an address.
    #[error("etcd endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// Not a prefix of keys.
    #[error("etcd prefix {0:?} must begin with a slash and hold more than that")]
    Prefix(String),
    /// A certificate or key file cannot be used.
    #[error("{path}: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One of certificate and key is missing.
    #[error("a client certificate needs its key, and a key its certificate: pass --etcd-certfile and --etcd-keyfile")]
    HalfAnIdentity,
    /// Nobody vouches for the members.
    #[error("no certificate authority for https endpoints is found: pass --etcd-cafile")]
    NoRoots,
    /// No member answered in time.
    #[error("no etcd answers at {endpoints}: {reason}")]
    Unreachable {
        /// All of them.
        endpoints: String,
        /// The last member's words.
        reason: String,
    },
}

/// What a failed call means.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request did not leave; another endpoint may take it.
    NotSent(String),
    /// The member could not do it now. Whether it did is not known.
    Unknown(String),
    /// The member refused before it did anything, and may not refuse again.
    Busy(String),
    /// etcd's answer.
    Refused(StoreError),
}

impl Failure {
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Failure::NotSent(why) | Failure::Unknown(why) | Failure::Busy(why) => StoreError::Unavailable(why),
            Failure::Refused(error) => error,
        }
    }
}

/// Reads a status; `size` is the request's, `limit` the members', in bytes, `lease` what was asked for.
pub(crate) fn failure(address: &str, status: &Status, request: Request) -> Failure {
    let said = status.message();
    let has = |words: &str| said.contains(words);
    let told = || format!("etcd at {address}: {said}");
    if never_sent(status) {
        return Failure::NotSent(format!("etcd at {address}: {}", causes(status)));
    }
    match status.code() {
        Code::OutOfRange if has("has been compacted") => {
            Failure::Refused(StoreError::Compacted { requested: 0, compacted: 0 })
        }
        Code::OutOfRange if has("future revision") => {
            Failure::Refused(StoreError::FutureRevision { requested: 0, current: 0 })
        }
        Code::NotFound if has("lease not found") => Failure::Refused(StoreError::NoLease(request.lease)),
        Code::ResourceExhausted if has("space exceeded") => Failure::Refused(StoreError::NoSpace(format!(
            "{}; compact and defragment it or raise --quota-backend-bytes, then disarm the alarm",
            told()
        ))),
        Code::ResourceExhausted if has("too many requests") => Failure::Busy(told()),
        Code::ResourceExhausted | Code::InvalidArgument
            if has("request is too large") || has("message larger than max") =>
        {
            Failure::Refused(StoreError::TooLarge { size: request.size, limit: request.limit })
        }
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition | Code::InvalidArgument
            if has("permission denied") || has("user name is empty") || has("invalid auth token") || has("auth") =>
        {
            let hint = "check the client certificate's common name and its roles in etcd";
            Failure::Refused(StoreError::Unavailable(format!("{}: {hint}", told())))
        }
        Code::Unavailable if has("no leader") || has("rpc not supported for learner") => Failure::Busy(told()),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
            Failure::Unknown(format!("etcd at {address}: {}", causes(status)))
        }
        _ => Failure::Refused(StoreError::Unavailable(told())),
    }
}

/// What a failure is told about the request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    pub(crate) size: usize,
    pub(crate) limit: usize,
    pub(crate) lease: LeaseId,
}

/// Whether no connection was there to send the request on.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The status's words, and the innermost cause's.
fn causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
