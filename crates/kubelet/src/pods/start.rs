//! Starting one container: image, configuration, create, start, postStart hook. A failure is the reason for which
//! the container waits.

use std::sync::Arc;

use ironkeel_cri::v1 as cri;
use ironkeel_informer::EventKind;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{Error, kubelet::Kubelet, probes::prober::Subject, volumes::HostPaths};

use super::{
    config::{self, Start},
    hooks, kill,
    reason::{self, Waiting},
    security,
};

/// What is to be started.
pub(crate) struct Job {
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) restarts: u32,
    pub(crate) sandbox_id: String,
    pub(crate) sandbox_config: cri::PodSandboxConfig,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_paths: HostPaths,
    pub(crate) target: Option<String>,
}

/// Starts the container.
pub(crate) async fn run(kubelet: &Kubelet, job: &Job) -> Result<(), Waiting> {
    let (pod, container) = (&*job.pod, &job.container);
    let warn = |reason: &str, message: &str| {
        kubelet.container_event(pod, &container.name, EventKind::Warning, reason, message);
    };
    let about = kubelet.container_reference(pod, &container.name);
    let objects = &kubelet.volumes.objects;
    let present = match kubelet.images.ensure(pod, container, &about, objects, &job.sandbox_config).await {
        Ok(present) => present,
        Err(waiting) => {
            warn("Failed", &format!("Error: {}", waiting.reason));
            return Err(waiting);
        }
    };
    let refuse = |error: Error| {
        let message = error.to_string();
        warn("Failed", &format!("Error: {message}"));
        Waiting::new(reason::CREATE_CONTAINER_CONFIG_ERROR, message)
    };
    security::verify_non_root(pod, container, &present.image).map_err(refuse)?;
    let start = Start {
        pod,
        container,
        restarts: job.restarts,
        pod_ips: &job.pod_ips,
        host_paths: &job.host_paths,
        target: job.target.as_deref(),
    };
    let config = config::container(kubelet, &start, present.spec).await.map_err(refuse)?;
    let logs = kubelet.paths.pod_logs(pod).join(&container.name);
    if let Err(error) = std::fs::create_dir_all(&logs) {
        return Err(Waiting::new(reason::CREATE_CONTAINER_ERROR, format!("creating {}: {error}", logs.display())));
    }
    let created = kubelet.runtime.create_container(&job.sandbox_id, config, job.sandbox_config.clone()).await;
    let id = created.map_err(|error| {
        warn("Failed", &format!("Error: {error}"));
        Waiting::new(reason::CREATE_CONTAINER_ERROR, error.to_string())
    })?;
    let say = |reason, message: String| {
        kubelet.container_event(pod, &container.name, EventKind::Normal, reason, &message);
    };
    say("Created", format!("Container created: {}", container.name));
    kubelet.runtime.start_container(&id).await.map_err(|error| {
        warn("Failed", &format!("Error: {error}"));
        Waiting::new(reason::RUN_CONTAINER_ERROR, error.to_string())
    })?;
    say("Started", format!("Container started: {}", container.name));
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
        return Ok(());
    };
    let subject = Subject {
        runtime: &kubelet.runtime,
        container,
        container_id: &id,
        pod_ip: job.pod_ips.first().map(String::as_str),
    };
    if let Err(why) = hooks::run(hook, &subject).await {
        warn("FailedPostStartHook", &format!("PostStartHook failed: {why}"));
        if let Ok(view) = kubelet.runtime.container(&id).await {
            let stopped =
                kill::container(kubelet, Some(pod), &view, kill::spec_grace(pod), "FailedPostStartHook").await;
            if let Err(error) = stopped {
                tracing::warn!(%error, container = container.name, "container with a failed hook is not stopped");
            }
        }
        return Err(Waiting::new(reason::POST_START_HOOK_ERROR, format!("PostStartHook failed: {why}")));
    }
    Ok(())
}
