//! The fixed chains of the table, and the chains that Services share.
//!
//! A packet for a Service: `services-prerouting` or `services-output` → verdict map `services` (address,
//! protocol, port) or `nodeports` (protocol, port) → `lb-N` / `np-N` for N endpoints → a random index
//! and the frontend looked up in `endpoints` → destination translation. What finds no endpoint is
//! refused in the filter chains. Every chain and map of the proxy is listed in [`CHAINS`] and [`SETS`]
//! or begins with a prefix of [`PREFIXES`].

use ipnet::Ipv4Net;
use ironkeel_netlink::nft::{
    ChainType, Compare, Expr, Hook, Load, MapData, Nat, Reg, SetSpec, Transaction, Verdict, types,
};

/// Chains that are always there; base chains last, so that what they jump to exists.
pub(crate) const CHAINS: [&str; 9] = [
    "services-refuse",
    "services-mark",
    "services-nodeports",
    "services-dispatch",
    "services-prerouting",
    "services-output",
    "services-postrouting",
    "services-filter-forward",
    "services-filter-output",
];

/// Maps and sets that are always there.
pub(crate) const SETS: [(&str, SetSpec); 6] = [
    (
        "services",
        SetSpec {
            key: &[types::IPV4, types::PROTO, types::PORT],
            data: Some(MapData::Verdict),
            interval: false,
            timeout_ms: None,
        },
    ),
    (
        "nodeports",
        SetSpec { key: &[types::PROTO, types::PORT], data: Some(MapData::Verdict), interval: false, timeout_ms: None },
    ),
    (
        "endpoints",
        SetSpec {
            key: &[types::MARK, types::IPV4, types::PROTO, types::PORT],
            data: Some(MapData::Values(&[types::IPV4, types::PORT])),
            interval: false,
            timeout_ms: None,
        },
    ),
    ("hairpin", SetSpec { key: &[types::IPV4, types::IPV4], data: None, interval: false, timeout_ms: None }),
    (
        "live",
        SetSpec {
            key: &[types::IPV4, types::PROTO, types::PORT, types::IPV4, types::PORT],
            data: None,
            interval: false,
            timeout_ms: None,
        },
    ),
    (
        "silent",
        SetSpec { key: &[types::IPV4, types::PROTO, types::PORT], data: None, interval: false, timeout_ms: None },
    ),
];

/// Chains and maps that are made on demand begin so.
pub(crate) const PREFIXES: [&str; 6] = ["lb-", "np-", "mq-", "aff-", "clients-", "from-"];

const IPV4: u8 = 2;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
/// The packet mark's bit that asks for masquerading; kube-proxy's default.
const MASQUERADE_BIT: u32 = 0x4000;

fn is_ipv4() -> [Expr; 2] {
    [Expr::Load(Load::NfProto, Reg(0)), Expr::Compare(Reg(0), Compare::Eq, vec![IPV4])]
}

/// Address, protocol and port of the destination, from a register on.
fn destination(at: u8) -> [Expr; 3] {
    [
        Expr::Load(Load::Ip4Destination, Reg(at)),
        Expr::Load(Load::L4Proto, Reg(at + 1)),
        Expr::Load(Load::DestinationPort, Reg(at + 2)),
    ]
}

/// The same for a node port, which is the frontend 0.0.0.0.
fn node_port_destination(at: u8) -> [Expr; 3] {
    [
        Expr::Constant(vec![0; 4], Reg(at)),
        Expr::Load(Load::L4Proto, Reg(at + 1)),
        Expr::Load(Load::DestinationPort, Reg(at + 2)),
    ]
}

fn mark_bit(bit: u32, compare: Compare, value: u32) -> [Expr; 3] {
    [
        Expr::Load(Load::Mark, Reg(0)),
        Expr::Bitwise(Reg(0), bit.to_ne_bytes().to_vec(), vec![0; 4]),
        Expr::Compare(Reg(0), compare, value.to_ne_bytes().to_vec()),
    ]
}

/// The fixed chains and sets, from nothing or over what is there.
pub(crate) fn base(t: &mut Transaction, service_cidr: Option<Ipv4Net>, cluster_cidr: Option<Ipv4Net>) {
    t.create_table();
    for (name, spec) in &SETS {
        t.create_set(name, spec);
    }
    for chain in &CHAINS[..4] {
        t.create_chain(chain);
    }
    t.create_base_chain("services-prerouting", ChainType::Nat, Hook::Prerouting, -100);
    t.create_base_chain("services-output", ChainType::Nat, Hook::Output, -100);
    t.create_base_chain("services-postrouting", ChainType::Nat, Hook::Postrouting, 99);
    t.create_base_chain("services-filter-forward", ChainType::Filter, Hook::Forward, 0);
    t.create_base_chain("services-filter-output", ChainType::Filter, Hook::Output, 0);
    for chain in CHAINS {
        t.flush_chain(chain);
    }

    let jump = |to: &str| Expr::Verdict(Verdict::Jump(to.to_owned()));
    let goto = |to: &str| Expr::Verdict(Verdict::Goto(to.to_owned()));
    let within = |load: Load, how: Compare, net: Ipv4Net| {
        [
            Expr::Load(load, Reg(0)),
            Expr::Bitwise(Reg(0), net.netmask().octets().to_vec(), vec![0; 4]),
            Expr::Compare(Reg(0), how, net.network().octets().to_vec()),
        ]
    };
    for chain in ["services-prerouting", "services-output"] {
        if let (Some(services), Some(cluster)) = (service_cidr, cluster_cidr) {
            let mut rule = is_ipv4().to_vec();
            rule.extend(within(Load::Ip4Source, Compare::Ne, cluster));
            rule.extend(within(Load::Ip4Destination, Compare::Eq, services));
            rule.push(jump("services-mark"));
            t.add_rule(chain, &rule);
        }
        let mut rule = is_ipv4().to_vec();
        rule.push(jump("services-dispatch"));
        t.add_rule(chain, &rule);
    }
    let mut rule = destination(0).to_vec();
    rule.push(Expr::VerdictMap("services".into(), Reg(0)));
    t.add_rule("services-dispatch", &rule);
    t.add_rule(
        "services-dispatch",
        &[
            Expr::Load(Load::DestinationType, Reg(0)),
            Expr::Compare(Reg(0), Compare::Eq, LOCAL.to_ne_bytes().to_vec()),
            goto("services-nodeports"),
        ],
    );
    // Node ports are not served on loopback addresses, as with upstream's nftables mode.
    t.add_rule(
        "services-nodeports",
        &[
            Expr::Load(Load::Ip4Destination, Reg(0)),
            Expr::Bitwise(Reg(0), vec![255, 0, 0, 0], vec![0; 4]),
            Expr::Compare(Reg(0), Compare::Eq, vec![127, 0, 0, 0]),
            Expr::Verdict(Verdict::Return),
        ],
    );
    t.add_rule(
        "services-nodeports",
        &[
            Expr::Load(Load::L4Proto, Reg(0)),
            Expr::Load(Load::DestinationPort, Reg(1)),
            Expr::VerdictMap("nodeports".into(), Reg(0)),
        ],
    );

    let keep = !MASQUERADE_BIT;
    t.add_rule(
        "services-mark",
        &[
            Expr::Load(Load::Mark, Reg(0)),
            Expr::Bitwise(Reg(0), keep.to_ne_bytes().to_vec(), MASQUERADE_BIT.to_ne_bytes().to_vec()),
            Expr::SetMark(Reg(0)),
        ],
    );
    let mut rule = mark_bit(MASQUERADE_BIT, Compare::Eq, MASQUERADE_BIT).to_vec();
    rule.extend([
        Expr::Load(Load::Mark, Reg(0)),
        Expr::Bitwise(Reg(0), keep.to_ne_bytes().to_vec(), vec![0; 4]),
        Expr::SetMark(Reg(0)),
        Expr::Masquerade(true),
    ]);
    t.add_rule("services-postrouting", &rule);
    // A pod that reached itself through a Service.
    let mut rule = is_ipv4().to_vec();
    rule.extend([
        Expr::Load(Load::CtStatus, Reg(0)),
        Expr::Bitwise(Reg(0), 32u32.to_ne_bytes().to_vec(), vec![0; 4]),
        Expr::Compare(Reg(0), Compare::Ne, vec![0; 4]),
        Expr::Load(Load::Ip4Source, Reg(0)),
        Expr::Load(Load::Ip4Destination, Reg(1)),
        Expr::In("hairpin".into(), Reg(0), false),
        Expr::Masquerade(true),
    ]);
    t.add_rule("services-postrouting", &rule);

    // Whatever still goes to a Service address here found no endpoint, or no such port.
    for chain in ["services-filter-forward", "services-filter-output"] {
        let Some(services) = service_cidr else { break };
        let mut rule = is_ipv4().to_vec();
        rule.extend(within(Load::Ip4Destination, Compare::Eq, services));
        rule.push(goto("services-refuse"));
        t.add_rule(chain, &rule);
    }
    let mut rule = destination(0).to_vec();
    rule.extend([Expr::In("silent".into(), Reg(0), false), Expr::Verdict(Verdict::Drop)]);
    t.add_rule("services-refuse", &rule);
    t.add_rule(
        "services-refuse",
        &[Expr::Load(Load::L4Proto, Reg(0)), Expr::Compare(Reg(0), Compare::Eq, vec![6]), Expr::RejectReset],
    );
    t.add_rule("services-refuse", &[Expr::RejectUnreachable]);
}

/// A chain that balances over `endpoints` endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Balancer {
    pub(crate) endpoints: u32,
    pub(crate) node_port: bool,
    pub(crate) masquerade: bool,
    pub(crate) affinity_seconds: Option<u32>,
}

impl Balancer {
    /// `lb-3`, `np-3`, `mq-3`, with affinity `aff-np-3-10800`.
    pub(crate) fn chain(&self) -> String {
        let kind = match (self.node_port, self.masquerade) {
            (false, false) => "lb",
            (true, false) => "np",
            (false, true) => "mq",
            (true, true) => "np-mq",
        };
        match self.affinity_seconds {
            None => format!("{kind}-{}", self.endpoints),
            Some(seconds) => format!("aff-{kind}-{}-{seconds}", self.endpoints),
        }
    }

    fn frontend(&self, at: u8) -> [Expr; 3] {
        if self.node_port { node_port_destination(at) } else { destination(at) }
    }

    /// Makes the chain with its rules.
    pub(crate) fn create(&self, t: &mut Transaction) {
        let chain = self.chain();
        t.create_chain(&chain).flush_chain(&chain);
        if self.masquerade {
            t.add_rule(&chain, &[Expr::Verdict(Verdict::Jump("services-mark".into()))]);
        }
        let clients = self.affinity_seconds.map(|seconds| {
            // `client . frontend → endpoint`, forgotten after the time without a new connection.
            let name = format!("clients-{seconds}");
            let spec = SetSpec {
                key: &[types::IPV4, types::IPV4, types::PROTO, types::PORT],
                data: Some(MapData::Values(&[types::IPV4, types::PORT])),
                interval: false,
                timeout_ms: Some(u64::from(seconds) * 1000),
            };
            t.create_set(&name, &spec);
            name
        });
        if let Some(clients) = &clients {
            // Known client whose endpoint is still one of this frontend's: registers 4 to 8 hold
            // frontend and endpoint, as the key of `live`.
            let mut rule = vec![Expr::Load(Load::Ip4Source, Reg(0))];
            rule.extend(self.frontend(1));
            rule.push(Expr::Map(clients.clone(), Reg(0), Reg(7)));
            rule.extend(self.frontend(4));
            rule.push(Expr::In("live".into(), Reg(4), false));
            rule.push(Expr::Remember(clients.clone(), Reg(0), Some(Reg(7))));
            rule.push(Expr::Translate(Nat::Destination, IPV4, Reg(7), Some(Reg(8))));
            t.add_rule(&chain, &rule);
        }
        let mut rule = vec![Expr::Load(Load::Random(self.endpoints), Reg(3))];
        rule.extend(self.frontend(4));
        rule.push(Expr::Map("endpoints".into(), Reg(3), Reg(8)));
        if let Some(clients) = clients {
            rule.push(Expr::Load(Load::Ip4Source, Reg(0)));
            rule.extend(self.frontend(1));
            // Remembering alone would keep the data of a client whose endpoint is gone.
            rule.push(Expr::Forget(clients.clone(), Reg(0), Some(Reg(8))));
            rule.push(Expr::Remember(clients, Reg(0), Some(Reg(8))));
        }
        rule.push(Expr::Translate(Nat::Destination, IPV4, Reg(8), Some(Reg(9))));
        t.add_rule(&chain, &rule);
    }
}

/// Lets only these clients through to `to`; others are dropped.
pub(crate) fn create_source_filter(t: &mut Transaction, chain: &str, ranges: &[Ipv4Net], to: &str) {
    t.create_chain(chain).flush_chain(chain);
    for range in ranges {
        t.add_rule(
            chain,
            &[
                Expr::Load(Load::Ip4Source, Reg(0)),
                Expr::Bitwise(Reg(0), range.netmask().octets().to_vec(), vec![0; 4]),
                Expr::Compare(Reg(0), Compare::Eq, range.network().octets().to_vec()),
                Expr::Verdict(Verdict::Goto(to.to_owned())),
            ],
        );
    }
    t.add_rule(chain, &[Expr::Verdict(Verdict::Drop)]);
}
