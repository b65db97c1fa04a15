//! A store whose writes of some keys wait.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ironkeel_store::{Condition, Layer, LeaseId, Store, StoreError, WriteAnswer};
use tokio::sync::watch;

/// Writes of keys that hold `part` wait until `open` is true.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) part: &'static str,
    pub(crate) open: watch::Receiver<bool>,
}

#[async_trait]
impl Layer for Gated {
    fn beneath(&self) -> &dyn Store {
        &*self.inner
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
}
