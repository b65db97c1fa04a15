//! What the host's network is like.

use std::net::{IpAddr, Ipv4Addr};

use ironkeel_journal::HostNetwork;
use ironkeel_netlink::Socket;
use ironkeel_netlink::nft::Family;

use crate::Error;

/// MTU of pods' links where the host's is not known, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// The address that this host is known by: the one that its default route would send from, else the
/// first that is not loopback.
pub(crate) fn node_ip() -> Result<IpAddr, Error> {
    let mut socket = Socket::route()?;
    let default =
        socket.routes()?.into_iter().find(|r| r.destination.prefix_len() == 0 && r.destination.addr().is_ipv4());
    let links = socket.links()?;
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
    // Anchor links and pods' links of clusters on this host, as `cni` names them.
    let ours = |name: &str| match name.split_at_checked(2) {
        Some(("ik", tag)) => tag.len() == 6 && hex(tag),
        Some(("iv", tag)) => tag.len() == 13 && hex(tag),
        _ => false,
    };
    let mut addresses = socket.addresses()?;
    addresses.retain(|(index, net)| {
        let foreign = links.iter().any(|l| l.index == *index && !ours(&l.name));
        foreign && matches!(net.addr(), IpAddr::V4(a) if !a.is_loopback() && !a.is_link_local())
    });
    let on_default = default.and_then(|d| addresses.iter().find(|(index, _)| *index == d.link));
    on_default.or(addresses.first()).map(|(_, net)| net.addr()).ok_or(Error::NoAddress)
}

/// MTU of the link with this address, in bytes.
pub(crate) fn mtu_of(address: IpAddr) -> Result<u32, Error> {
    let mut socket = Socket::route()?;
    let index = socket.addresses()?.into_iter().find(|(_, net)| net.addr() == address).map(|(index, _)| index);
    let link = socket.links()?.into_iter().find(|l| Some(l.index) == index);
    // Loopback's 65,536 would be wrong on the way out.
    Ok(link.map_or(DEFAULT_MTU, |l| l.mtu.min(DEFAULT_MTU.max(if l.kind.is_empty() { l.mtu.min(9000) } else { 0 }))))
}

/// The cluster's addresses of this host, for certificates.
pub(crate) fn host_addresses(node_ip: IpAddr) -> Vec<IpAddr> {
    let mut all = vec![node_ip, Ipv4Addr::LOCALHOST.into()];
    all.dedup();
    all
}

/// Whether another cluster's anchor link is on this host.
pub(crate) fn other_clusters(tag: &str) -> Result<bool, Error> {
    let own = format!("ik{tag}");
    let anchor = |name: &str| {
        name.len() == own.len() && name.starts_with("ik") && name[2..].chars().all(|c| c.is_ascii_hexdigit())
    };
    Ok(Socket::route()?.links()?.iter().any(|l| anchor(&l.name) && l.name != own))
}

/// Links, routes and tables for `reset`.
pub(crate) struct Netlink;

impl HostNetwork for Netlink {
    fn delete_link(&self, name: &str) -> Result<(), String> {
        Socket::route().and_then(|mut s| s.delete_link(name)).map(drop).map_err(|e| e.to_string())
    }

    fn delete_route(&self, destination: &str, gateway: &str) -> Result<(), String> {
        let destination: ipnet::IpNet = destination.parse().map_err(|_| format!("{destination} is no range"))?;
        let gateway: IpAddr = gateway.parse().map_err(|_| format!("{gateway} is no address"))?;
        let delete = || {
            let mut socket = Socket::route()?;
            let ours =
                socket.routes()?.into_iter().find(|r| r.destination == destination && r.gateway == Some(gateway));
            ours.map_or(Ok(false), |route| socket.delete_route(&route))
        };
        delete().map(drop).map_err(|e: ironkeel_netlink::NetlinkError| e.to_string())
    }

    fn delete_table(&self, family: &str, name: &str) -> Result<(), String> {
        let family = Family::parse(family).ok_or_else(|| format!("unknown nftables family {family}"))?;
        Socket::netfilter().and_then(|mut s| s.delete_table(family, name)).map(drop).map_err(|e| e.to_string())
    }
}
