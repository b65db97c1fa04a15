//! Series by their labels: an append-only hash table without locks.
//!
//! Tables grow by adding a larger one behind the full one. A series is found by comparing its label
//! values, so the hot path neither allocates nor locks; a label value that clients choose must be
//! bounded by the caller. Above [`SERIES_LIMIT`] all further label values share one series.

use std::sync::{Arc, OnceLock};

/// Slots of each table, one behind the other.
const TABLE_SLOTS: [usize; 4] = [64, 512, 4096, 16_384];
/// Slots that are looked at in one table.
const PROBES: usize = 8;
/// Most series of one family, about.
pub const SERIES_LIMIT: usize = 21_056;
/// Value of every label of the series that is shared above the limit.
const OVERFLOW: &str = "unexpected";

/// One series: its label values and what it counts.
#[derive(Debug)]
pub struct Series<const N: usize, V> {
    labels: [Box<str>; N],
    value: V,
}

impl<const N: usize, V> Series<N, V> {
    /// Values of the labels.
    pub fn labels(&self) -> [&str; N] {
        std::array::from_fn(|i| &*self.labels[i])
    }
}

impl<const N: usize, V> std::ops::Deref for Series<N, V> {
    type Target = V;
    fn deref(&self) -> &V {
        &self.value
    }
}

type Slot<const N: usize, V> = OnceLock<Arc<Series<N, V>>>;

/// A family's series.
#[derive(Debug)]
pub struct Labeled<const N: usize, V> {
    make: fn() -> V,
    tables: [OnceLock<Box<[Slot<N, V>]>>; TABLE_SLOTS.len()],
    overflow: Slot<N, V>,
}

fn hash<const N: usize>(labels: &[&str; N]) -> u64 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut h = 0u64;
    for label in labels {
        let bytes = label.as_bytes();
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
            h = (h.rotate_left(5) ^ word).wrapping_mul(K);
        }
        let mut tail = bytes.len() as u64;
        for b in chunks.remainder() {
            tail = (tail << 8) | u64::from(*b);
        }
        h = (h.rotate_left(5) ^ tail).wrapping_mul(K);
    }
    h ^ (h >> 32)
}

impl<const N: usize, V> Labeled<N, V> {
    /// No series yet; `make` makes the value of a new one.
    pub const fn new(make: fn() -> V) -> Self {
        Labeled { make, tables: [const { OnceLock::new() }; TABLE_SLOTS.len()], overflow: OnceLock::new() }
    }

    /// The series of these label values, made where there is none.
    pub fn with(&self, labels: [&str; N]) -> &Arc<Series<N, V>> {
        let hash = hash(&labels);
        for (table, slots) in self.tables.iter().zip(TABLE_SLOTS) {
            let table = table.get_or_init(|| (0..slots).map(|_| OnceLock::new()).collect());
            for i in 0..PROBES {
                let at = (hash as usize).wrapping_add(i) & (slots - 1);
                let Some(slot) = table.get(at) else { break };
                let series = slot.get_or_init(|| self.series(labels));
                if series.labels.iter().zip(labels).all(|(a, b)| **a == *b) {
                    return series;
                }
            }
        }
        self.overflow.get_or_init(|| self.series([OVERFLOW; N]))
    }

    fn series(&self, labels: [&str; N]) -> Arc<Series<N, V>> {
        Arc::new(Series { labels: labels.map(Box::from), value: (self.make)() })
    }

    /// Every series, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Series<N, V>>> {
        let tables = self.tables.iter().filter_map(OnceLock::get);
        tables.flat_map(|t| t.iter().filter_map(OnceLock::get)).chain(self.overflow.get())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Counter;

    #[test]
    fn series_are_found_again_and_tables_grow() {
        let table: Labeled<2, Counter> = Labeled::new(Counter::new);
        for round in 0..2 {
            for i in 0..3_000 {
                let name = format!("name-{i}");
                let series = table.with([&name, "b"]);
                assert_eq!(series.labels(), [name.as_str(), "b"]);
                assert_eq!(series.get(), round);
                series.inc();
            }
        }
        assert_eq!(table.iter().count(), 3_000);
        assert!(table.iter().all(|s| s.get() == 2));
    }

    #[test]
    fn above_the_limit_one_series_is_shared() {
        let table: Labeled<1, Counter> = Labeled::new(Counter::new);
        for i in 0..SERIES_LIMIT * 2 {
            table.with([&i.to_string()]).inc();
        }
        assert!(table.iter().count() <= SERIES_LIMIT + 1);
        assert!(table.with(["never seen"]).get() > 0);
        assert_eq!(table.iter().map(|s| s.get()).sum::<u64>(), SERIES_LIMIT as u64 * 2);
    }

    #[test]
    fn many_threads_make_one_series() {
        let table: Arc<Labeled<1, Counter>> = Arc::new(Labeled::new(Counter::new));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let table = table.clone();
                std::thread::spawn(move || (0..1_000).for_each(|i| table.with([&(i % 50).to_string()]).inc()))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(table.iter().count(), 50);
        assert!(table.iter().all(|s| s.get() == 80));
    }
}
