//! The built-in pod network of one node: a routed veth pair a pod.
//!
//! Each pod has a /32 address and a default route over its own link; the host has a /32 route back.
//! There is no bridge between pods, so every packet passes the host's routing and nftables: Services
//! and policies see pod-to-pod traffic without br_netfilter. The node's address in the range sits on
//! a bridge without ports, which serves as the anchor that a `dummy` link would be.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use ironkeel_journal::{Entry, Journal};
use ironkeel_netlink::nft::{Family, Transaction};
use ironkeel_netlink::route::{Route, VethPeer};
use ironkeel_netlink::{NetlinkError, Socket};
use parking_lot::Mutex;

use crate::addresses::{Addresses, Attachment, SavedPort};
use crate::{PodNetwork, PodNetworkError, PodNetworkRequest, rules};

/// File of the shared directory that holds what `ip_forward` was before any cluster.
pub const FORWARDING_BEFORE: &str = "ip_forward.before";
/// Name of the link inside a pod.
const POD_LINK: &str = "eth0";

/// Settings of [`BuiltinNetwork`].
#[derive(Clone, Debug)]
pub struct BuiltinConfig {
    /// Six characters that tell this cluster's links from others' on the same host.
    pub tag: String,
    /// Where addresses are remembered.
    pub state_dir: PathBuf,
    /// This node's pod addresses.
    pub pod_cidr: Ipv4Net,
    /// All pods' addresses, other nodes' included: within it, pods keep their own address.
    pub cluster_cidr: Ipv4Net,
    /// MTU of pods' links, in bytes.
    pub mtu: u32,
    /// The nftables table (family `inet`).
    pub table: String,
    /// What clusters of this host share; emptied by a reboot. The forwarding that the host had before
    /// the first of them is remembered here, so that the last one to go restores it.
    pub shared_dir: PathBuf,
}

/// The built-in pod network.
#[derive(Debug)]
pub struct BuiltinNetwork {
    config: BuiltinConfig,
    journal: Journal,
    gateway: Ipv4Addr,
    addresses: Mutex<Addresses>,
}

impl From<NetlinkError> for PodNetworkError {
    fn from(e: NetlinkError) -> Self {
        PodNetworkError::Host { step: "netlink".into(), reason: e.to_string() }
    }
}

impl From<ironkeel_journal::JournalError> for PodNetworkError {
    fn from(e: ironkeel_journal::JournalError) -> Self {
        PodNetworkError::Host { step: "journal".into(), reason: e.to_string() }
    }
}

impl BuiltinNetwork {
    /// Makes the anchor link, turns forwarding on, writes the rules. Running pods keep their
    /// connections; called again after a restart it changes nothing but what is missing.
    pub fn start(config: BuiltinConfig, journal: Journal) -> Result<Arc<Self>, PodNetworkError> {
        let addresses = Addresses::open(&config.state_dir, config.pod_cidr)?;
        let gateway = Addresses::gateway(config.pod_cidr);
        let network = BuiltinNetwork { gateway, addresses: Mutex::new(addresses), config, journal };
        network.forwarding()?;
        network.anchor()?;
        network.journal.record(Entry::NftTable { family: "inet".into(), name: network.config.table.clone() })?;
        let prefix = network.veth_prefix();
        let BuiltinConfig { table, pod_cidr, cluster_cidr, .. } = &network.config;
        let rules = rules::full(table, *pod_cidr, *cluster_cidr, &prefix, network.addresses.lock().all());
        rules.commit(&mut Socket::netfilter()?)?;
        Ok(Arc::new(network))
    }

    /// The node's address in the pod range; cluster DNS listens there.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Name of the anchor link.
    pub fn anchor_link(&self) -> String {
        format!("ik{}", self.config.tag)
    }

    fn veth_prefix(&self) -> String {
        format!("iv{}", &self.config.tag[..self.config.tag.len().min(4)])
    }

    fn veth(&self, sandbox_id: &str) -> String {
        // FNV-1a, 36 bits of it: link names hold 15 characters.
        let hash =
            sandbox_id.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        format!("{}{:09x}", self.veth_prefix(), hash & 0xf_ffff_ffff)
    }

    fn forwarding(&self) -> Result<(), PodNetworkError> {
        let file = "/proc/sys/net/ipv4/ip_forward";
        let fail =
            |e: std::io::Error| PodNetworkError::Host { step: format!("turning on {file}"), reason: e.to_string() };
        let found = std::fs::read_to_string(file).map_err(fail)?.trim().to_owned();
        let before = self.config.shared_dir.join(FORWARDING_BEFORE);
        let previous = if found == "1" { std::fs::read_to_string(&before).ok() } else { Some(found) };
        let Some(previous) = previous else { return Ok(()) };
        std::fs::create_dir_all(&self.config.shared_dir).map_err(fail)?;
        std::fs::write(&before, &previous).map_err(fail)?;
        self.journal.record(Entry::Sysctl { name: "net.ipv4.ip_forward".into(), previous })?;
        std::fs::write(file, "1").map_err(fail)
    }

    fn anchor(&self) -> Result<(), PodNetworkError> {
        let name = self.anchor_link();
        let mut socket = Socket::route()?;
        if socket.link(&name)?.is_none() {
            self.journal.record(Entry::Link { name: name.clone() })?;
            socket.create_bridge(&name)?;
        }
        socket.set_up(&name)?;
        socket.add_address(&name, IpNet::V4(Ipv4Net::new_assert(self.gateway, 32)))?;
        Ok(())
    }

    fn connect(&self, attachment: &Attachment, netns: &Path) -> Result<(), PodNetworkError> {
        let mut host = Socket::route()?;
        if host.link(&attachment.link)?.is_none() {
            self.journal.record(Entry::Link { name: attachment.link.clone() })?;
            let file = std::fs::File::open(netns).map_err(|e| PodNetworkError::Host {
                step: format!("opening {}", netns.display()),
                reason: e.to_string(),
            })?;
            let peer = VethPeer { name: POD_LINK, netns: Some(file.as_raw_fd()) };
            host.create_veth(&attachment.link, peer, self.config.mtu)?;
        }
        host.set_up(&attachment.link)?;
        let localnet = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", attachment.link);
        std::fs::write(&localnet, "1").map_err(|e| PodNetworkError::Host { step: localnet, reason: e.to_string() })?;
        let pod_net = IpNet::V4(Ipv4Net::new_assert(attachment.address, 32));
        let gateway_net = IpNet::V4(Ipv4Net::new_assert(self.gateway, 32));
        let link = host.link(&attachment.link)?.ok_or_else(|| NetlinkError::NoLink(attachment.link.clone()))?.index;
        host.add_route(&Route { destination: pod_net, gateway: None, link, source: Some(self.gateway.into()) })?;
        let mut pod = Socket::route_in(netns)?;
        pod.set_up("lo")?;
        pod.set_up(POD_LINK)?;
        pod.add_address(POD_LINK, pod_net)?;
        let link = pod.link(POD_LINK)?.ok_or_else(|| NetlinkError::NoLink(POD_LINK.into()))?.index;
        pod.add_route(&Route { destination: gateway_net, gateway: None, link, source: None })?;
        let default = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
        pod.add_route(&Route { destination: default, gateway: Some(self.gateway.into()), link, source: None })?;
        Ok(())
    }

    fn commit(&self, fill: impl FnOnce(&mut Transaction)) -> Result<(), PodNetworkError> {
        let mut t = Transaction::new(Family::Inet, &self.config.table);
        fill(&mut t);
        if !t.is_empty() {
            t.commit(&mut Socket::netfilter()?)?;
        }
        Ok(())
    }

    fn set_up_blocking(
        &self,
        sandbox_id: &str,
        netns: &Path,
        ports: Vec<SavedPort>,
    ) -> Result<Vec<IpAddr>, PodNetworkError> {
        let attachment = {
            let mut addresses = self.addresses.lock();
            match addresses.get(sandbox_id) {
                Some(known) => known.clone(),
                None => addresses.allocate(sandbox_id, self.veth(sandbox_id), ports)?,
            }
        };
        let done = self.connect(&attachment, netns).and_then(|()| self.commit(|t| rules::add_ports(t, &attachment)));
        if let Err(e) = done {
            // Nothing half-made stays; the caller tries the whole sandbox again.
            if let Err(undo) = self.tear_down_blocking(sandbox_id) {
                tracing::warn!(sandbox = sandbox_id, error = %undo, "undoing a failed pod network");
            }
            return Err(e);
        }
        Ok(Addresses::addresses_of(&attachment))
    }

    fn tear_down_blocking(&self, sandbox_id: &str) -> Result<(), PodNetworkError> {
        let Some(attachment) = self.addresses.lock().get(sandbox_id).cloned() else { return Ok(()) };
        for port in &attachment.ports {
            let one = Attachment { ports: vec![port.clone()], ..attachment.clone() };
            match self.commit(|t| rules::delete_ports(t, &one)) {
                Err(PodNetworkError::Host { reason, .. }) if !reason.contains("os error 2") => {
                    return Err(PodNetworkError::Host { step: "unmapping a host port".into(), reason });
                }
                _ => {}
            }
        }
        Socket::route()?.delete_link(&attachment.link)?;
        self.journal.strike(&Entry::Link { name: attachment.link.clone() })?;
        self.addresses.lock().release(sandbox_id);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, PodNetworkError> + Send + 'static,
) -> Result<T, PodNetworkError> {
    let lost = |e: tokio::task::JoinError| PodNetworkError::Host { step: "pod network".into(), reason: e.to_string() };
    tokio::task::spawn_blocking(f).await.map_err(lost)?
}

#[async_trait]
impl PodNetwork for Arc<BuiltinNetwork> {
    async fn set_up(&self, request: PodNetworkRequest<'_>) -> Result<Vec<IpAddr>, PodNetworkError> {
        let (network, id, netns) = (self.clone(), request.sandbox_id.to_owned(), request.netns.to_owned());
        let ports = request.port_mappings.iter().filter_map(SavedPort::of).collect();
        blocking(move || network.set_up_blocking(&id, &netns, ports)).await
    }

    async fn tear_down(&self, sandbox_id: &str) -> Result<(), PodNetworkError> {
        let (network, id) = (self.clone(), sandbox_id.to_owned());
        blocking(move || network.tear_down_blocking(&id)).await
    }

    async fn ready(&self) -> Result<(), PodNetworkError> {
        Ok(())
    }
}
