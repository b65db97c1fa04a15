//! The pod network's part of the one nftables table: chains named `pods-…`, the `hostports` maps.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use ironkeel_netlink::nft::{
    ChainType, Compare, Element, ElementData, Expr, Family, Hook, Load, MapData, Nat, Reg, SetSpec, Transaction,
    Verdict, key_of, types,
};

use crate::addresses::{Attachment, SavedPort};

/// `protocol . port → address . port`, for any local address.
const HOST_PORTS: SetSpec = SetSpec {
    key: &[types::PROTO, types::PORT],
    data: Some(MapData::Values(&[types::IPV4, types::PORT])),
    interval: false,
    timeout_ms: None,
};
/// `address . protocol . port → address . port`, for one local address.
const HOST_IP_PORTS: SetSpec = SetSpec {
    key: &[types::IPV4, types::PROTO, types::PORT],
    data: Some(MapData::Values(&[types::IPV4, types::PORT])),
    interval: false,
    timeout_ms: None,
};

const IPV4: u8 = 2;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

fn is_ipv4() -> [Expr; 2] {
    [Expr::Load(Load::NfProto, Reg(0)), Expr::Compare(Reg(0), Compare::Eq, vec![IPV4])]
}

fn in_net(load: Load, net: Ipv4Net, how: Compare) -> [Expr; 3] {
    [
        Expr::Load(load, Reg(0)),
        Expr::Bitwise(Reg(0), net.netmask().octets().to_vec(), vec![0; 4]),
        Expr::Compare(Reg(0), how, net.network().octets().to_vec()),
    ]
}

/// First bytes of a link name.
fn link_prefix(load: Load, prefix: &str) -> [Expr; 2] {
    [Expr::Load(load, Reg(0)), Expr::Compare(Reg(0), Compare::Eq, prefix.as_bytes().to_vec())]
}

/// Everything anew: chains, masquerading, and the host ports of living sandboxes.
pub(crate) fn full<'a>(
    table: &str,
    range: Ipv4Net,
    cluster: Ipv4Net,
    veth_prefix: &str,
    attachments: impl Iterator<Item = &'a Attachment>,
) -> Transaction {
    let mut t = Transaction::new(Family::Inet, table);
    t.create_table().create_set("hostports", &HOST_PORTS).create_set("hostip-ports", &HOST_IP_PORTS);
    t.create_chain("pods-hostports");
    t.create_base_chain("pods-guard", ChainType::Filter, Hook::Prerouting, -300);
    t.create_base_chain("pods-prerouting", ChainType::Nat, Hook::Prerouting, -101);
    t.create_base_chain("pods-output", ChainType::Nat, Hook::Output, -101);
    t.create_base_chain("pods-postrouting", ChainType::Nat, Hook::Postrouting, 100);
    for chain in ["pods-hostports", "pods-guard", "pods-prerouting", "pods-output", "pods-postrouting"] {
        t.flush_chain(chain);
    }
    t.flush_set("hostports").flush_set("hostip-ports");
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

    // Pods' links accept loopback destinations (host ports on 127.0.0.1); packets from pods must not.
    let mut rule = link_prefix(Load::InName, veth_prefix).to_vec();
    rule.extend(is_ipv4());
    rule.extend(in_net(Load::Ip4Destination, loopback, Compare::Eq));
    rule.push(Expr::Verdict(Verdict::Drop));
    t.add_rule("pods-guard", &rule);

    let local =
        [Expr::Load(Load::DestinationType, Reg(0)), Expr::Compare(Reg(0), Compare::Eq, LOCAL.to_ne_bytes().to_vec())];
    for chain in ["pods-prerouting", "pods-output"] {
        let mut rule = is_ipv4().to_vec();
        rule.extend(local.clone());
        rule.push(Expr::Verdict(Verdict::Jump("pods-hostports".into())));
        t.add_rule(chain, &rule);
    }
    t.add_rule(
        "pods-hostports",
        &[
            Expr::Load(Load::Ip4Destination, Reg(0)),
            Expr::Load(Load::L4Proto, Reg(1)),
            Expr::Load(Load::DestinationPort, Reg(2)),
            Expr::Map("hostip-ports".into(), Reg(0), Reg(4)),
            Expr::Translate(Nat::Destination, IPV4, Reg(4), Some(Reg(5))),
        ],
    );
    t.add_rule(
        "pods-hostports",
        &[
            Expr::Load(Load::L4Proto, Reg(0)),
            Expr::Load(Load::DestinationPort, Reg(1)),
            Expr::Map("hostports".into(), Reg(0), Reg(4)),
            Expr::Translate(Nat::Destination, IPV4, Reg(4), Some(Reg(5))),
        ],
    );

    // From a pod to the outside: under the node's address. Pods of other nodes see the pod's own.
    let mut rule = is_ipv4().to_vec();
    rule.extend(in_net(Load::Ip4Source, range, Compare::Eq));
    rule.extend(in_net(Load::Ip4Destination, cluster, Compare::Ne));
    rule.push(Expr::Masquerade(false));
    t.add_rule("pods-postrouting", &rule);
    // From the host's loopback address through a host port to a pod.
    let mut rule = is_ipv4().to_vec();
    rule.extend(in_net(Load::Ip4Source, loopback, Compare::Eq));
    rule.extend(link_prefix(Load::OutName, veth_prefix));
    rule.push(Expr::Masquerade(false));
    t.add_rule("pods-postrouting", &rule);

    for attachment in attachments {
        add_ports(&mut t, attachment);
    }
    t
}

fn element(port: &SavedPort, to: Option<Ipv4Addr>) -> (&'static str, Element) {
    let proto = [port.protocol];
    let number = port.host_port.to_be_bytes();
    let data = to.map(|a| ElementData::Value(key_of(&[&a.octets(), &port.container_port.to_be_bytes()])));
    match port.host_ip {
        Some(ip) => ("hostip-ports", Element { key: key_of(&[&ip.octets(), &proto, &number]), data, end: false }),
        None => ("hostports", Element { key: key_of(&[&proto, &number]), data, end: false }),
    }
}

/// Maps the host ports of one sandbox.
pub(crate) fn add_ports(t: &mut Transaction, attachment: &Attachment) {
    for port in &attachment.ports {
        let (set, element) = element(port, Some(attachment.address));
        t.add_elements(set, &[element]);
    }
}

/// Unmaps the host ports of one sandbox.
pub(crate) fn delete_ports(t: &mut Transaction, attachment: &Attachment) {
    for port in &attachment.ports {
        let (set, element) = element(port, None);
        t.delete_elements(set, &[element]);
    }
}
