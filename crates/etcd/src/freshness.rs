//! How new the store is, asked once for all who ask at the same time.
//!
//! An answer serves whoever asked before its request left, so it is never older than a write that the
//! asker knows of. One request is under way at a time; who comes meanwhile shares the next.

use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use ironkeel_store::{Revision, StoreError};
use parking_lot::Mutex;

use crate::Shared;

type Asked = SharedFuture<BoxFuture<'static, Result<Revision, StoreError>>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Freshness {
    waiting: Mutex<Option<Asked>>,
    under_way: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Freshness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Freshness")
    }
}

impl Freshness {
    /// The store's revision, not older than this call.
    pub(crate) fn ask(shared: &Arc<Shared>) -> Asked {
        let mut waiting = shared.freshness.waiting.lock();
        if let Some(asked) = &*waiting {
            return asked.clone();
        }
        let weak: Weak<Shared> = Arc::downgrade(shared);
        let asked = async move {
            let shared = weak.upgrade().ok_or_else(|| StoreError::Closed("the store was closed".to_owned()))?;
            let _one = shared.freshness.under_way.lock().await;
            // Who asks from here on may know of writes that this answer does not count.
            shared.freshness.waiting.lock().take();
            shared.fetch_revision().await
        };
        let asked = asked.boxed().shared();
        *waiting = Some(asked.clone());
        asked
    }
}
