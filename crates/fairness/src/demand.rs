//! Integrals over time: how many seats a level wanted, and which part of the time its use stood in
//! which bucket.

use tokio::time::Instant;

/// Time-weighted statistics of a value since the last reset.
#[derive(Debug)]
pub(crate) struct Integrator {
    last: Instant,
    value: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
    max: f64,
}

/// What an [`Integrator`] has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    pub(crate) seconds: f64,
    pub(crate) average: f64,
    pub(crate) deviation: f64,
    pub(crate) max: f64,
}

impl Integrator {
    pub(crate) fn new(now: Instant) -> Self {
        Integrator { last: now, value: 0.0, seconds: 0.0, sum: 0.0, squares: 0.0, max: 0.0 }
    }

    pub(crate) fn set(&mut self, now: Instant, value: f64) {
        let dt = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        self.seconds += dt;
        self.sum += dt * self.value;
        self.squares += dt * self.value * self.value;
        self.value = value;
        self.max = self.max.max(value);
    }

    pub(crate) fn reset(&mut self, now: Instant) -> Demand {
        self.set(now, self.value);
        let mut out = Demand { seconds: self.seconds, max: self.max, ..Demand::default() };
        if self.seconds > 0.0 {
            out.average = self.sum / self.seconds;
            out.deviation = (self.squares / self.seconds - out.average * out.average).max(0.0).sqrt();
        }
        (self.seconds, self.sum, self.squares, self.max) = (0.0, 0.0, 0.0, self.value);
        out
    }
}

/// Nanoseconds that a ratio has stood in each bucket (upstream's timing ratio histogram: one
/// observation at the end of every nanosecond).
#[derive(Debug)]
pub(crate) struct Shares {
    bounds: &'static [f64],
    nanos: Box<[u64]>,
    sum: f64,
    last: Instant,
    ratio: f64,
    bucket: usize,
    numerator: f64,
    denominator: f64,
}

impl Shares {
    pub(crate) fn new(bounds: &'static [f64], now: Instant) -> Self {
        Shares {
            bounds,
            nanos: vec![0; bounds.len() + 1].into(),
            sum: 0.0,
            last: now,
            ratio: 0.0,
            bucket: 0,
            numerator: 0.0,
            denominator: 1.0,
        }
    }

    fn account(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.last).as_nanos() as u64;
        self.last = now;
        if let Some(slot) = self.nanos.get_mut(self.bucket) {
            *slot += nanos;
        }
        self.sum += nanos as f64 * self.ratio;
    }

    fn place(&mut self) {
        self.ratio = self.numerator / self.denominator;
        self.bucket = self.bounds.iter().position(|b| self.ratio <= *b).unwrap_or(self.bounds.len());
    }

    pub(crate) fn set(&mut self, now: Instant, numerator: usize) {
        self.account(now);
        self.numerator = numerator as f64;
        self.place();
    }

    pub(crate) fn set_denominator(&mut self, now: Instant, denominator: f64) {
        self.account(now);
        self.denominator = denominator.max(1.0);
        self.place();
    }

    /// Bounds, nanoseconds at or below each, sum, all nanoseconds.
    pub(crate) fn read(&mut self, now: Instant) -> (&'static [f64], Vec<u64>, f64, u64) {
        self.account(now);
        let mut below = 0;
        let counts: Vec<u64> = self
            .nanos
            .iter()
            .map(|n| {
                below += n;
                below
            })
            .collect();
        (self.bounds, counts, self.sum, below)
    }
}
