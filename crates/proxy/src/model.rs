//! What one Service needs: its frontends, and the endpoints behind each.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::ipv4;

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not set, in seconds.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// Where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Front {
    /// A cluster IP or a load balancer's address.
    Address(Ipv4Addr),
    /// A port of every address of the node.
    NodePort,
}

/// One frontend with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frontend {
    pub(crate) front: Front,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// Sorted; empty means that connections are refused.
    pub(crate) endpoints: Vec<(Ipv4Addr, u16)>,
    /// `ClientIP` affinity: seconds that a client stays with its endpoint.
    pub(crate) affinity_seconds: Option<u32>,
    /// Answers must come back through this node: hide the client's address.
    pub(crate) masquerade: bool,
    /// Without endpoints, drop instead of refusing (a local-only load balancer: other nodes have some).
    pub(crate) silent: bool,
    /// Clients that may come in; empty for all.
    pub(crate) source_ranges: Vec<Ipv4Net>,
}

/// Everything that one Service needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceRules {
    pub(crate) frontends: Vec<Frontend>,
}

struct Candidate {
    address: Ipv4Addr,
    port: u16,
    local: bool,
    ready: bool,
}

fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// Ready, or serving while terminating (used only when nothing is ready: KEP-1669).
fn readiness(endpoint: &Endpoint) -> Option<bool> {
    let Some(c) = &endpoint.conditions else { return Some(true) };
    let terminating = c.terminating.unwrap_or(false);
    if c.ready.unwrap_or(true) && !terminating {
        return Some(true);
    }
    (terminating && c.serving.unwrap_or(false)).then_some(false)
}

fn candidates(slices: &[Arc<EndpointSlice>], port_name: &str, protocol: u8, node: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        let ports = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == port_name
                && protocol_number(p.protocol.as_deref()) == Some(protocol)
        });
        for port in ports.filter_map(|p| u16::try_from(p.port?).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(ready) = readiness(endpoint) else { continue };
                let local = endpoint.node_name.as_deref() == Some(node);
                let address = endpoint.addresses.first().and_then(|a| ipv4(a));
                found.extend(address.map(|address| Candidate { address, port, local, ready }));
            }
        }
    }
    found
}

/// The endpoints to use: the ready ones; where there are none, those that still serve.
fn choose(candidates: &[Candidate], local_only: bool) -> Vec<(Ipv4Addr, u16)> {
    let usable: Vec<&Candidate> = candidates.iter().filter(|c| c.local || !local_only).collect();
    let any_ready = usable.iter().any(|c| c.ready);
    let chosen: BTreeSet<_> = usable.iter().filter(|c| c.ready == any_ready).map(|c| (c.address, c.port)).collect();
    chosen.into_iter().collect()
}

/// Computes the rules of a Service on this node.
pub(crate) fn rules_of(service: &Service, slices: &[Arc<EndpointSlice>], node: &str) -> ServiceRules {
    let mut rules = ServiceRules::default();
    let Some(spec) = &service.spec else { return rules };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if kind == "ExternalName" || cluster_ip.is_empty() || cluster_ip == "None" {
        return rules;
    }
    let cluster_ips: Vec<Ipv4Addr> = match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.iter().filter_map(|a| ipv4(a)).collect(),
        _ => ipv4(cluster_ip).into_iter().collect(),
    };
    let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
        configured.unwrap_or(DEFAULT_AFFINITY_SECONDS).max(1).unsigned_abs()
    });
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let ingress =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| l.ingress.iter().flatten());
    let balancers: Vec<Ipv4Addr> =
        ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| ipv4(i.ip.as_deref()?)).collect();
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let source_ranges: Vec<Ipv4Net> = ranges.filter_map(|r| r.trim().parse().ok()).collect();
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = protocol_number(port.protocol.as_deref()) else { continue };
        let candidates = candidates(slices, port.name.as_deref().unwrap_or_default(), protocol, node);
        let frontend = |front, number: i32, local: bool, masquerade, source_ranges: &[Ipv4Net]| {
            Some(Frontend {
                front,
                protocol,
                port: u16::try_from(number).ok().filter(|p| *p != 0)?,
                endpoints: choose(&candidates, local),
                affinity_seconds,
                masquerade,
                silent: local && !candidates.is_empty(),
                source_ranges: source_ranges.to_vec(),
            })
        };
        for address in &cluster_ips {
            rules.frontends.extend(frontend(Front::Address(*address), port.port, internal_local, false, &[]));
        }
        if let Some(node_port) = port.node_port {
            rules.frontends.extend(frontend(Front::NodePort, node_port, external_local, !external_local, &[]));
        }
        for address in &balancers {
            let one = frontend(Front::Address(*address), port.port, external_local, !external_local, &source_ranges);
            rules.frontends.extend(one);
        }
    }
    rules
}
