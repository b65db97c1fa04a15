//! A store over another one that answers some of the calls its own way and passes the rest on.
//!
//! What only counts, delays or breaks a call names that call alone. Each call through a [`Layer`] costs one more
//! boxed future than one through a [`Store`] that passes on by itself; what stands on the write path does the latter.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Condition, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchRange,
    WatchStream, WriteAnswer,
};

/// A store whose calls go to the one [`beneath`](Layer::beneath) unless they are written anew. Each means what the
/// [`Store`]'s of the same name does.
#[async_trait]
#[expect(missing_docs, reason = "each call is the store's of the same name")]
pub trait Layer: Send + Sync + fmt::Debug + 'static {
    /// The store that the calls go to.
    fn beneath(&self) -> &dyn Store;

    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.beneath().get(key, revision).await
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        self.beneath().range(range).await
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        self.beneath().put(key, value, condition, lease).await
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        self.beneath().delete(key, condition).await
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        self.beneath().watch(range).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.beneath().compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        self.beneath().lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.beneath().lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.beneath().lease_revoke(lease).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.beneath().status().await
    }

    fn shared(&self) -> bool {
        self.beneath().shared()
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.beneath().current_revision().await
    }

    async fn stale(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.beneath().stale(key).await
    }
}

#[async_trait]
impl<L: Layer> Store for L {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        Layer::get(self, key, revision).await
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        Layer::range(self, range).await
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        Layer::put(self, key, value, condition, lease).await
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        Layer::delete(self, key, condition).await
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        Layer::watch(self, range).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        Layer::compact(self, revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        Layer::lease_grant(self, ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        Layer::lease_keep_alive(self, lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        Layer::lease_revoke(self, lease).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        Layer::status(self).await
    }

    fn shared(&self) -> bool {
        Layer::shared(self)
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Layer::current_revision(self).await
    }

    async fn stale(&self, key: &[u8]) -> Result<bool, StoreError> {
        Layer::stale(self, key).await
    }
}
