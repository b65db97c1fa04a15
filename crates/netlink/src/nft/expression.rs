//! Expressions of rules: what is loaded into registers, compared, looked up and done.

use crate::message::Message;

/// A register of four bytes; values longer than that take several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

impl Reg {
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Let it pass this base chain.
    Accept,
    /// Drop it.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain for good.
    Goto(String),
}

impl Verdict {
    pub(crate) fn encode(&self, m: &mut Message) {
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(c) => (-3, Some(c)),
            Verdict::Goto(c) => (-4, Some(c)),
            Verdict::Return => (-5, None),
        };
        m.nest(2, |m| {
            m.be32(1, code as u32);
            if let Some(chain) = chain {
                m.text(2, chain);
            }
        });
    }
}

/// What can be loaded into registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Address family of the packet, one byte (2 or 10).
    NfProto,
    /// Layer 4 protocol, one byte.
    L4Proto,
    /// Packet mark, four bytes in host order.
    Mark,
    /// Name of the incoming link, 16 bytes, padded with zeros.
    InName,
    /// Name of the outgoing link, 16 bytes, padded with zeros.
    OutName,
    /// IPv4 source address.
    Ip4Source,
    /// IPv4 destination address.
    Ip4Destination,
    /// IPv6 source address.
    Ip6Source,
    /// IPv6 destination address.
    Ip6Destination,
    /// Layer 4 source port.
    SourcePort,
    /// Layer 4 destination port.
    DestinationPort,
    /// Connection state bits, host order: invalid 1, established 2, related 4, new 8, untracked 64.
    CtState,
    /// Connection status bits, host order: confirmed 8, snat 16, dnat 32.
    CtStatus,
    /// The connection's original IPv4 destination.
    CtOriginalIp4Destination,
    /// The connection's original destination port.
    CtOriginalDestinationPort,
    /// Type of the destination address, four bytes in host order: unicast 1, local 2, broadcast 3.
    DestinationType,
    /// Type of the source address, like [`Load::DestinationType`].
    SourceType,
    /// A random number below `n`, four bytes in host order.
    Random(u32),
}

/// How a comparison decides; the rule goes on when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// At most.
    Le,
    /// At least.
    Ge,
}

/// Which address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads into registers from `Reg` on.
    Load(Load, Reg),
    /// Loads constant bytes.
    Constant(Vec<u8>, Reg),
    /// Goes on when the register compares so with the bytes.
    Compare(Reg, Compare, Vec<u8>),
    /// `register = (register & mask) ^ xor`; both of the value's length.
    Bitwise(Reg, Vec<u8>, Vec<u8>),
    /// Goes on when the key from `Reg` on is in the set (or is not, when `true`).
    In(String, Reg, bool),
    /// Looks the key from the first register on up in a map, and puts the data from the second on.
    /// Goes on only when it was found.
    Map(String, Reg, Reg),
    /// Looks the key up in a verdict map, and does what it says.
    VerdictMap(String, Reg),
    /// Puts the key (with the data from the second register on) into a set with timeouts.
    Remember(String, Reg, Option<Reg>),
    /// Takes the key out of a set with timeouts; a map wants its data register named all the same.
    Forget(String, Reg, Option<Reg>),
    /// Translates; address from the first register on, port in the second. The family is 2 or 10.
    Translate(Nat, u8, Reg, Option<Reg>),
    /// Source translation to the outgoing link's address; `true` randomizes ports fully.
    Masquerade(bool),
    /// Sets the packet's mark from the register.
    SetMark(Reg),
    /// Refuses: TCP reset.
    RejectReset,
    /// Refuses: ICMP port unreachable.
    RejectUnreachable,
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule so.
    Verdict(Verdict),
}

const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.text(1, name).nest(2, fill);
}

fn payload(m: &mut Message, base: u32, offset: u32, length: u32, to: Reg) {
    expression(m, "payload", |m| {
        m.be32(1, to.number()).be32(2, base).be32(3, offset).be32(4, length);
    });
}

fn meta(m: &mut Message, key: u32, to: Reg) {
    expression(m, "meta", |m| {
        m.be32(1, to.number()).be32(2, key);
    });
}

fn conntrack(m: &mut Message, key: u32, original: bool, to: Reg) {
    expression(m, "ct", |m| {
        m.be32(1, to.number()).be32(2, key);
        if original {
            m.attr(3, &[0]);
        }
    });
}

fn fib(m: &mut Message, flag: u32, to: Reg) {
    expression(m, "fib", |m| {
        m.be32(1, to.number()).be32(2, 3).be32(3, flag);
    });
}

impl Load {
    fn encode(self, m: &mut Message, to: Reg) {
        match self {
            Load::NfProto => meta(m, 15, to),
            Load::L4Proto => meta(m, 16, to),
            Load::Mark => meta(m, 3, to),
            Load::InName => meta(m, 6, to),
            Load::OutName => meta(m, 7, to),
            Load::Ip4Source => payload(m, PAYLOAD_NETWORK, 12, 4, to),
            Load::Ip4Destination => payload(m, PAYLOAD_NETWORK, 16, 4, to),
            Load::Ip6Source => payload(m, PAYLOAD_NETWORK, 8, 16, to),
            Load::Ip6Destination => payload(m, PAYLOAD_NETWORK, 24, 16, to),
            Load::SourcePort => payload(m, PAYLOAD_TRANSPORT, 0, 2, to),
            Load::DestinationPort => payload(m, PAYLOAD_TRANSPORT, 2, 2, to),
            Load::CtState => conntrack(m, 0, false, to),
            Load::CtStatus => conntrack(m, 2, false, to),
            Load::CtOriginalIp4Destination => conntrack(m, 20, true, to),
            Load::CtOriginalDestinationPort => conntrack(m, 12, true, to),
            Load::SourceType => fib(m, 1, to),
            Load::DestinationType => fib(m, 2, to),
            Load::Random(n) => expression(m, "numgen", |m| {
                m.be32(1, to.number()).be32(2, n).be32(3, 1).be32(4, 0);
            }),
        }
    }
}

fn dynset(m: &mut Message, set: &str, operation: u32, key: Reg, value: Option<Reg>) {
    expression(m, "dynset", |m| {
        m.text(1, set).be32(3, operation).be32(4, key.number());
        if let Some(value) = value {
            m.be32(5, value.number());
        }
    });
}

fn data(m: &mut Message, kind: u16, bytes: &[u8]) {
    m.nest(kind, |m| {
        m.attr(1, bytes);
    });
}

impl Expr {
    pub(crate) fn encode(&self, m: &mut Message) {
        match self {
            Expr::Load(load, to) => load.encode(m, *to),
            Expr::Constant(bytes, to) => expression(m, "immediate", |m| {
                m.be32(1, to.number());
                data(m, 2, bytes);
            }),
            Expr::Compare(reg, how, bytes) => expression(m, "cmp", |m| {
                let op = match how {
                    Compare::Eq => 0,
                    Compare::Ne => 1,
                    Compare::Le => 3,
                    Compare::Ge => 5,
                };
                m.be32(1, reg.number()).be32(2, op);
                data(m, 3, bytes);
            }),
            Expr::Bitwise(reg, mask, xor) => expression(m, "bitwise", |m| {
                m.be32(1, reg.number()).be32(2, reg.number()).be32(3, mask.len() as u32);
                data(m, 4, mask);
                data(m, 5, xor);
            }),
            Expr::In(set, key, inverted) => expression(m, "lookup", |m| {
                m.text(1, set).be32(2, key.number()).be32(5, u32::from(*inverted));
            }),
            Expr::Map(map, key, to) => expression(m, "lookup", |m| {
                m.text(1, map).be32(2, key.number()).be32(3, to.number());
            }),
            Expr::VerdictMap(map, key) => expression(m, "lookup", |m| {
                m.text(1, map).be32(2, key.number()).be32(3, 0);
            }),
            Expr::Remember(set, key, value) => dynset(m, set, 1, *key, *value),
            Expr::Forget(set, key, value) => dynset(m, set, 2, *key, *value),
            Expr::Translate(nat, family, address, port) => expression(m, "nat", |m| {
                let kind = if *nat == Nat::Source { 0 } else { 1 };
                m.be32(1, kind).be32(2, (*family).into()).be32(3, address.number());
                if let Some(port) = port {
                    m.be32(5, port.number());
                }
            }),
            Expr::Masquerade(random) => expression(m, "masq", |m| {
                if *random {
                    m.be32(1, 1 << 4);
                }
            }),
            Expr::SetMark(reg) => expression(m, "meta", |m| {
                m.be32(2, 3).be32(3, reg.number());
            }),
            Expr::RejectReset => expression(m, "reject", |m| {
                m.be32(1, 1).attr(2, &[0]);
            }),
            Expr::RejectUnreachable => expression(m, "reject", |m| {
                m.be32(1, 2).attr(2, &[1]);
            }),
            Expr::Counter => expression(m, "counter", |_| {}),
            Expr::Verdict(verdict) => expression(m, "immediate", |m| {
                m.be32(1, 0);
                m.nest(2, |m| verdict.encode(m));
            }),
        }
    }
}
