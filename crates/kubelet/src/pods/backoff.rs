//! Exponential back-off for container restarts and image pulls, with upstream's rules: the first failure waits for
//! nothing, then 10 s, doubled up to 300 s; quiet for twice the maximum, and it starts again.

use std::time::Duration;

use jiff::Timestamp;

/// First wait.
pub(crate) const INITIAL: Duration = Duration::from_secs(10);
/// Longest wait.
pub(crate) const MAXIMUM: Duration = Duration::from_secs(300);

/// The back-off of one container or one image.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BackOff {
    entry: Option<(Duration, Timestamp)>,
}

impl BackOff {
    /// How long from `now` the next try after a failure at `failed_at` must wait, and the whole of the wait it
    /// belongs to; `None` when it may be made.
    pub(crate) fn remaining(&self, failed_at: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let (wait, updated) = self.entry?;
        if expired(failed_at, updated) {
            return None;
        }
        let since = elapsed(failed_at, now);
        (since < wait).then(|| (wait - since, wait))
    }

    /// Counts a try that follows a failure at `failed_at`.
    pub(crate) fn next(&mut self, failed_at: Timestamp, now: Timestamp) {
        let wait = match self.entry {
            Some((wait, updated)) if !expired(failed_at, updated) => (wait * 2).min(MAXIMUM),
            _ => INITIAL,
        };
        self.entry = Some((wait, now));
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or(Duration::ZERO)
}

fn expired(event: Timestamp, updated: Timestamp) -> bool {
    elapsed(updated, event) > MAXIMUM * 2
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_waits_double_up_to_five_minutes() {
        let mut backoff = BackOff::default();
        assert_eq!(backoff.remaining(at(0), at(0)), None);
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next(at(now), at(now));
            now += 1;
            let (left, whole) = backoff.remaining(at(now), at(now)).unwrap();
            assert_eq!((left, whole.as_secs()), (whole, expected));
            assert_eq!(backoff.remaining(at(now), at(now + expected as i64)), None);
            now += expected as i64;
        }
    }

    #[test]
    fn ten_quiet_minutes_start_the_back_off_again() {
        let mut backoff = BackOff::default();
        backoff.next(at(0), at(0));
        backoff.next(at(1), at(11));
        assert!(backoff.remaining(at(600), at(600)).is_some());
        assert_eq!(backoff.remaining(at(612), at(612)), None);
        backoff.next(at(612), at(612));
        assert_eq!(backoff.remaining(at(613), at(613)).unwrap().1, INITIAL);
    }

    #[test]
    fn durations_read_as_upstream_prints_them() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
