//! How many seats a request takes, and for how long after its answer: lists by the bytes that they
//! handle at once, writes by the watchers that they wake (KEP-1040, "Request Widths").

use std::time::Duration;

/// Most seats of a list.
pub const MAX_LIST_SEATS: u32 = 100;
/// Most seats of a write.
pub const MAX_MUTATING_SEATS: u32 = 10;
/// Bytes in memory at once that take a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// Most bytes at once of a list that is streamed out of the cache.
const STREAMED_LIST_BYTES: u64 = 1_000_000;
/// Watchers that take a seat while an event goes out to them.
const WATCHES_PER_SEAT: u32 = 10;
/// How long an event takes to go out, in milliseconds.
const EVENT_MS: u64 = 5;

/// Seats of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// While it runs.
    pub seats: u32,
    /// After its answer, while watchers are told.
    pub final_seats: u32,
    /// For how long.
    pub extra: Duration,
}

/// What is known of a resource that is listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListStats {
    /// Objects.
    pub objects: u64,
    /// Bytes of all objects.
    pub bytes: u64,
}

impl Width {
    /// One seat.
    pub const ONE: Width = Width { seats: 1, final_seats: 0, extra: Duration::ZERO };

    /// A list, or a watch that begins with the state. `limit` 0 means all; `single` says that a
    /// name was given.
    pub fn list(stats: ListStats, limit: u64, single: bool, most: u32) -> Width {
        let objects = match (single, limit) {
            (true, _) => stats.objects.min(1),
            (_, 0) => stats.objects,
            (_, limit) => limit.min(stats.objects),
        };
        let average = stats.bytes.checked_div(stats.objects).unwrap_or(0);
        let at_once = objects.saturating_mul(average).min(STREAMED_LIST_BYTES);
        let seats = at_once.div_ceil(BYTES_PER_SEAT).min(u64::from(MAX_LIST_SEATS)) as u32;
        let most = if most == 0 { MAX_LIST_SEATS } else { most.min(MAX_LIST_SEATS) };
        Width { seats: seats.clamp(1, most), ..Width::ONE }
    }

    /// A write that wakes so many watchers.
    pub fn write(watchers: usize, most: u32) -> Width {
        let watchers = u32::try_from(watchers).unwrap_or(u32::MAX);
        if watchers < WATCHES_PER_SEAT {
            return Width::ONE;
        }
        let most = if most == 0 { MAX_MUTATING_SEATS } else { most.min(MAX_MUTATING_SEATS) };
        let wanted = watchers.div_ceil(WATCHES_PER_SEAT);
        let seats = wanted.min(most);
        Width { seats: 1, final_seats: seats, extra: Duration::from_millis(EVENT_MS) * wanted / seats }
    }

    /// Seats that are held throughout.
    pub fn max(&self) -> u32 {
        self.seats.max(self.final_seats)
    }

    /// Seat-seconds after the answer.
    pub(crate) fn final_work(&self) -> f64 {
        f64::from(self.final_seats) * self.extra.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_wide_as_their_bytes() {
        let stats = ListStats { objects: 1_000, bytes: 1_000_000 };
        assert_eq!(Width::list(stats, 0, false, 0).seats, 10);
        assert_eq!(Width::list(stats, 100, false, 0).seats, 1);
        assert_eq!(Width::list(stats, 0, true, 0).seats, 1);
        assert_eq!(Width::list(stats, 0, false, 4).seats, 4);
        assert_eq!(Width::list(ListStats::default(), 0, false, 4).seats, 1);
        let large = ListStats { objects: 100_000, bytes: 1_000_000_000 };
        assert_eq!(Width::list(large, 0, false, 0).seats, 10, "a streamed list holds a megabyte at once");
    }

    #[test]
    fn writes_pay_for_their_watchers() {
        assert_eq!(Width::write(9, 0), Width::ONE);
        let few = Width::write(25, 0);
        assert_eq!((few.seats, few.final_seats, few.extra), (1, 3, Duration::from_millis(5)));
        let many = Width::write(500, 0);
        assert_eq!((many.final_seats, many.extra), (10, Duration::from_millis(25)));
    }
}
