//! A runtime that only remembers: sandboxes and containers are records, and a test decides when a container ends.
#![allow(clippy::unwrap_used)]

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use ironkeel_cri::v1::{self as cri, image_service_server::ImageService, runtime_service_server::RuntimeService};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedMutexGuard, broadcast, watch},
    time::timeout,
};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

#[derive(Default)]
struct State {
    sandboxes: Vec<(cri::PodSandboxStatus, cri::PodSandboxConfig)>,
    containers: Vec<(String, cri::ContainerStatus, cri::ContainerConfig)>,
}

#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
    clock: Arc<AtomicI64>,
    /// Before resources are updated, and containers stopped.
    pub changes: Gate,
    /// Before containers are made.
    pub creating: Gate,
    /// Before it is said which containers a pod has.
    pub listing: Gate,
}

/// Where calls wait while a test holds them.
#[derive(Clone)]
pub struct Gate {
    turn: Arc<tokio::sync::Mutex<()>>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { turn: Arc::default(), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    /// Lets all wait from now on.
    pub async fn hold(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Comes back when so many wait.
    pub async fn until_waiting(&self, wanted: usize) {
        let mut waiting = self.waiting.subscribe();
        timeout(Duration::from_secs(15), waiting.wait_for(|n| *n == wanted)).await.unwrap().unwrap();
    }

    async fn pass(&self) {
        let _waiting = Waiting::new(&self.waiting);
        drop(self.turn.lock().await);
    }
}

/// One that waits, until it does not any more.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(all: &'a watch::Sender<usize>) -> Self {
        all.send_modify(|n| *n += 1);
        Waiting(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Fake {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            events: broadcast::channel(64).0,
            clock: Arc::default(),
            changes: Gate::default(),
            creating: Gate::default(),
            listing: Gate::default(),
        }
    }

    fn now(&self) -> i64 {
        jiff::Timestamp::now().as_nanosecond() as i64 + self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn tell(&self, sandbox: &str) {
        let state = self.state.lock();
        let status = state.sandboxes.iter().find(|(status, _)| status.id == sandbox).map(|(status, _)| status.clone());
        let _ = self.events.send(cri::ContainerEventResponse { pod_sandbox_status: status, ..Default::default() });
    }

    /// Ends the newest container of that name.
    pub fn end(&self, name: &str, code: i32) {
        let now = self.now();
        let mut state = self.state.lock();
        let found = state.containers.iter_mut().rev().find(|(_, c, _)| c.metadata.as_ref().unwrap().name == name);
        let (sandbox, status, _) = found.unwrap();
        status.state = cri::ContainerState::ContainerExited as i32;
        status.exit_code = code;
        status.finished_at = now;
        let sandbox = sandbox.clone();
        drop(state);
        self.tell(&sandbox);
    }

    /// Configurations of the containers of that name, oldest first.
    pub fn configs(&self, name: &str) -> Vec<cri::ContainerConfig> {
        let state = self.state.lock();
        state
            .containers
            .iter()
            .map(|(.., c)| c)
            .filter(|c| c.metadata.as_ref().unwrap().name == name)
            .cloned()
            .collect()
    }

    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }
}

fn matches(
    labels: &std::collections::HashMap<String, String>,
    selector: Option<&std::collections::HashMap<String, String>>,
) -> bool {
    selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        let names = ("fake".to_owned(), "1".to_owned());
        Ok(Response::new(cri::VersionResponse {
            runtime_name: names.0,
            runtime_version: names.1,
            ..Default::default()
        }))
    }
    async fn status(&self, _: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let good = |kind: &str| cri::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let status = cri::RuntimeStatus { conditions: vec![good("RuntimeReady"), good("NetworkReady")] };
        Ok(Response::new(cri::StatusResponse { status: Some(status), ..Default::default() }))
    }
    async fn update_runtime_config(
        &self,
        _: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        Ok(Response::new(Default::default()))
    }
    async fn run_pod_sandbox(&self, request: Request<cri::RunPodSandboxRequest>) -> Answer<cri::RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap();
        let mut state = self.state.lock();
        let id = format!("sandbox-{}", self.now());
        let status = cri::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            created_at: self.now(),
            labels: config.labels.clone(),
            network: Some(cri::PodSandboxNetworkStatus { ip: "127.0.0.1".into(), ..Default::default() }),
            ..Default::default()
        };
        state.sandboxes.push((status, config));
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id: id }))
    }
    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        for (status, _) in self.state.lock().sandboxes.iter_mut().filter(|(status, _)| status.id == id) {
            status.state = cri::PodSandboxState::SandboxNotready as i32;
        }
        self.tell(&id);
        Ok(Response::new(Default::default()))
    }
    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.state.lock().sandboxes.retain(|(status, _)| status.id != id);
        Ok(Response::new(Default::default()))
    }
    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let found = self.state.lock().sandboxes.iter().find(|(s, _)| s.id == id).map(|(s, _)| s.clone());
        let status = found.ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(cri::PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }
    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let filter = request.into_inner().filter;
        let state = self.state.lock();
        let fits = |s: &&(cri::PodSandboxStatus, cri::PodSandboxConfig)| {
            matches(&s.0.labels, filter.as_ref().map(|f| &f.label_selector))
        };
        let item = |(s, _): &(cri::PodSandboxStatus, cri::PodSandboxConfig)| cri::PodSandbox {
            id: s.id.clone(),
            state: s.state,
            labels: s.labels.clone(),
            ..Default::default()
        };
        Ok(Response::new(cri::ListPodSandboxResponse {
            items: state.sandboxes.iter().filter(fits).map(item).collect(),
        }))
    }
    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        self.creating.pass().await;
        let request = request.into_inner();
        let config = request.config.unwrap();
        let log = format!("{}/{}", request.sandbox_config.unwrap().log_directory, config.log_path);
        let id = format!("container-{}", self.now());
        let status = cri::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            created_at: self.now(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log,
            ..Default::default()
        };
        self.state.lock().containers.push((request.pod_sandbox_id, status, config));
        Ok(Response::new(cri::CreateContainerResponse { container_id: id }))
    }
    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let id = request.into_inner().container_id;
        let now = self.now();
        let mut told = String::new();
        for (sandbox, status, _) in self.state.lock().containers.iter_mut().filter(|(_, s, _)| s.id == id) {
            status.state = cri::ContainerState::ContainerRunning as i32;
            status.started_at = now;
            told = sandbox.clone();
        }
        self.tell(&told);
        Ok(Response::new(Default::default()))
    }
    async fn stop_container(&self, request: Request<cri::StopContainerRequest>) -> Answer<cri::StopContainerResponse> {
        let id = request.into_inner().container_id;
        self.changes.pass().await;
        let now = self.now();
        for (_, status, _) in self.state.lock().containers.iter_mut().filter(|(_, s, _)| s.id == id) {
            status.state = cri::ContainerState::ContainerExited as i32;
            status.exit_code = 143;
            status.finished_at = now;
        }
        Ok(Response::new(Default::default()))
    }
    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.state.lock().containers.retain(|(_, status, _)| status.id != id);
        Ok(Response::new(Default::default()))
    }
    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let filter = request.into_inner().filter;
        let selector = filter.as_ref().map(|f| &f.label_selector);
        let item = |(sandbox, s, _): &(String, cri::ContainerStatus, cri::ContainerConfig)| cri::Container {
            id: s.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            state: s.state,
            labels: s.labels.clone(),
            ..Default::default()
        };
        let all = {
            let state = self.state.lock();
            state.containers.iter().filter(|(_, s, _)| matches(&s.labels, selector)).map(item).collect()
        };
        if selector.is_some_and(|labels| !labels.is_empty()) {
            self.listing.pass().await;
        }
        Ok(Response::new(cri::ListContainersResponse { containers: all }))
    }
    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let found = self.state.lock().containers.iter().find(|(_, s, _)| s.id == id).map(|(_, s, _)| s.clone());
        let status = found.ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(cri::ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }
    type GetContainerEventsStream = Answers<cri::ContainerEventResponse>;
    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let stream =
            BroadcastStream::new(self.events.subscribe()).filter_map(|event| async move { event.ok().map(Ok) });
        Ok(Response::new(Box::pin(stream)))
    }
    type StreamPodSandboxesStream = Answers<cri::StreamPodSandboxesResponse>;
    type StreamContainersStream = Answers<cri::StreamContainersResponse>;
    type StreamContainerStatsStream = Answers<cri::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Answers<cri::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Answers<cri::StreamPodSandboxMetricsResponse>;
    async fn stream_pod_sandboxes(
        &self,
        _: Request<cri::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        Err(Status::unimplemented("stream_pod_sandboxes"))
    }
    async fn stream_containers(
        &self,
        _: Request<cri::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        Err(Status::unimplemented("stream_containers"))
    }
    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Result<Response<cri::UpdateContainerResourcesResponse>, Status> {
        let cri::UpdateContainerResourcesRequest { container_id, linux, .. } = request.into_inner();
        self.changes.pass().await;
        let mut state = self.state.lock();
        let found = state.containers.iter_mut().find(|(_, status, _)| status.id == container_id);
        let (.., config) = found.ok_or_else(|| Status::not_found(container_id))?;
        config.linux.get_or_insert_default().resources = linux;
        Ok(Response::new(Default::default()))
    }
    async fn reopen_container_log(
        &self,
        _: Request<cri::ReopenContainerLogRequest>,
    ) -> Result<Response<cri::ReopenContainerLogResponse>, Status> {
        Err(Status::unimplemented("reopen_container_log"))
    }
    async fn exec_sync(&self, _: Request<cri::ExecSyncRequest>) -> Result<Response<cri::ExecSyncResponse>, Status> {
        Err(Status::unimplemented("exec_sync"))
    }
    async fn exec(&self, _: Request<cri::ExecRequest>) -> Result<Response<cri::ExecResponse>, Status> {
        Err(Status::unimplemented("exec"))
    }
    async fn attach(&self, _: Request<cri::AttachRequest>) -> Result<Response<cri::AttachResponse>, Status> {
        Err(Status::unimplemented("attach"))
    }
    async fn port_forward(
        &self,
        _: Request<cri::PortForwardRequest>,
    ) -> Result<Response<cri::PortForwardResponse>, Status> {
        Err(Status::unimplemented("port_forward"))
    }
    async fn container_stats(
        &self,
        _: Request<cri::ContainerStatsRequest>,
    ) -> Result<Response<cri::ContainerStatsResponse>, Status> {
        Err(Status::unimplemented("container_stats"))
    }
    async fn list_container_stats(
        &self,
        _: Request<cri::ListContainerStatsRequest>,
    ) -> Result<Response<cri::ListContainerStatsResponse>, Status> {
        Err(Status::unimplemented("list_container_stats"))
    }
    async fn stream_container_stats(
        &self,
        _: Request<cri::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        Err(Status::unimplemented("stream_container_stats"))
    }
    async fn pod_sandbox_stats(
        &self,
        _: Request<cri::PodSandboxStatsRequest>,
    ) -> Result<Response<cri::PodSandboxStatsResponse>, Status> {
        Err(Status::unimplemented("pod_sandbox_stats"))
    }
    async fn list_pod_sandbox_stats(
        &self,
        _: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Result<Response<cri::ListPodSandboxStatsResponse>, Status> {
        Err(Status::unimplemented("list_pod_sandbox_stats"))
    }
    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        Err(Status::unimplemented("stream_pod_sandbox_stats"))
    }
    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Result<Response<cri::CheckpointContainerResponse>, Status> {
        Err(Status::unimplemented("checkpoint_container"))
    }
    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Result<Response<cri::ListMetricDescriptorsResponse>, Status> {
        Err(Status::unimplemented("list_metric_descriptors"))
    }
    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<cri::ListPodSandboxMetricsResponse>, Status> {
        Err(Status::unimplemented("list_pod_sandbox_metrics"))
    }
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        Err(Status::unimplemented("stream_pod_sandbox_metrics"))
    }
    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Result<Response<cri::RuntimeConfigResponse>, Status> {
        Err(Status::unimplemented("runtime_config"))
    }
    async fn update_pod_sandbox_resources(
        &self,
        _: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<cri::UpdatePodSandboxResourcesResponse>, Status> {
        Err(Status::unimplemented("update_pod_sandbox_resources"))
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn image_status(&self, request: Request<cri::ImageStatusRequest>) -> Answer<cri::ImageStatusResponse> {
        let image = request.into_inner().image.unwrap().image;
        let found = !image.contains("missing");
        let image = found.then(|| cri::Image { id: image, ..Default::default() });
        Ok(Response::new(cri::ImageStatusResponse { image, ..Default::default() }))
    }
    async fn pull_image(&self, _: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        Err(Status::not_found("manifest unknown"))
    }
    async fn list_images(&self, _: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        Ok(Response::new(Default::default()))
    }
    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        Ok(Response::new(Default::default()))
    }
    type StreamImagesStream = Answers<cri::StreamImagesResponse>;
    async fn stream_images(
        &self,
        _: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(Status::unimplemented("stream_images"))
    }
    async fn remove_image(
        &self,
        _: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        Err(Status::unimplemented("remove_image"))
    }
}
