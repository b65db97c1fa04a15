//! The store around the store.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use ironkeel_store::{
    Condition, Event, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchItem,
    WatchRange, WatchStream, WriteAnswer,
};

use crate::EncryptionError;
use crate::provider::{ENVELOPE, Provider};

/// How values under some prefixes are kept: written by the first provider, read by any.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What their keys begin with.
    pub prefixes: Vec<Vec<u8>>,
    /// The providers; never empty.
    pub providers: Vec<Arc<Provider>>,
}

type Rules = ArcSwap<Vec<Rule>>;

/// See the module.
#[derive(Debug)]
pub struct Encrypted {
    inner: Arc<dyn Store>,
    rules: Arc<Rules>,
}

impl Encrypted {
    /// Around this store; the first rule that names a key's prefix counts.
    pub fn new(inner: Arc<dyn Store>, rules: Vec<Rule>) -> Self {
        Encrypted { inner, rules: Arc::new(ArcSwap::from_pointee(rules)) }
    }

    /// Goes by other rules from now on.
    pub fn replace(&self, rules: Vec<Rule>) {
        self.rules.store(Arc::new(rules));
    }
}

fn rule<'a>(rules: &'a [Rule], key: &[u8]) -> Option<&'a Rule> {
    rules.iter().find(|r| r.prefixes.iter().any(|p| key.starts_with(p)))
}

/// A value that cannot be read.
struct Unopened {
    /// Whether that may end by itself.
    passing: bool,
    error: StoreError,
}

impl From<Unopened> for StoreError {
    fn from(unopened: Unopened) -> StoreError {
        unopened.error
    }
}

fn unreadable(key: &[u8], why: Option<&EncryptionError>) -> Unopened {
    let key = String::from_utf8_lossy(key);
    let passing = matches!(why, Some(EncryptionError::Kms { .. }));
    let why = why.map_or_else(
        || "it is encrypted with a key that is not configured, or damaged".to_owned(),
        EncryptionError::to_string,
    );
    Unopened { passing, error: StoreError::Unavailable(format!("the value of {key} cannot be read: {why}")) }
}

/// The value beneath, and whether it would be written otherwise now.
async fn open_value(rules: &[Rule], key: &[u8], stored: &Bytes) -> Result<(Bytes, bool), Unopened> {
    let Some(rule) = rule(rules, key) else {
        if stored.starts_with(ENVELOPE) {
            return Err(unreadable(key, None));
        }
        return Ok((stored.clone(), false));
    };
    // One that fails does not keep the next one from being tried: two may have a key of the same name.
    let mut failed = None;
    for (at, provider) in rule.providers.iter().enumerate() {
        match provider.open(key, stored).await {
            Some(Ok((value, stale))) => return Ok((value, stale || at > 0)),
            Some(Err(error)) => failed = Some(error),
            None => {}
        }
    }
    Err(unreadable(key, failed.as_ref()))
}

async fn open(rules: &Rules, mut kv: KeyValue) -> Result<KeyValue, StoreError> {
    // Deletes and key-only answers have no value.
    if !kv.value.is_empty() {
        kv.value = open_value(&rules.load_full(), &kv.key, &kv.value).await?.0;
    }
    Ok(kv)
}

/// The same of one among many: a value that no provider opens is told as [`ironkeel_store::SEALED`] alone, so that
/// the others are told. Whoever decodes it finds no object. One whose key a KMS plugin has not told may be opened
/// later, and is waited for.
async fn open_among(rules: &Rules, kv: KeyValue) -> Result<KeyValue, StoreError> {
    if kv.value.is_empty() {
        return Ok(kv);
    }
    match open_value(&rules.load_full(), &kv.key, &kv.value).await {
        Ok((value, _)) => Ok(KeyValue { value, ..kv }),
        Err(Unopened { passing: false, error }) => {
            tracing::error!(%error, "the others are read");
            Ok(KeyValue { value: Bytes::from_static(ENVELOPE), ..kv })
        }
        Err(unopened) => Err(unopened.into()),
    }
}

async fn open_some(rules: &Rules, kv: Option<KeyValue>) -> Result<Option<KeyValue>, StoreError> {
    match kv {
        Some(kv) => open(rules, kv).await.map(Some),
        None => Ok(None),
    }
}

async fn open_answer(rules: &Rules, answer: WriteAnswer) -> Result<WriteAnswer, StoreError> {
    Ok(match answer {
        WriteAnswer::Done { revision, previous } => {
            // It is done: what stood there before may be unreadable, and is empty then.
            let previous = match previous {
                Some(kv) => {
                    let bare = KeyValue { value: Bytes::new(), ..kv.clone() };
                    Some(open(rules, kv).await.unwrap_or(bare))
                }
                None => None,
            };
            WriteAnswer::Done { revision, previous }
        }
        WriteAnswer::Conflict { current, revision } => {
            let current = match current {
                Some(kv) => Some(open_among(rules, kv).await?),
                None => None,
            };
            WriteAnswer::Conflict { current, revision }
        }
    })
}

fn unread(error: &StoreError) {
    tracing::warn!(%error, "what stood there before a change is not told");
}

async fn open_item(rules: &Rules, item: WatchItem) -> Result<WatchItem, StoreError> {
    let WatchItem::Events(events) = item else { return Ok(item) };
    let mut opened = Vec::with_capacity(events.len());
    for event in events {
        // What stood there before may have been written with a key that is gone, and repairing it is such an event:
        // then it is not told, as if it was compacted.
        let previous = match event.previous {
            Some(previous) => open(rules, previous).await.inspect_err(unread).ok(),
            None => None,
        };
        opened.push(Event { kv: open_among(rules, event.kv).await?, deleted: event.deleted, previous });
    }
    Ok(WatchItem::Events(opened))
}

#[async_trait]
impl Store for Encrypted {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let (found, revision) = self.inner.get(key, revision).await?;
        Ok((open_some(&self.rules, found).await?, revision))
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        let mut answer = self.inner.range(range).await?;
        let mut kvs = Vec::with_capacity(answer.kvs.len());
        for kv in answer.kvs {
            kvs.push(open_among(&self.rules, kv).await?);
        }
        answer.kvs = kvs;
        Ok(answer)
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        let sealed = match rule(&self.rules.load(), &key).and_then(|r| r.providers.first()) {
            Some(first) => first.seal(&key, &value).map_err(|e| StoreError::Unavailable(e.to_string()))?,
            None => value,
        };
        open_answer(&self.rules, self.inner.put(key, sealed, condition, lease).await?).await
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        open_answer(&self.rules, self.inner.delete(key, condition).await?).await
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        let (revision, stream) = self.inner.watch(range).await?;
        let rules = self.rules.clone();
        let opened = stream.then(move |item| {
            let rules = rules.clone();
            async move {
                match item {
                    Ok(item) => open_item(&rules, item).await,
                    Err(error) => Err(error),
                }
            }
        });
        Ok((revision, Box::pin(opened)))
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

    async fn stale(&self, key: &[u8]) -> Result<bool, StoreError> {
        let rules = self.rules.load_full();
        if rule(&rules, key).is_none() {
            return Ok(false);
        }
        match self.inner.get(key, 0).await?.0 {
            Some(kv) => Ok(open_value(&rules, key, &kv.value).await?.1),
            None => Ok(false),
        }
    }
}
