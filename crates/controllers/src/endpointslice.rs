//! EndpointSlices: the addresses behind a Service, at most 100 a slice, with ready, serving and terminating; and slices
//! that mirror hand-written Endpoints.

mod mirror;
mod reconcile;

use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, WorkQueue, run_workers};
use ironkeel_semantics::well_known::SERVICE_NAME_LABEL;
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use crate::context::{Context, key_of};
use crate::endpoints::watch_backends;
use crate::error::{Error, is_conflict};

/// Label of a slice: who writes it.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const MIRRORING: &str = "endpointslicemirroring-controller.k8s.io";
/// Index of slices by the Service that they belong to.
const BY_SERVICE: &str = "service";

pub(crate) async fn run(context: Context) {
    let services = context.factory.informer::<Service>();
    let slices = context.factory.informer::<EndpointSlice>();
    let nodes = context.factory.informer::<Node>();
    let endpoints = context.factory.informer::<Endpoints>();
    let pods = context.pods();
    slices.add_index(BY_SERVICE, |slice| service_of(slice).into_iter().collect());
    let client = context.client("endpointslice-controller");
    let mirroring_client = context.client("endpointslicemirroring-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let mirror_queue: WorkQueue<String> = WorkQueue::new();
    watch_backends(&context, &services, &pods, &queue);
    let (by_slice, mirror_by_slice) = (queue.clone(), mirror_queue.clone());
    context.feed(&slices, move |delta| {
        if let Delta::Deleted(slice) | Delta::Updated { new: slice, .. } = delta
            && let Some(service) = service_of(&slice)
        {
            match slice.labels().get(MANAGED_BY).map(String::as_str) {
                Some(CONTROLLER) => by_slice.add(service),
                Some(MIRRORING) => mirror_by_slice.add(service),
                _ => {}
            }
        }
    });
    for_mirroring(&context, &services, &endpoints, &mirror_queue);
    services.synced().await;
    slices.synced().await;
    nodes.synced().await;
    endpoints.synced().await;
    pods.synced().await;
    let slicer =
        Arc::new(reconcile::Slicer { services: services.clone(), slices: slices.clone(), nodes, pods, client });
    let mirrorer = Arc::new(mirror::Mirrorer { services, slices, endpoints, client: mirroring_client });
    let workers = context.config.workers;
    let mirroring = run_workers(mirror_queue, workers, context.shutdown.clone(), move |key: String| {
        let mirrorer = mirrorer.clone();
        async move { again_on_conflict(mirrorer.sync(&key).await) }
    });
    let slicing = run_workers(queue, workers, context.shutdown.clone(), move |key: String| {
        let slicer = slicer.clone();
        async move { again_on_conflict(slicer.sync(&key).await) }
    });
    tokio::join!(mirroring, slicing);
}

fn for_mirroring(
    context: &Context,
    services: &ironkeel_informer::Informer<Service>,
    endpoints: &ironkeel_informer::Informer<Endpoints>,
    queue: &WorkQueue<String>,
) {
    let (by_service, by_endpoints) = (queue.clone(), queue.clone());
    context.feed(services, move |delta| {
        if let Some(service) = delta.object() {
            by_service.add(key_of(service.as_ref()));
        }
    });
    context.feed(endpoints, move |delta| {
        if let Some(endpoints) = delta.object() {
            by_endpoints.add(key_of(endpoints.as_ref()));
        }
    });
}

/// The key of the Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(format!("{}/{name}", slice.metadata.namespace.as_deref().unwrap_or_default()))
}

fn again_on_conflict(outcome: Result<(), Error>) -> Result<Option<Duration>, Error> {
    match outcome {
        Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
        other => other.map(|()| None),
    }
}
