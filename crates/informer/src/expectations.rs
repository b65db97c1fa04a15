//! What a controller has asked for and not yet seen in its cache, and creation in growing batches.
//!
//! Answers to `pkg/controller`'s UIDTrackingControllerExpectations and slowStartBatch: a controller that acted waits
//! until its own informer has caught up, or it would act twice.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;

/// After this long an expectation is given up: the event was missed, and the next sync looks for itself.
const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
struct Expected {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

/// Expectations of one controller, by the key of the object that it syncs (`namespace/name`).
#[derive(Debug, Default)]
pub struct Expectations {
    expected: Mutex<HashMap<String, Expected>>,
}

impl Expectations {
    /// No expectations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects to see `count` more creations for `key`. Call before creating.
    pub fn expect_creations(&self, key: &str, count: usize) {
        self.with(key, |expected| expected.creations += i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Expects to see these objects (`namespace/name` or uid, as observed later) deleted. Call before deleting.
    pub fn expect_deletions(&self, key: &str, objects: impl IntoIterator<Item = String>) {
        self.with(key, |expected| expected.deletions.extend(objects));
    }

    /// A creation for `key` was seen, or failed and will not be.
    pub fn creation_observed(&self, key: &str) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.creations -= 1;
        }
    }

    /// The deletion of `object` for `key` was seen, or failed and will not be.
    pub fn deletion_observed(&self, key: &str, object: &str) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.deletions.remove(object);
        }
    }

    /// Whether everything expected for `key` was seen, or was waited for too long.
    pub fn satisfied(&self, key: &str) -> bool {
        match self.expected.lock().get(key) {
            None => true,
            Some(expected) => {
                (expected.creations <= 0 && expected.deletions.is_empty())
                    || expected.since.elapsed() > EXPECTATION_TIMEOUT
            }
        }
    }

    /// Forgets `key`: its object is gone.
    pub fn forget(&self, key: &str) {
        self.expected.lock().remove(key);
    }

    fn with(&self, key: &str, change: impl FnOnce(&mut Expected)) {
        let mut all = self.expected.lock();
        let expected = all.entry(key.to_owned()).or_insert_with(|| Expected {
            creations: 0,
            deletions: HashSet::new(),
            since: Instant::now(),
        });
        if expected.creations <= 0 && expected.deletions.is_empty() {
            expected.creations = 0;
        }
        expected.since = Instant::now();
        change(expected);
    }
}

/// Runs `call` for 0..count in batches of 1, 2, 4, …, each batch at once; stops after a batch with a failure.
///
/// Returns how many calls succeeded, how many were never made, and the first error. A quota or a broken template so
/// costs one call instead of thousands.
pub async fn slow_start_batch<F, E>(count: usize, call: impl Fn(usize) -> F) -> (usize, usize, Option<E>)
where
    F: Future<Output = Result<(), E>>,
{
    let mut made = 0;
    let mut succeeded = 0;
    let mut batch = 1;
    while made < count {
        let size = batch.min(count - made);
        let results = join_all((made..made + size).map(&call)).await;
        made += size;
        let mut first_error = None;
        for result in results {
            match result {
                Ok(()) => succeeded += 1,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if first_error.is_some() {
            return (succeeded, count - made, first_error);
        }
        batch *= 2;
    }
    (succeeded, 0, None)
}
