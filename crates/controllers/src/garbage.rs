//! The garbage collector: what is owned by objects that are gone goes too; foreground deletion waits for dependents,
//! orphaning frees them.
//!
//! Here: which resources are watched, and the workers. `graph` keeps who owns what, `collect` decides about one object.

mod collect;
mod graph;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{MetadataChange, WorkQueue, follow_metadata, run_workers};
use kube::Api;
use kube::api::DynamicObject;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::context::Context;
use crate::discovery::{Served, served};
use graph::{Change, Graph, Kind, Work};

/// How long after a change of the served resources discovery is asked again, for the API server to serve it.
const REDISCOVER_AFTER: Duration = Duration::from_millis(250);
/// How long after a failed discovery it is tried again.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
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
    let (changes, feed) = mpsc::unbounded_channel();
    let (rediscover, asked) = mpsc::unbounded_channel();
    tokio::spawn(build(graph.clone(), queue.clone(), feed, rediscover));
    let monitors = Monitors { context: context.clone(), kinds: kinds.clone(), changes };
    let Some(()) = context.shutdown.run_until_cancelled(monitors.start()).await else { return };
    tokio::spawn(monitors.follow(asked));
    let collector = Arc::new(collect::Collector { client, graph, kinds, queue: queue.clone() });
    run_workers(queue, WORKERS, context.shutdown.clone(), move |work: Work| {
        let collector = collector.clone();
        async move { collector.work(work).await }
    })
    .await;
}

/// By `apiVersion kind`, which is how owner references name a resource.
pub(super) type Kinds = Arc<Mutex<HashMap<(String, String), Served>>>;

struct Monitors {
    context: Context,
    kinds: Kinds,
    changes: mpsc::UnboundedSender<Change>,
}

impl Monitors {
    /// Watches every resource that is served, and waits until they are all listed.
    async fn start(&self) {
        let synced = loop {
            match self.discover().await {
                Ok(synced) => break synced,
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
    }

    /// Looks for new resources whenever it is asked to.
    async fn follow(self, mut asked: mpsc::UnboundedReceiver<()>) {
        while asked.recv().await.is_some() {
            tokio::time::sleep(REDISCOVER_AFTER).await;
            while asked.try_recv().is_ok() {}
            if let Err(error) = self.discover().await {
                tracing::debug!(%error, "discovery failed");
            }
        }
    }

    /// Starts a watch for every resource that has none; the answer resolves as they are listed.
    async fn discover(&self) -> kube::Result<Vec<impl Future<Output = ()> + use<>>> {
        let mut started = Vec::new();
        for served in served(self.context.factory.client()).await? {
            let resource = served.resource.clone();
            let ignored = IGNORED.contains(&(resource.group.as_str(), resource.plural.as_str()));
            if ignored || !["list", "watch", "delete"].iter().all(|verb| served.can(verb)) {
                continue;
            }
            let kind = (resource.api_version.clone(), resource.kind.clone());
            if self.kinds.lock().insert(kind, served.clone()).is_some() {
                continue;
            }
            let api = Api::<DynamicObject>::all_with(self.context.factory.client().clone(), &resource);
            let kind = Arc::new(Kind { api_version: resource.api_version, kind: resource.kind });
            let changes = self.changes.clone();
            let (synced, listed) = oneshot::channel();
            let synced = Mutex::new(Some(synced));
            follow_metadata(api, &self.context.shutdown, move |change| {
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
            });
            // Nothing is sent: the end of the sender is the word.
            started.push(async move { listed.await.unwrap_or_default() });
        }
        Ok(started)
    }
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
