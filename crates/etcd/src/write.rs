//! Writes: each one transaction that compares the key's revision, as upstream's API server does it.
//!
//! A write whose connection broke may or may not have been done, and may still be done. etcd's history does
//! not say who wrote a revision, and equal bytes are no proof: another server may have written the same. One
//! that needs a revision is made once more, which is sound: revisions never come back, so at most one of the
//! two is done. If the second one is, that is the answer. If it finds another revision, that one is either
//! the first attempt's or another writer's: where it holds other bytes and follows right upon the one that
//! was needed, it is another's, and neither attempt was or will be done. In all other cases nobody knows, and
//! the caller is told so. A put that needs absence is not made again: it may have been done, and its key
//! deleted since. Its caller knows whether its bytes can be another's.

use bytes::Bytes;
use ironkeel_store::{Condition, KeyValue, LeaseId, Range, StoreError, WriteAnswer};

use crate::Shared;
use crate::connect::traced;
use crate::endpoints::Repeat;
use crate::error::{Failure, Request};
use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::kv_client::KvClient;
use crate::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, request_op, response_op,
};
use crate::read::{MAX_ANSWER_BYTES, key_value, revision_of};

/// Outside every prefix, like upstream's `compact_rev_key`.
const PROGRESS_KEY: &[u8] = b"ironkeel_progress_key";

impl Shared {
    pub(crate) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        let outer = self.keys.outer(key.clone());
        let put = PutRequest {
            key: outer.clone(),
            value: value.clone(),
            lease,
            // Of a new key nothing stood there before.
            prev_kv: condition != Condition::Absent,
            ..PutRequest::default()
        };
        let write = || {
            let put = request_op::Request::RequestPut(put.clone());
            self.write(outer.clone(), condition, put, value.len(), lease)
        };
        match write().await {
            Err(Failure::Unknown(why)) => self.settle(key, Some(value.clone()), condition, why, write).await,
            other => other.map_err(Failure::into_store_error),
        }
    }

    pub(crate) async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        let outer = self.keys.outer(key.clone());
        let delete = DeleteRangeRequest { key: outer.clone(), prev_kv: true, ..DeleteRangeRequest::default() };
        let write = || {
            let delete = request_op::Request::RequestDeleteRange(delete.clone());
            self.write(outer.clone(), condition, delete, 0, 0)
        };
        match write().await {
            Err(Failure::Unknown(why)) => self.settle(key, None, condition, why, write).await,
            other => other.map_err(Failure::into_store_error),
        }
    }

    /// Makes an event, for watches of everything.
    pub(crate) async fn touch(&self) {
        let put = PutRequest { key: Bytes::from_static(PROGRESS_KEY), ..PutRequest::default() };
        let attempt = |channel| {
            let put = put.clone();
            async move { KvClient::new(channel).put(put).await }
        };
        if let Err(failure) = self.endpoints.call(Repeat::OnlyUndone, Request::default(), attempt).await {
            tracing::debug!(?failure, "no event was made for the watches that wait for one");
        }
    }

    async fn write(
        &self,
        key: Bytes,
        condition: Condition,
        operation: request_op::Request,
        value_bytes: usize,
        lease: LeaseId,
    ) -> Result<WriteAnswer, Failure> {
        self.open()?;
        let request = Request { size: key.len() + value_bytes, limit: self.config.max_request_bytes, lease };
        if request.size > request.limit {
            let error = StoreError::TooLarge { size: request.size, limit: request.limit };
            return Err(Failure::Refused(error));
        }
        let expected = match condition {
            Condition::Always => None,
            Condition::Absent => Some(0),
            Condition::ModRevision(revision) => Some(revision as i64),
        };
        let compare = expected.map(|revision| Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        });
        let read = RangeRequest { key, ..RangeRequest::default() };
        let transaction = TxnRequest {
            compare: compare.into_iter().collect(),
            success: vec![RequestOp { request: Some(operation) }],
            failure: match expected {
                Some(_) => vec![RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
                None => Vec::new(),
            },
        };
        let attempt = |channel| {
            let mut client = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            let transaction = transaction.clone();
            async move { client.txn(traced(transaction)).await }
        };
        let answer = self.endpoints.call(Repeat::OnlyUndone, request, attempt).await?;
        Ok(self.answer_of(answer))
    }

    fn answer_of(&self, answer: TxnResponse) -> WriteAnswer {
        let revision = revision_of(answer.header.as_ref());
        let response = answer.responses.into_iter().next().and_then(|r| r.response);
        let found: Option<KeyValue> = match response {
            Some(response_op::Response::ResponsePut(put)) => put.prev_kv,
            Some(response_op::Response::ResponseDeleteRange(delete)) => delete.prev_kvs.into_iter().next(),
            Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        }
        .map(|kv| key_value(&self.keys, kv));
        if answer.succeeded {
            WriteAnswer::Done { revision, previous: found }
        } else {
            WriteAnswer::Conflict { current: found, revision }
        }
    }

    /// What came of a write that nobody answered; see the module. `value` is what it puts.
    async fn settle<A: Future<Output = Result<WriteAnswer, Failure>>>(
        &self,
        key: Bytes,
        value: Option<Bytes>,
        condition: Condition,
        why: String,
        again: impl FnOnce() -> A,
    ) -> Result<WriteAnswer, StoreError> {
        let unknown = || StoreError::Unavailable(why.clone());
        let Condition::ModRevision(needed) = condition else { return Err(unknown()) };
        let (there, revision) = match again().await {
            Ok(WriteAnswer::Conflict { current: Some(there), revision }) => (there, revision),
            Ok(WriteAnswer::Conflict { current: None, .. }) | Err(_) => return Err(unknown()),
            Ok(done) => {
                tracing::info!(why, "a write whose connection broke was done at the second attempt");
                return Ok(done);
            }
        };
        if value.is_some_and(|value| value == there.value) {
            return Err(unknown());
        }
        let before = Range { start: key, revision: there.mod_revision - 1, ..Range::default() };
        // History that is compacted, or cannot be read, does not tell.
        match self.read(before).await.ok().and_then(|answer| answer.kvs.into_iter().next()) {
            Some(before) if before.mod_revision == needed => {
                Ok(WriteAnswer::Conflict { current: Some(there), revision })
            }
            _ => Err(unknown()),
        }
    }
}
