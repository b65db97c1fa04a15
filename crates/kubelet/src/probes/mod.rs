//! Probes of running containers: a task a probe, results kept by container id. A change of a result wakes the pod's
//! worker at once.

pub(crate) mod prober;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ironkeel_informer::{EventKind, EventRecorder};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Probe};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

use crate::runtime::Runtime;

use prober::{Check, Subject};

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What a container's probes have found; a probe that the container does not have counts as passed.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) started: bool,
    pub(crate) ready: bool,
    /// Which probe asks for the container's death.
    pub(crate) failed: Option<Kind>,
}

type Results = Arc<Mutex<HashMap<(String, Kind), bool>>>;

/// The probes of one pod.
pub(crate) struct Probes {
    runtime: Runtime,
    events: EventRecorder,
    results: Results,
    tasks: HashMap<(String, Kind), AbortHandle>,
    wake: Arc<Notify>,
}

/// A container that runs.
pub(crate) struct Running<'a> {
    pub(crate) id: &'a str,
    pub(crate) container: &'a Container,
    pub(crate) pod_ip: Option<&'a str>,
    pub(crate) about: ObjectReference,
}

impl Probes {
    pub(crate) fn new(runtime: Runtime, events: EventRecorder, wake: Arc<Notify>) -> Self {
        Self { runtime, events, results: Results::default(), tasks: HashMap::new(), wake }
    }

    /// Has exactly the running containers probed. While `terminating`, only readiness is.
    pub(crate) fn reconcile(&mut self, running: &[Running<'_>], terminating: bool) {
        self.tasks.retain(|(id, kind), task| {
            let stays = running.iter().any(|r| r.id == *id) && !(terminating && *kind != Kind::Readiness);
            if !stays {
                task.abort();
            }
            stays
        });
        self.results.lock().retain(|(id, _), _| running.iter().any(|r| r.id == *id));
        for container in running {
            let spec = container.container;
            for (kind, probe) in [
                (Kind::Startup, &spec.startup_probe),
                (Kind::Liveness, &spec.liveness_probe),
                (Kind::Readiness, &spec.readiness_probe),
            ] {
                let Some(probe) = probe else { continue };
                let key = (container.id.to_owned(), kind);
                if self.tasks.contains_key(&key) || (terminating && kind != Kind::Readiness) {
                    continue;
                }
                if let Some(task) = self.start(container, kind, probe) {
                    self.tasks.insert(key, task);
                }
            }
        }
    }

    /// What is known of a container.
    pub(crate) fn health(&self, id: &str, container: &Container) -> Health {
        let results = self.results.lock();
        let of = |kind| results.get(&(id.to_owned(), kind)).copied();
        let started = container.startup_probe.is_none() || of(Kind::Startup) == Some(true);
        let failed = [Kind::Startup, Kind::Liveness].into_iter().find(|kind| of(*kind) == Some(false));
        let ready = started && (container.readiness_probe.is_none() || of(Kind::Readiness) == Some(true));
        Health { started, ready, failed }
    }

    fn start(&self, running: &Running<'_>, kind: Kind, probe: &Probe) -> Option<AbortHandle> {
        let check = if let Some(action) = &probe.exec {
            Check::Exec(action.clone())
        } else if let Some(action) = &probe.http_get {
            Check::Http(action.clone())
        } else if let Some(action) = &probe.tcp_socket {
            Check::Tcp(action.clone())
        } else {
            Check::Grpc(probe.grpc.clone()?)
        };
        let task = ProbeTask {
            runtime: self.runtime.clone(),
            events: self.events.clone(),
            results: self.results.clone(),
            wake: self.wake.clone(),
            kind,
            check,
            probe: probe.clone(),
            id: running.id.to_owned(),
            container: running.container.clone(),
            pod_ip: running.pod_ip.map(str::to_owned),
            about: running.about.clone(),
        };
        Some(tokio::spawn(task.run()).abort_handle())
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

struct ProbeTask {
    runtime: Runtime,
    events: EventRecorder,
    results: Results,
    wake: Arc<Notify>,
    kind: Kind,
    check: Check,
    probe: Probe,
    id: String,
    container: Container,
    pod_ip: Option<String>,
    about: ObjectReference,
}

impl ProbeTask {
    async fn run(self) {
        let seconds =
            |value: Option<i32>, default: u64| Duration::from_secs(value.map_or(default, |v| v.max(0) as u64));
        let period = seconds(self.probe.period_seconds.filter(|s| *s > 0), 10);
        let timeout = seconds(self.probe.timeout_seconds.filter(|s| *s > 0), 1);
        let threshold = |value: Option<i32>, default: u32| value.filter(|v| *v > 0).map_or(default, |v| v as u32);
        let success = threshold(self.probe.success_threshold, 1);
        let failure = threshold(self.probe.failure_threshold, 3);
        tokio::time::sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut run) = (None, 0u32);
        loop {
            ticks.tick().await;
            if self.kind != Kind::Startup && !self.startup_passed() {
                // Looked at again soon, so that a started container is ready without waiting for a whole period.
                ticks.reset_after(period.min(Duration::from_secs(1)));
                continue;
            }
            let subject = Subject {
                runtime: &self.runtime,
                container: &self.container,
                container_id: &self.id,
                pod_ip: self.pod_ip.as_deref(),
            };
            let outcome = prober::check(&self.check, &subject, timeout).await;
            if let Err(why) = &outcome {
                let message = format!("{} probe failed: {why}", self.kind.title());
                self.events.event(self.about.clone(), EventKind::Warning, "Unhealthy", message);
            }
            let good = outcome.is_ok();
            run = if last == Some(good) { run.saturating_add(1) } else { 1 };
            last = Some(good);
            if run < if good { success } else { failure } {
                continue;
            }
            let before = self.results.lock().insert((self.id.clone(), self.kind), good);
            if before != Some(good) {
                self.wake.notify_one();
            }
            match self.kind {
                Kind::Startup => return,
                Kind::Liveness if !good => return,
                _ => {}
            }
        }
    }

    fn startup_passed(&self) -> bool {
        self.container.startup_probe.is_none()
            || self.results.lock().get(&(self.id.clone(), Kind::Startup)) == Some(&true)
    }
}
