//! ClusterIPs and NodePorts of Services: what a Service is given is its own from the moment that it is
//! chosen, so no two ever get the same; rebuilt from the stored Services at the start.
//!
//! The book is locked only while something is looked up in it. What one Service holds is changed by one
//! writer at a time (its [`Turn`]), from the choice until the Service is stored or is not to be.
//!
//! Defaulting of `ipFamilies`, `ipFamilyPolicy` and `clusterIPs` follows upstream for the single
//! family of the configured range.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::cache::EventType;
use crate::claims::Undo;
use crate::entry::Entry;
use crate::error::ApiError;

/// The ranges that Services get their addresses and ports from.
#[derive(Debug)]
pub struct ServiceAddresses {
    network: IpAddr,
    prefix_bits: u8,
    ports: RangeInclusive<u16>,
    taken: Mutex<Taken>,
    /// Services that somebody writes.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to change what one Service holds.
pub(crate) struct Turn<'a> {
    book: &'a ServiceAddresses,
    key: String,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut turns = self.book.turns.lock();
        // Who waits for it has another reference.
        if turns.get(&self.key).is_some_and(|t| Arc::strong_count(t) == 1) {
            turns.remove(&self.key);
        }
    }
}

/// The holder of what another server has claimed for a Service that was not seen yet.
const FOREIGN: &str = "";

/// What is given away.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    addresses: BTreeMap<IpAddr, String>,
    ports: BTreeMap<u16, String>,
    next: u128,
    next_port: u16,
}

/// An allocation that stands once [`Allocation::commit`] is called, and is undone otherwise.
pub(crate) struct Allocation<'a> {
    turn: Turn<'a>,
    new_addresses: Vec<IpAddr>,
    new_ports: Vec<u16>,
    wanted_addresses: HashSet<IpAddr>,
    wanted_ports: HashSet<u16>,
    committed: bool,
    /// What to take back from a shared store if this does not stand.
    pub(crate) undo: Option<Undo>,
}

impl Allocation<'_> {
    /// Answers what the Service held before and does not hold any more.
    pub(crate) fn commit(mut self) -> (Vec<IpAddr>, Vec<u16>) {
        let mut t = self.turn.book.taken.lock();
        let (mut addresses, mut ports) = (Vec::new(), Vec::new());
        t.addresses.retain(|a, owner| {
            let stays = *owner != self.turn.key || self.wanted_addresses.contains(a);
            if !stays {
                addresses.push(*a);
            }
            stays
        });
        t.ports.retain(|p, owner| {
            let stays = *owner != self.turn.key || self.wanted_ports.contains(p);
            if !stays {
                ports.push(*p);
            }
            stays
        });
        drop(t);
        self.committed = true;
        (addresses, ports)
    }

    /// Takes everything back, in a shared store too.
    pub(crate) async fn cancel(mut self) {
        if let Some(undo) = self.undo.take() {
            undo.run().await;
        }
    }

    /// What was newly chosen.
    pub(crate) fn chosen(&self) -> (Vec<IpAddr>, Vec<u16>) {
        (self.new_addresses.clone(), self.new_ports.clone())
    }

    /// Another server has this address.
    pub(crate) fn lose_address(&mut self, address: IpAddr) {
        self.new_addresses.retain(|a| *a != address);
        self.turn.book.taken.lock().addresses.insert(address, FOREIGN.to_owned());
    }

    /// Another server has this port.
    pub(crate) fn lose_port(&mut self, port: u16) {
        self.new_ports.retain(|p| *p != port);
        self.turn.book.taken.lock().ports.insert(port, FOREIGN.to_owned());
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let mut taken = self.turn.book.taken.lock();
            for a in &self.new_addresses {
                taken.addresses.remove(a);
            }
            for p in &self.new_ports {
                taken.ports.remove(p);
            }
            drop(taken);
            if let Some(undo) = self.undo.take() {
                tokio::spawn(undo.run());
            }
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl ServiceAddresses {
    /// `network/prefix_bits` for addresses, `ports` for NodePorts.
    pub fn new(network: IpAddr, prefix_bits: u8, ports: RangeInclusive<u16>) -> Self {
        ServiceAddresses { network, prefix_bits, ports, taken: Mutex::default(), turns: Mutex::default() }
    }

    /// Waits until nobody else writes the Service.
    pub(crate) async fn turn(&self, key: &str) -> Turn<'_> {
        let turn = self.turns.lock().entry(key.to_owned()).or_default().clone();
        let held = turn.lock_owned().await;
        Turn { book: self, key: key.to_owned(), held: Some(held) }
    }

    fn width(&self) -> u8 {
        if self.network.is_ipv4() { 32 } else { 128 }
    }

    fn size(&self) -> u128 {
        let host_bits = u32::from(self.width().saturating_sub(self.prefix_bits)).min(64);
        1u128 << host_bits
    }

    /// The address `offset` places into the range.
    pub fn nth(&self, offset: u128) -> IpAddr {
        let host_bits = u32::from(self.width() - self.prefix_bits.min(self.width()));
        let mask = if host_bits >= 128 { 0 } else { u128::MAX << host_bits };
        let n = (number(self.network) & mask) + offset;
        match self.network {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(n as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let first = number(self.nth(0));
        ip.is_ipv4() == self.network.is_ipv4() && (first..first + self.size()).contains(&number(ip))
    }

    /// Takes over what stored Services hold.
    pub(crate) fn repair(&self, services: &[Arc<Entry>]) {
        let mut taken = self.taken.lock();
        taken.addresses.clear();
        taken.ports.clear();
        for entry in services {
            let Ok(tree) = entry.tree() else { continue };
            let (addresses, ports) = held(&tree);
            for a in addresses {
                if let Some(other) = taken.addresses.insert(a, entry.key().to_owned()) {
                    tracing::error!(address = %a, first = other, second = entry.key(), "two Services hold one ClusterIP");
                }
            }
            for p in ports {
                if let Some(other) = taken.ports.insert(p, entry.key().to_owned()) {
                    tracing::error!(port = p, first = other, second = entry.key(), "two Services hold one NodePort");
                }
            }
        }
    }

    /// The first NodePort.
    pub(crate) fn first_port(&self) -> u16 {
        *self.ports.start()
    }

    /// The last NodePort.
    pub(crate) fn last_port(&self) -> u16 {
        *self.ports.end()
    }

    /// The range of NodePorts as a RangeAllocation names it.
    pub(crate) fn port_range(&self) -> String {
        format!("{}-{}", self.ports.start(), self.ports.end())
    }

    /// Takes over what any server has written of a Service.
    pub(crate) async fn seen(&self, entry: &Entry, kind: EventType) {
        let Ok(tree) = entry.tree() else { return };
        let (addresses, ports) = if kind == EventType::Deleted { Default::default() } else { held(&tree) };
        let _turn = self.turn(entry.key()).await;
        let mut taken = self.taken.lock();
        taken.addresses.retain(|_, owner| owner != entry.key());
        taken.ports.retain(|_, owner| owner != entry.key());
        taken.addresses.extend(addresses.into_iter().map(|a| (a, entry.key().to_owned())));
        taken.ports.extend(ports.into_iter().map(|p| (p, entry.key().to_owned())));
    }

    /// Gives back what a deleted Service held.
    pub(crate) fn release(&self, turn: &Turn<'_>) {
        let mut taken = self.taken.lock();
        taken.addresses.retain(|_, owner| *owner != turn.key);
        taken.ports.retain(|_, owner| *owner != turn.key);
    }

    /// Fills in addresses and ports of `service`, and reserves them.
    pub(crate) async fn allocate<'a>(
        &'a self,
        key: &str,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Allocation<'a>, ApiError> {
        let mut a = Allocation {
            turn: self.turn(key).await,
            new_addresses: Vec::new(),
            new_ports: Vec::new(),
            wanted_addresses: HashSet::new(),
            wanted_ports: HashSet::new(),
            committed: false,
            undo: None,
        };
        let filled = self.fill(&mut self.taken.lock(), &mut a, service, old);
        filled.map(|()| a)
    }

    fn fill(
        &self,
        taken: &mut Taken,
        a: &mut Allocation<'_>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let kind = service.str_at(&["spec", "type"]).unwrap_or("ClusterIP").to_owned();
        if kind == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.remove(field);
                }
            }
        } else {
            self.address(taken, a, service, old)?;
        }
        let wants_ports = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            && !(kind == "LoadBalancer"
                && service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool) == Some(false));
        self.ports(taken, a, service, old, wants_ports, &kind)
    }

    fn address(
        &self,
        taken: &mut Taken,
        a: &mut Allocation<'_>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let name = service.name().to_owned();
        let mut ip = service.str_at(&["spec", "clusterIP"]).unwrap_or_default().to_owned();
        if ip.is_empty() {
            let first = service.items_at(&["spec", "clusterIPs"]).first().and_then(Value::as_str);
            ip = first.unwrap_or_default().to_owned();
        }
        if ip.is_empty()
            && let Some(before) = old.and_then(|o| o.str_at(&["spec", "clusterIP"])).filter(|s| !s.is_empty())
        {
            ip = before.to_owned();
        }
        if ip != "None" {
            let address = if ip.is_empty() {
                self.free_address(taken, a)
                    .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?
            } else {
                let parsed: IpAddr = ip.parse().map_err(|_| {
                    refused(&name, "clusterIPs", &ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
                })?;
                let mine = taken.addresses.get(&parsed) == Some(&a.turn.key);
                if !mine {
                    let why = if !self.contains(parsed) {
                        Some(format!(
                            "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}/{}",
                            self.nth(0),
                            self.prefix_bits
                        ))
                    } else if taken.addresses.contains_key(&parsed) {
                        Some(format!("failed to allocate IP {ip}: provided IP is already allocated"))
                    } else {
                        None
                    };
                    if let Some(why) = why {
                        return Err(refused(&name, "clusterIPs", &ip, &why));
                    }
                    taken.addresses.insert(parsed, a.turn.key.clone());
                    a.new_addresses.push(parsed);
                }
                parsed
            };
            a.wanted_addresses.insert(address);
            ip = address.to_string();
        }
        let family = if self.network.is_ipv4() { "IPv4" } else { "IPv6" };
        *service.slot(&["spec", "clusterIP"]) = ip.as_str().into();
        if service.items_at(&["spec", "clusterIPs"]).is_empty() {
            *service.slot(&["spec", "clusterIPs"]) = vec![ip.as_str()].into();
        }
        if service.items_at(&["spec", "ipFamilies"]).is_empty() {
            *service.slot(&["spec", "ipFamilies"]) = vec![family].into();
        }
        let policy = service.slot(&["spec", "ipFamilyPolicy"]);
        if policy.is_null() {
            *policy = "SingleStack".into();
        }
        Ok(())
    }

    fn free_address(&self, taken: &mut Taken, a: &mut Allocation<'_>) -> Option<IpAddr> {
        let size = self.size();
        // The first address is the network's, the last the broadcast's; the first usable one is
        // the API server's own.
        let usable = size.checked_sub(2).filter(|n| *n > 0)?;
        for _ in 0..usable {
            taken.next = taken.next % usable + 1;
            let ip = self.nth(taken.next);
            // Upstream keeps the lower part for addresses that users choose (KEP-3070).
            let reserved = usable > 64 && taken.next <= (usable / 16).clamp(16, 256);
            if !reserved && !taken.addresses.contains_key(&ip) {
                taken.addresses.insert(ip, a.turn.key.clone());
                a.new_addresses.push(ip);
                return Some(ip);
            }
        }
        let ip = (1..=usable).map(|n| self.nth(n)).find(|ip| !taken.addresses.contains_key(ip))?;
        taken.addresses.insert(ip, a.turn.key.clone());
        a.new_addresses.push(ip);
        Some(ip)
    }

    fn ports(
        &self,
        taken: &mut Taken,
        a: &mut Allocation<'_>,
        service: &mut Value,
        old: Option<&Value>,
        wanted: bool,
        kind: &str,
    ) -> Result<(), ApiError> {
        let name = service.name().to_owned();
        let before: Vec<(Option<i64>, String, i64)> = old
            .map(|o| o.items_at(&["spec", "ports"]))
            .unwrap_or_default()
            .iter()
            .map(|p| {
                let protocol = p.str_at(&["protocol"]).unwrap_or("TCP").to_owned();
                (p.i64_at(&["port"]), protocol, p.i64_at(&["nodePort"]).unwrap_or(0))
            })
            .collect();
        let count = service.items_at(&["spec", "ports"]).len();
        for i in 0..count {
            let Some(port) = service.slot(&["spec", "ports"]).as_array_mut().and_then(|p| p.get_mut(i)) else {
                continue;
            };
            let mut node_port = port.i64_at(&["nodePort"]).unwrap_or(0);
            if !wanted {
                if kind == "ClusterIP"
                    && let Some(members) = port.as_object_mut()
                {
                    members.remove("nodePort");
                }
                if node_port == 0 || kind == "ClusterIP" {
                    continue;
                }
            }
            if node_port == 0 {
                let protocol = port.str_at(&["protocol"]).unwrap_or("TCP");
                let same = before.iter().find(|b| b.0 == port.i64_at(&["port"]) && b.1 == protocol);
                node_port = same.map_or(0, |b| b.2);
            }
            let chosen = match u16::try_from(node_port) {
                Ok(0) => self
                    .free_port(taken, a)
                    .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?,
                Ok(p) if taken.ports.get(&p) == Some(&a.turn.key) || a.new_ports.contains(&p) => p,
                Ok(p) if self.ports.contains(&p) && !taken.ports.contains_key(&p) => {
                    taken.ports.insert(p, a.turn.key.clone());
                    a.new_ports.push(p);
                    p
                }
                Ok(p) if self.ports.contains(&p) => {
                    return Err(refused(
                        &name,
                        &format!("ports[{i}].nodePort"),
                        &p.to_string(),
                        "provided port is already allocated",
                    ));
                }
                _ => {
                    let why = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        self.ports.start(),
                        self.ports.end()
                    );
                    return Err(refused(&name, &format!("ports[{i}].nodePort"), &node_port.to_string(), &why));
                }
            };
            a.wanted_ports.insert(chosen);
            *port.slot(&["nodePort"]) = i64::from(chosen).into();
        }
        Ok(())
    }

    fn free_port(&self, taken: &mut Taken, a: &mut Allocation<'_>) -> Option<u16> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        for _ in self.ports.clone() {
            let here = taken.next_port.clamp(first, last);
            taken.next_port = if here >= last { first } else { here + 1 };
            // Ports spread over the range, as upstream's random choice does, yet never repeat early.
            let spread = first + ((u32::from(here - first) * 7919) % (u32::from(last - first) + 1)) as u16;
            if !taken.ports.contains_key(&spread) {
                taken.ports.insert(spread, a.turn.key.clone());
                a.new_ports.push(spread);
                return Some(spread);
            }
        }
        let port = self.ports.clone().find(|p| !taken.ports.contains_key(p))?;
        taken.ports.insert(port, a.turn.key.clone());
        a.new_ports.push(port);
        Some(port)
    }
}

fn refused(name: &str, field: &str, value: &str, why: &str) -> ApiError {
    let shown = if field.contains("nodePort") { value.to_owned() } else { format!("[\"{value}\"]") };
    let error = FieldError {
        path: Path::new("spec").child(field),
        kind: FieldErrorKind::Invalid,
        message: format!("Invalid value: {shown}: {why}"),
    };
    ApiError::invalid("", "Service", name, &[error])
}

/// Addresses and NodePorts that a Service holds.
pub(crate) fn held(service: &Value) -> (Vec<IpAddr>, HashSet<u16>) {
    let ips = service.items_at(&["spec", "clusterIPs"]).iter().chain(service.at(&["spec", "clusterIP"]));
    let mut addresses: Vec<IpAddr> = ips.filter_map(Value::as_str).filter_map(|s| s.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let health = service.i64_at(&["spec", "healthCheckNodePort"]);
    let ports = service.items_at(&["spec", "ports"]).iter().filter_map(|p| p.i64_at(&["nodePort"])).chain(health);
    (addresses, ports.filter_map(|p| u16::try_from(p).ok()).filter(|p| *p > 0).collect())
}
