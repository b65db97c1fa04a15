//! Links, addresses and routes (rtnetlink).

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;

use crate::message::{Message, attributes, text};
use crate::{NetlinkError, Socket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;

/// One network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `veth`, `bridge`, `vxlan`; empty for physical links.
    pub kind: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Hardware address.
    pub address: Vec<u8>,
}

/// One route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination; `0.0.0.0/0` is the default route.
    pub destination: IpNet,
    /// Next hop, where there is one.
    pub gateway: Option<IpAddr>,
    /// Outgoing link.
    pub link: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

/// The other end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Namespace it is born in; an open descriptor.
    pub netns: Option<RawFd>,
}

fn link_payload(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut p = [0; 16];
    p[4..8].copy_from_slice(&index.to_ne_bytes());
    p[8..12].copy_from_slice(&flags.to_ne_bytes());
    p[12..16].copy_from_slice(&change.to_ne_bytes());
    p
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.get(..4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

impl Socket {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        self.dump("listing links", Message::new(RTM_GETLINK, 0, &link_payload(0, 0, 0)), |m| {
            let Some(head) = m.payload.get(..16) else { return };
            let mut link = Link {
                index: number(&head[4..8]),
                name: String::new(),
                kind: String::new(),
                mtu: 0,
                up: number(&head[8..12]) & libc::IFF_UP as u32 != 0,
                address: Vec::new(),
            };
            for (kind, value) in attributes(&m.payload[16..]) {
                match kind {
                    IFLA_IFNAME => link.name = text(value),
                    IFLA_MTU => link.mtu = number(value),
                    IFLA_ADDRESS => link.address = value.to_vec(),
                    IFLA_LINKINFO => {
                        let info = attributes(value).find(|(k, _)| *k == IFLA_INFO_KIND);
                        link.kind = info.map(|(_, v)| text(v)).unwrap_or_default();
                    }
                    _ => {}
                }
            }
            links.push(link);
        })?;
        Ok(links)
    }

    /// A link by name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|l| l.name == name))
    }

    fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        self.link(name)?.map(|l| l.index).ok_or_else(|| NetlinkError::NoLink(name.to_owned()))
    }

    fn create(&mut self, name: &str, operation: &str, fill: impl FnOnce(&mut Message)) -> Result<(), NetlinkError> {
        let mut m = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_payload(0, 0, 0));
        m.text(IFLA_IFNAME, name);
        fill(&mut m);
        self.request(operation, m)
    }

    /// Creates a bridge.
    pub fn create_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.create(name, &format!("creating bridge {name}"), |m| {
            m.nest(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "bridge");
            });
        })
    }

    /// Creates a veth pair; the peer may be born in another namespace.
    pub fn create_veth(&mut self, name: &str, peer: VethPeer<'_>, mtu: u32) -> Result<(), NetlinkError> {
        self.create(name, &format!("creating veth {name}"), |m| {
            m.u32(IFLA_MTU, mtu);
            m.nest(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "veth");
                m.nest(IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.raw(&link_payload(0, 0, 0)).text(IFLA_IFNAME, peer.name).u32(IFLA_MTU, mtu);
                        if let Some(fd) = peer.netns {
                            m.u32(IFLA_NET_NS_FD, fd as u32);
                        }
                    });
                });
            });
        })
    }

    /// Deletes a link; answers whether it was there.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, NetlinkError> {
        let mut m = Message::new(RTM_DELLINK, 0, &link_payload(0, 0, 0));
        m.text(IFLA_IFNAME, name);
        match self.request(&format!("deleting link {name}"), m) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Brings a link up.
    pub fn set_up(&mut self, name: &str) -> Result<(), NetlinkError> {
        let up = libc::IFF_UP as u32;
        let mut m = Message::new(RTM_NEWLINK, 0, &link_payload(0, up, up));
        m.text(IFLA_IFNAME, name);
        self.request(&format!("bringing up {name}"), m)
    }

    /// Adds an address with its prefix to a link; adding it again is no error.
    pub fn add_address(&mut self, link: &str, address: IpNet) -> Result<(), NetlinkError> {
        let index = self.index(link)?;
        let mut payload = [family(address.addr()), address.prefix_len(), 0, 0, 0, 0, 0, 0];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut m = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &payload);
        m.attr(IFA_LOCAL, &octets(address.addr())).attr(IFA_ADDRESS, &octets(address.addr()));
        self.request(&format!("adding {address} to {link}"), m)
    }

    /// Every address of the namespace with the index of its link.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let mut found = Vec::new();
        self.dump("listing addresses", Message::new(RTM_GETADDR, 0, &[0; 8]), |m| {
            let Some(head) = m.payload.get(..8) else { return };
            let mut address = None;
            for (kind, value) in attributes(&m.payload[8..]) {
                if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
                    address = address_of(value);
                }
            }
            if let Some(net) = address.and_then(|a| IpNet::new(a, head[1]).ok()) {
                found.push((number(&head[4..8]), net));
            }
        })?;
        Ok(found)
    }

    fn route_message(&mut self, kind: u16, flags: u16, route: &Route) -> Message {
        let scope = if route.gateway.is_some() { 0 } else { 253 };
        let mut payload = [0; 12];
        payload[0] = family(route.destination.addr());
        payload[1] = route.destination.prefix_len();
        // Table main, protocol static, type unicast.
        payload[4..8].copy_from_slice(&[254, 4, scope, 1]);
        let mut m = Message::new(kind, flags, &payload);
        if route.destination.prefix_len() > 0 {
            m.attr(RTA_DST, &octets(route.destination.network()));
        }
        m.u32(RTA_OIF, route.link);
        if let Some(gateway) = route.gateway {
            m.attr(RTA_GATEWAY, &octets(gateway));
        }
        if let Some(source) = route.source {
            m.attr(RTA_PREFSRC, &octets(source));
        }
        m
    }

    /// Adds or replaces a route of the main table.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let m = self.route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route);
        self.request(&format!("adding a route to {}", route.destination), m)
    }

    /// Deletes a route; answers whether it was there.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, NetlinkError> {
        let m = self.route_message(RTM_DELROUTE, 0, route);
        match self.request(&format!("deleting the route to {}", route.destination), m) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Some(libc::ESRCH) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut found = Vec::new();
        self.dump("listing routes", Message::new(RTM_GETROUTE, 0, &[0; 12]), |m| {
            let Some(head) = m.payload.get(..12) else { return };
            if head[4] != 254 || head[7] != 1 {
                return;
            }
            let any: IpAddr = if head[0] == libc::AF_INET as u8 { [0; 4].into() } else { [0; 16].into() };
            let (mut destination, mut gateway, mut link, mut source) = (any, None, 0, None);
            for (kind, value) in attributes(&m.payload[12..]) {
                match kind {
                    RTA_DST => destination = address_of(value).unwrap_or(any),
                    RTA_GATEWAY => gateway = address_of(value),
                    RTA_OIF => link = number(value),
                    RTA_PREFSRC => source = address_of(value),
                    _ => {}
                }
            }
            if let Ok(destination) = IpNet::new(destination, head[1]) {
                found.push(Route { destination, gateway, link, source });
            }
        })?;
        Ok(found)
    }
}
