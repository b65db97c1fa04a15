//! ClusterIPs and NodePorts on a store that several API servers write, ours or upstream's.
//!
//! The book of `services` knows what this server has seen. Here every choice is claimed in the store
//! before the Service has it, as upstream does: an address by creating the IPAddress object of its name,
//! a port by setting its bit in the RangeAllocation of all ports. Who loses chooses again. What is
//! claimed without a Service (its server died in between) is given back after two rounds of repair.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ironkeel_codec::{PROTOBUF_MAGIC, decode_protobuf, encode_protobuf};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_schema::{TypeId, type_by_name};
use ironkeel_store::{Condition, Store, WriteAnswer};

use crate::clock::rfc3339;
use crate::create::encode_stored;
use crate::error::ApiError;
use crate::media;
use crate::registry::Registry;
use crate::selector::Selection;
use crate::services::{Allocation, held};
use crate::storage::{Row, Stored};
use crate::watch::WatchStart;

/// Upstream's key of the ports' bitmap.
const PORTS_KEY: &[u8] = b"/registry/ranges/servicenodeports";
/// Labels of the addresses that API servers claim.
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGED_BY: &str = "ipallocator.k8s.io";
/// Other servers' writes that one claim of ports sits out.
const CONFLICT_RETRIES: usize = 64;
/// Choices that one allocation tries.
pub(crate) const CHOICES: usize = 64;
/// How often claims are compared with Services, in seconds (upstream: as often).
const REPAIR_INTERVAL_SECONDS: u64 = 180;

/// What a claim left in the store, to be taken back when the Service is not written.
#[derive(Debug)]
pub(crate) struct Undo {
    store: Arc<dyn Store>,
    service: Bytes,
    addresses: Vec<(Bytes, u64)>,
    ports: Vec<u16>,
    first_port: u16,
}

impl Undo {
    pub(crate) async fn run(self) {
        // The Service is there: somebody else has written it, and may hold the same.
        if !matches!(self.store.get(&self.service, 0).await, Ok((None, _))) {
            return;
        }
        for (key, revision) in self.addresses {
            if let Err(error) = self.store.delete(key, Condition::ModRevision(revision)).await {
                tracing::warn!(%error, "a ClusterIP stays claimed until the next repair");
            }
        }
        if let Err(error) = free_ports(&*self.store, self.first_port, &self.ports).await {
            tracing::warn!(%error, "NodePorts stay claimed until the next repair");
        }
    }
}

/// The bits of the ports that are taken: upstream's big integer, most significant byte first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bits(Vec<u8>);

impl Bits {
    fn from_bytes(mut bytes: Vec<u8>) -> Bits {
        bytes.reverse();
        Bits(bytes)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let used = self.0.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        self.0[..used].iter().rev().copied().collect()
    }

    fn has(&self, bit: usize) -> bool {
        self.0.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    fn set(&mut self, bit: usize, on: bool) {
        if self.0.len() <= bit / 8 {
            self.0.resize(bit / 8 + 1, 0);
        }
        let mask = 1 << (bit % 8);
        if on { self.0[bit / 8] |= mask } else { self.0[bit / 8] &= !mask }
    }
}

fn range_type() -> Result<TypeId, ApiError> {
    type_by_name("core/v1.RangeAllocation").ok_or_else(|| ApiError::internal("the tables lack RangeAllocation"))
}

/// The bitmap with its range, and the revision to write it on.
async fn read_ports(store: &dyn Store) -> Result<Option<(String, Bits, u64)>, ApiError> {
    let Some(kv) = store.get(PORTS_KEY, 0).await?.0 else { return Ok(None) };
    let unread = |e: &dyn std::fmt::Display| ApiError::internal(format!("the allocation of node ports: {e}"));
    let type_id = range_type()?;
    let tree = if kv.value.starts_with(PROTOBUF_MAGIC) {
        decode_protobuf(&kv.value, &|_, _| Some(type_id)).map_err(|e| unread(&e))?
    } else {
        crate::entry::decode(&kv.value, Some(type_id))?
    };
    let data = STANDARD.decode(tree.str_at(&["data"]).unwrap_or_default()).map_err(|e| unread(&e))?;
    let range = tree.str_at(&["range"]).unwrap_or_default().to_owned();
    Ok(Some((range, Bits::from_bytes(data), kv.mod_revision)))
}

async fn write_ports(store: &dyn Store, range: &str, bits: &Bits, before: Option<u64>) -> Result<bool, ApiError> {
    let mut tree = Value::object();
    tree.set_gvk("v1", "RangeAllocation");
    tree.meta_mut();
    *tree.slot(&["range"]) = range.into();
    *tree.slot(&["data"]) = STANDARD.encode(bits.to_bytes()).into();
    let bytes = encode_protobuf(&tree, range_type()?);
    let condition = before.map_or(Condition::Absent, Condition::ModRevision);
    let answer = store.put(Bytes::from_static(PORTS_KEY), bytes.into(), condition, 0).await?;
    Ok(matches!(answer, WriteAnswer::Done { .. }))
}

async fn free_ports(store: &dyn Store, first: u16, ports: &[u16]) -> Result<(), ApiError> {
    if ports.is_empty() {
        return Ok(());
    }
    for _ in 0..CONFLICT_RETRIES {
        let Some((range, mut bits, revision)) = read_ports(store).await? else { return Ok(()) };
        for port in ports {
            bits.set(usize::from(port.saturating_sub(first)), false);
        }
        if write_ports(store, &range, &bits, Some(revision)).await? {
            return Ok(());
        }
    }
    Err(ApiError::internal("the allocation of node ports changes too often"))
}

/// Whether an IPAddress belongs to the Service of this key.
fn is_parent(address: &Value, service: &str) -> bool {
    let parent = |field: &str| address.str_at(&["spec", "parentRef", field]).unwrap_or_default();
    parent("resource") == "services"
        && parent("group").is_empty()
        && service.split_once('/') == Some((parent("namespace"), parent("name")))
}

impl Registry {
    fn addresses_home(&self) -> Option<(Arc<Row>, Arc<Stored>)> {
        let row = self.row("networking.k8s.io", "v1", "ipaddresses")?;
        let home = row.stored.clone()?;
        Some((row, home))
    }

    /// Claims what an allocation has newly chosen. False when somebody else holds some of it, which the
    /// book knows from then on.
    pub(crate) async fn claim(&self, key: &str, allocation: &mut Allocation<'_>) -> Result<bool, ApiError> {
        let (addresses, ports) = allocation.chosen();
        let services = self.row("", "v1", "services").and_then(|r| r.stored.clone());
        let Some(services) = services else { return Ok(true) };
        allocation.undo = Some(Undo {
            store: self.store.clone(),
            service: Registry::store_key(&services, key),
            addresses: Vec::new(),
            ports: Vec::new(),
            first_port: self.services.first_port(),
        });
        for address in addresses {
            match self.claim_address(key, address).await? {
                Some(claim) => allocation.undo.iter_mut().for_each(|u| u.addresses.push(claim.clone())),
                None => {
                    allocation.lose_address(address);
                    return Ok(false);
                }
            }
        }
        match self.claim_ports(&ports).await? {
            None => {
                allocation.undo.iter_mut().for_each(|u| u.ports.clone_from(&ports));
                Ok(true)
            }
            Some(lost) => {
                allocation.lose_port(lost);
                Ok(false)
            }
        }
    }

    /// The key and revision of the claim; `None` where somebody else's stands.
    async fn claim_address(&self, service: &str, address: IpAddr) -> Result<Option<(Bytes, u64)>, ApiError> {
        let (row, home) = self.addresses_home().ok_or_else(|| ApiError::internal("IPAddress is not served"))?;
        let (namespace, name) = service.split_once('/').unwrap_or(("", service));
        let mut object = Value::object();
        object.set_gvk("networking.k8s.io/v1", "IPAddress");
        let meta = object.meta_mut();
        meta.insert("name", address.to_string());
        meta.insert("uid", uuid::Uuid::new_v4().to_string());
        meta.insert("creationTimestamp", rfc3339(self.clock.now()));
        let labels = meta.object("labels");
        labels.insert(FAMILY_LABEL, if address.is_ipv4() { "IPv4" } else { "IPv6" });
        labels.insert(MANAGED_BY_LABEL, MANAGED_BY);
        for (field, value) in [("group", ""), ("name", name), ("namespace", namespace), ("resource", "services")] {
            *object.slot(&["spec", "parentRef", field]) = value.into();
        }
        row.kind.hooks.default(&mut object);
        let encoded = encode_stored(&row, &home, &mut object)?;
        let key = Registry::store_key(&home, &address.to_string());
        let mut condition = Condition::Absent;
        for _ in 0..CONFLICT_RETRIES {
            match self.store.put(key.clone(), encoded.stored.clone(), condition, 0).await? {
                WriteAnswer::Done { revision, .. } => return Ok(Some((key, revision))),
                WriteAnswer::Conflict { current: Some(kv), .. } => {
                    let (there, _) = media::from_store(&home, &kv.value)?;
                    if !is_parent(&there, service) {
                        return Ok(None);
                    }
                    // An earlier attempt's: made ours, so that its undoing does not hit it.
                    condition = Condition::ModRevision(kv.mod_revision);
                }
                WriteAnswer::Conflict { current: None, .. } => condition = Condition::Absent,
            }
        }
        Ok(None)
    }

    /// The first port that somebody else holds.
    async fn claim_ports(&self, ports: &[u16]) -> Result<Option<u16>, ApiError> {
        if ports.is_empty() {
            return Ok(None);
        }
        let (ours, first) = (self.services.port_range(), self.services.first_port());
        let bit = |port: u16| usize::from(port.saturating_sub(first));
        for _ in 0..CONFLICT_RETRIES {
            let (mut bits, before) = match read_ports(&*self.store).await? {
                Some((range, bits, revision)) if range == ours || range.is_empty() => (bits, Some(revision)),
                Some((range, ..)) => {
                    let why = format!("the node ports' range in the store is {range}, this server's is {ours}");
                    return Err(ApiError::internal(why));
                }
                None => {
                    let mut bits = Bits::default();
                    let (_, held) = self.held_by_services()?;
                    held.into_iter().filter(|p| *p >= first).for_each(|p| bits.set(bit(p), true));
                    (bits, None)
                }
            };
            if let Some(lost) = ports.iter().find(|p| bits.has(bit(**p))) {
                return Ok(Some(*lost));
            }
            ports.iter().for_each(|p| bits.set(bit(*p), true));
            if write_ports(&*self.store, &ours, &bits, before).await? {
                return Ok(None);
            }
        }
        Err(ApiError::internal("the allocation of node ports changes too often"))
    }

    /// Gives claims back that a Service has let go.
    pub(crate) async fn give_back(&self, service: &str, addresses: &[IpAddr], ports: &[u16]) {
        if let Err(error) = self.try_give_back(service, addresses, ports).await {
            tracing::warn!(service, %error, "addresses stay claimed until the next repair");
        }
    }

    async fn try_give_back(&self, service: &str, addresses: &[IpAddr], ports: &[u16]) -> Result<(), ApiError> {
        if let Some((_, home)) = self.addresses_home() {
            for address in addresses {
                let key = Registry::store_key(&home, &address.to_string());
                let Some(kv) = self.store.get(&key, 0).await?.0 else { continue };
                if is_parent(&media::from_store(&home, &kv.value)?.0, service) {
                    self.store.delete(key, Condition::ModRevision(kv.mod_revision)).await?;
                }
            }
        }
        free_ports(&*self.store, self.services.first_port(), ports).await
    }

    /// Every address and port that a Service holds.
    fn held_by_services(&self) -> Result<(HashSet<IpAddr>, HashSet<u16>), ApiError> {
        let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
        let home = self.row("", "v1", "services").and_then(|r| r.stored.clone());
        for entry in home.iter().flat_map(|h| h.cache.snapshot("", "", |_| true).entries) {
            let (a, p) = held(&*entry.tree()?);
            addresses.extend(a);
            ports.extend(p);
        }
        Ok((addresses, ports))
    }

    /// Gives back what was without a Service in the last round too; answers what is in this one.
    async fn repair_claims(&self, suspects: &HashSet<String>) -> Result<HashSet<String>, ApiError> {
        self.fresh().await?;
        let (addresses, ports) = self.held_by_services()?;
        let mut found = HashSet::new();
        let entries = self.addresses_home().map(|(_, h)| h.cache.snapshot("", "", |_| true).entries);
        for entry in entries.into_iter().flatten() {
            let orphan = entry.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
                && entry.name().parse().is_ok_and(|ip: IpAddr| !addresses.contains(&ip));
            if orphan && suspects.contains(entry.name()) {
                let key = [b"/registry/ipaddresses/", entry.name().as_bytes()].concat();
                self.store.delete(key.into(), Condition::ModRevision(entry.revision)).await?;
            } else if orphan {
                found.insert(entry.name().to_owned());
            }
        }
        if let Some((range, bits, _)) = read_ports(&*self.store).await?
            && range == self.services.port_range()
        {
            let first = self.services.first_port();
            let bit = |p: &u16| usize::from(p.saturating_sub(first));
            let orphans: Vec<u16> =
                (first..=self.services.last_port()).filter(|p| bits.has(bit(p)) && !ports.contains(p)).collect();
            let (twice, once): (Vec<u16>, Vec<u16>) =
                orphans.into_iter().partition(|p| suspects.contains(&p.to_string()));
            free_ports(&*self.store, first, &twice).await?;
            found.extend(once.iter().map(u16::to_string));
        }
        Ok(found)
    }
}

/// Keeps the book at what all servers' Services hold, and repairs the claims, while the registry lives.
pub(crate) async fn follow(registry: Weak<Registry>) {
    let mut suspects = HashSet::new();
    let interval = Duration::from_secs(REPAIR_INTERVAL_SECONDS);
    loop {
        let Some(strong) = registry.upgrade() else { return };
        let Some(row) = strong.row("", "v1", "services") else { return };
        let Some(home) = row.stored.clone() else { return };
        let watcher = strong.watch(&row, Selection::all(""), WatchStart::State, 0).await;
        strong.services.repair(&home.cache.snapshot("", "", |_| true).entries);
        drop(strong);
        let Ok(mut watcher) = watcher else { return };
        let follow = async {
            let mut events = Vec::new();
            loop {
                watcher.next(&mut events).await?;
                let Some(strong) = registry.upgrade() else { return Ok::<(), ApiError>(()) };
                if events.is_empty() {
                    return Ok(());
                }
                for (kind, entry) in events.drain(..).filter_map(|e| e.object()) {
                    strong.services.seen(&entry, kind).await;
                }
            }
        };
        // A round ends the watch; the next begins from the present state.
        let ended = tokio::time::timeout(interval, follow).await;
        let Some(strong) = registry.upgrade().filter(|r| !r.stopped()) else { return };
        if ended.is_err() {
            match strong.repair_claims(&suspects).await {
                Ok(found) => suspects = found,
                Err(error) => tracing::warn!(%error, "the claims of ClusterIPs and NodePorts were not repaired"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn bits_are_upstreams_big_integer() {
        let mut bits = Bits::default();
        bits.set(0, true);
        bits.set(11, true);
        assert_eq!(bits.to_bytes(), [0b1000, 1]);
        let mut again = Bits::from_bytes(vec![0b1000, 1]);
        assert!(again.has(11) && again.has(0) && !again.has(1) && !again.has(4000));
        again.set(11, false);
        assert_eq!(again.to_bytes(), [1]);
        again.set(0, false);
        assert!(again.to_bytes().is_empty());
    }
}
