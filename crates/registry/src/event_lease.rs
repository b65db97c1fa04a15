//! The lease that Events live and die with: an hour, shared by the Events of a minute.

use std::time::{Duration, Instant};

use ironkeel_store::{LeaseId, Store, StoreError};
use tokio::sync::Mutex;

/// How long an Event is kept, in seconds.
pub const EVENT_TTL_SECONDS: i64 = 3600;
/// Events within so many seconds share a lease.
const SHARED_SECONDS: u64 = 60;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct EventLease(Mutex<Option<(LeaseId, Instant)>>);

impl EventLease {
    pub(crate) async fn get(&self, store: &dyn Store) -> Result<LeaseId, StoreError> {
        let mut current = self.0.lock().await;
        if let Some((lease, granted)) = *current
            && granted.elapsed() < Duration::from_secs(SHARED_SECONDS)
        {
            return Ok(lease);
        }
        let lease = store.lease_grant(EVENT_TTL_SECONDS + SHARED_SECONDS as i64).await?;
        *current = Some((lease, Instant::now()));
        Ok(lease)
    }
}
