//! Counters, gauges and histograms that cost an atomic operation, and the text that Prometheus reads.
//!
//! A family with labels is a [`Labeled`] table: series are found without a lock and without an
//! allocation, and are never taken out. What does not live here: which metrics there are (each
//! crate names its own, under upstream's names), and serving them (`apiserver`).

mod family;
mod labeled;
mod text;
mod value;

pub use family::{Family, Kind, Stability};
pub use labeled::{Labeled, SERIES_LIMIT, Series};
pub use text::{Form, Text};
pub use value::{Counter, Gauge, Histogram};
