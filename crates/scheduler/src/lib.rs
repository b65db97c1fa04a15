//! The scheduler: which node a pod runs on.
//!
//! `queue` says which pod is next, `cache` what the nodes hold (assumed pods included), `framework`
//! runs the plugins of `plugins/`, `bind` tells the API. One task owns queue and cache and schedules
//! pod after pod; only binding runs beside it. Answers to kube-scheduler's default profile, as far as
//! its plugins are here: preemption, spread, inter-pod affinity, volumes and extenders are not.

mod bind;
mod cache;
mod framework;
mod plugins;
mod queue;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, EventRecorder, Informer, WatchConfig};
use ironkeel_semantics::pods;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use bind::{Binder, Bound};
use cache::{Cache, PodInfo};
use framework::Framework;
use queue::{ClusterEvent, Queue, QueuedPod};

/// The name that pods ask for by default.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// Settings of the scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods whose `spec.schedulerName` is this are ours.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { scheduler_name: DEFAULT_SCHEDULER_NAME.to_owned() }
    }
}

/// Runs until `shutdown`.
pub fn run(
    config: Config,
    client: kube::Client,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
    Box::pin(schedule(config, client, shutdown))
}

async fn schedule(config: Config, client: kube::Client, shutdown: CancellationToken) {
    let unfinished = WatchConfig {
        label_selector: None,
        field_selector: Some("status.phase!=Succeeded,status.phase!=Failed".to_owned()),
    };
    let pods = Informer::start(Api::<Pod>::all(client.clone()), unfinished, shutdown.clone());
    let nodes = Informer::start(Api::<Node>::all(client.clone()), WatchConfig::default(), shutdown.clone());
    let recorder = EventRecorder::new(client.clone(), &config.scheduler_name, "", shutdown.clone());
    let (results, bound) = mpsc::unbounded_channel();
    let scheduler = Scheduler {
        scheduler_name: config.scheduler_name,
        cache: Cache::default(),
        queue: Queue::default(),
        framework: Framework::default_profile(),
        binder: Binder::new(client, recorder, results),
    };
    let (mut pod_deltas, mut node_deltas) = (pods.subscribe(), nodes.subscribe());
    tokio::select! {
        () = async { nodes.synced().await; pods.synced().await } => {}
        () = shutdown.cancelled() => return,
    }
    scheduler.run(&mut pod_deltas, &mut node_deltas, bound, shutdown).await;
}

struct Scheduler {
    scheduler_name: String,
    cache: Cache,
    queue: Queue,
    framework: Framework,
    binder: Binder,
}

impl Scheduler {
    async fn run(
        mut self,
        pods: &mut mpsc::UnboundedReceiver<Delta<Pod>>,
        nodes: &mut mpsc::UnboundedReceiver<Delta<Node>>,
        mut bound: mpsc::UnboundedReceiver<Bound>,
        shutdown: CancellationToken,
    ) {
        loop {
            // What happened comes before the next decision.
            while let Ok(delta) = nodes.try_recv() {
                self.on_node(delta);
            }
            while let Ok(delta) = pods.try_recv() {
                self.on_pod(delta);
            }
            while let Ok(result) = bound.try_recv() {
                self.on_bound(result);
            }
            if let Some(pod) = self.queue.pop(Instant::now()) {
                self.schedule(pod);
                // Binding, the API server and others share this thread's runtime.
                tokio::task::yield_now().await;
                if shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            let wake = self.queue.next_wake().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                Some(delta) = nodes.recv() => self.on_node(delta),
                Some(delta) = pods.recv() => self.on_pod(delta),
                Some(result) = bound.recv() => self.on_bound(result),
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn schedule(&mut self, queued: QueuedPod) {
        let pod = queued.info.clone();
        match self.framework.choose(&pod, &self.cache) {
            Ok(node) => {
                self.cache.assume(&pod, &node);
                self.binder.bind(queued, node);
            }
            Err(failure) => {
                self.binder.report(&pod.pod, &failure);
                self.queue.park(queued, failure.rejected_by, Instant::now());
            }
        }
    }

    fn on_bound(&mut self, bound: Bound) {
        match bound {
            Bound::Done => {}
            Bound::Gone { pod } => {
                self.cache.forget(&pod);
                self.queue.moved(&ClusterEvent::PodDeleted, Instant::now());
            }
            Bound::Failed { pod } => {
                self.cache.forget(&pod.info);
                self.queue.retry(pod, Instant::now());
            }
        }
    }

    fn on_node(&mut self, delta: Delta<Node>) {
        let event = match delta {
            Delta::Added(node) => {
                self.cache.set_node(node);
                ClusterEvent::NodeAdded
            }
            Delta::Updated { old, new } => {
                let event = queue::node_change(&old, &new);
                self.cache.set_node(new);
                match event {
                    Some(event) => event,
                    None => return,
                }
            }
            Delta::Deleted(node) => {
                self.cache.remove_node(&node);
                return;
            }
            Delta::Synced => return,
        };
        self.queue.moved(&event, Instant::now());
    }

    fn on_pod(&mut self, delta: Delta<Pod>) {
        match delta {
            Delta::Added(pod) | Delta::Updated { new: pod, .. } if pods::is_terminal(&pod) => self.drop_pod(&pod),
            Delta::Added(pod) => self.take_pod(pod, false),
            Delta::Updated { old, new } => {
                let changed = old.spec != new.spec || old.metadata.labels != new.metadata.labels;
                self.take_pod(new, changed);
            }
            Delta::Deleted(pod) => self.drop_pod(&pod),
            Delta::Synced => {}
        }
    }

    fn take_pod(&mut self, pod: Arc<Pod>, changed: bool) {
        if pods::node_name(&pod).is_some() {
            self.queue.remove(&PodInfo::uid_of(&pod));
            self.cache.add_pod(&Arc::new(PodInfo::new(pod)));
            return;
        }
        let ours = pod
            .spec
            .as_ref()
            .is_some_and(|s| s.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER_NAME) == self.scheduler_name);
        if !ours || pods::is_terminating(&pod) {
            self.queue.remove(&PodInfo::uid_of(&pod));
            return;
        }
        if !self.cache.is_assumed(&PodInfo::uid_of(&pod)) {
            self.queue.add(Arc::new(PodInfo::new(pod)), changed, Instant::now());
        }
    }

    fn drop_pod(&mut self, pod: &Arc<Pod>) {
        let uid = PodInfo::uid_of(pod);
        self.queue.remove(&uid);
        if self.cache.remove_pod(&uid) {
            self.queue.moved(&ClusterEvent::PodDeleted, Instant::now());
        }
    }
}
