//! A store whose writes of some keys wait.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ironkeel_store::{
    Condition, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchRange,
    WatchStream, WriteAnswer,
};
use tokio::sync::watch;

/// Writes of keys that hold `part` wait until `open` is true.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) part: &'static str,
    pub(crate) open: watch::Receiver<bool>,
}

#[async_trait]
impl Store for Gated {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.inner.get(key, revision).await
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        self.inner.range(range).await
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        if String::from_utf8_lossy(&key).contains(self.part) {
            let _ = self.open.clone().wait_for(|open| *open).await;
        }
        self.inner.put(key, value, condition, lease).await
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        self.inner.delete(key, condition).await
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        self.inner.watch(range).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        self.inner.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.lease_revoke(lease).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }
}
