//! A priority level: its queues under their lock, and its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::config::LevelConfig;
use crate::demand::Demand;
use crate::dropped::Dropped;
use crate::queues::Queues;

/// How much of the last seat demand goes on into the next period.
const SMOOTHING: f64 = 0.977;
/// Part of a level's nominal seats that one request may take.
const MAX_SEATS_SHARE: f64 = 0.15;

/// Limits of a level, in seats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) nominal: usize,
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) current: usize,
    pub(crate) demand: Demand,
    pub(crate) smoothed: f64,
    pub(crate) target: f64,
}

impl Limits {
    /// Takes over what was wanted since the last adjustment.
    pub(crate) fn learn(&mut self, seen: Demand) {
        self.demand.max = seen.max.round();
        if seen.seconds <= 0.0 {
            return;
        }
        self.demand = Demand { max: self.demand.max, ..seen };
        let envelope = seen.average + seen.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) name: Box<str>,
    queues: Mutex<Queues>,
    limits: Mutex<Limits>,
    dropped: Mutex<Dropped>,
    max_seats: AtomicU32,
}

impl Level {
    pub(crate) fn new(config: &LevelConfig, limit: usize, now: Instant) -> Arc<Self> {
        Arc::new(Level {
            name: config.name.as_str().into(),
            queues: Mutex::new(Queues::new(config.mode, limit, now)),
            limits: Mutex::default(),
            dropped: Mutex::default(),
            max_seats: AtomicU32::new(0),
        })
    }

    pub(crate) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock()
    }

    pub(crate) fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock()
    }

    /// Counts a refusal; answers `Retry-After`, in seconds.
    pub(crate) fn dropped(&self) -> u64 {
        let now = jiff::Timestamp::now().as_second();
        self.dropped.lock().record(u64::try_from(now).unwrap_or(0))
    }

    /// Most seats of one request; 0 for no limit of the level's own.
    pub(crate) fn max_seats(&self) -> u32 {
        self.max_seats.load(Relaxed)
    }

    /// The limit that follows from the level's nominal seats.
    pub(crate) fn set_max_seats(&self, nominal: usize, hand: usize) {
        let share = (nominal as f64 * MAX_SEATS_SHARE).ceil();
        let most = share.min((nominal / hand.max(1)) as f64).max(1.0);
        self.max_seats.store(most as u32, Relaxed);
    }
}
