//! A pod's worker: one task that owns the pod, one state at a time, driven by what it sees and not by what happened.
//! Anything that changes (the pod, a container, a probe, a ConfigMap) only wakes it; it then looks at everything.
//!
//! Here: the states and what every look at the pod shares. A pod that is to run is [`sync`]'s, with its sandbox and
//! containers in [`containers`] and changes of its resources in [`resize`]; one that is to end is [`end`]'s.

mod containers;
mod end;
pub(crate) mod resize;
mod sync;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    Error,
    kubelet::Kubelet,
    names,
    probes::{Probes, Running},
    runtime::{ContainerView, PodView, State},
    status::{self, writer},
};

use super::{
    admit::Refusal,
    backoff::BackOff,
    kill,
    reason::Waiting,
    spec::{self, Role},
};

/// How long after a failure the pod is tried again, first.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// And at most.
const RETRY_MAX: Duration = Duration::from_secs(120);
/// A container that cannot be started is tried again after at most.
const START_RETRY_MAX: Duration = Duration::from_secs(10);
/// A pod is looked at that often even when nothing wakes it.
const RESYNC: Duration = Duration::from_secs(300);

/// What the sources say about the pod.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) pod: Arc<Pod>,
    /// A static pod's image in the API.
    pub(crate) mirror: Option<Arc<Pod>>,
    /// No source has the pod any more.
    pub(crate) gone: bool,
    /// Set when the node refused the pod or evicts it.
    pub(crate) refusal: Option<Refusal>,
    /// A grace period shorter than the pod's own.
    pub(crate) grace: Option<Duration>,
}

impl Wish {
    /// Whether the pod is to end.
    pub(crate) fn must_end(&self) -> bool {
        self.gone || self.refusal.is_some() || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn grace(&self) -> Duration {
        let asked = self.pod.metadata.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
        let grace = asked.map_or_else(|| kill::spec_grace(&self.pod), Duration::from_secs);
        self.grace.map_or(grace, |limit| limit.min(grace))
    }
}

/// The rest of the kubelet's hold on a worker.
pub(crate) struct Handle {
    pub(crate) wish: Mutex<Wish>,
    pub(crate) wake: Arc<Notify>,
    /// The latest status, for the server and for eviction.
    pub(crate) status: Mutex<Option<PodStatus>>,
    /// The pod with the resources that the node has granted, when they are not those that its spec asks for now.
    pub(crate) granted: Mutex<Option<Arc<Pod>>>,
}

/// Where the pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is to run.
    Syncing,
    /// Its containers are being ended, which leads to `Terminated`.
    Terminating,
    /// Its containers have ended; what it held on the node is being given back, which leads to `Finished`.
    Terminated,
    /// Nothing is held but containers' logs; waits until the sources drop the pod.
    Finished,
}

struct Worker {
    kubelet: Arc<Kubelet>,
    handle: Arc<Handle>,
    stage: Stage,
    probes: Probes,
    waiting: HashMap<String, Waiting>,
    backoffs: HashMap<String, BackOff>,
    starting: HashMap<String, JoinHandle<Result<(), Waiting>>>,
    /// How long a container that cannot be started waits until the next try.
    start_retry: HashMap<String, Duration>,
    killing: HashMap<String, JoinHandle<()>>,
    status: watch::Sender<writer::Desired>,
    previous: PodStatus,
    wake_at: Option<Instant>,
    retry: Duration,
    ended_by: Option<Refusal>,
    resources: resize::Allocation,
}

/// Runs a pod until no source has it and nothing of it is left.
pub(crate) async fn run(kubelet: Arc<Kubelet>, handle: Arc<Handle>) {
    let (status, receiver) = watch::channel(writer::Desired::default());
    let wish = handle.wish.lock().clone();
    let writing = (!wish.gone).then(|| tokio::spawn(writer::run(kubelet.client.clone(), receiver)));
    let known = wish.mirror.as_ref().unwrap_or(&wish.pod);
    let mut worker = Worker {
        probes: Probes::new(kubelet.runtime.clone(), kubelet.events.clone(), handle.wake.clone()),
        previous: known.status.clone().unwrap_or_default(),
        kubelet,
        handle,
        stage: Stage::Syncing,
        waiting: HashMap::new(),
        backoffs: HashMap::new(),
        starting: HashMap::new(),
        start_retry: HashMap::new(),
        killing: HashMap::new(),
        status,
        wake_at: None,
        retry: RETRY_FIRST,
        ended_by: None,
        resources: resize::Allocation::default(),
    };
    worker.run().await;
    drop(worker);
    if let Some(writing) = writing {
        writing.abort();
    }
}

impl Worker {
    async fn run(&mut self) {
        loop {
            let wish = self.handle.wish.lock().clone();
            self.wake_at = Some(Instant::now() + RESYNC);
            match self.step(&wish).await {
                Ok(true) => return,
                Ok(false) => self.retry = RETRY_FIRST,
                Err(error) => {
                    tracing::warn!(pod = names::name(&wish.pod), stage = ?self.stage, %error, "pod sync failed");
                    self.wake_in(self.retry);
                    self.retry = (self.retry * 2).min(RETRY_MAX);
                }
            }
            let wake = self.handle.wake.clone();
            let at = self.wake_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = self.kubelet.shutdown.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep_until(at.into()) => {}
            }
        }
    }

    fn wake_in(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// One look at everything. True when the worker is done for good.
    async fn step(&mut self, wish: &Wish) -> Result<bool, Error> {
        if self.stage == Stage::Syncing && wish.must_end() {
            self.stage = Stage::Terminating;
            self.ended_by = wish.refusal.clone();
        }
        if self.stage == Stage::Syncing {
            self.sync(wish).await?;
        }
        if self.stage == Stage::Terminating {
            self.terminate(wish).await?;
        }
        if self.stage == Stage::Terminated {
            self.give_back(wish).await?;
        }
        if self.stage == Stage::Finished {
            return self.finish(wish).await;
        }
        Ok(false)
    }

    fn reconcile_probes(&mut self, pod: &Pod, view: &PodView, pod_ips: &[String], terminating: bool) {
        let containers = spec::containers(pod);
        let running: Vec<Running<'_>> = containers
            .iter()
            .filter(|(role, _)| matches!(role, Role::Sidecar | Role::Regular))
            .filter_map(|(_, container)| {
                let view = view.container(&container.name).filter(|view| view.state == State::Running)?;
                Some(Running {
                    id: &view.id,
                    container,
                    pod_ip: pod_ips.first().map(String::as_str),
                    about: self.kubelet.container_reference(pod, &container.name),
                })
            })
            .collect();
        self.probes.reconcile(&running, terminating);
    }

    /// Computes the status and has it written.
    fn publish(&mut self, wish: &Wish, view: &PodView, pod_ips: &[String], finished: bool) {
        let host_ips = self.kubelet.host_ips();
        let probes = &self.probes;
        let health = |view: &ContainerView, container: &Container| {
            let health = probes.health(&view.id, container);
            (health.started, health.ready)
        };
        let target = wish.mirror.as_ref().or_else(|| (!names::is_static(&wish.pod)).then_some(&wish.pod));
        if let Some(target) = target {
            // Conditions of others (readiness gates) come from the API.
            let given = target.status.as_ref().and_then(|status| status.conditions.as_ref());
            let others = given.into_iter().flatten().filter(|c| !status::conditions::OWNED.contains(&c.type_.as_str()));
            let own = self.previous.conditions.take().unwrap_or_default();
            let own = own.into_iter().filter(|c| status::conditions::OWNED.contains(&c.type_.as_str()));
            self.previous.conditions = Some(own.chain(others.cloned()).collect());
        }
        let mut status = status::generate(&status::Input {
            pod: &wish.pod,
            view,
            waiting: &self.waiting,
            resources: &self.resources,
            health: &health,
            pod_ips,
            host_ips: &host_ips,
            scheme: &self.kubelet.scheme(),
            terminal: self.stage != Stage::Syncing,
            previous: &self.previous,
            now: Timestamp::now(),
        });
        if let Some(refusal) = &self.ended_by {
            status.phase = Some("Failed".into());
            status.reason = Some(refusal.reason.clone());
            status.message = Some(refusal.message.clone());
        }
        self.previous = status.clone();
        *self.handle.status.lock() = Some(status.clone());
        self.status.send_replace(writer::Desired { target: target.cloned(), status: Some(status), finished });
    }
}
