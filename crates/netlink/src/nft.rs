//! nftables transactions: tables, chains, rules, sets and maps, encoded by hand.
//!
//! A [`Transaction`] is applied whole or not at all. It names one table; nothing outside that table
//! can be touched. Objects are created if absent, so a transaction can be repeated.

use crate::message::{Message, attributes, text};
use crate::{NetlinkError, Socket};

mod expression;

pub use expression::{Compare, Expr, Load, Nat, Reg, Verdict};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const ELEMENT_INTERVAL_END: u32 = 1;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;

/// Elements of one message stay below this many bytes: a netlink attribute holds at most 65,535.
const ELEMENTS_BYTES: usize = 48 * 1024;

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }

    /// `inet`, `ip`, `ip6`.
    pub fn parse(text: &str) -> Option<Family> {
        Some(match text {
            "inet" => Family::Inet,
            "ip" => Family::Ip,
            "ip6" => Family::Ip6,
            _ => return None,
        })
    }
}

/// Where a base chain stands in the packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// What a base chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// Accepts and drops.
    Filter,
    /// Translates addresses.
    Nat,
}

/// Form of a set's or map's key and data. Type numbers are `nft`'s, for its listings only.
#[derive(Clone, Copy, Debug)]
pub struct SetSpec {
    /// Concatenated key fields as (type number, length in bytes).
    pub key: &'static [(u32, u32)],
    /// What a map answers; `None` for a set.
    pub data: Option<MapData>,
    /// Keys are ranges (with [`Element::end`] markers): networks and port ranges.
    pub interval: bool,
    /// Elements are added from the packet path and expire after so many milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What a map answers.
#[derive(Clone, Copy, Debug)]
pub enum MapData {
    /// A verdict.
    Verdict,
    /// Concatenated values as (type number, length in bytes).
    Values(&'static [(u32, u32)]),
}

/// nft's type numbers with lengths in bytes.
pub mod types {
    /// An IPv4 address.
    pub const IPV4: (u32, u32) = (7, 4);
    /// An IPv6 address.
    pub const IPV6: (u32, u32) = (8, 16);
    /// A layer 4 protocol number.
    pub const PROTO: (u32, u32) = (12, 1);
    /// A port.
    pub const PORT: (u32, u32) = (13, 2);
    /// A 32-bit mark or index.
    pub const MARK: (u32, u32) = (19, 4);
}

/// A set's or map's element. Each key field is padded to four bytes ([`key_of`] does it).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The key.
    pub key: Vec<u8>,
    /// What a map answers for it.
    pub data: Option<ElementData>,
    /// Closes the interval that the element before it opened.
    pub end: bool,
}

/// What a map answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementData {
    /// Bytes, fields padded to four.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// Joins key or data fields, each padded to four bytes.
pub fn key_of(fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(fields.len() * 4);
    for field in fields {
        key.extend_from_slice(field);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// Changes to one table, applied together.
#[derive(Debug)]
pub struct Transaction {
    family: Family,
    table: String,
    messages: Vec<Message>,
    names: Vec<String>,
    next_set_id: u32,
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let r = resource.to_be_bytes();
    [family, 0, r[0], r[1]]
}

fn padded(fields: &[(u32, u32)]) -> u32 {
    if let [(_, one)] = fields { *one } else { fields.iter().map(|f| f.1.next_multiple_of(4)).sum() }
}

fn type_number(fields: &[(u32, u32)]) -> u32 {
    fields.iter().fold(0, |n, f| (n << 6) | f.0)
}

impl Transaction {
    /// No changes yet to this table.
    pub fn new(family: Family, table: &str) -> Self {
        Transaction { family, table: table.to_owned(), messages: Vec::new(), names: Vec::new(), next_set_id: 0 }
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn push(&mut self, what: String, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) -> &mut Self {
        let mut m = Message::new(SUBSYSTEM << 8 | kind, flags, &header(self.family.number(), 0));
        m.text(1, &self.table);
        fill(&mut m);
        self.messages.push(m);
        self.names.push(what);
        self
    }

    /// Creates the table where it is absent.
    pub fn create_table(&mut self) -> &mut Self {
        self.push("creating the table".into(), NEWTABLE, NLM_F_CREATE, |m| {
            m.be32(2, 0);
        })
    }

    /// Deletes the table with all that is in it; it must exist.
    pub fn delete_table(&mut self) -> &mut Self {
        self.push("deleting the table".into(), DELTABLE, 0, |_| {})
    }

    /// Creates a chain where it is absent.
    pub fn create_chain(&mut self, name: &str) -> &mut Self {
        self.push(format!("creating chain {name}"), NEWCHAIN, NLM_F_CREATE, |m| {
            m.text(3, name);
        })
    }

    /// Creates a base chain where it is absent; its policy is accept.
    pub fn create_base_chain(&mut self, name: &str, kind: ChainType, hook: Hook, priority: i32) -> &mut Self {
        let number = match hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        let kind = if kind == ChainType::Nat { "nat" } else { "filter" };
        self.push(format!("creating base chain {name}"), NEWCHAIN, NLM_F_CREATE, |m| {
            m.text(3, name);
            m.nest(4, |m| {
                m.be32(1, number).be32(2, priority as u32);
            });
            m.be32(5, 1).text(7, kind);
        })
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) -> &mut Self {
        self.push(format!("flushing chain {name}"), DELRULE, 0, |m| {
            m.text(2, name);
        })
    }

    /// Deletes a chain without rules that nothing refers to.
    pub fn delete_chain(&mut self, name: &str) -> &mut Self {
        self.push(format!("deleting chain {name}"), DELCHAIN, 0, |m| {
            m.text(3, name);
        })
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expr]) -> &mut Self {
        self.push(format!("adding a rule to {chain}"), NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |m| {
            m.text(2, chain);
            m.nest(4, |m| {
                for e in expressions {
                    m.nest(1, |m| e.encode(m));
                }
            });
        })
    }

    /// Creates a set or map where it is absent.
    pub fn create_set(&mut self, name: &str, spec: &SetSpec) -> &mut Self {
        self.next_set_id += 1;
        let id = self.next_set_id;
        let mut flags = 0;
        if spec.interval {
            flags |= SET_INTERVAL;
        }
        if spec.data.is_some() {
            flags |= SET_MAP;
        }
        if spec.timeout_ms.is_some() {
            flags |= SET_TIMEOUT | SET_EVAL;
        }
        self.push(format!("creating set {name}"), NEWSET, NLM_F_CREATE, |m| {
            m.text(2, name).be32(3, flags).be32(4, type_number(spec.key)).be32(5, padded(spec.key));
            match spec.data {
                Some(MapData::Verdict) => drop(m.be32(6, VERDICT_TYPE).be32(7, 0)),
                Some(MapData::Values(fields)) => drop(m.be32(6, type_number(fields)).be32(7, padded(fields))),
                None => {}
            }
            m.be32(10, id);
            if let Some(ms) = spec.timeout_ms {
                m.attr(11, &ms.to_be_bytes());
            }
        })
    }

    /// Deletes a set or map that no rule refers to.
    pub fn delete_set(&mut self, name: &str) -> &mut Self {
        self.push(format!("deleting set {name}"), DELSET, 0, |m| {
            m.text(2, name);
        })
    }

    /// Removes all elements of a set or map.
    pub fn flush_set(&mut self, name: &str) -> &mut Self {
        self.push(format!("flushing set {name}"), DELSETELEM, 0, |m| {
            m.text(2, name);
        })
    }

    /// Adds elements. An element that is there already with the same data is no error; with other
    /// data it is (delete it first, in the same transaction).
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, NEWSETELEM, NLM_F_CREATE)
    }

    /// Deletes elements by key; they must be there.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(set, elements, DELSETELEM, 0)
    }

    fn elements(&mut self, set: &str, elements: &[Element], kind: u16, flags: u16) -> &mut Self {
        let mut rest = elements;
        while !rest.is_empty() {
            let mut taken = 0;
            let what = if kind == NEWSETELEM { "adding elements to" } else { "deleting elements of" };
            self.push(format!("{what} {set}"), kind, flags, |m| {
                m.text(2, set);
                let start = m.len();
                m.nest(3, |m| {
                    for e in rest {
                        if m.len() - start > ELEMENTS_BYTES {
                            break;
                        }
                        m.nest(1, |m| encode_element(e, m));
                        taken += 1;
                    }
                });
            });
            rest = &rest[taken..];
        }
        self
    }

    /// Applies everything, or nothing.
    pub fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::with_capacity(self.messages.len() + 2);
        batch.push(Message::new(BATCH_BEGIN, 0, &header(0, SUBSYSTEM)));
        batch.extend(self.messages);
        batch.push(Message::new(BATCH_END, 0, &header(0, SUBSYSTEM)));
        let (table, names) = (self.table, self.names);
        socket.batch(batch, |i| {
            let step = i.checked_sub(1).and_then(|i| names.get(i)).map_or("nftables transaction", String::as_str);
            format!("{step} (table {table})")
        })
    }
}

fn encode_element(e: &Element, m: &mut Message) {
    m.nest(1, |m| {
        m.attr(1, &e.key);
    });
    match &e.data {
        Some(ElementData::Value(v)) => drop(m.nest(2, |m| {
            m.attr(1, v);
        })),
        Some(ElementData::Verdict(v)) => drop(m.nest(2, |m| v.encode(m))),
        None => {}
    }
    if e.end {
        m.be32(3, ELEMENT_INTERVAL_END);
    }
}

impl Socket {
    fn names(
        &mut self,
        family: Family,
        kind: u16,
        table: Option<&str>,
        name: u16,
    ) -> Result<Vec<String>, NetlinkError> {
        let m = Message::new(SUBSYSTEM << 8 | kind, 0, &header(family.number(), 0));
        let mut found = Vec::new();
        self.dump("listing nftables", m, |m| {
            let Some(body) = m.payload.get(4..) else { return };
            let of = |kind| attributes(body).find(|(k, _)| *k == kind).map(|(_, v)| text(v));
            if m.payload[0] == family.number() && (table.is_none() || of(1).as_deref() == table) {
                found.extend(of(name));
            }
        })?;
        Ok(found)
    }

    /// Names of the tables of a family.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, NetlinkError> {
        self.names(family, GETTABLE, None, 1)
    }

    /// Names of the chains of a table.
    pub fn chains(&mut self, family: Family, table: &str) -> Result<Vec<String>, NetlinkError> {
        self.names(family, GETCHAIN, Some(table), 3)
    }

    /// Names of the sets and maps of a table.
    pub fn sets(&mut self, family: Family, table: &str) -> Result<Vec<String>, NetlinkError> {
        self.names(family, GETSET, Some(table), 2)
    }

    /// Keys in a set or map.
    pub fn set_keys(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut m = Message::new(SUBSYSTEM << 8 | GETSETELEM, 0, &header(family.number(), 0));
        m.text(1, table).text(2, set);
        let mut keys = Vec::new();
        self.dump("listing set elements", m, |m| {
            let Some(body) = m.payload.get(4..) else { return };
            for (_, list) in attributes(body).filter(|(k, _)| *k == 3) {
                for (_, element) in attributes(list) {
                    let key = attributes(element).find(|(k, _)| *k == 1).map(|(_, v)| v).unwrap_or_default();
                    keys.extend(attributes(key).find(|(k, _)| *k == 1).map(|(_, v)| v.to_vec()));
                }
            }
        })?;
        Ok(keys)
    }

    /// Deletes a table with all that is in it; answers whether it was there.
    pub fn delete_table(&mut self, family: Family, table: &str) -> Result<bool, NetlinkError> {
        let mut t = Transaction::new(family, table);
        t.delete_table();
        match t.commit(self) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }
}
