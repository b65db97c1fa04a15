//! Where a request's time went: its steps, told in the log when it took long.
//!
//! Steps deep in the write path find the trail of their request in a task-local; a read that never
//! leaves its task notes its steps directly.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::tasks::Tasks;

/// Requests that take longer are told about, in milliseconds (upstream's threshold).
const SLOW_MS: u64 = 500;

/// The step that answers the request.
pub(crate) const HANDLE: &str = "handle";

tokio::task_local! {
    static CURRENT: Arc<Trail>;
}

/// One request's steps.
#[derive(Debug)]
pub(crate) struct Trail {
    started: Instant,
    last: Mutex<(Instant, Vec<(&'static str, Duration)>)>,
}

impl Trail {
    pub(crate) fn new(started: Instant) -> Arc<Self> {
        Arc::new(Trail { started, last: Mutex::new((started, Vec::with_capacity(8))) })
    }

    /// Ends the step that began with the end of the one before.
    pub(crate) fn done(&self, step: &'static str) {
        let now = Instant::now();
        let mut last = self.last.lock();
        let took = now.saturating_duration_since(last.0);
        last.0 = now;
        last.1.push((step, took));
    }

    /// Tells of the request in the log where it took long.
    pub(crate) fn finish(&self, verb: &str, path: &str, code: u16, agent: &str) {
        let took = self.started.elapsed();
        if took < Duration::from_millis(SLOW_MS) {
            return;
        }
        let last = self.last.lock();
        let steps: Vec<String> = last.1.iter().map(|(s, d)| format!("{s} {}ms", d.as_millis())).collect();
        // "handle" holds the steps within it; one of those that took most of it says more.
        let longest = |inner: bool| {
            last.1.iter().filter(|(s, _)| !inner || *s != HANDLE).max_by_key(|(_, d)| *d).copied().unwrap_or_default()
        };
        let (all, inner) = (longest(false), longest(true));
        let slowest = if inner.1 * 2 >= all.1 { inner.0 } else { all.0 };
        tracing::info!(
            verb,
            path,
            code,
            agent,
            total_ms = took.as_millis() as u64,
            slowest,
            steps = steps.join(", "),
            "slow request"
        );
    }
}

/// Runs a request with its trail at hand.
pub(crate) async fn follow<T>(trail: Arc<Trail>, request: impl Future<Output = T>) -> T {
    CURRENT.scope(trail, request).await
}

/// Spawns work of the present request, which keeps its trail.
pub(crate) fn spawn<T: Send + 'static>(
    tasks: &Tasks,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Option<T>> {
    match CURRENT.try_with(Arc::clone) {
        Ok(trail) => tasks.spawn(CURRENT.scope(trail, work)),
        Err(_) => tasks.spawn(work),
    }
}

/// Notes a step within another; nothing happens outside a request.
pub(crate) fn step(name: &'static str, took: Duration) {
    let _ = CURRENT.try_with(|trail| trail.last.lock().1.push((name, took)));
}
