//! `ip("10.0.0.1")`, `cidr("10.0.0.0/8")`.

use std::fmt;
use std::net::IpAddr;

use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, refuse, text};
use crate::value::{OpaqueVal, Val};

/// An address; never IPv4 within IPv6, never with a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(IpAddr);

/// An address and the number of its leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

pub(crate) const ROWS: &[Row] = &[
    Row { name: "ip", cost: Cost::Ip, code: ip, overloads: &["string_to_ip (string) -> ip", ".cidr_ip (cidr) -> ip"] },
    Row { name: "isIP", cost: Cost::Parse { sized: false }, code: is_ip, overloads: &["is_ip (string) -> bool"] },
    Row {
        name: "ip.isCanonical",
        cost: Cost::Canonical,
        code: is_canonical,
        overloads: &["ip_is_canonical (string) -> bool"],
    },
    Row { name: "family", cost: Cost::One, code: family, overloads: &[".ip_family (ip) -> int"] },
    Row {
        name: "isUnspecified",
        cost: Cost::One,
        code: is_unspecified,
        overloads: &[".ip_is_unspecified (ip) -> bool"],
    },
    Row { name: "isLoopback", cost: Cost::One, code: is_loopback, overloads: &[".ip_is_loopback (ip) -> bool"] },
    Row {
        name: "isLinkLocalMulticast",
        cost: Cost::One,
        code: is_link_local_multicast,
        overloads: &[".ip_is_link_local_multicast (ip) -> bool"],
    },
    Row {
        name: "isLinkLocalUnicast",
        cost: Cost::One,
        code: is_link_local_unicast,
        overloads: &[".ip_is_link_local_unicast (ip) -> bool"],
    },
    Row {
        name: "isGlobalUnicast",
        cost: Cost::One,
        code: is_global_unicast,
        overloads: &[".ip_is_global_unicast (ip) -> bool"],
    },
    Row {
        name: "cidr",
        cost: Cost::Parse { sized: false },
        code: cidr,
        overloads: &["string_to_cidr (string) -> cidr"],
    },
    Row { name: "isCIDR", cost: Cost::Parse { sized: false }, code: is_cidr, overloads: &["is_cidr (string) -> bool"] },
    Row {
        name: "containsIP",
        cost: Cost::ContainsIp,
        code: contains_ip,
        overloads: &[".cidr_contains_ip_string (cidr, string) -> bool", ".cidr_contains_ip_ip (cidr, ip) -> bool"],
    },
    Row {
        name: "containsCIDR",
        cost: Cost::ContainsCidr,
        code: contains_cidr,
        overloads: &[".cidr_contains_cidr_string (cidr, string) -> bool", ".cidr_contains_cidr (cidr, cidr) -> bool"],
    },
    Row {
        name: "prefixLength",
        cost: Cost::One,
        code: prefix_length,
        overloads: &[".cidr_prefix_length (cidr) -> int"],
    },
    Row { name: "masked", cost: Cost::One, code: masked, overloads: &[".cidr_masked (cidr) -> cidr"] },
];

impl Ip {
    fn parse(text: &str) -> Result<Ip, String> {
        if text.contains('%') {
            return Err(format!("IP address {text:?} with zone value is not allowed"));
        }
        match text.parse() {
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
                Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
            }
            Ok(address) => Ok(Ip(address)),
            Err(_) => Err(format!(
                "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
            )),
        }
    }

    /// Octets.
    pub(crate) fn size(&self) -> u64 {
        if self.0.is_ipv4() { 4 } else { 16 }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address as bits at the top of 128.
fn top_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => v6.into(),
    }
}

fn mask(bits: u8) -> u128 {
    if bits == 0 { 0 } else { u128::MAX << (128 - u32::from(bits.min(128))) }
}

impl Cidr {
    fn parse(text: &str) -> Result<Cidr, String> {
        let refused = |why: &str| {
            format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}")
        };
        let Some((address, bits)) = text.rsplit_once('/') else { return Err(refused("no '/'")) };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(refused(&format!("ParseAddr({address:?}): unable to parse IP")));
        };
        let clean =
            !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
        let limit = if address.is_ipv4() { 32 } else { 128 };
        match bits.parse::<u8>() {
            Ok(bits) if clean && bits <= limit => match address {
                IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                    Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
                }
                address => Ok(Cidr { address, bits }),
            },
            Ok(_) if clean => Err(refused("prefix length out of range")),
            _ => Err(refused(&format!("bad bits after slash: {bits:?}"))),
        }
    }

    /// Octets that count.
    pub(crate) fn size(&self) -> u64 {
        u64::from(self.bits).div_ceil(8)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (top_bits(self.address) ^ top_bits(address)) & mask(self.bits) == 0
    }

    fn masked(&self) -> Cidr {
        let kept = top_bits(self.address) & mask(self.bits);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(((kept >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        Cidr { address, bits: self.bits }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn to_ip(val: Option<&Val<'_>>) -> Result<Ip, EvalError> {
    match val {
        Some(Val::String(s)) => Ip::parse(s).or_else(refuse),
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Ip(ip) => Ok(*ip),
            OpaqueVal::Cidr(cidr) => Ok(Ip(cidr.address)),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn to_cidr(val: Option<&Val<'_>>) -> Result<Cidr, EvalError> {
    match val {
        Some(Val::String(s)) => Cidr::parse(s)
            .or_else(|e| refuse(format!("network address parse error during conversion from string: {e}"))),
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Cidr(cidr) => Ok(*cidr),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn address(args: &[Val<'_>]) -> Result<IpAddr, EvalError> {
    match args.first() {
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Ip(ip) => Ok(ip.0),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn ip<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(OpaqueVal::Ip(to_ip(args.first())?)))
}

fn is_ip<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(Ip::parse(text(args, 0)?).is_ok()))
}

fn is_canonical<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let ip = to_ip(args.first())?;
    Ok(Val::Bool(ip.to_string() == text(args, 0)?))
}

fn family<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(if address(args)?.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(address(args)?.is_unspecified()))
}

fn is_loopback<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(address(args)?.is_loopback()))
}

fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(match address(args)? {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }))
}

fn is_link_local_unicast<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(link_local(address(args)?)))
}

fn is_global_unicast<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let address = address(args)?;
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast;
    Ok(Val::Bool(!special && !link_local(address)))
}

fn cidr<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(OpaqueVal::Cidr(to_cidr(args.first())?)))
}

fn is_cidr<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Bool(Cidr::parse(text(args, 0)?).is_ok()))
}

fn contains_ip<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let net = to_cidr(args.first())?;
    Ok(Val::Bool(net.contains(to_ip(args.get(1))?.0)))
}

fn contains_cidr<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (net, other) = (to_cidr(args.first())?, to_cidr(args.get(1))?);
    Ok(Val::Bool(net.bits <= other.bits && net.contains(other.address)))
}

fn prefix_length<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(to_cidr(args.first())?.bits.into()))
}

fn masked<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::from(OpaqueVal::Cidr(to_cidr(args.first())?.masked())))
}
