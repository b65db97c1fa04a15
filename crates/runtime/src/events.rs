//! Container events, for kubelets that do not want to poll.

use ironkeel_cri::v1::{
    ContainerEventResponse, ContainerEventType, ContainerResources, ContainerStatus, ContainerUser, ImageSpec,
    LinuxContainerUser, LinuxPodSandboxStatus, Namespace, PodIp, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus,
};

use crate::container::{Container, state_of};
use crate::records;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

impl Runtime {
    /// Tells watchers of a container's change. Without watchers it costs nothing.
    pub(crate) fn emit(&self, container_id: &str, sandbox_id: &str, kind: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let sandbox = self.sandbox(sandbox_id).ok();
        let containers = self.containers_of(sandbox_id);
        // No receiver is left only when the last one went away just now.
        let _ = self.events.send(ContainerEventResponse {
            container_id: container_id.to_owned(),
            container_event_type: kind as i32,
            created_at: records::now(),
            pod_sandbox_status: sandbox.map(|s| sandbox_status(&s)),
            containers_statuses: containers.iter().map(|c| container_status(c)).collect(),
        });
    }

    pub(crate) fn emit_sandbox(&self, sandbox: &Sandbox, kind: ContainerEventType) {
        self.emit(&sandbox.id, &sandbox.id, kind);
    }
}

pub(crate) fn sandbox_status(sandbox: &Sandbox) -> PodSandboxStatus {
    let record = sandbox.record.lock();
    let mut ips = record.ips.iter();
    let network = PodSandboxNetworkStatus {
        ip: ips.next().cloned().unwrap_or_default(),
        additional_ips: ips.map(|ip| PodIp { ip: ip.clone() }).collect(),
    };
    let ready = record.complete && !record.stopped;
    PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: if ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready } as i32,
        created_at: record.created_at,
        network: Some(network),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(sandbox.options()) }) }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

pub(crate) fn container_status(container: &Container) -> ContainerStatus {
    let (status, config) = (container.status(), container.config());
    let (reason, message) = match (&status.start_error, status.finished_at, status.oom_killed, status.exit_code) {
        (Some(error), ..) => ("StartError", error.clone()),
        (_, 0, ..) => ("", String::new()),
        (_, _, true, _) => ("OOMKilled", String::new()),
        (_, _, _, 0) => ("Completed", String::new()),
        _ => ("Error", String::new()),
    };
    let resources = container.resources.lock().clone().or_else(|| config.linux.as_ref()?.resources.clone());
    let record = &container.record;
    ContainerStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: state_of(&status) as i32,
        created_at: record.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        image: Some(ImageSpec { image: record.image_name.clone(), ..config.image.clone().unwrap_or_default() }),
        image_ref: record.image_ref.clone(),
        reason: reason.into(),
        message,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: Some(ContainerResources { linux: resources, windows: None }),
        image_id: record.image_id.clone(),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: record.uid.into(),
                gid: record.gid.into(),
                supplemental_groups: record.groups.iter().map(|g| i64::from(*g)).collect(),
            }),
        }),
        stop_signal: config.stop_signal,
    }
}
