//! How many requests run at once where priority and fairness is off (`--enable-priority-and-fairness=false`): upstream's
//! two counters, one for requests that read and one for those that write. Nobody waits; who finds no room is answered
//! 429. Requests of system:masters and long-running ones are not counted.

use std::sync::Arc;

use ironkeel_auth::UserInfo;
use ironkeel_registry::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::request_info::RequestInfo;

/// What a refused client should wait, in seconds.
const RETRY_SECONDS: i64 = 1;

/// The two limits; 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightLimits {
    /// `--max-requests-inflight`.
    pub reading: usize,
    /// `--max-mutating-requests-inflight`.
    pub mutating: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Limits {
    reading: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
}

/// A request's place; given back when it is dropped.
pub(crate) type Room = OwnedSemaphorePermit;

impl Limits {
    pub(crate) fn new(limits: InFlightLimits) -> Self {
        let some = |n: usize| (n > 0).then(|| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))));
        Limits { reading: some(limits.reading), mutating: some(limits.mutating) }
    }

    /// Room for a request, if it needs any.
    pub(crate) fn enter(&self, user: &UserInfo, info: &RequestInfo) -> Result<Option<Room>, ApiError> {
        let reads = matches!(info.verb, "get" | "list" | "watch");
        let Some(limit) = (if reads { &self.reading } else { &self.mutating }) else { return Ok(None) };
        if info.is_long_running() {
            return Ok(None);
        }
        match limit.clone().try_acquire_owned() {
            Ok(room) => Ok(Some(room)),
            Err(_) if user.in_group(UserInfo::MASTERS) => Ok(None),
            Err(_) => {
                let why = "Too many requests, please try again later.";
                Err(ApiError::too_many_requests(why.to_owned(), RETRY_SECONDS))
            }
        }
    }
}
