//! The lease that Events live and die with: an hour, shared by the Events of a minute, at most a thousand
//! (upstream's lease manager shares as much).

use std::time::{Duration, Instant};

use ironkeel_store::{LeaseId, Store, StoreError};
use tokio::sync::Mutex;

/// How long an Event is kept, in seconds.
pub const EVENT_TTL_SECONDS: i64 = 3600;
/// Events within so many seconds share a lease.
const SHARED_SECONDS: u64 = 60;
/// So many Events share a lease at most: its end deletes them in one transaction.
const SHARED_EVENTS: u32 = 1_000;

#[derive(Debug)]
struct Current {
    lease: LeaseId,
    granted: Instant,
    events: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct EventLease(Mutex<Option<Current>>);

impl EventLease {
    pub(crate) async fn get(&self, store: &dyn Store) -> Result<LeaseId, StoreError> {
        let mut current = self.0.lock().await;
        if let Some(current) = &mut *current
            && current.granted.elapsed() < Duration::from_secs(SHARED_SECONDS)
            && current.events < SHARED_EVENTS
        {
            current.events += 1;
            return Ok(current.lease);
        }
        let lease = store.lease_grant(EVENT_TTL_SECONDS + SHARED_SECONDS as i64).await?;
        *current = Some(Current { lease, granted: Instant::now(), events: 1 });
        Ok(lease)
    }
}
