//! What a member's release can do.

/// Whether manual progress requests can be trusted: earlier releases answer them before events that
/// are still on their way (upstream's API server draws the same line).
pub(crate) fn trusts_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    match (major, minor) {
        (3, 4) => patch >= 31,
        (3, 5) => patch >= 13,
        (major, minor) => (major, minor) > (3, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::trusts_progress;

    #[test]
    fn releases_that_overtake_events_are_not_trusted() {
        for good in ["3.4.31", "3.5.13", "3.5.21", "3.6.0", "3.6.0-rc.0", "4.0.0"] {
            assert!(trusts_progress(good), "{good}");
        }
        for bad in ["3.4.23", "3.5.0", "3.5.12", "3.3.99", "", "none"] {
            assert!(!trusts_progress(bad), "{bad}");
        }
    }
}
