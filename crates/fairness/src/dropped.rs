//! What `Retry-After` says: one second, and longer while a level goes on refusing.

use std::collections::VecDeque;

/// Longest advice, in seconds.
const MAX_RETRY_AFTER_SECONDS: u64 = 32;

/// Refusals of one level.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// Second, and how many were refused in it; the last is the present one.
    history: VecDeque<(u64, u64)>,
    retry_after: u64,
    raised_at: u64,
}

impl Default for Dropped {
    fn default() -> Self {
        Dropped { history: VecDeque::new(), retry_after: 1, raised_at: 0 }
    }
}

impl Dropped {
    /// Counts a refusal in the second `now`; answers the advice, in seconds.
    pub(crate) fn record(&mut self, now: u64) -> u64 {
        match self.history.back_mut() {
            Some((second, n)) if *second == now => *n += 1,
            _ => {
                self.adjust(now);
                self.history.push_back((now, 1));
            }
        }
        self.retry_after
    }

    fn adjust(&mut self, now: u64) {
        let keep = (2 * self.retry_after).min(MAX_RETRY_AFTER_SECONDS);
        while self.history.front().is_some_and(|(second, _)| now.saturating_sub(*second) > keep) {
            self.history.pop_front();
        }
        let recent = self.history.iter().filter(|(s, _)| now.saturating_sub(*s) <= self.retry_after);
        let refused: u64 = recent.map(|(_, n)| n).sum();
        if now.saturating_sub(self.raised_at) >= self.retry_after && refused >= 3 * self.retry_after {
            self.retry_after = (self.retry_after * 2).min(MAX_RETRY_AFTER_SECONDS);
            self.raised_at = now;
        } else if refused < self.retry_after && self.retry_after > 1 {
            self.retry_after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_grows_while_refusals_go_on_and_shrinks_after() {
        let mut dropped = Dropped::default();
        assert_eq!(dropped.record(100), 1);
        (0..50).for_each(|_| {
            dropped.record(100);
        });
        assert_eq!(dropped.record(101), 2);
        (0..50).for_each(|_| {
            dropped.record(101);
        });
        (0..50).for_each(|_| {
            dropped.record(102);
        });
        assert_eq!(dropped.record(103), 4);
        assert_eq!(dropped.record(200), 3);
    }
}
