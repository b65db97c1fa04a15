//! Ending containers: the preStop hook, then the runtime's stop with what is left of the grace period.

use std::time::{Duration, Instant};

use futures::future::join_all;
use ironkeel_informer::EventKind;
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use crate::{
    Error,
    kubelet::Kubelet,
    names,
    probes::prober::Subject,
    runtime::{ContainerView, PodView, State},
};

use super::{
    hooks,
    spec::{self, Role},
};

/// What a container gets after a preStop hook that used the whole grace period.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// The grace period that the pod's spec gives.
pub(crate) fn spec_grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Ends one container. `message` is the event's text; none is recorded when it is empty.
pub(crate) async fn container(
    kubelet: &Kubelet,
    pod: Option<&Pod>,
    view: &ContainerView,
    grace: Duration,
    message: &str,
) -> Result<(), Error> {
    let started = Instant::now();
    if let Some(pod) = pod
        && !message.is_empty()
    {
        kubelet.container_event(pod, &view.name, EventKind::Normal, "Killing", message);
    }
    if view.state == State::Running && !grace.is_zero() {
        pre_stop(kubelet, pod, view, grace).await;
    }
    let mut left = grace.saturating_sub(started.elapsed());
    if !grace.is_zero() {
        left = left.max(MINIMUM_GRACE.min(grace));
    }
    // The runtime counts whole seconds.
    let left = Duration::from_secs(left.as_millis().div_ceil(1000) as u64);
    kubelet.runtime.stop_container(&view.id, left).await
}

async fn pre_stop(kubelet: &Kubelet, pod: Option<&Pod>, view: &ContainerView, grace: Duration) {
    let found = pod.and_then(|pod| spec::find(pod, &view.name)).map(|(_, container)| container);
    let from_annotation = || serde_json::from_str::<LifecycleHandler>(view.annotations.get(names::PRE_STOP)?).ok();
    let handler = match &found {
        Some(container) => container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()),
        None => from_annotation(),
    };
    let Some(handler) = handler else { return };
    let container = found.unwrap_or_default();
    let ips = match pod {
        Some(pod) => kubelet.pod_ips(names::uid(pod)),
        None => Vec::new(),
    };
    let subject = Subject {
        runtime: &kubelet.runtime,
        container: &container,
        container_id: &view.id,
        pod_ip: ips.first().map(String::as_str),
    };
    let outcome = tokio::time::timeout(grace, hooks::run(&handler, &subject)).await;
    let failure = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "the hook did not end within the grace period".to_owned(),
    };
    if let Some(pod) = pod {
        let message = format!("PreStopHook failed: {failure}");
        kubelet.container_event(pod, &view.name, EventKind::Warning, "FailedPreStopHook", &message);
    }
}

/// Ends everything of a pod: regular containers together, then sidecars in reverse order, then the sandboxes.
pub(crate) async fn pod(kubelet: &Kubelet, pod: Option<&Pod>, view: &PodView, grace: Duration) -> Result<(), Error> {
    let started = Instant::now();
    let alive = |view: &&ContainerView| matches!(view.state, State::Running | State::Unknown);
    let role = |name: &str| pod.and_then(|pod| spec::find(pod, name)).map_or(Role::Regular, |(role, _)| role);
    let stop = |view: ContainerView, grace: Duration| async move {
        container(kubelet, pod, &view, grace, &format!("Stopping container {}", view.name)).await
    };
    let (sidecars, others): (Vec<_>, Vec<_>) =
        view.containers.iter().filter(alive).cloned().partition(|view| role(&view.name) == Role::Sidecar);
    for result in join_all(others.into_iter().map(|view| stop(view, grace))).await {
        result?;
    }
    let order: Vec<String> = pod.map(spec::containers).unwrap_or_default().into_iter().map(|(_, c)| c.name).collect();
    let mut sidecars = sidecars;
    sidecars.sort_by_key(|view| std::cmp::Reverse(order.iter().position(|name| *name == view.name)));
    for view in sidecars {
        let left = if grace.is_zero() { grace } else { grace.saturating_sub(started.elapsed()).max(MINIMUM_GRACE) };
        stop(view, left).await?;
    }
    for sandbox in &view.sandboxes {
        kubelet.runtime.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}
