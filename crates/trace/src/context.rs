//! W3C trace context: the header that carries a trace from process to process.

use rand::Rng;

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The whole trace.
    pub trace: u128,
    /// The span that children belong to.
    pub span: u64,
    /// Whether spans are recorded.
    pub sampled: bool,
}

/// A random id that is not zero, which means "none" on the wire.
pub(crate) fn span_id() -> u64 {
    rand::rng().random_range(1..=u64::MAX)
}

impl Context {
    /// The root of a new trace, not sampled.
    pub fn new() -> Self {
        Context { trace: rand::rng().random_range(1..=u128::MAX), span: span_id(), sampled: false }
    }

    /// Reads a `traceparent`; `None` for what is none.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |t: &str| t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let sized = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
        // The first version has four parts; later ones may have more.
        if !sized || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        if ![version, trace, span, flags].into_iter().all(lower_hex) {
            return None;
        }
        let context = Context {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// The header's value.
    pub fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }

    /// Whether a share of traces that holds `rate` of a million holds this one; every process that decides by the same
    /// rule decides alike.
    pub(crate) fn falls_under(&self, rate_per_million: u32) -> bool {
        let bound = ((u128::from(rate_per_million) << 63) / 1_000_000) as u64;
        ((self.trace as u64) >> 1) < bound
    }
}

impl Default for Context {
    fn default() -> Self {
        Context::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_are_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(text).unwrap();
        assert!(context.sampled);
        assert_eq!(context.header(), text);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        assert!(!Context::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").unwrap().sampled);
    }

    #[test]
    fn the_share_that_is_sampled_is_the_rate() {
        let all = 20_000;
        let sampled = |rate| (0..all).filter(|_| Context::new().falls_under(rate)).count();
        assert_eq!((sampled(0), sampled(1_000_000)), (0, all));
        let half = sampled(500_000);
        assert!((9_000..11_000).contains(&half), "{half}");
    }
}
