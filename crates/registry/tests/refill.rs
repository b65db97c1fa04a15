//! The caches while the store's watch is lost and everything is read anew.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_kinds::custom;
use ironkeel_object::Value;
use ironkeel_registry::{CustomRows, ListRequest, Registry, ServiceAddresses, SystemClock};
use ironkeel_store::{
    Condition, Layer, Range, RangeAnswer, Revision, Store, StoreError, WatchRange, WatchStream, WriteAnswer,
};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};

/// How long a test waits for what must come, in seconds.
const PATIENCE_SECONDS: u64 = 20;

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(PATIENCE_SECONDS);
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

/// A store whose watches break, and whose reads of everything wait.
#[derive(Debug)]
struct Breaking {
    inner: Arc<dyn Store>,
    broken: watch::Sender<u64>,
    /// Reads of everything tell that they begin, and need a permit each, once this is set.
    gated: AtomicBool,
    reading: Notify,
    permits: Semaphore,
    /// Reads of everything that fail with `Compacted`, and with `Unavailable`.
    compacted: Semaphore,
    unavailable: Semaphore,
}

impl Breaking {
    fn over(inner: Arc<dyn Store>) -> Arc<Breaking> {
        Arc::new(Breaking {
            inner,
            broken: watch::Sender::new(0),
            gated: AtomicBool::new(false),
            reading: Notify::new(),
            permits: Semaphore::new(0),
            compacted: Semaphore::new(0),
            unavailable: Semaphore::new(0),
        })
    }

    /// Breaks the watches; one is there, or soon will be.
    async fn break_watches(&self) {
        let begun = async {
            while self.broken.receiver_count() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("a watch", begun).await;
        self.broken.send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl Layer for Breaking {
    fn beneath(&self) -> &dyn Store {
        &*self.inner
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        if range.start == "/registry/" {
            if self.gated.load(Ordering::Acquire) {
                self.reading.notify_one();
                self.permits.acquire().await.unwrap().forget();
            }
            if let Ok(permit) = self.compacted.try_acquire() {
                permit.forget();
                return Err(StoreError::Compacted { requested: 1, compacted: 2 });
            }
            if let Ok(permit) = self.unavailable.try_acquire() {
                permit.forget();
                return Err(StoreError::Unavailable("the key service is away".into()));
            }
        }
        self.inner.range(range).await
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        let (revision, stream) = self.inner.watch(range).await?;
        let mut broken = self.broken.subscribe();
        broken.borrow_and_update();
        let end = async move {
            let _ = broken.changed().await;
            Err(StoreError::Unavailable("it broke".into()))
        };
        let lost = futures::stream::once(end);
        let both = futures::stream::select(stream, lost);
        let mut over = false;
        let until = both.take_while(move |item| {
            let go_on = !std::mem::replace(&mut over, item.is_err());
            async move { go_on }
        });
        Ok((revision, Box::pin(until)))
    }
}

fn widgets() -> CustomRows {
    let definition = json!({
        "spec": {"group": "example.com", "scope": "Namespaced", "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "x-kubernetes-preserve-unknown-fields": true}}}]},
        "status": {"acceptedNames": {"plural": "widgets", "singular": "widget", "kind": "Widget",
            "listKind": "WidgetList"}},
    });
    let definition: Value = ironkeel_codec::parse_json(definition.to_string().as_bytes()).unwrap();
    CustomRows {
        kinds: custom::kinds_of(&definition, &Arc::default()),
        storage_version: "v1".into(),
        served: vec!["v1".into()],
        converter: None,
    }
}

async fn start(store: Arc<Breaking>) -> Arc<Registry> {
    let services = ServiceAddresses::new([10, 0, 0, 0].into(), 24, 30000..=30199);
    Registry::start(store, Arc::new(SystemClock), ironkeel_kinds::kinds(), services).await.unwrap()
}

async fn put_widget(store: &Arc<Breaking>, name: &str) {
    let key = format!("/registry/example.com/widgets/default/{name}");
    let object = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": name, "namespace": "default", "uid": name}});
    let put = store.inner.put(key.into(), object.to_string().into(), Condition::Always, 0);
    assert!(matches!(put.await.unwrap(), WriteAnswer::Done { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_comes_while_all_are_read_anew_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Breaking::over(Embedded::open(dir.path(), Options::default()).unwrap());
    let registry = start(store.clone()).await;
    put_widget(&store, "before").await;
    store.gated.store(true, Ordering::Release);
    store.break_watches().await;
    soon("the refill", store.reading.notified()).await;
    // The refill knows which resources it reads, and has not begun to.
    let installing = tokio::spawn({
        let registry = registry.clone();
        async move { registry.install(&widgets()).await }
    });
    // It waits, or reads its own part.
    tokio::time::sleep(Duration::from_millis(200)).await;
    put_widget(&store, "between").await;
    store.gated.store(false, Ordering::Release);
    store.permits.add_permits(1);
    soon("the resource", installing).await.unwrap().unwrap();
    put_widget(&store, "after").await;
    let now = store.inner.status().await.unwrap().revision;
    soon("the cache", registry.wait_for_revision(now)).await.unwrap();
    let row = registry.row("example.com", "v1", "widgets").unwrap();
    let listed = registry.list(&row, &ListRequest::default()).await.unwrap();
    assert_eq!(listed.entries.iter().map(|e| e.name()).collect::<Vec<_>>(), ["after", "before", "between"]);
    registry.stop().await;
}

/// The caches follow again after reads that fail as `fail` says.
async fn goes_on_after(fail: impl Fn(&Breaking)) {
    let dir = tempfile::tempdir().unwrap();
    let store = Breaking::over(Embedded::open(dir.path(), Options::default()).unwrap());
    let registry = start(store.clone()).await;
    registry.install(&widgets()).await.unwrap();
    fail(&store);
    store.break_watches().await;
    put_widget(&store, "a").await;
    let now = store.inner.status().await.unwrap().revision;
    let there = async {
        while registry.wait_for_revision(now).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the cache", there).await;
    let row = registry.row("example.com", "v1", "widgets").unwrap();
    assert!(registry.get(&row, "default", "a").is_ok());
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refill_that_a_compaction_overtakes_begins_again() {
    goes_on_after(|store| store.compacted.add_permits(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_for_a_while_is_read_later() {
    goes_on_after(|store| store.unavailable.add_permits(2)).await;
}
