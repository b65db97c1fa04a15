//! Writes: each one transaction that compares the key's revision, as upstream's API server does it.
//!
//! A write whose connection broke may or may not have been done. A conditional put looks for itself
//! then: if its bytes stand there under a later revision, it was. Otherwise the caller is told that
//! nobody knows, for it may still be done.

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
        match self.write(outer, condition, request_op::Request::RequestPut(put), value.len(), lease).await {
            Err(Failure::Unknown(why)) => self.look_for(key, value, condition, why).await,
            Err(failure) => Err(failure.into_store_error()),
            Ok(answer) => Ok(answer),
        }
    }

    pub(crate) async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        let outer = self.keys.outer(key);
        let delete = DeleteRangeRequest { key: outer.clone(), prev_kv: true, ..DeleteRangeRequest::default() };
        let write = self.write(outer, condition, request_op::Request::RequestDeleteRange(delete), 0, 0);
        write.await.map_err(Failure::into_store_error)
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

    /// Whether a put that nobody answered was done.
    async fn look_for(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        why: String,
    ) -> Result<WriteAnswer, StoreError> {
        let unknown = || Err(StoreError::Unavailable(why.clone()));
        let after = match condition {
            Condition::Always => return unknown(),
            Condition::Absent => 0,
            Condition::ModRevision(revision) => revision,
        };
        let one = |revision| Range { start: key.clone(), revision, ..Range::default() };
        let Some(now) = self.read(one(0)).await?.kvs.pop() else { return unknown() };
        if now.mod_revision <= after || now.value != value {
            return unknown();
        }
        let previous = match after {
            0 => None,
            _ => self.read(one(now.mod_revision - 1)).await.ok().and_then(|answer| answer.kvs.into_iter().next()),
        };
        tracing::info!(revision = now.mod_revision, why, "a write was done though its connection broke");
        Ok(WriteAnswer::Done { revision: now.mod_revision, previous })
    }
}
