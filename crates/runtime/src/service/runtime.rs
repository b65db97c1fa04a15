//! RuntimeService.

use std::collections::HashMap;

use ironkeel_cri::v1::runtime_service_server::RuntimeService;
use ironkeel_cri::v1::*;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::{Answers, Service};
use crate::container::Container as RuntimeContainer;
use crate::error::{Error, blocking};
use crate::events::{container_status, sandbox_status};
use crate::sandbox::Sandbox;
use crate::shim::protocol::Request as ShimRequest;
use crate::stats;

type Answer<T> = Result<Response<T>, Status>;

fn one<T: Send + 'static>(answer: T) -> Answer<Answers<T>> {
    Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))))
}

fn has_labels(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Service {
    fn sandboxes(&self, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
        let filter = filter.unwrap_or_default();
        let fits = |s: &PodSandbox| {
            s.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|state| state.state == s.state)
                && has_labels(&s.labels, &filter.label_selector)
        };
        let listed = |sandbox: &Sandbox| {
            let status = sandbox_status(sandbox);
            PodSandbox {
                id: status.id,
                metadata: status.metadata,
                state: status.state,
                created_at: status.created_at,
                labels: status.labels,
                annotations: status.annotations,
                runtime_handler: status.runtime_handler,
            }
        };
        // One that is being made is nobody's business yet.
        let all = self.0.sandboxes.read();
        all.values().filter(|s| s.record.lock().complete).map(|s| listed(s)).filter(fits).collect()
    }

    fn containers(&self, filter: Option<ContainerFilter>) -> Vec<Container> {
        let filter = filter.unwrap_or_default();
        let fits = |c: &Container| {
            c.id.starts_with(&filter.id)
                && c.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|state| state.state == c.state)
                && has_labels(&c.labels, &filter.label_selector)
        };
        let listed = |container: &RuntimeContainer| {
            let config = container.config();
            Container {
                id: container.record.id.clone(),
                pod_sandbox_id: container.record.sandbox_id.clone(),
                metadata: config.metadata.clone(),
                image: config.image.clone(),
                image_ref: container.record.image_ref.clone(),
                state: container.state() as i32,
                created_at: container.record.created_at,
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                image_id: container.record.image_id.clone(),
            }
        };
        self.0.containers.read().values().map(|c| listed(c)).filter(fits).collect()
    }

    async fn container_stats_list(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>, Error> {
        let filter = filter.unwrap_or_default();
        let runtime = self.0.clone();
        let wanted = self.containers(Some(ContainerFilter {
            id: filter.id,
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
            state: Some(ContainerStateValue { state: ContainerState::ContainerRunning as i32 }),
        }));
        blocking(move || {
            let found = wanted.iter().filter_map(|c| runtime.container(&c.id).ok());
            Ok(found.map(|c| stats::container(&runtime, &c)).collect())
        })
        .await
    }

    async fn sandbox_stats_list(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>, Error> {
        let filter = filter.unwrap_or_default();
        let runtime = self.0.clone();
        let wanted = self.sandboxes(Some(PodSandboxFilter {
            id: filter.id,
            label_selector: filter.label_selector,
            state: Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady as i32 }),
        }));
        blocking(move || {
            let found = wanted.iter().filter_map(|s| runtime.sandbox(&s.id).ok());
            Ok(found.map(|s| stats::sandbox(&runtime, &s)).collect())
        })
        .await
    }

    fn running(&self, id: &str) -> Result<std::sync::Arc<RuntimeContainer>, Error> {
        let container = self.0.container(id)?;
        if container.state() == ContainerState::ContainerRunning {
            Ok(container)
        } else {
            Err(Error::Precondition(format!("container {id} is not running")))
        }
    }

    fn streaming(&self) -> Result<&ironkeel_streaming::StreamingServer, Error> {
        self.0.streaming.get().ok_or_else(|| Error::Precondition("the streaming server is not up".into()))
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "ironkeel".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Error::Invalid("the request has no sandbox configuration".into()))?;
        let (runtime, handler) = (self.0.clone(), request.runtime_handler);
        // A task of its own: a caller that hangs up does not leave half a sandbox.
        let made = tokio::spawn(async move { runtime.run_sandbox(config, handler).await }).await;
        let pod_sandbox_id = made.map_err(|e| Status::internal(e.to_string()))??;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let (runtime, id) = (self.0.clone(), request.into_inner().pod_sandbox_id);
        let stopped = tokio::spawn(async move { runtime.stop_sandbox(&id).await }).await;
        stopped.map_err(|e| Status::internal(e.to_string()))??;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let (runtime, id) = (self.0.clone(), request.into_inner().pod_sandbox_id);
        let removed = tokio::spawn(async move { runtime.remove_sandbox(&id).await }).await;
        removed.map_err(|e| Status::internal(e.to_string()))??;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let containers = self.0.containers_of(&sandbox.id);
        let mut info = HashMap::new();
        if request.verbose {
            let shim = sandbox.record.lock().shim.map(|s| s.pid);
            info.insert("info".into(), serde_json::json!({"pid": shim, "netns": sandbox.netns(&self.0)}).to_string());
        }
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(sandbox_status(&sandbox)),
            info,
            containers_statuses: containers.iter().map(|c| container_status(c)).collect(),
            timestamp: crate::records::now(),
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        Ok(Response::new(ListPodSandboxResponse { items: self.sandboxes(request.into_inner().filter) }))
    }

    type StreamPodSandboxesStream = Answers<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        one(StreamPodSandboxesResponse { pod_sandboxes: self.sandboxes(request.into_inner().filter) })
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config =
            request.config.ok_or_else(|| Error::Invalid("the request has no container configuration".into()))?;
        let runtime = self.0.clone();
        let made = tokio::spawn(async move {
            runtime.create_container(&request.pod_sandbox_id, config, request.sandbox_config).await
        });
        let container_id = made.await.map_err(|e| Status::internal(e.to_string()))??;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let (runtime, id) = (self.0.clone(), request.into_inner().container_id);
        let started = tokio::spawn(async move { runtime.start_container(&id).await }).await;
        started.map_err(|e| Status::internal(e.to_string()))??;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        match self.0.container(&request.container_id) {
            Ok(container) => self.0.stop_container(&container, request.timeout).await?,
            // Stopping can be repeated, also after a removal.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let (runtime, id) = (self.0.clone(), request.into_inner().container_id);
        let removed = tokio::spawn(async move { runtime.remove_container(&id).await }).await;
        removed.map_err(|e| Status::internal(e.to_string()))??;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        Ok(Response::new(ListContainersResponse { containers: self.containers(request.into_inner().filter) }))
    }

    type StreamContainersStream = Answers<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        one(StreamContainersResponse { containers: self.containers(request.into_inner().filter) })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            info.insert("info".into(), serde_json::json!({"pid": container.status().pid}).to_string());
        }
        Ok(Response::new(ContainerStatusResponse { status: Some(container_status(&container)), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.0.update_container(&request.container_id, request.linux.unwrap_or_default()).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let container = self.running(&request.into_inner().container_id)?;
        let sandbox = self.0.sandbox(&container.record.sandbox_id)?;
        sandbox.shim.call(ShimRequest::ReopenLog { id: container.record.id.clone() }).await?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        Ok(Response::new(self.0.exec_sync(&request.container_id, &request.cmd, request.timeout).await?))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        let container = self.running(&request.container_id)?;
        if request.tty && request.stderr {
            return Err(Error::Invalid("tty and stderr cannot both be true".into()).into());
        }
        if request.cmd.is_empty() {
            return Err(Error::Invalid("no command to execute".into()).into());
        }
        let url = self.streaming()?.exec_url(ironkeel_streaming::ExecRequest {
            container_id: container.record.id.clone(),
            cmd: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        });
        Ok(Response::new(ExecResponse { url: url.map_err(Error::from)? }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let container = self.running(&request.container_id)?;
        let tty = container.config().tty;
        let url = self.streaming()?.attach_url(ironkeel_streaming::AttachRequest {
            container_id: container.record.id.clone(),
            tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr && !tty,
        });
        Ok(Response::new(AttachResponse { url: url.map_err(Error::from)? }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let ports = request.port.iter().filter_map(|p| u16::try_from(*p).ok()).collect();
        let wanted = ironkeel_streaming::PortForwardRequest { sandbox_id: sandbox.id.clone(), ports };
        let url = self.streaming()?.port_forward_url(wanted).map_err(Error::from)?;
        Ok(Response::new(PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        let runtime = self.0.clone();
        let stats = blocking(move || Ok(stats::container(&runtime, &container))).await?;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let stats = self.container_stats_list(request.into_inner().filter).await?;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Answers<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        one(StreamContainerStatsResponse {
            container_stats: self.container_stats_list(request.into_inner().filter).await?,
        })
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let sandbox = self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        let runtime = self.0.clone();
        let stats = blocking(move || Ok(stats::sandbox(&runtime, &sandbox))).await?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let stats = self.sandbox_stats_list(request.into_inner().filter).await?;
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Answers<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        one(StreamPodSandboxStatsResponse {
            pod_sandbox_stats: self.sandbox_stats_list(request.into_inner().filter).await?,
        })
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        // The pod network has its range from its own configuration.
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = self.0.config.network.ready().await;
        let condition = |kind: &str, problem: Option<String>, reason: &str| RuntimeCondition {
            r#type: kind.into(),
            status: problem.is_none(),
            reason: if problem.is_some() { reason.into() } else { String::new() },
            message: problem.unwrap_or_default(),
        };
        let mut info = HashMap::new();
        if request.into_inner().verbose {
            let config = serde_json::json!({"root": self.0.config.root_dir, "state": self.0.config.state_dir});
            info.insert("config".into(), config.to_string());
        }
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", None, ""),
                    condition("NetworkReady", network.err().map(|e| e.to_string()), "NetworkPluginNotReady"),
                ],
            }),
            info,
            runtime_handlers: vec![RuntimeHandler {
                name: String::new(),
                features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
            }],
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Error::Unsupported("checkpoints").into())
    }

    type GetContainerEventsStream = Answers<ContainerEventResponse>;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        // A watcher that fell behind has lost events: its stream ends with an error, and it lists again.
        let events = events.map(|e| e.map_err(|lag| Status::resource_exhausted(lag.to_string())));
        let stopping = self.0.stopping.clone();
        let until = futures::StreamExt::take_until(events, async move { stopping.cancelled().await });
        Ok(Response::new(Box::pin(until)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Ok(Response::new(ListMetricDescriptorsResponse::default()))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        Ok(Response::new(ListPodSandboxMetricsResponse::default()))
    }

    type StreamPodSandboxMetricsStream = Answers<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        one(StreamPodSandboxMetricsResponse::default())
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        // The kubelet owns the pod's group and has changed it already.
        self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }
}
