//! Slices that show Endpoints which no controller wrote: those of Services without a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironkeel_informer::{Informer, controller_reference};
use ironkeel_semantics::well_known::SERVICE_NAME_LABEL;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};

use super::{BY_SERVICE, MANAGED_BY, MIRRORING};
use crate::context::split;
use crate::error::{Error, is_not_found, namespace_terminating, unless_gone};

/// Label that keeps Endpoints from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Addresses mirrored of one subset.
const MOST_ADDRESSES: usize = 1000;

pub(super) struct Mirrorer {
    pub(super) services: Informer<Service>,
    pub(super) slices: Informer<EndpointSlice>,
    pub(super) endpoints: Informer<Endpoints>,
    pub(super) client: Client,
}

impl Mirrorer {
    pub(super) async fn sync(&self, key: &str) -> Result<(), Error> {
        let (namespace, name) = split(key);
        let mut existing = self.slices.by_index(BY_SERVICE, key);
        existing.retain(|slice| slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MIRRORING));
        existing.sort_by_key(|slice| slice.name_any());
        let service = self.services.get(namespace, name);
        let unselected =
            service.is_some_and(|service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_none()));
        let source = self.endpoints.get(namespace, name).filter(|endpoints| {
            let leader = "control-plane.alpha.kubernetes.io/leader";
            unselected
                && endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true")
                && !endpoints.annotations().contains_key(leader)
        });
        let wanted = source.as_ref().map(|source| mirrored(source)).unwrap_or_default();
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), namespace);
        let mut free = existing;
        for slice in wanted {
            let place = free.iter().position(|found| found.address_type == slice.address_type);
            let reusable: Option<Arc<EndpointSlice>> = place.map(|place| free.remove(place));
            let outcome = match reusable {
                Some(found) => {
                    let same = found.endpoints == slice.endpoints
                        && found.ports == slice.ports
                        && found.metadata.labels == slice.metadata.labels;
                    if same {
                        continue;
                    }
                    let metadata = ObjectMeta { labels: slice.metadata.labels, ..found.metadata.clone() };
                    let changed = EndpointSlice { metadata, ..slice };
                    api.replace(&found.name_any(), &PostParams::default(), &changed).await
                }
                None => api.create(&PostParams::default(), &slice).await,
            };
            match outcome {
                Err(error) if namespace_terminating(&error) || is_not_found(&error) => {}
                other => other.map(drop)?,
            }
        }
        for slice in free {
            unless_gone(api.delete(&slice.name_any(), &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

fn mirrored(source: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for subset in source.subsets.iter().flatten() {
        for family in ["IPv4", "IPv6"] {
            let endpoints = endpoints_of(subset, family);
            if !endpoints.is_empty() {
                slices.push(slice_of(source, subset, family, endpoints));
            }
        }
    }
    slices
}

fn endpoints_of(subset: &EndpointSubset, family: &str) -> Vec<Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    ready
        .chain(not_ready)
        .filter(|(address, _)| address.ip.contains(':') == (family == "IPv6"))
        .take(MOST_ADDRESSES)
        .map(|(address, ready)| Endpoint {
            addresses: vec![address.ip.clone()],
            conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
            hostname: address.hostname.clone(),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        })
        .collect()
}

fn slice_of(source: &Endpoints, subset: &EndpointSubset, family: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels: BTreeMap<String, String> = source.labels().clone();
    labels.insert(SERVICE_NAME_LABEL.to_owned(), source.name_any());
    labels.insert(MANAGED_BY.to_owned(), MIRRORING.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", source.name_any())),
            namespace: source.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(source)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(
            subset
                .ports
                .iter()
                .flatten()
                .map(|port| EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(port.port),
                    protocol: port.protocol.clone(),
                    app_protocol: port.app_protocol.clone(),
                })
                .collect(),
        ),
    }
}
