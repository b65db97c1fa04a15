//! The garbage collector: what is owned by objects that are gone goes too; foreground deletion waits for dependents,
//! orphaning frees them.
//!
//! Here: which resources are watched, and the workers. `graph` keeps who owns what, `collect` decides about one object.

mod collect;
mod graph;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{MetadataChange, MetadataFeed, WorkQueue, follow_metadata, run_workers};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::context::Context;
use crate::discovery::{Served, discover};
use graph::{Change, Graph, Kind, Work};

/// How long after a change of the served resources discovery is asked again, for the API server to serve it.
const REDISCOVER_AFTER: Duration = Duration::from_millis(250);
/// How long after a failed discovery it is tried again.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// How long after one that could not ask for everything.
const PARTIAL_DISCOVERY_RETRY: Duration = Duration::from_secs(30);
/// How long resources may take for their first list before the rest goes to work without them.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);
/// Workers that decide about objects; each waits for the API most of the time.
const WORKERS: usize = 20;

/// Resources whose objects are neither owned nor own: watching them is a waste, as upstream finds too.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

pub(crate) async fn run(context: Context) {
    let client = context.client("generic-garbage-collector");
    let graph = Arc::new(Mutex::new(Graph::default()));
    let queue: WorkQueue<Work> = WorkQueue::new();
    let kinds = Arc::new(Mutex::new(HashMap::new()));
    let unserved = Unserved::default();
    let (changes, feed) = mpsc::unbounded_channel();
    let (rediscover, asked) = mpsc::unbounded_channel();
    tokio::spawn(build(graph.clone(), queue.clone(), feed, rediscover));
    let mut monitors = Monitors {
        context: context.clone(),
        kinds: kinds.clone(),
        watched: HashMap::new(),
        changes,
        unserved: unserved.clone(),
        queue: queue.clone(),
    };
    let Some(complete) = context.shutdown.run_until_cancelled(monitors.start()).await else { return };
    tokio::spawn(monitors.follow(asked, complete));
    let collector = Arc::new(collect::Collector { client, graph, kinds, unserved, queue: queue.clone() });
    run_workers(queue, WORKERS, context.shutdown.clone(), move |work: Work| {
        let collector = collector.clone();
        async move { collector.work(work).await }
    })
    .await;
}

/// By `apiVersion kind`, which is how owner references name a resource: in any of its versions.
pub(super) type Kinds = Arc<Mutex<HashMap<(String, String), Served>>>;

/// What cannot be decided while some resource is not served.
type Unserved = Arc<Mutex<HashSet<Work>>>;

struct Monitors {
    context: Context,
    kinds: Kinds,
    unserved: Unserved,
    queue: WorkQueue<Work>,
    /// By group and plural.
    watched: HashMap<(String, String), Watched>,
    changes: mpsc::UnboundedSender<Change>,
}

/// A resource that is watched.
struct Watched {
    /// In which version.
    api_version: String,
    feed: MetadataFeed,
}

impl Monitors {
    /// Watches every resource that is served, and waits until they are all listed. Answers whether all are known.
    async fn start(&mut self) -> bool {
        let Started { synced, complete } = loop {
            match self.discover().await {
                Ok(started) => break started,
                Err(error) => {
                    tracing::debug!(%error, "discovery failed, trying again");
                    tokio::time::sleep(DISCOVERY_RETRY).await;
                }
            }
        };
        let all = futures::future::join_all(synced);
        if tokio::time::timeout(SYNC_PATIENCE, all).await.is_err() {
            tracing::warn!("some resources are not listed yet; what they own waits");
        }
        complete
    }

    /// Looks for new resources whenever it is asked to, and while some of them cannot be asked for.
    async fn follow(mut self, mut asked: mpsc::UnboundedReceiver<()>, mut complete: bool) {
        loop {
            tokio::select! {
                word = asked.recv() => {
                    if word.is_none() {
                        return;
                    }
                    tokio::time::sleep(REDISCOVER_AFTER).await;
                    while asked.try_recv().is_ok() {}
                }
                () = tokio::time::sleep(PARTIAL_DISCOVERY_RETRY), if !complete => {}
            }
            match self.discover().await {
                Ok(found) => complete = found.complete,
                Err(error) => {
                    tracing::debug!(%error, "discovery failed");
                    complete = false;
                }
            }
        }
    }

    /// Starts a watch for every resource that has none, and ends those of resources that are not served any more.
    async fn discover(&mut self) -> kube::Result<Started> {
        let found = discover(self.context.factory.client()).await?;
        for failure in &found.failures {
            tracing::debug!(%failure, "not all resources are known");
        }
        let mut complete = found.failures.is_empty();
        let kind = |served: &Served| (served.resource.api_version.clone(), served.resource.kind.clone());
        let kinds: HashMap<_, _> = found.resources.iter().map(|served| (kind(served), served.clone())).collect();
        let news = {
            let mut known = self.kinds.lock();
            let news = kinds.keys().any(|kind| !known.contains_key(kind));
            if complete {
                // An owner of a resource that is not served is not absent: nothing can be said of it.
                known.clear();
            }
            known.extend(kinds);
            news
        };
        if news {
            let waiting = std::mem::take(&mut *self.unserved.lock());
            waiting.into_iter().for_each(|work| self.queue.add(work));
        }
        let wanted = found.resources.into_iter().filter(|served| {
            let resource = &served.resource;
            let ignored = IGNORED.contains(&(resource.group.as_str(), resource.plural.as_str()));
            served.preferred && !ignored && ["list", "watch", "delete"].iter().all(|verb| served.can(verb))
        });
        let wanted: Vec<Served> = wanted.collect();
        let place = |served: &Served| (served.resource.group.clone(), served.resource.plural.clone());
        let places: HashSet<_> = wanted.iter().map(place).collect();
        if complete {
            self.watched.retain(|place, watched| {
                let served = places.contains(place);
                if !served {
                    watched.feed.stop();
                }
                served
            });
        }
        let mut synced = Vec::new();
        for served in wanted {
            let place = place(&served);
            let before = match self.watched.remove(&place) {
                Some(same) if same.api_version == served.resource.api_version => {
                    self.watched.insert(place, same);
                    continue;
                }
                Some(other) if !self.can_be_listed(&served).await => {
                    // The version of before tells what happens until then.
                    self.watched.insert(place, other);
                    complete = false;
                    continue;
                }
                before => before.map(|watched| watched.feed),
            };
            let api_version = served.resource.api_version.clone();
            let (feed, listed) = self.watch(served, before).await;
            self.watched.insert(place, Watched { api_version, feed });
            synced.push(listed);
        }
        Ok(Started { synced, complete })
    }

    /// Whether the resource can be listed now, in the version that is preferred now.
    async fn can_be_listed(&self, served: &Served) -> bool {
        let api = Api::<DynamicObject>::all_with(self.context.factory.client().clone(), &served.resource);
        let listed = api.list_metadata(&ListParams::default().limit(1)).await;
        if let Err(error) = &listed {
            tracing::debug!(%error, version = served.resource.api_version, "what is preferred cannot be listed yet");
        }
        listed.is_ok()
    }

    /// Watches a resource, from where the feed `before` ends; what comes back hears of its first list.
    async fn watch(&self, served: Served, before: Option<MetadataFeed>) -> (MetadataFeed, oneshot::Receiver<()>) {
        let resource = served.resource;
        let api = Api::<DynamicObject>::all_with(self.context.factory.client().clone(), &resource);
        let kind = Arc::new(Kind { api_version: resource.api_version, kind: resource.kind });
        let changes = self.changes.clone();
        let (synced, listed) = oneshot::channel();
        let synced = Mutex::new(Some(synced));
        let tell = move |change| {
            let change = match change {
                MetadataChange::Applied(meta) => Change::Applied(kind.clone(), meta),
                MetadataChange::Deleted(uid) => Change::Deleted(kind.clone(), uid),
                MetadataChange::Synced => {
                    drop(synced.lock().take());
                    return;
                }
            };
            // The receiver is gone on shutdown only.
            let _ = changes.send(change);
        };
        let stop = &self.context.shutdown;
        let feed = match before {
            Some(before) => before.succeeded_by(api, stop, tell).await,
            None => follow_metadata(api, stop, tell),
        };
        (feed, listed)
    }
}

/// What a discovery has led to.
struct Started {
    /// Each ends with the first list of a resource.
    synced: Vec<oneshot::Receiver<()>>,
    /// Everything that is served is known.
    complete: bool,
}

/// Keeps the graph, in the order of the changes.
async fn build(
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Work>,
    mut feed: mpsc::UnboundedReceiver<Change>,
    rediscover: mpsc::UnboundedSender<()>,
) {
    while let Some(change) = feed.recv().await {
        if matches!(change.kind().kind.as_str(), "CustomResourceDefinition" | "APIService") {
            // The receiver is gone on shutdown only.
            let _ = rediscover.send(());
        }
        for work in graph.lock().apply(change) {
            queue.add(work);
        }
    }
}
