//! Compaction as upstream's API servers agree to do it, so that any number of them, ours and
//! upstream's, compact one etcd once an interval.
//!
//! The key `compact_rev_key` holds the last compacted revision; its version is a clock. Who still sees
//! the version that it saw an interval ago raises it and compacts to the revision that it saw then;
//! who does not, looks again after the next interval. So history is kept for one to two intervals.

use std::sync::Arc;

use bytes::Bytes;
use ironkeel_store::{Revision, StoreError};

use crate::Shared;
use crate::endpoints::Repeat;
use crate::error::{Failure, Request};
use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::kv_client::KvClient;
use crate::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, request_op, response_op,
};
use crate::read::revision_of;

/// Upstream's key; outside every prefix.
const KEY: &[u8] = b"compact_rev_key";

/// What was seen an interval ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    version: i64,
    revision: Revision,
}

/// Starts the loop; it ends with the store.
pub(crate) fn start(shared: Arc<Shared>) {
    let interval = shared.config.compaction_interval;
    if interval.is_zero() {
        return;
    }
    tokio::spawn(async move {
        let mut seen = Seen::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = shared.stop.cancelled() => return,
            }
            match shared.compact_in_turn(seen).await {
                Ok(now) => seen = now,
                Err(error) => tracing::warn!(%error, "etcd was not compacted"),
            }
        }
    });
}

impl Shared {
    async fn compact_in_turn(&self, seen: Seen) -> Result<Seen, StoreError> {
        let answer = self.claim(seen).await.map_err(Failure::into_store_error)?;
        let revision = revision_of(answer.header.as_ref());
        if !answer.succeeded {
            let found = answer.responses.into_iter().find_map(|r| match r.response {
                Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
                _ => None,
            });
            let version = found.as_ref().map_or(0, |kv| kv.version);
            let compacted = found.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
            self.compacted(compacted.unwrap_or(0));
            return Ok(Seen { version, revision });
        }
        if seen.revision > 0 {
            match self.compact(seen.revision).await {
                // Somebody else went further.
                Ok(()) | Err(StoreError::Compacted { .. }) => tracing::debug!(seen.revision, "etcd was compacted"),
                Err(error) => return Err(error),
            }
        }
        Ok(Seen { version: seen.version + 1, revision })
    }

    /// Raises the version of the key from the one seen.
    async fn claim(&self, seen: Seen) -> Result<TxnResponse, Failure> {
        self.open()?;
        let key = Bytes::from_static(KEY);
        let value = Bytes::from(seen.revision.to_string());
        let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let transaction = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key,
                target_union: Some(TargetUnion::Version(seen.version)),
                ..Compare::default()
            }],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
        };
        let attempt = |channel| {
            let transaction = transaction.clone();
            async move { KvClient::new(channel).txn(transaction).await }
        };
        self.endpoints.call(Repeat::OnlyUndone, Request::default(), attempt).await
    }
}
