//! The store around the store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use ironkeel_store::{
    Condition, Event, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchItem,
    WatchRange, WatchStream, WriteAnswer,
};

use crate::provider::{ENVELOPE, Provider};

/// How values under some prefixes are kept: written by the first provider, read by any.
#[derive(Debug)]
pub struct Rule {
    /// What their keys begin with.
    pub prefixes: Vec<Vec<u8>>,
    /// The providers; never empty.
    pub providers: Vec<Provider>,
}

/// See the module.
#[derive(Debug)]
pub struct Encrypted {
    inner: Arc<dyn Store>,
    rules: Arc<Vec<Rule>>,
}

impl Encrypted {
    /// Around this store; the first rule that names a key's prefix counts.
    pub fn new(inner: Arc<dyn Store>, rules: Vec<Rule>) -> Self {
        Encrypted { inner, rules: Arc::new(rules) }
    }
}

fn rule<'a>(rules: &'a [Rule], key: &[u8]) -> Option<&'a Rule> {
    rules.iter().find(|r| r.prefixes.iter().any(|p| key.starts_with(p)))
}

fn unreadable(key: &[u8]) -> StoreError {
    let key = String::from_utf8_lossy(key);
    StoreError::Unavailable(format!("the value of {key} is encrypted with a key that is not configured, or damaged"))
}

fn open(rules: &[Rule], mut kv: KeyValue) -> Result<KeyValue, StoreError> {
    // Deletes and key-only answers have no value.
    if kv.value.is_empty() {
        return Ok(kv);
    }
    match rule(rules, &kv.key) {
        Some(rule) => {
            let opened = rule.providers.iter().find_map(|p| p.open(&kv.key, &kv.value));
            kv.value = opened.ok_or_else(|| unreadable(&kv.key))?;
        }
        None if kv.value.starts_with(ENVELOPE) => return Err(unreadable(&kv.key)),
        None => {}
    }
    Ok(kv)
}

fn open_answer(rules: &[Rule], answer: WriteAnswer) -> Result<WriteAnswer, StoreError> {
    let each = |kv: Option<KeyValue>| kv.map(|kv| open(rules, kv)).transpose();
    Ok(match answer {
        WriteAnswer::Done { revision, previous } => WriteAnswer::Done { revision, previous: each(previous)? },
        WriteAnswer::Conflict { current, revision } => WriteAnswer::Conflict { current: each(current)?, revision },
    })
}

fn open_item(rules: &[Rule], item: WatchItem) -> Result<WatchItem, StoreError> {
    let WatchItem::Events(events) = item else { return Ok(item) };
    let event = |e: Event| {
        let previous = e.previous.map(|kv| open(rules, kv)).transpose()?;
        Ok::<_, StoreError>(Event { kv: open(rules, e.kv)?, deleted: e.deleted, previous })
    };
    Ok(WatchItem::Events(events.into_iter().map(event).collect::<Result<_, _>>()?))
}

#[async_trait]
impl Store for Encrypted {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let (found, revision) = self.inner.get(key, revision).await?;
        Ok((found.map(|kv| open(&self.rules, kv)).transpose()?, revision))
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        let mut answer = self.inner.range(range).await?;
        answer.kvs = answer.kvs.into_iter().map(|kv| open(&self.rules, kv)).collect::<Result<_, _>>()?;
        Ok(answer)
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        let sealed = match rule(&self.rules, &key).and_then(|r| r.providers.first()) {
            Some(first) => first.seal(&key, &value).map_err(|e| StoreError::Unavailable(e.to_string()))?,
            None => value,
        };
        open_answer(&self.rules, self.inner.put(key, sealed, condition, lease).await?)
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        open_answer(&self.rules, self.inner.delete(key, condition).await?)
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        let (revision, stream) = self.inner.watch(range).await?;
        let rules = self.rules.clone();
        Ok((revision, Box::pin(stream.map(move |item| item.and_then(|item| open_item(&rules, item))))))
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

    fn shared(&self) -> bool {
        self.inner.shared()
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }
}
