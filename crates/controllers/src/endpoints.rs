//! Endpoints: the addresses behind a Service with a selector, in the older form.
//!
//! Also here: which Services a pod is behind, and a Service's ports on a pod, shared with the EndpointSlices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, Informer, WorkQueue, run_workers};
use ironkeel_semantics::well_known::HEADLESS_SERVICE_LABEL;
use ironkeel_semantics::{pods, resources, selectors};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};

use crate::context::{Context, key_of, split};
use crate::error::{Error, already_exists, is_conflict, is_not_found, namespace_terminating, unless_gone};

/// Annotation of Endpoints: when the change that they show happened.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Annotation of Endpoints that hold fewer addresses than there are.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses that Endpoints hold at most.
const MOST_ADDRESSES: usize = 1000;
/// Label of Endpoints that this controller writes.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

pub(crate) async fn run(context: Context) {
    let services = context.factory.informer::<Service>();
    let endpoints = context.factory.informer::<Endpoints>();
    let pods = context.pods();
    let client = context.client(CONTROLLER);
    let queue: WorkQueue<String> = WorkQueue::new();
    watch_backends(&context, &services, &pods, &queue);
    let (by_endpoints, known) = (queue.clone(), services.clone());
    context.feed(&endpoints, move |delta| {
        if let Delta::Deleted(found) | Delta::Updated { new: found, .. } = delta {
            let namespace = found.metadata.namespace.as_deref().unwrap_or_default();
            let name = found.metadata.name.as_deref().unwrap_or_default();
            if known.get(namespace, name).is_some() {
                by_endpoints.add(key_of(found.as_ref()));
            }
        }
    });
    services.synced().await;
    endpoints.synced().await;
    pods.synced().await;
    let controller = Arc::new(Controller { services, endpoints, pods, client });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let controller = controller.clone();
        async move {
            match controller.sync(&key).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other.map(|()| None),
            }
        }
    })
    .await;
}

/// Queues every Service whose backends a change of a Service or pod may touch.
pub(crate) fn watch_backends(
    context: &Context,
    services: &Informer<Service>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<String>,
) {
    let own = queue.clone();
    context.feed(services, move |delta| {
        if let Some(service) = delta.object() {
            own.add(key_of(service.as_ref()));
        }
    });
    let (by_pod, known) = (queue.clone(), services.clone());
    context.feed(pods, move |delta| match delta {
        Delta::Added(pod) | Delta::Deleted(pod) => select(&known, &pod, &by_pod),
        Delta::Updated { old, new } => {
            let moved = old.metadata.labels != new.metadata.labels;
            if moved || !same_backend(&old, &new) {
                select(&known, &new, &by_pod);
            }
            if moved {
                select(&known, &old, &by_pod);
            }
        }
        Delta::Synced => {}
    });
}

/// Whether nothing that endpoints show of a pod has changed.
fn same_backend(old: &Pod, new: &Pod) -> bool {
    pods::ips(old) == pods::ips(new)
        && pods::is_ready(old) == pods::is_ready(new)
        && pods::is_terminal(old) == pods::is_terminal(new)
        && pods::is_terminating(old) == pods::is_terminating(new)
        && pods::node_name(old) == pods::node_name(new)
}

fn select(services: &Informer<Service>, pod: &Pod, queue: &WorkQueue<String>) {
    for service in services.list_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        if selector.is_some_and(|selector| selectors::contains(selector, pod.metadata.labels.as_ref())) {
            queue.add(key_of(service.as_ref()));
        }
    }
}

/// The pods that the Service selects and that have an address.
pub(crate) fn backends(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return Vec::new() };
    let mut found = pods.list_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    found.retain(|pod| {
        selectors::contains(selector, pod.metadata.labels.as_ref())
            && !pods::is_terminal(pod)
            && !pods::ips(pod).is_empty()
    });
    found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    found
}

/// The number of a Service's port on a pod; none when the pod has no port of that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|container| resources::is_sidecar(container));
            let mut ports =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            ports
                .find(|found| {
                    found.name.as_ref() == Some(name) && found.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|found| found.container_port)
        }
    }
}

/// The reference to a pod in endpoints.
pub(crate) fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The name under which a pod of a headless Service has its own DNS record.
pub(crate) fn dns_hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain.as_deref()? == service.metadata.name.as_deref()?;
    spec.hostname.clone().filter(|hostname| same && !hostname.is_empty())
}

pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

struct Controller {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    pods: Informer<Pod>,
    client: Client,
}

impl Controller {
    async fn sync(&self, key: &str) -> Result<(), Error> {
        let (namespace, name) = split(key);
        let api = Api::<Endpoints>::namespaced(self.client.clone(), namespace);
        let Some(service) = self.services.get(namespace, name) else {
            if self.endpoints.get(namespace, name).is_some_and(|found| is_managed(&found)) {
                unless_gone(api.delete(name, &DeleteParams::default()).await)?;
            }
            return Ok(());
        };
        let Some(spec) = service.spec.as_ref() else { return Ok(()) };
        if spec.selector.is_none() || spec.type_.as_deref() == Some("ExternalName") {
            return Ok(());
        }
        let (subsets, over) = self.subsets(&service, spec);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        if is_headless(spec) {
            labels.insert(HEADLESS_SERVICE_LABEL.to_owned(), String::new());
        } else {
            labels.remove(HEADLESS_SERVICE_LABEL);
        }
        labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
        let current = self.endpoints.get(namespace, name);
        let mut annotations = current.as_ref().and_then(|found| found.metadata.annotations.clone()).unwrap_or_default();
        annotations.remove(TRIGGER_TIME);
        if over {
            annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        } else {
            annotations.remove(OVER_CAPACITY);
        }
        if let Some(found) = &current {
            let same = found.subsets.clone().unwrap_or_default() == subsets
                && found.metadata.labels.as_ref() == Some(&labels)
                && found.metadata.annotations.clone().unwrap_or_default().contains_key(OVER_CAPACITY) == over;
            if same {
                return Ok(());
            }
        }
        let wanted = Endpoints {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels),
                annotations: (!annotations.is_empty()).then_some(annotations),
                resource_version: current.as_ref().and_then(|found| found.resource_version()),
                ..ObjectMeta::default()
            },
            subsets: (!subsets.is_empty()).then_some(subsets),
        };
        let outcome = match current {
            Some(_) => api.replace(name, &PostParams::default(), &wanted).await,
            None => api.create(&PostParams::default(), &wanted).await,
        };
        match outcome {
            Err(error) if already_exists(&error) || is_not_found(&error) || namespace_terminating(&error) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    fn subsets(&self, service: &Service, spec: &ServiceSpec) -> (Vec<EndpointSubset>, bool) {
        let publish = spec.publish_not_ready_addresses.unwrap_or(false);
        let ports = spec.ports.as_deref().unwrap_or_default();
        let wants_v6 = spec.ip_families.as_ref().and_then(|all| all.first()).is_some_and(|family| family == "IPv6");
        // Addresses with the same ports share a subset.
        let mut by_ports: BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
        let mut count = 0;
        let mut over = false;
        for pod in backends(service, &self.pods) {
            if pods::is_terminating(&pod) && !publish {
                continue;
            }
            let ips = pods::ips(&pod);
            let Some(ip) = ips.iter().find(|ip| ip.contains(':') == wants_v6) else { continue };
            let mut found: Vec<PortKey> = ports
                .iter()
                .filter_map(|port| {
                    Some(PortKey {
                        name: port.name.clone().filter(|name| !name.is_empty()),
                        port: target_port(&pod, port)?,
                        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                        app_protocol: port.app_protocol.clone(),
                    })
                })
                .collect();
            if found.is_empty() && !(ports.is_empty() && is_headless(spec)) {
                continue;
            }
            found.sort();
            if count >= MOST_ADDRESSES {
                over = true;
                break;
            }
            count += 1;
            let address = EndpointAddress {
                ip: (*ip).to_owned(),
                hostname: dns_hostname(&pod, service),
                node_name: pods::node_name(&pod).map(str::to_owned),
                target_ref: Some(target_reference(&pod)),
            };
            let (ready, not_ready) = by_ports.entry(found).or_default();
            if publish || pods::is_ready(&pod) { ready.push(address) } else { not_ready.push(address) }
        }
        let sorted = |mut addresses: Vec<EndpointAddress>| {
            addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
            (!addresses.is_empty()).then_some(addresses)
        };
        let subsets = by_ports.into_iter().map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: sorted(ready),
            not_ready_addresses: sorted(not_ready),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(PortKey::into_port).collect()),
        });
        (subsets.collect(), over)
    }
}

/// A port of endpoints, in an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortKey {
    pub(crate) name: Option<String>,
    pub(crate) port: i32,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

impl PortKey {
    fn into_port(self) -> EndpointPort {
        EndpointPort {
            name: self.name,
            port: self.port,
            protocol: Some(self.protocol),
            app_protocol: self.app_protocol,
        }
    }
}

fn is_managed(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == CONTROLLER)
}
