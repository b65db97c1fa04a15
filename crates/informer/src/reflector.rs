//! Keeps a cache (or another sink) equal to the server's state: list in pages, then watch with bookmarks, again from where it broke.
//!
//! Answers to client-go's Reflector. A watch that ends is resumed from the last revision; `410 Gone` means a new list,
//! and the cache turns the difference into changes. Failures are retried with a growing delay.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use kube::api::{ListParams, ObjectList, PartialObjectMeta, WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Api, Resource};
use rand::Rng as _;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::WatchConfig;
use crate::wire::{self, Events};

/// Objects a page of a list.
const LIST_PAGE_OBJECTS: u32 = 500;
/// The first delay after a failure; it doubles with every further one.
const RETRY_FIRST_MS: u64 = 20;
/// The longest delay between two tries.
const RETRY_LONGEST_MS: u64 = 10_000;
/// A watch that lived this long counts as healthy, even when it carried no event.
const HEALTHY_WATCH: Duration = Duration::from_secs(5);
/// HTTP status of a revision that was compacted.
const GONE: u16 = 410;

type List<K> = dyn Fn(ListParams) -> BoxFuture<'static, kube::Result<ObjectList<K>>> + Send + Sync;
type Watch<K> = dyn Fn(WatchParams, String) -> BoxFuture<'static, kube::Result<Events<K>>> + Send + Sync;

/// Where objects come from: whole ones, or their metadata only.
pub(crate) struct Source<K: Clone> {
    what: String,
    list: Box<List<K>>,
    watch: Box<Watch<K>>,
}

impl<K> Source<K>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn objects(api: Api<K>) -> Self {
        let what = api.resource_url().to_owned();
        let request = Request::new(what.clone());
        let client = api.clone().into_client();
        let lister = Arc::new(api);
        Self {
            what,
            list: Box::new(move |params| {
                let api = lister.clone();
                async move { api.list(&params).await }.boxed()
            }),
            watch: Box::new(move |params, version| {
                let (client, request) = (client.clone(), request.watch(&params, &version));
                async move { wire::watch(&client, request).await }.boxed()
            }),
        }
    }
}

impl<D> Source<PartialObjectMeta<D>>
where
    D: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn metadata(api: Api<D>) -> Self {
        let what = api.resource_url().to_owned();
        let request = Request::new(what.clone());
        let client = api.clone().into_client();
        let lister = Arc::new(api);
        Self {
            what,
            list: Box::new(move |params| {
                let api = lister.clone();
                async move { api.list_metadata(&params).await }.boxed()
            }),
            watch: Box::new(move |params, version| {
                let (client, request) = (client.clone(), request.watch_metadata(&params, &version));
                async move { wire::watch(&client, request).await }.boxed()
            }),
        }
    }
}

/// Where objects go.
pub(crate) trait Sink<K>: Send + Sync + 'static {
    /// What is gathered of a list while it comes in.
    type List: Default + Send;
    /// Takes in a page of a list.
    fn page(&self, list: &mut Self::List, page: Vec<K>);
    /// The list is complete: what is known but not listed is gone.
    fn listed(&self, list: Self::List);
    /// Takes in a state of one object.
    fn apply(&self, object: K);
    /// Takes out one object, with the last state that the server sent.
    fn delete(&self, object: K);
    /// Nothing will come any more.
    fn close(&self);
}

/// What to do next, and why.
enum Step {
    /// Nothing is known, or what is known is too old to resume.
    List,
    /// The cache is complete up to this revision.
    Watch(String),
}

/// Fills `sink` until `stop`.
pub(crate) async fn run<K, S>(source: Source<K>, config: WatchConfig, sink: Arc<S>, stop: CancellationToken)
where
    K: Resource + Clone + Send + Sync + 'static,
    S: Sink<K>,
{
    stop.run_until_cancelled(reflect(source, config, &*sink)).await;
    sink.close();
}

async fn reflect<K, S>(source: Source<K>, config: WatchConfig, sink: &S)
where
    K: Resource + Clone + Send + Sync + 'static,
    S: Sink<K>,
{
    let mut backoff = Backoff::default();
    let mut step = Step::List;
    loop {
        step = match step {
            Step::List => match list_all(&source, &config, sink).await {
                Ok(version) => {
                    backoff.reset();
                    Step::Watch(version)
                }
                Err(error) => {
                    tracing::debug!(resource = source.what, %error, "list failed, trying again");
                    backoff.wait().await;
                    Step::List
                }
            },
            Step::Watch(version) => {
                let started = Instant::now();
                let (next, carried) = watch_from(&source, &config, sink, version).await;
                if carried || started.elapsed() > HEALTHY_WATCH {
                    backoff.reset();
                } else {
                    backoff.wait().await;
                }
                next
            }
        };
    }
}

async fn list_all<K, S>(source: &Source<K>, config: &WatchConfig, sink: &S) -> kube::Result<String>
where
    K: Resource + Clone,
    S: Sink<K>,
{
    let mut params = ListParams {
        label_selector: config.label_selector.clone(),
        field_selector: config.field_selector.clone(),
        limit: Some(LIST_PAGE_OBJECTS),
        ..ListParams::default()
    };
    let mut list = S::List::default();
    loop {
        let page = (source.list)(params.clone()).await?;
        sink.page(&mut list, page.items.into_iter().map(slim).collect());
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                sink.listed(list);
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Watches until the stream ends; says what to do next and whether the watch delivered anything.
async fn watch_from<K, S>(source: &Source<K>, config: &WatchConfig, sink: &S, mut version: String) -> (Step, bool)
where
    K: Resource + Clone,
    S: Sink<K>,
{
    let mut params = WatchParams {
        label_selector: config.label_selector.clone(),
        field_selector: config.field_selector.clone(),
        ..WatchParams::default()
    };
    // Spread, so that many informers do not reconnect in one instant.
    params.timeout = Some(rand::rng().random_range(240..290));
    let mut carried = false;
    let mut events = match (source.watch)(params, version.clone()).await {
        Ok(events) => events,
        Err(kube::Error::Api(status)) if status.code == GONE => return (Step::List, carried),
        Err(error) => {
            tracing::debug!(resource = source.what, %error, "watch failed, trying again");
            return (Step::Watch(version), carried);
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                note_version(&mut version, &object);
                sink.apply(slim(object));
            }
            Ok(WatchEvent::Deleted(object)) => {
                note_version(&mut version, &object);
                sink.delete(slim(object));
            }
            Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
            Ok(WatchEvent::Error(status)) => {
                tracing::debug!(resource = source.what, code = status.code, "watch ended: {}", status.message);
                // A compacted revision, or a server that cannot serve it: only a new list tells what was missed.
                return (Step::List, carried);
            }
            Err(kube::Error::Api(status)) if status.code == GONE => return (Step::List, carried),
            Err(error @ kube::Error::SerdeError(_)) => {
                // The object does not fit our type. The rest of the stream is good, and a new list would fail the same.
                tracing::warn!(resource = source.what, %error, "an object cannot be read and is left out");
            }
            Err(error) => {
                tracing::debug!(resource = source.what, %error, "watch broke, resuming");
                return (Step::Watch(version), carried);
            }
        }
        carried = true;
    }
    (Step::Watch(version), carried)
}

fn note_version<K: Resource>(version: &mut String, object: &K) {
    if let Some(newer) = &object.meta().resource_version {
        version.clone_from(newer);
    }
}

/// Managed fields are half of an object's size, and nobody who reads a cache needs them.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }

    async fn wait(&mut self) {
        let full = RETRY_FIRST_MS.saturating_mul(1 << self.failures.min(20)).min(RETRY_LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        let jittered = rand::rng().random_range(full / 2..=full);
        tokio::time::sleep(Duration::from_millis(jittered)).await;
    }
}
