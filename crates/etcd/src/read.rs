//! Linearizable reads, and what a member knows of itself.

use std::time::Duration;

use bytes::Bytes;
use ironkeel_store::{KeyValue, Range, RangeAnswer, Revision, StoreError};

use crate::connect::traced;
use crate::endpoints::Repeat;
use crate::error::{Failure, Request};
use crate::etcdserverpb::kv_client::KvClient;
use crate::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::etcdserverpb::{CompactionRequest, RangeRequest, RangeResponse, ResponseHeader, StatusRequest};
use crate::keys::Keys;
use crate::{Shared, mvccpb};

/// The longest answer that is taken, in bytes (as upstream's client: 2 GiB).
pub(crate) const MAX_ANSWER_BYTES: usize = i32::MAX as usize;
/// A range's end that means "no end", and the first key there is.
pub(crate) const EVERYTHING: &[u8] = &[0];

pub(crate) fn key_value(keys: &Keys, kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: keys.inner(kv.key),
        value: kv.value,
        create_revision: kv.create_revision as u64,
        mod_revision: kv.mod_revision as u64,
        lease: kv.lease,
    }
}

pub(crate) fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |h| h.revision as u64)
}

pub(crate) fn wire_range(keys: &Keys, range: Range) -> RangeRequest {
    RangeRequest {
        key: keys.outer(range.start),
        range_end: keys.outer(range.end),
        limit: range.limit as i64,
        revision: range.revision as i64,
        keys_only: range.keys_only,
        count_only: range.count_only,
        ..RangeRequest::default()
    }
}

impl Shared {
    pub(crate) async fn read(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        let repeat = if range.end.is_empty() || range.count_only { Repeat::Harmless } else { Repeat::HarmlessLong };
        let answer = self.range(repeat, &wire_range(&self.keys, range)).await.map_err(Failure::into_store_error)?;
        Ok(RangeAnswer {
            count: answer.count as u64,
            revision: revision_of(answer.header.as_ref()),
            kvs: answer.kvs.into_iter().map(|kv| key_value(&self.keys, kv)).collect(),
        })
    }

    async fn range(&self, repeat: Repeat, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        self.open()?;
        let attempt = |channel| {
            let mut client = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            let request = request.clone();
            async move { client.range(traced(request)).await }
        };
        self.endpoints.call(repeat, Request::default(), attempt).await
    }

    /// Asks for the store's revision: a linearizable read of no key.
    pub(crate) async fn fetch_revision(&self) -> Result<Revision, StoreError> {
        let key = self.keys.outer(Bytes::from_static(crate::PREFIX.as_bytes()));
        let request = RangeRequest { key, count_only: true, ..RangeRequest::default() };
        let answer = self.range(Repeat::Harmless, &request).await.map_err(Failure::into_store_error)?;
        Ok(revision_of(answer.header.as_ref()))
    }

    pub(crate) async fn count_keys(&self) -> Result<u64, StoreError> {
        let everything = Bytes::from_static(EVERYTHING);
        let request =
            RangeRequest { key: everything.clone(), range_end: everything, count_only: true, ..Default::default() };
        let answer = self.range(Repeat::Harmless, &request).await.map_err(Failure::into_store_error)?;
        Ok(answer.count as u64)
    }

    /// Bytes on a member's disk, and how many of them are in use.
    pub(crate) async fn sizes(&self) -> Result<(u64, u64), StoreError> {
        self.open().map_err(Failure::into_store_error)?;
        let attempt = |channel| async move { MaintenanceClient::new(channel).status(StatusRequest {}).await };
        let call = self.endpoints.call(Repeat::Harmless, Request::default(), attempt);
        let status = call.await.map_err(Failure::into_store_error)?;
        Ok((status.db_size as u64, status.db_size_in_use as u64))
    }

    /// Waits until a member answers that knows its leader. etcd 3.4 loses a read that comes before there is one, and
    /// answers it, and all that come after it, only when its time limit (7 s) has passed.
    pub(crate) async fn await_leader(&self) -> Result<(), StoreError> {
        loop {
            self.open().map_err(Failure::into_store_error)?;
            let attempt = |channel| async move { MaintenanceClient::new(channel).status(StatusRequest {}).await };
            let status = match self.endpoints.call(Repeat::Harmless, Request::default(), attempt).await {
                Ok(status) => status,
                // Whoever answers that lets reads be asked.
                Err(Failure::Refused(_)) => return Ok(()),
                Err(error) => return Err(error.into_store_error()),
            };
            // What stands in for an etcd may have no elections at all.
            if status.leader != 0 || status.raft_term == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(crate::START_PAUSE_MS)).await;
        }
    }

    pub(crate) async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.open().map_err(Failure::into_store_error)?;
        let request = CompactionRequest { revision: revision as i64, physical: false };
        let attempt = |channel| async move { KvClient::new(channel).compact(request).await };
        let call = self.endpoints.call(Repeat::OnlyUndone, Request::default(), attempt);
        call.await.map_err(Failure::into_store_error)?;
        self.compacted(revision);
        Ok(())
    }

    /// Fails once the store was closed.
    pub(crate) fn open(&self) -> Result<(), Failure> {
        if self.stop.is_cancelled() {
            return Err(Failure::Refused(StoreError::Closed("the store was closed".to_owned())));
        }
        Ok(())
    }
}
