//! The runtime as the kubelet sees it: CRI calls with their messages unwrapped, and the state of one pod read back
//! from it. Nothing outside this module and the builders of CRI configurations touches a CRI answer.

use std::{collections::HashMap, time::Duration};

use ironkeel_cri::{CriClient, v1 as cri};
use jiff::Timestamp;
use tonic::{Code, Request, Status, Streaming};

use crate::{Error, names};

/// Ordinary calls that take longer are given up; pulls, exec and stop have their own limits.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// What a stop may take beyond the grace period.
const STOP_SLACK: Duration = Duration::from_secs(60);
/// A pull that takes longer is given up and tried again.
const PULL_TIMEOUT: Duration = Duration::from_secs(1800);

/// Where a container stands, as CRI knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container of a pod, alive or dead.
#[derive(Clone, Debug)]
pub(crate) struct ContainerView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) sandbox_id: String,
    pub(crate) hash: String,
    pub(crate) restarts: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) log_path: String,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) mounts: Vec<cri::Mount>,
}

/// One sandbox of a pod.
#[derive(Clone, Debug)]
pub(crate) struct SandboxView {
    pub(crate) id: String,
    pub(crate) ready: bool,
    pub(crate) attempt: u32,
    pub(crate) created_at: i64,
    pub(crate) ips: Vec<String>,
}

/// What the runtime knows of one pod: newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodView {
    pub(crate) sandboxes: Vec<SandboxView>,
    pub(crate) containers: Vec<ContainerView>,
}

impl PodView {
    /// The newest container of that name.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The containers of that name, newest first.
    pub(crate) fn history<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerView> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    /// The newest sandbox, if it is ready.
    pub(crate) fn sandbox(&self) -> Option<&SandboxView> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// Whether anything may still be running.
    pub(crate) fn is_alive(&self) -> bool {
        self.sandboxes.iter().any(|sandbox| sandbox.ready)
            || self.containers.iter().any(|container| matches!(container.state, State::Running | State::Unknown))
    }
}

/// A pod that the runtime has, by its labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KnownPod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// The runtime.
#[derive(Clone)]
pub(crate) struct Runtime {
    client: CriClient,
}

fn failed(call: &'static str) -> impl FnOnce(Status) -> Error {
    move |status| Error::Cri { call, code: status.code(), message: status.message().to_owned() }
}

fn limited<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// A CRI time, nanoseconds since 1970.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Success when the thing is gone already.
fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Cri { code: Code::NotFound, .. }) => Ok(()),
        other => other,
    }
}

impl Runtime {
    pub(crate) fn new(client: CriClient) -> Self {
        Self { client }
    }

    pub(crate) async fn version(&self) -> Result<cri::VersionResponse, Error> {
        let request = limited(cri::VersionRequest { version: "0.1.0".into() }, CALL_TIMEOUT);
        Ok(self.client.runtime.clone().version(request).await.map_err(failed("Version"))?.into_inner())
    }

    pub(crate) async fn status(&self) -> Result<cri::StatusResponse, Error> {
        let request = limited(cri::StatusRequest::default(), CALL_TIMEOUT);
        Ok(self.client.runtime.clone().status(request).await.map_err(failed("Status"))?.into_inner())
    }

    pub(crate) async fn set_pod_cidr(&self, pod_cidr: &str) -> Result<(), Error> {
        let network = cri::NetworkConfig { pod_cidr: pod_cidr.into() };
        let config = cri::RuntimeConfig { network_config: Some(network) };
        let request = limited(cri::UpdateRuntimeConfigRequest { runtime_config: Some(config) }, CALL_TIMEOUT);
        self.client.runtime.clone().update_runtime_config(request).await.map_err(failed("UpdateRuntimeConfig"))?;
        Ok(())
    }

    pub(crate) async fn events(&self) -> Result<Streaming<cri::ContainerEventResponse>, Error> {
        let answer = self.client.runtime.clone().get_container_events(cri::GetEventsRequest::default()).await;
        Ok(answer.map_err(failed("GetContainerEvents"))?.into_inner())
    }

    pub(crate) async fn sandboxes(&self, uid: Option<&str>) -> Result<Vec<cri::PodSandbox>, Error> {
        let filter = uid.map(|uid| cri::PodSandboxFilter {
            label_selector: HashMap::from([(names::POD_UID.to_owned(), uid.to_owned())]),
            ..Default::default()
        });
        let request = limited(cri::ListPodSandboxRequest { filter }, CALL_TIMEOUT);
        let answer = self.client.runtime.clone().list_pod_sandbox(request).await.map_err(failed("ListPodSandbox"))?;
        Ok(answer.into_inner().items)
    }

    pub(crate) async fn containers(&self, uid: Option<&str>) -> Result<Vec<cri::Container>, Error> {
        let filter = uid.map(|uid| cri::ContainerFilter {
            label_selector: HashMap::from([(names::POD_UID.to_owned(), uid.to_owned())]),
            ..Default::default()
        });
        let request = limited(cri::ListContainersRequest { filter }, CALL_TIMEOUT);
        let answer = self.client.runtime.clone().list_containers(request).await.map_err(failed("ListContainers"))?;
        Ok(answer.into_inner().containers)
    }

    /// Every pod with a sandbox or a container.
    pub(crate) async fn known_pods(&self) -> Result<Vec<KnownPod>, Error> {
        let (sandboxes, containers) = tokio::try_join!(self.sandboxes(None), self.containers(None))?;
        let labels = sandboxes.into_iter().map(|s| s.labels).chain(containers.into_iter().map(|c| c.labels));
        let mut pods: Vec<KnownPod> = Vec::new();
        for mut labels in labels {
            let mut take = |key: &str| labels.remove(key).unwrap_or_default();
            let pod = KnownPod {
                uid: take(names::POD_UID),
                name: take(names::POD_NAME),
                namespace: take(names::POD_NAMESPACE),
            };
            if !pod.uid.is_empty() && !pods.contains(&pod) {
                pods.push(pod);
            }
        }
        Ok(pods)
    }

    /// All that the runtime knows of a pod.
    pub(crate) async fn pod(&self, uid: &str) -> Result<PodView, Error> {
        let (sandboxes, containers) = tokio::try_join!(self.sandboxes(Some(uid)), self.containers(Some(uid)))?;
        let mut view = PodView::default();
        for sandbox in sandboxes {
            match self.sandbox_status(&sandbox.id).await {
                Ok(sandbox) => view.sandboxes.push(sandbox),
                Err(Error::Cri { code: Code::NotFound, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for container in containers {
            match self.container(&container.id).await {
                Ok(mut status) => {
                    status.sandbox_id = container.pod_sandbox_id;
                    view.containers.push(status);
                }
                Err(Error::Cri { code: Code::NotFound, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        view.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.attempt)));
        view.containers.sort_by_key(|container| std::cmp::Reverse((container.created_at, container.restarts)));
        Ok(view)
    }

    async fn sandbox_status(&self, id: &str) -> Result<SandboxView, Error> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let answer = self.client.runtime.clone().pod_sandbox_status(limited(request, CALL_TIMEOUT)).await;
        let status = answer.map_err(failed("PodSandboxStatus"))?.into_inner().status;
        let status = status.ok_or(Error::CriAnswer { call: "PodSandboxStatus", field: "status" })?;
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        Ok(SandboxView {
            id: status.id,
            ready: status.state == cri::PodSandboxState::SandboxReady as i32,
            attempt: status.metadata.map(|metadata| metadata.attempt).unwrap_or_default(),
            created_at: status.created_at,
            ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
        })
    }

    pub(crate) async fn container(&self, id: &str) -> Result<ContainerView, Error> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer = self.client.runtime.clone().container_status(limited(request, CALL_TIMEOUT)).await;
        let status = answer.map_err(failed("ContainerStatus"))?.into_inner().status;
        let status = status.ok_or(Error::CriAnswer { call: "ContainerStatus", field: "status" })?;
        let label = |key: &str| status.labels.get(key).cloned().unwrap_or_default();
        let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
        Ok(ContainerView {
            name: label(names::CONTAINER_NAME),
            hash: annotation(names::CONTAINER_HASH),
            restarts: annotation(names::RESTART_COUNT).parse().unwrap_or_default(),
            state: match cri::ContainerState::try_from(status.state) {
                Ok(cri::ContainerState::ContainerCreated) => State::Created,
                Ok(cri::ContainerState::ContainerRunning) => State::Running,
                Ok(cri::ContainerState::ContainerExited) => State::Exited,
                _ => State::Unknown,
            },
            sandbox_id: String::new(),
            created_at: timestamp(status.created_at),
            started_at: timestamp(status.started_at),
            finished_at: timestamp(status.finished_at),
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            image: status.image.map(|image| image.image).unwrap_or_default(),
            image_id: if status.image_id.is_empty() { status.image_ref.clone() } else { status.image_ref },
            log_path: status.log_path,
            annotations: status.annotations,
            mounts: status.mounts,
            id: status.id,
        })
    }

    pub(crate) async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String, Error> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        let answer = self.client.runtime.clone().run_pod_sandbox(limited(request, CALL_TIMEOUT * 2)).await;
        Ok(answer.map_err(failed("RunPodSandbox"))?.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = limited(cri::StopPodSandboxRequest { pod_sandbox_id: id.into() }, CALL_TIMEOUT);
        let answer = self.client.runtime.clone().stop_pod_sandbox(request).await;
        gone_is_fine(answer.map(drop).map_err(failed("StopPodSandbox")))
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = limited(cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() }, CALL_TIMEOUT);
        let answer = self.client.runtime.clone().remove_pod_sandbox(request).await;
        gone_is_fine(answer.map(drop).map_err(failed("RemovePodSandbox")))
    }

    pub(crate) async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, Error> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let answer = self.client.runtime.clone().create_container(limited(request, CALL_TIMEOUT)).await;
        Ok(answer.map_err(failed("CreateContainer"))?.into_inner().container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = limited(cri::StartContainerRequest { container_id: id.into() }, CALL_TIMEOUT);
        self.client.runtime.clone().start_container(request).await.map_err(failed("StartContainer"))?;
        Ok(())
    }

    /// Asks the container to end, and kills it after `grace`.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout: grace.as_secs() as i64 };
        let answer = self.client.runtime.clone().stop_container(limited(request, grace + STOP_SLACK)).await;
        gone_is_fine(answer.map(drop).map_err(failed("StopContainer")))
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = limited(cri::RemoveContainerRequest { container_id: id.into() }, CALL_TIMEOUT);
        let answer = self.client.runtime.clone().remove_container(request).await;
        gone_is_fine(answer.map(drop).map_err(failed("RemoveContainer")))
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let request = limited(cri::ReopenContainerLogRequest { container_id: id.into() }, CALL_TIMEOUT);
        self.client.runtime.clone().reopen_container_log(request).await.map_err(failed("ReopenContainerLog"))?;
        Ok(())
    }

    /// Runs a command to its end; `timeout` zero is none.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, Error> {
        let request =
            cri::ExecSyncRequest { container_id: id.into(), cmd: command.to_vec(), timeout: timeout.as_secs() as i64 };
        let mut request = Request::new(request);
        if !timeout.is_zero() {
            request.set_timeout(timeout + Duration::from_secs(2));
        }
        let answer = self.client.runtime.clone().exec_sync(request).await;
        Ok(answer.map_err(failed("ExecSync"))?.into_inner())
    }

    /// Changes what a running container may use; zero leaves a value as it is.
    pub(crate) async fn update_resources(&self, id: &str, linux: cri::LinuxContainerResources) -> Result<(), Error> {
        let request =
            cri::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(linux), ..Default::default() };
        let answer = self.client.runtime.clone().update_container_resources(limited(request, CALL_TIMEOUT)).await;
        answer.map_err(failed("UpdateContainerResources"))?;
        Ok(())
    }

    /// A URL to stream a command at.
    pub(crate) async fn exec(&self, request: cri::ExecRequest) -> Result<String, Error> {
        let answer = self.client.runtime.clone().exec(limited(request, CALL_TIMEOUT)).await;
        Ok(answer.map_err(failed("Exec"))?.into_inner().url)
    }

    /// A URL to attach at.
    pub(crate) async fn attach(&self, request: cri::AttachRequest) -> Result<String, Error> {
        let answer = self.client.runtime.clone().attach(limited(request, CALL_TIMEOUT)).await;
        Ok(answer.map_err(failed("Attach"))?.into_inner().url)
    }

    /// A URL to forward ports at.
    pub(crate) async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String, Error> {
        let answer = self.client.runtime.clone().port_forward(limited(request, CALL_TIMEOUT)).await;
        Ok(answer.map_err(failed("PortForward"))?.into_inner().url)
    }

    pub(crate) async fn stats(&self) -> Result<Vec<cri::ContainerStats>, Error> {
        let request = limited(cri::ListContainerStatsRequest::default(), CALL_TIMEOUT);
        let answer = self.client.runtime.clone().list_container_stats(request).await;
        Ok(answer.map_err(failed("ListContainerStats"))?.into_inner().stats)
    }

    /// Statistics of every pod with its containers', as one answer.
    pub(crate) async fn pod_stats(&self) -> Result<Vec<cri::PodSandboxStats>, Error> {
        let request = limited(cri::ListPodSandboxStatsRequest::default(), CALL_TIMEOUT);
        let answer = self.client.runtime.clone().list_pod_sandbox_stats(request).await;
        Ok(answer.map_err(failed("ListPodSandboxStats"))?.into_inner().stats)
    }

    /// The image, when the runtime has it.
    pub(crate) async fn image(&self, spec: cri::ImageSpec) -> Result<Option<cri::Image>, Error> {
        let request = limited(cri::ImageStatusRequest { image: Some(spec), verbose: false }, CALL_TIMEOUT);
        let answer = self.client.image.clone().image_status(request).await;
        Ok(answer.map_err(failed("ImageStatus"))?.into_inner().image)
    }

    pub(crate) async fn images(&self) -> Result<Vec<cri::Image>, Error> {
        let request = limited(cri::ListImagesRequest::default(), CALL_TIMEOUT);
        Ok(self.client.image.clone().list_images(request).await.map_err(failed("ListImages"))?.into_inner().images)
    }

    pub(crate) async fn pull(
        &self,
        spec: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, Error> {
        let request = cri::PullImageRequest { image: Some(spec), auth, sandbox_config: Some(sandbox) };
        let answer = self.client.image.clone().pull_image(limited(request, PULL_TIMEOUT)).await;
        Ok(answer.map_err(failed("PullImage"))?.into_inner().image_ref)
    }

    pub(crate) async fn remove_image(&self, id: &str) -> Result<(), Error> {
        let image = cri::ImageSpec { image: id.into(), ..Default::default() };
        let request = limited(cri::RemoveImageRequest { image: Some(image) }, CALL_TIMEOUT);
        self.client.image.clone().remove_image(request).await.map_err(failed("RemoveImage"))?;
        Ok(())
    }

    pub(crate) async fn image_fs(&self) -> Result<cri::ImageFsInfoResponse, Error> {
        let request = limited(cri::ImageFsInfoRequest::default(), CALL_TIMEOUT);
        Ok(self.client.image.clone().image_fs_info(request).await.map_err(failed("ImageFsInfo"))?.into_inner())
    }
}
