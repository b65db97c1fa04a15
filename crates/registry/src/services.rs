//! ClusterIPs and NodePorts of Services: what a Service is given is its own from the moment that it is
//! chosen, so no two ever get the same.
//!
//! An address is given away by creating the IPAddress object of its name in the store, whoever else
//! writes there; the ServiceCIDR objects that are ready say which addresses there are. Ports stand in a
//! book that is rebuilt from the stored Services at the start. What one Service holds is changed by one
//! writer at a time (its [`Turn`]), from the choice until the Service is stored or is not to be.
//!
//! `families` fills in the fields of IP families, `ports` chooses NodePorts, `range` orders addresses;
//! what is written to the store for all this stands in `claims`.

mod families;
mod ports;
mod range;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ironkeel_kinds::service_address_errors;
use ironkeel_object::{ObjectMeta, Value};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::cache::EventType;
use crate::claims::{CHOICES, Undo};
use crate::entry::Entry;
use crate::error::ApiError;
use crate::registry::Registry;

pub(crate) use range::{Range, family_of};

/// The ranges that Services get their addresses and ports from.
#[derive(Debug)]
pub struct ServiceAddresses {
    /// Those of the flags; the first one's family is the default.
    configured: Vec<Range>,
    ports: RangeInclusive<u16>,
    taken: Mutex<ports::Book>,
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

/// The holder of a port that another server has claimed for a Service that was not seen yet.
const FOREIGN: &str = "";

/// An allocation that stands once [`Allocation::commit`] is called, and is undone otherwise.
pub(crate) struct Allocation<'a> {
    turn: Turn<'a>,
    new_ports: Vec<u16>,
    wanted_addresses: HashSet<IpAddr>,
    wanted_ports: HashSet<u16>,
    /// What the Service had before.
    had: Vec<IpAddr>,
    committed: bool,
    /// What to take back from the store if this does not stand.
    pub(crate) undo: Option<Undo>,
}

impl Allocation<'_> {
    /// Answers what the Service held before and does not hold any more.
    pub(crate) fn commit(mut self) -> (Vec<IpAddr>, Vec<u16>) {
        let mut ports = Vec::new();
        self.turn.book.taken.lock().retain(|p, owner| {
            let stays = *owner != self.turn.key || self.wanted_ports.contains(p);
            if !stays {
                ports.push(*p);
            }
            stays
        });
        self.committed = true;
        let gone = self.had.iter().filter(|a| !self.wanted_addresses.contains(a)).copied().collect();
        (gone, ports)
    }

    /// Takes everything back, in the store too.
    pub(crate) async fn cancel(mut self) {
        if let Some(undo) = self.undo.take() {
            undo.run().await;
        }
    }

    /// Forgets the ports that were chosen; the next choice begins anew.
    fn reset_ports(&mut self) {
        let mut taken = self.turn.book.taken.lock();
        self.new_ports.drain(..).for_each(|p| _ = taken.remove(&p));
        self.wanted_ports.clear();
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.reset_ports();
            if let Some(undo) = self.undo.take() {
                tokio::spawn(undo.run());
            }
        }
    }
}

impl ServiceAddresses {
    /// `network/prefix_bits` for addresses, `ports` for NodePorts.
    pub fn new(network: IpAddr, prefix_bits: u8, ports: RangeInclusive<u16>) -> Self {
        let configured = vec![Range::new(network, prefix_bits)];
        ServiceAddresses { configured, ports, taken: Mutex::default(), turns: Mutex::default() }
    }

    /// With a range of the other family besides.
    #[must_use]
    pub fn and(mut self, network: IpAddr, prefix_bits: u8) -> Self {
        self.configured.push(Range::new(network, prefix_bits));
        self
    }

    /// The ranges as text: `10.96.0.0/12`.
    pub fn ranges(&self) -> Vec<String> {
        self.configured.iter().map(ToString::to_string).collect()
    }

    /// Waits until nobody else writes the Service.
    pub(crate) async fn turn(&self, key: &str) -> Turn<'_> {
        let turn = self.turns.lock().entry(key.to_owned()).or_default().clone();
        let held = turn.lock_owned().await;
        Turn { book: self, key: key.to_owned(), held: Some(held) }
    }

    /// The address `offset` places into the first range.
    pub fn nth(&self, offset: u128) -> IpAddr {
        self.configured[0].nth(offset)
    }

    /// Takes over the ports that stored Services hold; ports of those that somebody writes now stay.
    pub(crate) fn repair(&self, services: &[Arc<Entry>]) {
        let turns = self.turns.lock();
        let mut taken = self.taken.lock();
        taken.retain(|_, owner| turns.contains_key(owner));
        for entry in services {
            let Ok(tree) = entry.tree() else { continue };
            for p in held(&tree).1 {
                if let Some(other) = taken.insert(p, entry.key().to_owned()).filter(|o| o != entry.key()) {
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
        let ports = if kind == EventType::Deleted { Default::default() } else { held(&tree).1 };
        let _turn = self.turn(entry.key()).await;
        let mut taken = self.taken.lock();
        taken.retain(|_, owner| owner != entry.key());
        taken.extend(ports.into_iter().map(|p| (p, entry.key().to_owned())));
    }

    /// Gives back the ports that a deleted Service held.
    pub(crate) fn release(&self, turn: &Turn<'_>) {
        self.taken.lock().retain(|_, owner| *owner != turn.key);
    }
}

impl Registry {
    /// Fills in addresses and ports of `service`, and gives them to it.
    pub(crate) async fn give_addresses(
        &self,
        key: &str,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Allocation<'_>, ApiError> {
        let mut a = Allocation {
            turn: self.services.turn(key).await,
            new_ports: Vec::new(),
            wanted_addresses: HashSet::new(),
            wanted_ports: HashSet::new(),
            had: old.map(|o| held(o).0).unwrap_or_default(),
            committed: false,
            undo: self.undo(key),
        };
        match self.fill(key, &mut a, service, old, dry_run).await {
            Ok(()) => Ok(a),
            Err(error) => {
                a.cancel().await;
                Err(error)
            }
        }
    }

    async fn fill(
        &self,
        key: &str,
        a: &mut Allocation<'_>,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        if !families::is_external(service) {
            let old = old.filter(|o| !families::is_external(o));
            self.fill_addresses(key, a, service, old, dry_run).await?;
        }
        let book = &self.services;
        if dry_run || !self.store.shared() {
            return book.fill_ports(&mut book.taken.lock(), a, service);
        }
        for _ in 0..CHOICES {
            let mut attempt = service.clone();
            book.fill_ports(&mut book.taken.lock(), a, &mut attempt)?;
            let Some(lost) = self.claim_ports(&a.new_ports).await? else {
                a.undo.iter_mut().for_each(|u| u.ports.clone_from(&a.new_ports));
                *service = attempt;
                return Ok(());
            };
            a.reset_ports();
            book.taken.lock().insert(lost, FOREIGN.to_owned());
        }
        Err(ApiError::internal("failed to allocate a nodePort: other servers take every choice"))
    }

    async fn fill_addresses(
        &self,
        key: &str,
        a: &mut Allocation<'_>,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let wrong = service_address_errors(service, old);
        if !wrong.is_empty() {
            return Err(ApiError::invalid("", "Service", service.name(), &wrong));
        }
        let mut fields = families::Fields::of(service);
        let before = old.map(families::Fields::of);
        let cluster: Vec<&str> = self.services.configured.iter().map(Range::family).collect();
        fields.complete(service.name(), before.as_ref(), &cluster)?;
        let asked = fields.addresses.clone();
        let families = if fields.headless() { Vec::new() } else { fields.families.clone() };
        for (i, family) in families.iter().enumerate() {
            let given = fields.addresses.get(i).cloned().unwrap_or_default();
            let known = given.parse::<IpAddr>().ok();
            // The first one never changes, which validation says.
            let kept = before.is_some() && (i == 0 || known.is_some_and(|ip| a.had.contains(&ip)));
            let address = match known {
                Some(ip) if kept => ip,
                Some(ip) => {
                    self.take_address(key, a, ip, dry_run).await?.map_err(|why| {
                        families::refused(service, &asked, &format!("failed to allocate IP {given}: {why}"))
                    })?;
                    ip
                }
                None => self.free_address(key, a, family, service.name(), dry_run).await?,
            };
            a.wanted_addresses.insert(address);
            match fields.addresses.get_mut(i) {
                // As the client wrote it.
                Some(_) if known.is_some() => {}
                Some(slot) => *slot = address.to_string(),
                None => fields.addresses.push(address.to_string()),
            }
        }
        fields.write(service);
        Ok(())
    }

    /// Claims an address that was asked for.
    async fn take_address(
        &self,
        key: &str,
        a: &mut Allocation<'_>,
        ip: IpAddr,
        dry_run: bool,
    ) -> Result<Result<(), &'static str>, ApiError> {
        if !self.ready_ranges().iter().any(|r| r.contains(ip)) {
            return Ok(Err("the provided network does not match the current range"));
        }
        if dry_run {
            return Ok(Ok(()));
        }
        match self.claim_address(key, ip).await? {
            Some(claim) => a.undo.iter_mut().for_each(|u| u.addresses.push(claim.clone())),
            None => return Ok(Err("provided IP is already allocated")),
        }
        Ok(Ok(()))
    }

    /// Claims a free address of a family.
    async fn free_address(
        &self,
        key: &str,
        a: &mut Allocation<'_>,
        family: &str,
        name: &str,
        dry_run: bool,
    ) -> Result<IpAddr, ApiError> {
        for range in self.ready_ranges().iter().filter(|r| r.family() == family) {
            if dry_run {
                // As upstream: which one it would be is not known.
                return Ok(range.nth(0));
            }
            for ip in range.candidates() {
                if self.is_claimed(ip) {
                    continue;
                }
                if let Some(claim) = self.claim_address(key, ip).await? {
                    a.undo.iter_mut().for_each(|u| u.addresses.push(claim.clone()));
                    return Ok(ip);
                }
            }
        }
        Err(ApiError::internal(format!("failed to allocate a serviceIP for Service {name:?}: range is full")))
    }

    /// The ranges of the ServiceCIDRs that addresses may be taken from now; those of the flags where there
    /// is none at all yet.
    fn ready_ranges(&self) -> Vec<Range> {
        let home = self.row("networking.k8s.io", "v1", "servicecidrs").and_then(|r| r.stored.clone());
        let entries = home.map(|h| h.cache.snapshot("", "", |_| true).entries).unwrap_or_default();
        if entries.is_empty() {
            return self.services.configured.clone();
        }
        let mut out: Vec<Range> = Vec::new();
        for tree in entries.iter().filter_map(|e| e.kept_tree().ok()).filter(|t| is_ready(t)) {
            let all = tree.items_at(&["spec", "cidrs"]).iter().filter_map(|c| Range::parse(c.as_str()?));
            all.for_each(|r| {
                if !out.contains(&r) {
                    out.push(r)
                }
            });
        }
        out
    }
}

fn is_ready(range: &Value) -> bool {
    let ready = |c: &Value| c.str_at(&["type"]) == Some("Ready") && c.str_at(&["status"]) == Some("True");
    range.deletion_timestamp().is_none() && range.items_at(&["status", "conditions"]).iter().any(ready)
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
