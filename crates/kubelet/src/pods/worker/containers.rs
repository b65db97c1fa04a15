//! Starting what a pod is made of: its sandbox, and when a container may be started again.

use std::time::Duration;

use ironkeel_informer::EventKind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{
    Error, names,
    pods::{
        backoff::go_duration,
        config, kill,
        reason::{self, Waiting},
    },
    runtime::{PodView, State},
};

use super::{RETRY_FIRST, START_RETRY_MAX, Wish, Worker};

impl Worker {
    /// The restart count to go on from when the runtime has forgotten the container.
    pub(super) fn known_restarts(&self, name: &str) -> u32 {
        let lists = [&self.previous.container_statuses, &self.previous.init_container_statuses];
        let known = lists.into_iter().flatten().flatten().find(|status| status.name == name);
        known.filter(|s| s.container_id.is_some()).map(|s| s.restart_count as u32 + 1).unwrap_or_default()
    }

    /// Takes in the results of starts that have ended.
    pub(super) async fn collect_tasks(&mut self, pod: &Pod) {
        let done: Vec<String> =
            self.starting.iter().filter(|(_, task)| task.is_finished()).map(|(name, _)| name.clone()).collect();
        for name in done {
            let Some(task) = self.starting.remove(&name) else { continue };
            match task.await {
                Ok(Ok(())) => {
                    self.waiting.remove(&name);
                    self.start_retry.remove(&name);
                }
                Ok(Err(why)) => {
                    let retry = match why.reason {
                        // A second look soon after turns it into ImagePullBackOff, which waits its turn.
                        reason::ERR_IMAGE_PULL => Some(RETRY_FIRST),
                        reason::IMAGE_PULL_BACK_OFF => self.kubelet.images.retry_in(names::uid(pod), Timestamp::now()),
                        _ => None,
                    };
                    let own = self.start_retry.entry(name.clone()).or_insert(RETRY_FIRST / 2);
                    *own = (*own * 2).min(START_RETRY_MAX);
                    let delay = retry.unwrap_or(*own).max(RETRY_FIRST);
                    self.waiting.insert(name.clone(), why);
                    self.hold(&name, delay);
                }
                Err(error) => tracing::error!(container = name, %error, "container start task failed"),
            }
        }
        self.killing.retain(|_, task| !task.is_finished());
    }

    /// Keeps a container from being started again too soon after a failure to start it.
    pub(super) fn hold(&mut self, name: &str, delay: Duration) {
        let wake = self.handle.wake.clone();
        let held = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            wake.notify_one();
        });
        self.killing.insert(format!("hold/{name}"), held);
    }

    pub(super) fn may_start(&mut self, pod: &Pod, view: &PodView, container: &Container) -> bool {
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

    pub(super) async fn create_sandbox(&mut self, wish: &Wish, view: &PodView, attempt: u32) -> Result<(), Error> {
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
}
