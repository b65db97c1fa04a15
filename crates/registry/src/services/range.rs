//! One range of Service addresses: what is in it, and in which order addresses are tried.
//!
//! The lower part is left to addresses that users choose as long as the upper one has any (KEP-3070).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So many addresses are tried in one range before it counts as full: an IPv6 range has no end.
const TRIES: u128 = 1 << 20;
/// The part for chosen addresses: a sixteenth of the range, within these bounds.
const CHOSEN: (u128, u128) = (16, 256);

/// IPv4 or IPv6, as Services name them.
pub(crate) fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A network and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    network: IpAddr,
    bits: u8,
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl Range {
    /// Host bits of `network` do not matter.
    pub(crate) fn new(network: IpAddr, bits: u8) -> Range {
        let width = if network.is_ipv4() { 32 } else { 128 };
        let unmasked = Range { network, bits: bits.min(width) };
        Range { network: unmasked.nth(0), ..unmasked }
    }

    /// `10.96.0.0/12`.
    pub(crate) fn parse(text: &str) -> Option<Range> {
        let (network, bits) = text.split_once('/')?;
        let (network, bits) = (network.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        (bits <= if network.is_ipv4() { 32 } else { 128 }).then(|| Range::new(network, bits))
    }

    pub(crate) fn family(&self) -> &'static str {
        family_of(self.network)
    }

    fn host_bits(&self) -> u32 {
        u32::from(if self.network.is_ipv4() { 32 - self.bits } else { 128 - self.bits })
    }

    /// The address `offset` places into the range.
    pub(crate) fn nth(&self, offset: u128) -> IpAddr {
        let mask = u128::MAX.checked_shl(self.host_bits()).unwrap_or(0);
        let n = (number(self.network) & mask).wrapping_add(offset);
        match self.network {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(n as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
        }
    }

    /// Places of the first and the last address that can be given away: not the network's own, and in
    /// IPv4 not that of all hosts.
    fn usable(&self) -> Option<(u128, u128)> {
        let hosts = u128::MAX.checked_shl(self.host_bits()).map_or(u128::MAX, |mask| !mask);
        let last = if self.network.is_ipv4() { hosts.checked_sub(1)? } else { hosts };
        (last >= 1).then_some((1, last))
    }

    /// Whether an address of this range can be given away.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let Some((first, last)) = self.usable().filter(|_| ip.is_ipv4() == self.network.is_ipv4()) else {
            return false;
        };
        number(ip).checked_sub(number(self.network)).is_some_and(|place| (first..=last).contains(&place))
    }

    /// How many addresses at the lower end are left to users.
    fn chosen_part(&self) -> u128 {
        let size = 1u128.checked_shl(self.host_bits()).unwrap_or(u128::MAX);
        if size <= CHOSEN.0 { 0 } else { (size / 16).clamp(CHOSEN.0, CHOSEN.1) }
    }

    /// The addresses in the order in which they are tried: the upper part from a random place, then the
    /// lower part likewise.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let range = *self;
        let (first, last) = self.usable().unwrap_or((1, 0));
        let border = first + self.chosen_part();
        let turn = |low: u128, high: u128| {
            let size = (high + 1).saturating_sub(low);
            let start = if size == 0 { 0 } else { rand::random_range(0..size) };
            (0..size.min(TRIES)).map(move |i| low + (start + i) % size)
        };
        turn(border, last).chain(turn(first, last.min(border - 1))).map(move |place| range.nth(place))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_usable_address_is_tried_once_and_the_lower_part_last() {
        for (text, usable, lower) in [
            ("10.0.0.0/24", 254, 16),
            ("10.0.0.0/28", 14, 0),
            ("10.0.0.0/30", 2, 0),
            ("10.0.0.0/32", 0, 0),
            ("fd00::/120", 255, 16),
        ] {
            let range = Range::parse(text).unwrap();
            let all: Vec<IpAddr> = range.candidates().collect();
            let distinct: std::collections::HashSet<_> = all.iter().collect();
            assert_eq!((all.len(), distinct.len()), (usable, usable), "{text}");
            assert!(all.iter().all(|ip| range.contains(*ip)), "{text}");
            let border = range.nth(1 + lower);
            assert!(all.iter().rev().take(lower as usize).all(|ip| *ip < border), "{text}");
        }
        let range = Range::parse("10.0.0.7/24").unwrap();
        assert!(!range.contains([10, 0, 0, 0].into()) && !range.contains([10, 0, 0, 255].into()));
        assert!(range.contains([10, 0, 0, 254].into()) && !range.contains([10, 0, 1, 1].into()));
        assert!(Range::parse("fd00::/64").unwrap().candidates().nth(1000).is_some());
    }
}
