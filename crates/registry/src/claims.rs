//! What Services are given, as the store tells it to every API server, ours or upstream's.
//!
//! Every choice is claimed before the Service has it, as upstream does: an address by creating the
//! IPAddress object of its name, and, where servers share the store, a port by setting its bit in the
//! RangeAllocation of all ports. Who loses chooses again. A round of repair claims what Services hold
//! without, and gives back what is claimed without a Service (its server died in between).

use std::collections::{HashMap, HashSet};
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
use crate::services::{family_of, held};
use crate::storage::{Row, Stored};
use crate::watch::Watcher;

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

/// A claim younger than this may be of a Service that is being written, in seconds (upstream: as long).
const CLAIM_GRACE_SECONDS: i64 = 60;

/// A Service's key, and the addresses and ports that it holds.
type Held = (String, Vec<IpAddr>, HashSet<u16>);

/// What a claim left in the store, to be taken back when the Service is not written.
#[derive(Debug)]
pub(crate) struct Undo {
    store: Arc<dyn Store>,
    services: Arc<Stored>,
    key: String,
    pub(crate) addresses: Vec<(IpAddr, Bytes, u64)>,
    pub(crate) ports: Vec<u16>,
    first_port: u16,
}

impl Undo {
    pub(crate) async fn run(self) {
        if self.addresses.is_empty() && self.ports.is_empty() {
            return;
        }
        // The Service may be there, and hold the same: somebody else has written it.
        let stored = match self.store.get(&Registry::store_key(&self.services, &self.key), 0).await {
            Ok((Some(kv), _)) => media::from_store(&self.services, &kv.value).map(|(tree, _)| held(&tree)),
            Ok((None, _)) => Ok(Default::default()),
            Err(error) => Err(error.into()),
        };
        let (addresses, ports) = match stored {
            Ok(held) => held,
            Err(error) => return tracing::warn!(%error, "claims for a Service stay until the next repair"),
        };
        for (_, key, revision) in self.addresses.into_iter().filter(|(ip, ..)| !addresses.contains(ip)) {
            if let Err(error) = self.store.delete(key, Condition::ModRevision(revision)).await {
                tracing::warn!(%error, "a ClusterIP stays claimed until the next repair");
            }
        }
        let unused: Vec<u16> = self.ports.into_iter().filter(|p| !ports.contains(p)).collect();
        if let Err(error) = free_ports(&*self.store, self.first_port, &unused).await {
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

    /// How to take back what a Service is given and does not come to hold.
    pub(crate) fn undo(&self, key: &str) -> Option<Undo> {
        Some(Undo {
            store: self.store.clone(),
            services: self.row("", "v1", "services")?.stored.clone()?,
            key: key.to_owned(),
            addresses: Vec::new(),
            ports: Vec::new(),
            first_port: self.services.first_port(),
        })
    }

    /// Whether an address is known to be somebody's.
    pub(crate) fn is_claimed(&self, address: IpAddr) -> bool {
        self.addresses_home().is_some_and(|(_, home)| home.cache.get(&address.to_string()).is_some())
    }

    /// The key and revision of the claim; `None` where somebody else's stands.
    pub(crate) async fn claim_address(
        &self,
        service: &str,
        address: IpAddr,
    ) -> Result<Option<(IpAddr, Bytes, u64)>, ApiError> {
        let (row, home) = self.addresses_home().ok_or_else(|| ApiError::internal("IPAddress is not served"))?;
        let (namespace, name) = service.split_once('/').unwrap_or(("", service));
        let mut object = Value::object();
        object.set_gvk("networking.k8s.io/v1", "IPAddress");
        let meta = object.meta_mut();
        meta.insert("name", address.to_string());
        meta.insert("uid", uuid::Uuid::new_v4().to_string());
        meta.insert("creationTimestamp", rfc3339(self.clock.now()));
        let labels = meta.object("labels");
        labels.insert(FAMILY_LABEL, family_of(address));
        labels.insert(MANAGED_BY_LABEL, MANAGED_BY);
        for (field, value) in [("name", name), ("namespace", namespace), ("resource", "services")] {
            *object.slot(&["spec", "parentRef", field]) = value.into();
        }
        row.kind.hooks.default(&mut object);
        let encoded = encode_stored(&row, &home, &mut object)?;
        let key = Registry::store_key(&home, &address.to_string());
        let mut condition = Condition::Absent;
        for _ in 0..CONFLICT_RETRIES {
            match self.store.put(key.clone(), encoded.stored.clone(), condition, 0).await? {
                WriteAnswer::Done { revision, .. } => return Ok(Some((address, key, revision))),
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
    pub(crate) async fn claim_ports(&self, ports: &[u16]) -> Result<Option<u16>, ApiError> {
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
                    let held = self.held_by_services()?.into_iter().flat_map(|(_, _, ports)| ports);
                    held.filter(|p| *p >= first).for_each(|p| bits.set(bit(p), true));
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
        let mut last = 0;
        if let Some((_, home)) = self.addresses_home() {
            for address in addresses {
                let key = Registry::store_key(&home, &address.to_string());
                let Some(kv) = self.store.get(&key, 0).await?.0 else { continue };
                if is_parent(&media::from_store(&home, &kv.value)?.0, service)
                    && let WriteAnswer::Done { revision, .. } =
                        self.store.delete(key, Condition::ModRevision(kv.mod_revision)).await?
                {
                    last = revision;
                }
            }
        }
        if self.store.shared() {
            free_ports(&*self.store, self.services.first_port(), ports).await?;
        }
        self.feed.reached(last).await
    }

    /// What every Service holds, by its key.
    fn held_by_services(&self) -> Result<Vec<Held>, ApiError> {
        let home = self.row("", "v1", "services").and_then(|r| r.stored.clone());
        let entries = home.iter().flat_map(|h| h.cache.snapshot("", "", |_| true).entries);
        entries
            .map(|entry| {
                let (addresses, ports) = held(&*entry.tree()?);
                Ok((entry.key().to_owned(), addresses, ports))
            })
            .collect()
    }

    /// Brings IPAddress objects to what Services hold: claims what is not claimed, and gives back what
    /// no Service has.
    pub async fn repair_addresses(&self) -> Result<(), ApiError> {
        self.fresh().await?;
        let Some((_, home)) = self.addresses_home() else { return Ok(()) };
        let services = self.held_by_services()?;
        let holders: HashMap<IpAddr, &str> =
            services.iter().flat_map(|(key, ips, _)| ips.iter().map(|ip| (*ip, key.as_str()))).collect();
        let pairs: Vec<(&String, IpAddr)> =
            services.iter().flat_map(|(key, ips, _)| ips.iter().map(move |ip| (key, *ip))).collect();
        for (key, address) in pairs {
            let entry = home.cache.get(&address.to_string());
            let Some(entry) = entry else {
                tracing::warn!(%address, service = key.as_str(), "a ClusterIP was not allocated; repaired");
                self.claim_address(key, address).await?;
                continue;
            };
            let tree = entry.tree()?;
            let labelled = entry.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
                && entry.label(FAMILY_LABEL) == Some(family_of(address));
            if is_parent(&tree, key) && labelled {
                continue;
            }
            if holders.get(&address).is_some_and(|holder| is_parent(&tree, holder) && holder != key) {
                tracing::error!(%address, service = key.as_str(), "two Services hold one ClusterIP");
                continue;
            }
            tracing::warn!(%address, service = key.as_str(), "the IPAddress of a ClusterIP was not the Service's; repaired");
            let at = Registry::store_key(&home, entry.key());
            let deleted = self.store.delete(at, Condition::ModRevision(entry.revision)).await?;
            // Whoever asks next sees it gone.
            if let ironkeel_store::WriteAnswer::Done { revision, .. } = deleted {
                self.feed.reached(revision).await?;
            }
            self.claim_address(key, address).await?;
        }
        let now = self.clock.now().as_second();
        for entry in home.cache.snapshot("", "", |e| e.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)).entries {
            let tree = entry.tree()?;
            let parent = |field: &str| tree.str_at(&["spec", "parentRef", field]).unwrap_or_default();
            let of_service = parent("resource") == "services" && parent("group").is_empty();
            let used = entry.name().parse().is_ok_and(|ip: IpAddr| holders.contains_key(&ip));
            let made: Option<jiff::Timestamp> = tree.meta_str("creationTimestamp").parse().ok();
            let young = made.is_some_and(|t| now - t.as_second() <= CLAIM_GRACE_SECONDS);
            if used || (of_service && young) {
                continue;
            }
            tracing::warn!(address = entry.name(), "an IPAddress had no Service; given back");
            let at = Registry::store_key(&home, entry.key());
            let deleted = self.store.delete(at, Condition::ModRevision(entry.revision)).await?;
            // Whoever asks next sees it gone.
            if let ironkeel_store::WriteAnswer::Done { revision, .. } = deleted {
                self.feed.reached(revision).await?;
            }
        }
        Ok(())
    }

    /// Gives back the ports that were without a Service in the last round too; answers what is in this
    /// one.
    async fn repair_ports(&self, suspects: &HashSet<u16>) -> Result<HashSet<u16>, ApiError> {
        let used: HashSet<u16> = self.held_by_services()?.into_iter().flat_map(|(_, _, ports)| ports).collect();
        let Some((range, bits, _)) = read_ports(&*self.store).await? else { return Ok(HashSet::new()) };
        if range != self.services.port_range() {
            return Ok(HashSet::new());
        }
        let first = self.services.first_port();
        let bit = |p: &u16| usize::from(p.saturating_sub(first));
        let orphans = (first..=self.services.last_port()).filter(|p| bits.has(bit(p)) && !used.contains(p));
        let (twice, once): (Vec<u16>, Vec<u16>) = orphans.partition(|p| suspects.contains(p));
        free_ports(&*self.store, first, &twice).await?;
        Ok(once.into_iter().collect())
    }
}

/// Repairs the claims now and then while the registry lives; on a shared store, keeps the book of ports
/// at what all servers' Services hold.
pub(crate) async fn follow(registry: Weak<Registry>) {
    let mut suspects = HashSet::new();
    let interval = Duration::from_secs(REPAIR_INTERVAL_SECONDS);
    loop {
        let Some(strong) = registry.upgrade() else { return };
        if strong.store.shared() {
            let Some(row) = strong.row("", "v1", "services") else { return };
            let watcher = strong.follow(&row).await;
            if let Some(home) = row.stored.clone() {
                strong.services.repair(&home.cache.snapshot("", "", |_| true).entries);
            }
            drop(strong);
            let Some(watcher) = watcher else { return };
            // A round ends the watch; the next begins from the present state.
            if tokio::time::timeout(interval, seen(&registry, watcher)).await.is_ok() {
                continue;
            }
        } else {
            drop(strong);
            tokio::time::sleep(interval).await;
        }
        let Some(strong) = registry.upgrade().filter(|r| !r.stopped()) else { return };
        if let Err(error) = strong.repair_addresses().await {
            tracing::warn!(%error, "the claims of ClusterIPs were not repaired");
        }
        if strong.store.shared() {
            match strong.repair_ports(&suspects).await {
                Ok(found) => suspects = found,
                Err(error) => tracing::warn!(%error, "the claims of NodePorts were not repaired"),
            }
        }
    }
}

/// Takes every change of a Service over into the book, until the watch ends.
async fn seen(registry: &Weak<Registry>, mut watcher: Watcher) {
    let mut events = Vec::new();
    while watcher.next(&mut events).await.is_ok() && !events.is_empty() {
        let Some(strong) = registry.upgrade() else { return };
        for (kind, entry) in events.drain(..).filter_map(|e| e.object()) {
            strong.services.seen(&entry, kind).await;
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
