//! A pod's worker: one task that owns the pod, one state at a time, driven by what it sees and not by what happened.
//! Anything that changes (the pod, a container, a probe, a ConfigMap) only wakes it; it then looks at everything.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ironkeel_informer::EventKind;
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
    probes::{Kind, Probes, Running},
    runtime::{ContainerView, PodView, State},
    status::{self, writer},
    volumes::Facts,
};

use super::{
    actions::{self, Verdict},
    admit::Refusal,
    backoff::{BackOff, go_duration},
    config, env, kill,
    reason::{self, Waiting},
    spec::{self, Role},
    start::{self, Job},
};

/// How long after a failure the pod is tried again, first.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// And at most.
const RETRY_MAX: Duration = Duration::from_secs(120);
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
    killing: HashMap<String, JoinHandle<()>>,
    status: watch::Sender<writer::Desired>,
    previous: PodStatus,
    wake_at: Option<Instant>,
    retry: Duration,
    ended_by: Option<Refusal>,
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
        killing: HashMap::new(),
        status,
        wake_at: None,
        retry: RETRY_FIRST,
        ended_by: None,
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
                () = wake.notified() => {}
                () = tokio::time::sleep_until(at.into()) => {}
                () = self.kubelet.shutdown.cancelled() => return,
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

    async fn sync(&mut self, wish: &Wish) -> Result<(), Error> {
        let kubelet = self.kubelet.clone();
        let pod = &wish.pod;
        let uid = names::uid(pod);
        let view = kubelet.runtime.pod(uid).await?;
        self.collect_tasks(pod).await;
        let host_ips = kubelet.host_ips();
        let pod_ips = env::pod_ips(pod, &view, &host_ips);
        kubelet.remember_ips(uid, &pod_ips);
        self.reconcile_probes(pod, &view, &pod_ips, false);
        if self.past_deadline(pod) {
            self.ended_by = Some(Refusal {
                reason: "DeadlineExceeded".into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
            });
            self.stage = Stage::Terminating;
            return Ok(());
        }
        let actions = {
            let probes = &self.probes;
            let starting = &self.starting;
            actions::compute(pod, &view, |view, container| verdict(probes, starting, view, container))
        };
        if actions.finished {
            self.publish(wish, &view, &pod_ips, false);
            self.stage = Stage::Terminating;
            return Ok(());
        }
        self.publish(wish, &view, &pod_ips, false);
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        if !host_network && !kubelet.node.network_ready() {
            kubelet.pod_event(
                pod,
                EventKind::Warning,
                "NetworkNotReady",
                "network is not ready: the runtime's network is not ready",
            );
            self.wake_in(Duration::from_secs(2));
            return Ok(());
        }
        kubelet.cgroups.create_pod(pod)?;
        let directory = kubelet.paths.pod(uid);
        std::fs::create_dir_all(&directory).map_err(|source| Error::File {
            action: "creating",
            path: directory.clone(),
            source,
        })?;
        let allocatable = kubelet.node.allocatable();
        let facts = Facts { pod, pod_ips: &pod_ips, host_ips: &host_ips, allocatable: &allocatable };
        let volumes = kubelet.volumes.set_up(&facts).await.inspect_err(|error| {
            kubelet.pod_event(pod, EventKind::Warning, "FailedMount", &error.to_string());
        })?;
        if let Some(at) = volumes.renew_at {
            let left = at.duration_since(Timestamp::now());
            self.wake_in(Duration::try_from(left).unwrap_or_default());
        }
        if let Some(attempt) = actions.create_sandbox {
            self.create_sandbox(wish, &view, attempt).await?;
            // Everything else follows from the new view.
            self.handle.wake.notify_one();
            return Ok(());
        }
        for kill in actions.kill {
            self.start_kill(pod, &view, kill);
        }
        let Some(sandbox) = view.sandbox() else { return Ok(()) };
        for (_, container) in actions.start {
            if self.starting.contains_key(&container.name) || !self.may_start(pod, &view, &container) {
                continue;
            }
            let target = pod.spec.as_ref().and_then(|spec| {
                let own = spec.ephemeral_containers.iter().flatten().find(|e| e.name == container.name)?;
                view.container(own.target_container_name.as_deref()?).map(|target| target.id.clone())
            });
            let restarts = match view.container(&container.name) {
                Some(previous) => previous.restarts + 1,
                None => self.known_restarts(&container.name),
            };
            let job = Job {
                pod: pod.clone(),
                restarts,
                sandbox_id: sandbox.id.clone(),
                sandbox_config: config::sandbox(&kubelet, pod, sandbox.attempt)?,
                pod_ips: pod_ips.clone(),
                host_paths: volumes.host_paths.clone(),
                target,
                container,
            };
            let (kubelet, wake) = (kubelet.clone(), self.handle.wake.clone());
            let name = job.container.name.clone();
            let task = tokio::spawn(async move {
                let outcome = start::run(&kubelet, &job).await;
                wake.notify_one();
                outcome
            });
            self.starting.insert(name, task);
        }
        self.remove_old_containers(&view).await;
        // Back-offs may have begun above.
        self.publish(wish, &view, &pod_ips, false);
        Ok(())
    }

    /// The restart count to go on from when the runtime has forgotten the container.
    fn known_restarts(&self, name: &str) -> u32 {
        let lists = [&self.previous.container_statuses, &self.previous.init_container_statuses];
        let known = lists.into_iter().flatten().flatten().find(|status| status.name == name);
        known.filter(|s| s.container_id.is_some()).map(|s| s.restart_count as u32 + 1).unwrap_or_default()
    }

    /// Takes in the results of starts that have ended.
    async fn collect_tasks(&mut self, pod: &Pod) {
        let done: Vec<String> =
            self.starting.iter().filter(|(_, task)| task.is_finished()).map(|(name, _)| name.clone()).collect();
        for name in done {
            let Some(task) = self.starting.remove(&name) else { continue };
            match task.await {
                Ok(Ok(())) => {
                    self.waiting.remove(&name);
                }
                Ok(Err(why)) => {
                    let retry = match why.reason {
                        reason::ERR_IMAGE_PULL | reason::IMAGE_PULL_BACK_OFF => {
                            self.kubelet.images.retry_in(names::uid(pod), Timestamp::now())
                        }
                        _ => None,
                    };
                    // An immediate second look turns ErrImagePull into ImagePullBackOff; the rest waits its turn.
                    let delay = retry.unwrap_or(self.retry).max(RETRY_FIRST);
                    self.waiting.insert(name.clone(), why);
                    self.hold(&name, delay);
                }
                Err(error) => tracing::error!(container = name, %error, "container start task failed"),
            }
        }
        self.killing.retain(|_, task| !task.is_finished());
    }

    /// Keeps a container from being started again too soon after a failure to start it.
    fn hold(&mut self, name: &str, delay: Duration) {
        let wake = self.handle.wake.clone();
        let held = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            wake.notify_one();
        });
        self.killing.insert(format!("hold/{name}"), held);
    }

    fn may_start(&mut self, pod: &Pod, view: &PodView, container: &Container) -> bool {
        let name = &container.name;
        if self.killing.contains_key(&format!("hold/{name}")) {
            return false;
        }
        let Some(previous) = view.container(name).filter(|previous| previous.state == State::Exited) else {
            return true;
        };
        if self.killing.contains_key(&previous.id) {
            return false;
        }
        let now = Timestamp::now();
        let backoff = self.backoffs.entry(name.clone()).or_default();
        if let Some((left, whole)) = backoff.remaining(previous.finished_at, now) {
            let place = format!("{}_{}({})", names::name(pod), names::namespace(pod), names::uid(pod));
            let message = format!("back-off {} restarting failed container={name} pod={place}", go_duration(whole));
            let fresh = self.waiting.get(name).is_none_or(|waiting| waiting.message != message);
            self.waiting.insert(name.clone(), Waiting::new(reason::CRASH_LOOP_BACK_OFF, message));
            self.wake_in(left);
            if fresh {
                let text = format!("Back-off restarting failed container {name} in pod {place}");
                self.kubelet.container_event(pod, name, EventKind::Warning, "BackOff", &text);
            }
            return false;
        }
        if self.waiting.get(name).is_some_and(|waiting| waiting.reason == reason::CRASH_LOOP_BACK_OFF) {
            self.waiting.remove(name);
        }
        self.backoffs.entry(name.clone()).or_default().next(previous.finished_at, now);
        true
    }

    async fn create_sandbox(&mut self, wish: &Wish, view: &PodView, attempt: u32) -> Result<(), Error> {
        let kubelet = self.kubelet.clone();
        let pod = &wish.pod;
        for (_, task) in self.starting.drain() {
            task.abort();
        }
        if attempt > 0 {
            kubelet.pod_event(
                pod,
                EventKind::Normal,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            );
            kill::pod(&kubelet, Some(pod), view, kill::spec_grace(pod)).await?;
        }
        let logs = kubelet.paths.pod_logs(pod);
        std::fs::create_dir_all(&logs).map_err(|source| Error::File { action: "creating", path: logs, source })?;
        let config = config::sandbox(&kubelet, pod, attempt)?;
        let created = kubelet.runtime.run_sandbox(config, "").await;
        created.inspect_err(|error| {
            let message = format!("Failed to create pod sandbox: {error}");
            kubelet.pod_event(pod, EventKind::Warning, "FailedCreatePodSandBox", &message);
        })?;
        for old in view.sandboxes.iter().filter(|old| !view.containers.iter().any(|c| c.sandbox_id == old.id)) {
            kubelet.runtime.remove_sandbox(&old.id).await?;
        }
        Ok(())
    }

    fn start_kill(&mut self, pod: &Arc<Pod>, view: &PodView, kill: actions::Kill) {
        if self.killing.contains_key(&kill.id) {
            return;
        }
        let Some(target) = view.containers.iter().find(|container| container.id == kill.id).cloned() else { return };
        let (kubelet, pod, wake) = (self.kubelet.clone(), pod.clone(), self.handle.wake.clone());
        let grace = self.probe_grace(&pod, &target).unwrap_or_else(|| kill::spec_grace(&pod));
        let task = tokio::spawn(async move {
            if let Err(error) = kill::container(&kubelet, Some(&pod), &target, grace, &kill.message).await {
                tracing::warn!(%error, container = kill.name, "container not stopped");
            }
            wake.notify_one();
        });
        self.killing.insert(kill.id, task);
    }

    /// A failed probe may bring its own grace period.
    fn probe_grace(&self, pod: &Pod, target: &ContainerView) -> Option<Duration> {
        let (_, container) = spec::find(pod, &target.name)?;
        let probe = match self.probes.health(&target.id, &container).failed? {
            Kind::Startup => container.startup_probe,
            _ => container.liveness_probe,
        };
        probe?.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
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

    fn past_deadline(&mut self, pod: &Pod) -> bool {
        let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let (Some(deadline), Some(start)) = (deadline, &self.previous.start_time) else { return false };
        let active = Timestamp::now().duration_since(start.0);
        let left = deadline - active.as_secs();
        if left > 0 {
            self.wake_in(Duration::from_secs(left as u64));
        }
        left <= 0
    }

    /// Keeps the newest container of each name, and the one before it for its last state.
    async fn remove_old_containers(&self, view: &PodView) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for container in view.containers.iter() {
            let count = seen.entry(&container.name).or_default();
            *count += 1;
            if *count > 2 && container.state == State::Exited {
                if let Err(error) = self.kubelet.runtime.remove_container(&container.id).await {
                    tracing::debug!(%error, id = container.id, "dead container not removed");
                }
                if let Some(log) = Some(&container.log_path).filter(|path| !path.is_empty()) {
                    crate::logs::rotate::remove(log.as_ref());
                }
            }
        }
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

    async fn terminate(&mut self, wish: &Wish) -> Result<(), Error> {
        for (_, task) in self.starting.drain() {
            task.abort();
            // The start is over only when its task is.
            let _ = task.await;
        }
        for (_, task) in self.killing.drain() {
            task.abort();
        }
        let kubelet = self.kubelet.clone();
        let uid = names::uid(&wish.pod).to_owned();
        let view = kubelet.runtime.pod(&uid).await?;
        let ips = kubelet.pod_ips(&uid);
        self.reconcile_probes(&wish.pod, &view, &ips, true);
        self.publish(wish, &view, &ips, false);
        let pod = wish.pod.clone();
        let killing = kill::pod(&kubelet, Some(&pod), &view, wish.grace());
        tokio::pin!(killing);
        let mut grace = wish.grace();
        loop {
            tokio::select! {
                result = &mut killing => {
                    result?;
                    break;
                }
                () = self.handle.wake.notified() => {
                    let now = self.handle.wish.lock().clone();
                    if now.grace() < grace {
                        // The user lost patience: stop again, sooner. Stops of a container are idempotent.
                        grace = now.grace();
                        let view = kubelet.runtime.pod(&uid).await?;
                        kill::pod(&kubelet, Some(&pod), &view, grace).await?;
                        break;
                    }
                    let view = kubelet.runtime.pod(&uid).await?;
                    self.reconcile_probes(&pod, &view, &ips, true);
                    self.publish(&now, &view, &ips, false);
                }
            }
        }
        let view = kubelet.runtime.pod(&uid).await?;
        self.probes.reconcile(&[], true);
        self.stage = Stage::Terminated;
        self.publish(wish, &view, &ips, false);
        Ok(())
    }

    async fn give_back(&mut self, wish: &Wish) -> Result<(), Error> {
        let uid = names::uid(&wish.pod);
        self.kubelet.volumes.tear_down(uid)?;
        self.kubelet.cgroups.remove_pod(uid);
        self.kubelet.volumes.objects.unregister(uid);
        self.kubelet.images.forget(uid);
        self.stage = Stage::Finished;
        let view = self.kubelet.runtime.pod(uid).await?;
        let ips = self.kubelet.pod_ips(uid);
        self.publish(wish, &view, &ips, true);
        self.kubelet.pods_changed();
        Ok(())
    }

    async fn finish(&mut self, wish: &Wish) -> Result<bool, Error> {
        let uid = names::uid(&wish.pod);
        let view = self.kubelet.runtime.pod(uid).await?;
        if !wish.gone {
            let ips = self.kubelet.pod_ips(uid);
            self.publish(wish, &view, &ips, true);
            return Ok(false);
        }
        for container in &view.containers {
            self.kubelet.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &view.sandboxes {
            self.kubelet.runtime.remove_sandbox(&sandbox.id).await?;
        }
        self.kubelet.volumes.remove_directory(uid)?;
        let logs = self.kubelet.paths.pod_logs(&wish.pod);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %logs.display(), %error, "logs not removed");
        }
        self.kubelet.forget(uid);
        Ok(true)
    }
}

fn verdict(
    probes: &Probes,
    starting: &HashMap<String, JoinHandle<Result<(), Waiting>>>,
    view: &ContainerView,
    container: &Container,
) -> Verdict {
    let health = probes.health(&view.id, container);
    let kill = health.failed.map(|kind| {
        let kind = if kind == Kind::Startup { "startup" } else { "liveness" };
        format!("Container {} failed {kind} probe, will be restarted", container.name)
    });
    // A container whose postStart hook is still running has not started.
    Verdict { started: health.started && !starting.contains_key(&container.name), kill }
}
