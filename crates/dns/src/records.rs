//! Answers from the cluster's own state.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ironkeel_informer::Informer;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::PartialObjectMeta;

use crate::Error;

/// Time to live of cluster records, in seconds; CoreDNS' default.
const TTL_SECONDS: u32 = 5;
/// Version of the specification, answered at `dns-version.<domain>`.
const SCHEMA_VERSION: &str = "1.1.0";

/// What the cluster knows about a name.
pub(crate) enum Answer {
    /// Records, and additional ones that help.
    Records(Vec<Record>, Vec<Record>),
    /// The name exists, but not with this type.
    Empty(Record),
    /// No such name in the cluster's domain.
    NoName(Record),
    /// Not a name of the cluster.
    Elsewhere,
}

/// The cluster's names.
pub(crate) struct Records {
    domain: Name,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<PartialObjectMeta<Namespace>>,
}

/// One address of a headless Service.
struct Member {
    host: String,
    address: IpAddr,
    /// Port name, protocol in lower case, number.
    ports: Vec<(String, String, u16)>,
}

impl Records {
    pub(crate) fn new(
        domain: &str,
        services: Informer<Service>,
        slices: Informer<EndpointSlice>,
        namespaces: Informer<PartialObjectMeta<Namespace>>,
    ) -> Result<Self, Error> {
        let mut domain_name = Name::from_str_relaxed(domain).map_err(|_| Error::Domain(domain.to_owned()))?;
        domain_name.set_fqdn(true);
        slices.add_index("service", |s: &EndpointSlice| service_of(s).into_iter().collect());
        slices.add_index("address", |s: &EndpointSlice| {
            s.endpoints.iter().flatten().flat_map(|e| e.addresses.clone()).collect()
        });
        services.add_index("address", |s: &Service| cluster_ips(s).iter().map(ToString::to_string).collect());
        Ok(Records { domain: domain_name, services, slices, namespaces })
    }

    /// What the cluster says about `name`.
    pub(crate) fn lookup(&self, name: &Name, kind: RecordType) -> Answer {
        if let Ok(net) = name.parse_arpa_name()
            && (net.prefix_len() == 32 || net.prefix_len() == 128)
        {
            return self.reverse(name, net.addr(), kind);
        }
        if !self.domain.zone_of(name) {
            return Answer::Elsewhere;
        }
        let depth = usize::from(name.num_labels() - self.domain.num_labels());
        let labels: Vec<String> =
            name.iter().take(depth).map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] if kind == RecordType::SOA => self.found(vec![self.soa()]),
            [] | ["svc"] | ["pod"] => self.empty(),
            ["dns-version"] => self.typed(kind, RecordType::TXT, || {
                vec![self.record(name, RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()])))]
            }),
            [namespace, "svc" | "pod"] if self.namespaces.get("", namespace).is_some() => self.empty(),
            [host, namespace, "pod"] => self.pod(name, host, namespace, kind),
            [service, namespace, "svc"] => match self.services.get(namespace, service) {
                Some(s) => self.service(name, &s, kind),
                None => self.no_name(),
            },
            [port, protocol, service, namespace, "svc"] if port.starts_with('_') && protocol.starts_with('_') => {
                match self.services.get(namespace, service) {
                    Some(s) => self.srv(name, &s, Some((&port[1..], &protocol[1..])), kind),
                    None => self.no_name(),
                }
            }
            [host, service, namespace, "svc"] => match self.services.get(namespace, service) {
                Some(s) => self.member(name, &s, host, kind),
                None => self.no_name(),
            },
            _ => self.no_name(),
        }
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), TTL_SECONDS, data)
    }

    fn address(&self, name: &Name, address: IpAddr) -> Record {
        self.record(
            name,
            match address {
                IpAddr::V4(a) => RData::A(A(a)),
                IpAddr::V6(a) => RData::AAAA(AAAA(a)),
            },
        )
    }

    fn soa(&self) -> Record {
        let server = Name::from_ascii("ns.dns").and_then(|n| n.append_domain(&self.domain)).unwrap_or_default();
        let mail = Name::from_ascii("hostmaster").and_then(|n| n.append_domain(&self.domain)).unwrap_or_default();
        let data = SOA::new(server, mail, 1, 7200, 1800, 86_400, TTL_SECONDS);
        Record::from_rdata(self.domain.clone(), TTL_SECONDS, RData::SOA(data))
    }

    fn empty(&self) -> Answer {
        Answer::Empty(self.soa())
    }

    fn no_name(&self) -> Answer {
        Answer::NoName(self.soa())
    }

    fn found(&self, records: Vec<Record>) -> Answer {
        if records.is_empty() { self.empty() } else { Answer::Records(records, Vec::new()) }
    }

    fn typed(&self, asked: RecordType, have: RecordType, make: impl FnOnce() -> Vec<Record>) -> Answer {
        if asked == have || asked == RecordType::ANY { self.found(make()) } else { self.empty() }
    }

    fn addresses(&self, name: &Name, kind: RecordType, addresses: impl Iterator<Item = IpAddr>) -> Answer {
        let wanted = |a: &IpAddr| match kind {
            RecordType::A => a.is_ipv4(),
            RecordType::AAAA => a.is_ipv6(),
            RecordType::ANY => true,
            _ => false,
        };
        self.found(addresses.filter(wanted).map(|a| self.address(name, a)).collect())
    }

    fn service(&self, name: &Name, service: &Service, kind: RecordType) -> Answer {
        let spec = service.spec.as_ref();
        if spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName") {
            let external = spec.and_then(|s| s.external_name.as_deref()).unwrap_or_default();
            return match Name::from_str_relaxed(external) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    self.found(vec![self.record(name, RData::CNAME(CNAME(target)))])
                }
                Err(_) => self.empty(),
            };
        }
        if kind == RecordType::SRV {
            return self.srv(name, service, None, kind);
        }
        let ips = cluster_ips(service);
        if ips.is_empty() {
            let members = self.members(service);
            if members.is_empty() {
                return self.no_name();
            }
            return self.addresses(name, kind, members.into_iter().map(|m| m.address));
        }
        self.addresses(name, kind, ips.into_iter())
    }

    fn member(&self, name: &Name, service: &Service, host: &str, kind: RecordType) -> Answer {
        let members = self.members(service);
        let mut own = members.into_iter().filter(|m| m.host == host).map(|m| m.address).peekable();
        if own.peek().is_none() { self.no_name() } else { self.addresses(name, kind, own) }
    }

    /// `_port._protocol.service`: the port at the Service's address, or at every member.
    fn srv(&self, name: &Name, service: &Service, wanted: Option<(&str, &str)>, kind: RecordType) -> Answer {
        let fits = |port: &str, protocol: &str| {
            wanted.is_none_or(|(p, q)| port.eq_ignore_ascii_case(p) && protocol.eq_ignore_ascii_case(q))
        };
        let (namespace, service_name) = (
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        let target_of = |host: Option<&str>| -> Option<Name> {
            let host = host.map(|h| format!("{h}.")).unwrap_or_default();
            Name::from_ascii(format!("{host}{service_name}.{namespace}.svc")).ok()?.append_domain(&self.domain).ok()
        };
        let mut targets: Vec<(Name, u16, Vec<IpAddr>)> = Vec::new();
        let ips = cluster_ips(service);
        if ips.is_empty() {
            for m in self.members(service) {
                for (_, _, number) in m.ports.iter().filter(|(p, q, _)| !p.is_empty() && fits(p, q)) {
                    targets.extend(target_of(Some(&m.host)).map(|t| (t, *number, vec![m.address])));
                }
            }
        } else {
            for p in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
                let port_name = p.name.as_deref().unwrap_or_default();
                if fits(port_name, p.protocol.as_deref().unwrap_or("TCP"))
                    && (wanted.is_none() || !port_name.is_empty())
                {
                    targets.extend(target_of(None).map(|t| (t, p.port as u16, ips.clone())));
                }
            }
        }
        if targets.is_empty() {
            return self.no_name();
        }
        if kind != RecordType::SRV && kind != RecordType::ANY {
            return self.empty();
        }
        let weight = (100 / targets.len()).max(1) as u16;
        let srv = |(target, port, _): &(Name, u16, Vec<IpAddr>)| {
            self.record(name, RData::SRV(SRV::new(0, weight, *port, target.clone())))
        };
        let records = targets.iter().map(srv).collect();
        let mut additional: Vec<Record> =
            targets.iter().flat_map(|(t, _, ips)| ips.iter().map(|ip| self.address(t, *ip))).collect();
        additional.dedup();
        Answer::Records(records, additional)
    }

    /// `a-b-c-d.namespace.pod`: the address that the name spells, in a namespace that exists.
    fn pod(&self, name: &Name, host: &str, namespace: &str, kind: RecordType) -> Answer {
        if self.namespaces.get("", namespace).is_none() {
            return self.no_name();
        }
        let v4: Result<Ipv4Addr, _> = host.replace('-', ".").parse();
        let address = v4.map(IpAddr::V4).or_else(|_| host.replace('-', ":").parse());
        match address {
            Ok(address) => self.addresses(name, kind, std::iter::once(address)),
            Err(_) => self.no_name(),
        }
    }

    fn reverse(&self, name: &Name, address: IpAddr, kind: RecordType) -> Answer {
        let text = address.to_string();
        let fqdn = |host: String| Name::from_ascii(host).ok()?.append_domain(&self.domain).ok();
        let mut names: Vec<Name> = Vec::new();
        for s in self.services.by_index("address", &text) {
            let of = |v: &Option<String>| v.clone().unwrap_or_default();
            names.extend(fqdn(format!("{}.{}.svc", of(&s.metadata.name), of(&s.metadata.namespace))));
        }
        if names.is_empty() {
            for slice in self.slices.by_index("address", &text) {
                let Some((namespace, service)) = service_of(&slice).and_then(|k| k.split_once('/').map(own)) else {
                    continue;
                };
                let headless = self.services.get(&namespace, &service).is_some_and(|s| cluster_ips(&s).is_empty());
                let endpoints = slice.endpoints.iter().flatten().filter(|e| e.addresses.contains(&text));
                for host in endpoints.filter(|_| headless).filter_map(host_of) {
                    names.extend(fqdn(format!("{host}.{service}.{namespace}.svc")));
                }
            }
        }
        if names.is_empty() {
            return Answer::Elsewhere;
        }
        let records = names.into_iter().map(|n| self.record(name, RData::PTR(PTR(n)))).collect();
        if kind == RecordType::PTR || kind == RecordType::ANY { self.found(records) } else { self.empty() }
    }

    /// Members of a headless Service: ready ones, or all where it publishes not-ready addresses.
    fn members(&self, service: &Service) -> Vec<Member> {
        let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
        let key = format!(
            "{}/{}",
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default()
        );
        let slices: Vec<Arc<EndpointSlice>> = self.slices.by_index("service", &key);
        let mut members: Vec<Member> = Vec::new();
        for slice in &slices {
            let ports: Vec<(String, String, u16)> = slice
                .ports
                .iter()
                .flatten()
                .filter_map(|p| {
                    let protocol = p.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
                    Some((p.name.clone().unwrap_or_default(), protocol, u16::try_from(p.port?).ok()?))
                })
                .collect();
            for endpoint in slice.endpoints.iter().flatten() {
                let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                let (Some(host), true) = (host_of(endpoint), ready || publish) else { continue };
                let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
                members.extend(addresses.map(|address| Member { host: host.clone(), address, ports: ports.clone() }));
            }
        }
        members.sort_by_key(|m| m.address);
        members
    }
}

fn own((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// An endpoint's name below its Service: its hostname, or its address with dashes.
fn host_of(endpoint: &Endpoint) -> Option<String> {
    let spelled = || endpoint.addresses.first().map(|a| a.replace(['.', ':'], "-"));
    endpoint.hostname.clone().filter(|h| !h.is_empty()).or_else(spelled)
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(format!("{}/{name}", slice.metadata.namespace.as_deref().unwrap_or_default()))
}

/// Cluster IPs; empty for headless and external Services.
fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let one = spec.cluster_ip.iter();
    let all = spec.cluster_ips.iter().flatten();
    let mut ips: Vec<IpAddr> = all.chain(one).filter_map(|a| a.parse().ok()).collect();
    ips.dedup();
    ips.sort();
    ips.dedup();
    ips
}
