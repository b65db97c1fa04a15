//! The difference between what Services need and what the kernel has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::{IpNet, Ipv4Net};
use ironkeel_netlink::nft::{Element, ElementData, Family, Transaction, Verdict, key_of};
use ironkeel_netlink::route::Route;
use ironkeel_netlink::{NetlinkError, Socket};

use crate::ServiceKey;
use crate::model::{Front, Frontend, ServiceRules};
use crate::rules::{self, Balancer, CHAINS, PREFIXES, SETS};

/// Settings of the table.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Name; family `inet`.
    pub table: String,
    /// See [`crate::Config::service_cidr`].
    pub service_cidr: Option<Ipv4Net>,
    /// See [`crate::Config::cluster_cidr`].
    pub cluster_cidr: Option<Ipv4Net>,
    /// See [`crate::Config::anchor_link`].
    pub anchor_link: Option<String>,
}

type SetName = &'static str;

/// Elements of one Service, by set and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Elements(BTreeMap<(SetName, Vec<u8>), Option<ElementData>>);

/// The table's contents as this process last wrote them.
#[derive(Debug)]
pub struct ServiceTable {
    config: TableConfig,
    written: HashMap<ServiceKey, Elements>,
    /// How many Services hold an element; pods behind several Services share `hairpin` entries.
    holders: HashMap<(SetName, Vec<u8>), u32>,
    balancers: BTreeSet<Balancer>,
}

impl ServiceTable {
    /// Knows nothing yet; [`ServiceTable::replace_all`] comes first.
    pub fn new(config: TableConfig) -> Self {
        ServiceTable { config, written: HashMap::new(), holders: HashMap::new(), balancers: BTreeSet::new() }
    }

    /// Writes everything anew in one transaction: nobody sees a table without rules.
    pub(crate) fn replace_all(&mut self, wanted: Vec<(ServiceKey, Option<ServiceRules>)>) -> Result<(), NetlinkError> {
        let mut socket = Socket::netfilter()?;
        self.route_services()?;
        *self = ServiceTable::new(self.config.clone());
        let mut t = Transaction::new(Family::Inet, &self.config.table);
        rules::base(&mut t, self.config.service_cidr, self.config.cluster_cidr);
        for (set, _) in &SETS {
            t.flush_set(set);
        }
        // Chains and client maps of an earlier process.
        let own = |name: &String| PREFIXES.iter().any(|p| name.starts_with(p)) && !CHAINS.contains(&name.as_str());
        let tables = socket.tables(Family::Inet)?;
        if tables.contains(&self.config.table) {
            let stale: Vec<String> = socket.chains(Family::Inet, &self.config.table)?.into_iter().filter(own).collect();
            for chain in &stale {
                t.flush_chain(chain);
            }
            for chain in &stale {
                t.delete_chain(chain);
            }
        }
        self.change(&mut t, wanted);
        t.commit(&mut socket)
    }

    /// Writes what changed about these Services (`None`: the Service is gone).
    pub(crate) fn update(&mut self, wanted: Vec<(ServiceKey, Option<ServiceRules>)>) -> Result<(), NetlinkError> {
        let mut t = Transaction::new(Family::Inet, &self.config.table);
        self.change(&mut t, wanted);
        if t.is_empty() { Ok(()) } else { t.commit(&mut Socket::netfilter()?) }
    }

    fn change(&mut self, t: &mut Transaction, wanted: Vec<(ServiceKey, Option<ServiceRules>)>) {
        let mut gone: BTreeMap<SetName, Vec<Element>> = BTreeMap::new();
        let mut come: BTreeMap<SetName, Vec<Element>> = BTreeMap::new();
        let mut filters = Vec::new();
        for (key, rules) in wanted {
            let next = rules.map(|r| self.elements(t, &key, &r, &mut filters)).unwrap_or_default();
            let before = self.written.remove(&key).unwrap_or_default();
            for (at, data) in &before.0 {
                if next.0.get(at) != Some(data) && self.release(at) {
                    gone.entry(at.0).or_default().push(Element { key: at.1.clone(), data: None, end: false });
                }
            }
            for (at, data) in &next.0 {
                if before.0.get(at) != Some(data) && self.hold(at) {
                    come.entry(at.0).or_default().push(Element { key: at.1.clone(), data: data.clone(), end: false });
                }
            }
            if !next.0.is_empty() {
                self.written.insert(key, next);
            }
        }
        for (set, elements) in gone {
            t.delete_elements(set, &elements);
        }
        for (chain, ranges, to) in filters {
            rules::create_source_filter(t, &chain, &ranges, &to);
        }
        for (set, elements) in come {
            t.add_elements(set, &elements);
        }
    }

    fn hold(&mut self, at: &(SetName, Vec<u8>)) -> bool {
        let count = self.holders.entry(at.clone()).or_default();
        *count += 1;
        *count == 1
    }

    fn release(&mut self, at: &(SetName, Vec<u8>)) -> bool {
        let Some(count) = self.holders.get_mut(at) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.holders.remove(at);
        true
    }

    fn elements(
        &mut self,
        t: &mut Transaction,
        service: &ServiceKey,
        rules: &ServiceRules,
        filters: &mut Vec<(String, Vec<Ipv4Net>, String)>,
    ) -> Elements {
        let mut out = Elements::default();
        for frontend in &rules.frontends {
            self.frontend_elements(t, service, frontend, filters, &mut out);
        }
        out
    }

    fn frontend_elements(
        &mut self,
        t: &mut Transaction,
        service: &ServiceKey,
        f: &Frontend,
        filters: &mut Vec<(String, Vec<Ipv4Net>, String)>,
        out: &mut Elements,
    ) {
        let (protocol, port) = ([f.protocol], f.port.to_be_bytes());
        let address = match f.front {
            Front::Address(a) => a.octets(),
            Front::NodePort => [0; 4],
        };
        let front_key = key_of(&[&address, &protocol, &port]);
        if f.endpoints.is_empty() {
            if f.silent && f.front != Front::NodePort {
                out.0.insert(("silent", front_key), None);
            }
            return;
        }
        let balancer = Balancer {
            endpoints: f.endpoints.len() as u32,
            node_port: f.front == Front::NodePort,
            masquerade: f.masquerade,
            affinity_seconds: f.affinity_seconds,
        };
        if self.balancers.insert(balancer) {
            balancer.create(t);
        }
        let mut target = balancer.chain();
        if !f.source_ranges.is_empty() {
            // Names hold no dots, so no two frontends share a chain.
            let name = format!("from-{}.{}.{}.{}", service.0, service.1, f.protocol, f.port);
            filters.push((name.clone(), f.source_ranges.clone(), target));
            target = name;
        }
        let verdict = Some(ElementData::Verdict(Verdict::Goto(target)));
        match f.front {
            Front::Address(_) => out.0.insert(("services", front_key.clone()), verdict),
            Front::NodePort => out.0.insert(("nodeports", key_of(&[&protocol, &port])), verdict),
        };
        for (i, (ip, endpoint_port)) in f.endpoints.iter().enumerate() {
            let index = (i as u32).to_ne_bytes();
            let to = key_of(&[&ip.octets(), &endpoint_port.to_be_bytes()]);
            let key = key_of(&[&index, &address, &protocol, &port]);
            out.0.insert(("endpoints", key), Some(ElementData::Value(to.clone())));
            out.0.insert(("hairpin", key_of(&[&ip.octets(), &ip.octets()])), None);
            if f.affinity_seconds.is_some() {
                out.0.insert(("live", [front_key.as_slice(), &to].concat()), None);
            }
        }
    }

    /// Service addresses are routed to the anchor link: a packet whose Service has no rule ends there
    /// (refused by the filter chains) instead of leaving by the default route, and a host without a
    /// default route can reach Services too.
    fn route_services(&self) -> Result<(), NetlinkError> {
        let (Some(anchor), Some(range)) = (&self.config.anchor_link, self.config.service_cidr) else { return Ok(()) };
        let mut socket = Socket::route()?;
        let link = socket.link(anchor)?.ok_or_else(|| NetlinkError::NoLink(anchor.clone()))?.index;
        let source =
            socket.addresses()?.into_iter().find(|(l, a)| *l == link && a.addr().is_ipv4()).map(|(_, a)| a.addr());
        socket.add_route(&Route { destination: IpNet::V4(range), gateway: None, link, source })
    }
}
