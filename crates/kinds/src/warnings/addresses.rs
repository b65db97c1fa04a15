//! Addresses and ranges in forms that are accepted for the sake of old objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::list::Warnings;

/// As Go's old parser reads an address: leading zeros are decimal.
fn sloppy(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let mut parts = text.split('.').map(|p| {
        let digits = !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| p.trim_start_matches('0'))
            .and_then(|p| if p.is_empty() { Some(0) } else { p.parse::<u8>().ok() })
    });
    let octets = [parts.next()??, parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// As Go writes an address: a mapped IPv4 address as IPv4.
fn shown(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string()),
        IpAddr::V4(v4) => v4.to_string(),
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// Of an address.
pub(super) fn ip(at: &str, text: &str, w: &mut Warnings) {
    let Some(address) = sloppy(text) else { return };
    let strict = text.parse::<IpAddr>().ok();
    match strict {
        Some(strict) if !is_mapped(strict) => {
            let canonical = strict.to_string();
            if strict.is_ipv6() && canonical != text {
                w.push(format_args!(
                    "{at}: IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{canonical}\")"
                ));
            }
        }
        _ => w.push(format_args!("{at}: non-standard IP address \"{text}\" is invalid: use \"{}\"", shown(address))),
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from(u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from(u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into()
        }
    }
}

/// Of a range.
pub(super) fn cidr(at: &str, text: &str, w: &mut Warnings) {
    let Some((head, tail)) = text.split_once('/') else { return };
    let (Some(written), Ok(mut bits)) = (sloppy(head), tail.parse::<u8>()) else { return };
    let mapped = is_mapped(written);
    // A mapped range counts as that of IPv4.
    let address = match written {
        IpAddr::V6(v6) if mapped && bits >= 96 => {
            bits -= 96;
            v6.to_ipv4_mapped().map_or(written, IpAddr::V4)
        }
        other => other,
    };
    let length = if address.is_ipv4() { 32 } else { 128 };
    if bits > length {
        return;
    }
    let network = masked(address, bits);
    let ambiguous = network != address;
    if ambiguous {
        w.push(format_args!(
            "{at}: CIDR value \"{text}\" is ambiguous in this context (should be \"{}/{bits}\" or \"{}/{length}\"?)",
            shown(network),
            shown(address)
        ));
    }
    let padded = tail.len() > 1 && tail.starts_with('0');
    let strict = head.parse::<IpAddr>().ok().filter(|_| !padded);
    match strict {
        Some(strict) if !mapped => {
            let canonical = format!("{strict}/{bits}");
            if !ambiguous && strict.is_ipv6() && canonical != text {
                w.push(format_args!(
                    "{at}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{canonical}\")"
                ));
            }
        }
        _ => w.push(format_args!(
            "{at}: non-standard CIDR value \"{text}\" is invalid: use \"{}/{bits}\"",
            shown(network)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_forms_are_told_with_the_better_one() {
        let check = |text: &str, wanted: &[&str]| {
            let mut w = Warnings::default();
            if text.contains('/') {
                cidr("f", text, &mut w)
            } else {
                ip("f", text, &mut w)
            }
            assert_eq!(w.into_vec(), wanted, "{text}");
        };
        check("10.0.0.1", &[]);
        check("fd00::1", &[]);
        check("010.0.0.01", &["f: non-standard IP address \"010.0.0.01\" is invalid: use \"10.0.0.1\""]);
        check("::ffff:1.2.3.4", &["f: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\""]);
        check("FD00:0::1", &["f: IPv6 address \"FD00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")"]);
        check("10.0.0.0/8", &[]);
        check(
            "10.1.2.3/8",
            &[
                "f: CIDR value \"10.1.2.3/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.2.3/32\"?)",
            ],
        );
        check("010.0.0.0/8", &["f: non-standard CIDR value \"010.0.0.0/8\" is invalid: use \"10.0.0.0/8\""]);
        check(
            "FD00::/64",
            &["f: IPv6 CIDR value \"FD00::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")"],
        );
        check("nonsense", &[]);
    }
}
