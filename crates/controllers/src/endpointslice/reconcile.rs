//! Brings the slices of one Service to what its pods say, with few and small changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ironkeel_informer::{Informer, controller_reference};
use ironkeel_semantics::pods;
use ironkeel_semantics::well_known::{HEADLESS_SERVICE_LABEL, SERVICE_NAME_LABEL, ZONE_LABEL};
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};

use super::{BY_SERVICE, CONTROLLER, MANAGED_BY};
use crate::context::split;
use crate::endpoints::{PortKey, backends, dns_hostname, is_headless, target_port, target_reference};
use crate::error::{Error, is_not_found, namespace_terminating, unless_gone};

/// Endpoints a slice holds at most.
const MOST_ENDPOINTS: usize = 100;

pub(super) struct Slicer {
    pub(super) services: Informer<Service>,
    pub(super) slices: Informer<EndpointSlice>,
    pub(super) nodes: Informer<Node>,
    pub(super) pods: Informer<Pod>,
    pub(super) client: Client,
}

/// What endpoints must share to be in one slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Shape {
    family: &'static str,
    ports: Vec<PortKey>,
}

impl Slicer {
    pub(super) async fn sync(&self, key: &str) -> Result<(), Error> {
        let (namespace, name) = split(key);
        let mut existing = self.slices.by_index(BY_SERVICE, key);
        existing.retain(|slice| slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == CONTROLLER));
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), namespace);
        let service = self.services.get(namespace, name);
        let spec = service.as_ref().and_then(|service| service.spec.as_ref());
        let served = spec.is_some_and(|spec| spec.selector.is_some() && spec.type_.as_deref() != Some("ExternalName"));
        let (Some(service), Some(spec), true) = (&service, spec, served) else {
            // The Service is gone, and the garbage collector takes its slices; or it needs none any more.
            if service.is_some() {
                for slice in existing {
                    unless_gone(api.delete(&slice.name_any(), &DeleteParams::default()).await)?;
                }
            }
            return Ok(());
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut wanted = self.wanted(service, spec);
        for shape in placeholders(spec) {
            if !wanted.keys().any(|known| known.family == shape.family) {
                wanted.insert(shape, Vec::new());
            }
        }
        let mut kept: HashMap<Shape, Vec<Arc<EndpointSlice>>> = HashMap::new();
        let mut obsolete = Vec::new();
        for slice in existing {
            let shape = shape_of(&slice);
            if slice.metadata.deletion_timestamp.is_none() && wanted.contains_key(&shape) {
                kept.entry(shape).or_default().push(slice);
            } else if slice.metadata.deletion_timestamp.is_none() {
                obsolete.push(slice);
            }
        }
        for (shape, endpoints) in wanted {
            let slices = kept.remove(&shape).unwrap_or_default();
            self.bring(&api, service, &shape, endpoints, slices).await?;
        }
        for slice in obsolete {
            unless_gone(api.delete(&slice.name_any(), &DeleteParams::default()).await)?;
        }
        Ok(())
    }

    fn wanted(&self, service: &Service, spec: &ServiceSpec) -> BTreeMap<Shape, Vec<Endpoint>> {
        let mut wanted: BTreeMap<Shape, Vec<Endpoint>> = BTreeMap::new();
        let ports = spec.ports.as_deref().unwrap_or_default();
        for pod in backends(service, &self.pods) {
            if pods::node_name(&pod).is_none() {
                continue;
            }
            let mut found: Vec<PortKey> = ports
                .iter()
                .filter_map(|port| {
                    Some(PortKey {
                        name: Some(port.name.clone().unwrap_or_default()),
                        port: target_port(&pod, port)?,
                        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                        app_protocol: port.app_protocol.clone(),
                    })
                })
                .collect();
            found.sort();
            for family in families(spec) {
                let ip = pods::ips(&pod).into_iter().find(|ip| ip.contains(':') == (family == "IPv6"));
                let Some(ip) = ip else { continue };
                let endpoint = self.endpoint(service, spec, &pod, ip);
                wanted.entry(Shape { family, ports: found.clone() }).or_default().push(endpoint);
            }
        }
        wanted
    }

    fn endpoint(&self, service: &Service, spec: &ServiceSpec, pod: &Pod, ip: &str) -> Endpoint {
        let serving = pods::is_ready(pod);
        let terminating = pods::is_terminating(pod);
        let publish = spec.publish_not_ready_addresses.unwrap_or(false);
        let node = pods::node_name(pod);
        let zone =
            node.and_then(|name| self.nodes.get("", name)).and_then(|node| node.labels().get(ZONE_LABEL).cloned());
        Endpoint {
            addresses: vec![ip.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(publish || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: dns_hostname(pod, service),
            node_name: node.map(str::to_owned),
            target_ref: Some(target_reference(pod)),
            zone,
            ..Endpoint::default()
        }
    }

    /// Makes `slices` hold `endpoints`: in place where they are, the rest in free room, then in new slices.
    async fn bring(
        &self,
        api: &Api<EndpointSlice>,
        service: &Service,
        shape: &Shape,
        endpoints: Vec<Endpoint>,
        mut slices: Vec<Arc<EndpointSlice>>,
    ) -> Result<(), Error> {
        slices.sort_by_key(|slice| slice.name_any());
        let labels = slice_labels(service);
        let mut missing: BTreeMap<String, Endpoint> =
            endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let mut contents: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in slices {
            let before = slice.endpoints.clone().unwrap_or_default();
            let after: Vec<_> = before.iter().filter_map(|endpoint| missing.remove(&identity(endpoint))).collect();
            contents.push((slice, after));
        }
        let mut missing = missing.into_values();
        for (_, endpoints) in &mut contents {
            let room = MOST_ENDPOINTS.saturating_sub(endpoints.len());
            endpoints.extend(missing.by_ref().take(room));
        }
        let mut keeps_one = contents.iter().any(|(_, endpoints)| !endpoints.is_empty());
        for (slice, endpoints) in contents {
            if endpoints.is_empty() && keeps_one {
                unless_gone(api.delete(&slice.name_any(), &DeleteParams::default()).await)?;
                continue;
            }
            keeps_one = true;
            let same = slice.endpoints.clone().unwrap_or_default() == endpoints
                && slice.metadata.labels.as_ref() == Some(&labels);
            if same {
                continue;
            }
            let mut changed = slice.as_ref().clone();
            changed.endpoints = Some(endpoints);
            changed.metadata.labels = Some(labels.clone());
            unless_gone(api.replace(&slice.name_any(), &PostParams::default(), &changed).await)?;
        }
        loop {
            let chunk: Vec<Endpoint> = missing.by_ref().take(MOST_ENDPOINTS).collect();
            if chunk.is_empty() && keeps_one {
                return Ok(());
            }
            keeps_one = true;
            let slice = EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", service.name_any())),
                    labels: Some(labels.clone()),
                    owner_references: Some(vec![controller_reference(service)]),
                    ..ObjectMeta::default()
                },
                address_type: shape.family.to_owned(),
                endpoints: Some(chunk),
                ports: Some(shape.ports.iter().map(port_of).collect()),
            };
            match api.create(&PostParams::default(), &slice).await {
                Err(error) if namespace_terminating(&error) || is_not_found(&error) => return Ok(()),
                other => other.map(drop)?,
            }
        }
    }
}

/// Empty slices that tell a Service without backends.
fn placeholders(spec: &ServiceSpec) -> Vec<Shape> {
    families(spec).into_iter().map(|family| Shape { family, ports: Vec::new() }).collect()
}

fn families(spec: &ServiceSpec) -> Vec<&'static str> {
    let told: Vec<_> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !told.is_empty() {
        return told;
    }
    let v6 = spec.cluster_ip.as_deref().is_some_and(|ip| ip.contains(':'));
    vec![if v6 { "IPv6" } else { "IPv4" }]
}

fn shape_of(slice: &EndpointSlice) -> Shape {
    let mut ports: Vec<PortKey> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| PortKey {
            name: Some(port.name.clone().unwrap_or_default()),
            port: port.port.unwrap_or(0),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    Shape { family: if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" }, ports }
}

fn port_of(port: &PortKey) -> EndpointPort {
    EndpointPort {
        name: port.name.clone(),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

/// What makes two endpoints the same backend.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.first().map_or("", String::as_str))
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_SERVICE_LABEL);
    if service.spec.as_ref().is_some_and(is_headless) {
        labels.insert(HEADLESS_SERVICE_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}
