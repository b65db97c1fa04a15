//! The store and the admission chain, measured: durations and errors by operation and resource.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use ironkeel_object::Value;
use ironkeel_registry::{Admission, ApiError, Attributes, Chain};
use ironkeel_store::{
    Condition, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchRange,
    WatchStream, WriteAnswer,
};

use crate::metrics::Metrics;

/// A store whose calls are counted.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
}

/// API groups by the plural that stands in a key.
static GROUPS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let mut groups = HashMap::new();
    for r in ironkeel_schema::resources() {
        groups.entry(r.plural).or_insert(r.group);
    }
    groups
});

/// Group and resource of a key: `/registry/pods/…`, `/registry/example.com/widgets/…`.
fn resource_of(key: &[u8]) -> (&str, &str) {
    let text = std::str::from_utf8(key).unwrap_or_default();
    let mut parts = text.strip_prefix("/registry/").unwrap_or_default().split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match (first, second) {
        ("minions", _) => ("", "nodes"),
        ("controllers", _) => ("", "replicationcontrollers"),
        ("services", "specs") => ("", "services"),
        ("services", "endpoints") => ("", "endpoints"),
        ("ingress", _) => ("networking.k8s.io", "ingresses"),
        (group, plural) if group.contains('.') => (group, plural),
        (plural, _) => (GROUPS.get(plural).copied().unwrap_or_default(), plural),
    }
}

/// A call of the store as a step of its request.
async fn traced<T>(call: impl Future<Output = T>) -> T {
    let span = ironkeel_trace::span("store").outgoing();
    span.hold(call).await
}

impl MeteredStore {
    fn note<T>(&self, operation: &str, key: &[u8], started: Instant, result: &Result<T, StoreError>) {
        let took = started.elapsed();
        let (group, resource) = resource_of(key);
        self.metrics.caches.store_call(operation, group, resource, took, result.is_err());
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let started = Instant::now();
        let result = traced(self.inner.get(key, revision)).await;
        self.note("get", key, started, &result);
        result
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        let (started, key) = (Instant::now(), range.start.clone());
        let result = traced(self.inner.range(range)).await;
        self.note("list", &key, started, &result);
        if let Ok(answer) = &result {
            let (group, resource) = resource_of(&key);
            self.metrics.caches.store_list(group, resource, answer.kvs.len());
        }
        result
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        let started = Instant::now();
        let operation = if condition == Condition::Absent { "create" } else { "update" };
        let result = traced(self.inner.put(key.clone(), value, condition, lease)).await;
        self.note(operation, &key, started, &result);
        result
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        let started = Instant::now();
        let result = traced(self.inner.delete(key.clone(), condition)).await;
        self.note("delete", &key, started, &result);
        result
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

    fn shared(&self) -> bool {
        self.inner.shared()
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }

    async fn stale(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.inner.stale(key).await
    }
}

/// An admission chain whose steps are counted.
#[derive(Debug)]
pub(crate) struct MeteredAdmission {
    pub(crate) inner: Chain,
    pub(crate) metrics: Arc<Metrics>,
}

impl MeteredAdmission {
    fn note(&self, step: &'static str, a: &Attributes<'_>, started: Instant, result: &Result<(), ApiError>) {
        let took = started.elapsed();
        let rejected = if result.is_err() { "true" } else { "false" };
        self.metrics.admission.steps.with([step, a.operation.as_str(), rejected]).observe(took.as_secs_f64());
    }
}

#[async_trait]
impl Admission for MeteredAdmission {
    async fn mutate(&self, a: &Attributes<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
        let started = Instant::now();
        let result = ironkeel_trace::span("mutating admission").hold(self.inner.mutate(a, object, old)).await;
        self.note("admit", a, started, &result);
        result
    }

    async fn validate(&self, a: &Attributes<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let started = Instant::now();
        let result = ironkeel_trace::span("validating admission").hold(self.inner.validate(a, object, old)).await;
        self.note("validate", a, started, &result);
        result
    }

    fn rolled_back(&self, a: &Attributes<'_>, object: &Value) {
        self.inner.rolled_back(a, object);
    }
}
