//! A pod that is to run: one look at it, from its deadline to the starts that it leads to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ironkeel_informer::EventKind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::task::JoinHandle;

use crate::{
    Error, names,
    pods::{
        actions::{self, Verdict},
        admit::Refusal,
        config, env, kill,
        reason::Waiting,
        spec,
        start::{self, Job},
    },
    probes::{Kind, Probes},
    runtime::{ContainerView, PodView, State},
    volumes::Facts,
};

use super::{Stage, Wish, Worker};

impl Worker {
    pub(super) async fn sync(&mut self, wish: &Wish) -> Result<(), Error> {
        let kubelet = self.kubelet.clone();
        let pod = &self.grant(&wish.pod);
        let uid = names::uid(pod);
        // First, so that the view has what a start that is over has made.
        self.collect_tasks(pod).await;
        let view = kubelet.runtime.pod(uid).await?;
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
        kubelet.cgroups.create_pod(pod, self.resources.is_all_applied())?;
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
        let resized = self.apply_resources(pod, &view).await?;
        for kill in actions.kill.into_iter().chain(resized) {
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

    pub(super) fn start_kill(&mut self, pod: &Arc<Pod>, view: &PodView, kill: actions::Kill) {
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
    pub(super) fn probe_grace(&self, pod: &Pod, target: &ContainerView) -> Option<Duration> {
        let (_, container) = spec::find(pod, &target.name)?;
        let probe = match self.probes.health(&target.id, &container).failed? {
            Kind::Startup => container.startup_probe,
            _ => container.liveness_probe,
        };
        probe?.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
    }

    pub(super) fn past_deadline(&mut self, pod: &Pod) -> bool {
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
    pub(super) async fn remove_old_containers(&self, view: &PodView) {
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
