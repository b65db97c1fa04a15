//! `workqueue_*`: what each named queue of the process has seen, under upstream's names and buckets.

use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use ironkeel_metrics::{Counter, Family, Gauge, Histogram, Labeled, Series, Stability, Text};
use parking_lot::Mutex;

/// Powers of ten from ten nanoseconds on.
const SECONDS: &[f64] =
    &[1e-8, 1e-7, 1e-6, 9.999_999_999_999_999e-6, 9.999_999_999_999_999e-5, 0.001, 0.01, 0.1, 1.0, 10.0];
const NAME: &[&str] = &["name"];

const DEPTH: Family = Family::gauge("workqueue_depth", Stability::Beta, "Current depth of workqueue").by(NAME);
const ADDS: Family =
    Family::counter("workqueue_adds_total", Stability::Beta, "Total number of adds handled by workqueue").by(NAME);
const WAITED: Family = Family::histogram(
    "workqueue_queue_duration_seconds",
    Stability::Beta,
    "How long in seconds an item stays in workqueue before being requested.",
)
.by(NAME);
const WORKED: Family = Family::histogram(
    "workqueue_work_duration_seconds",
    Stability::Beta,
    "How long in seconds processing an item from workqueue takes.",
)
.by(NAME);
const UNFINISHED: Family = Family::gauge(
    "workqueue_unfinished_work_seconds",
    Stability::Beta,
    "How many seconds of work is in progress and has not been observed by work_duration.",
)
.by(NAME);
const LONGEST: Family = Family::gauge(
    "workqueue_longest_running_processor_seconds",
    Stability::Beta,
    "How many seconds the longest running processor of workqueue has been running.",
)
.by(NAME);
const RETRIES: Family =
    Family::counter("workqueue_retries_total", Stability::Beta, "Total number of retries handled by workqueue")
        .by(NAME);

/// One queue's numbers.
#[derive(Debug)]
pub(crate) struct QueueCounts {
    pub(crate) depth: Gauge,
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    pub(crate) waited: Histogram,
    pub(crate) worked: Histogram,
}

/// A queue that can tell what is being worked on.
pub(crate) trait Working: Send + Sync {
    /// The times since the present items were taken.
    fn running(&self) -> Vec<Duration>;
}

static QUEUES: Labeled<1, QueueCounts> = Labeled::new(|| QueueCounts {
    depth: Gauge::new(),
    adds: Counter::new(),
    retries: Counter::new(),
    waited: Histogram::new(SECONDS),
    worked: Histogram::new(SECONDS),
});
type Live = Mutex<Vec<(&'static str, Weak<dyn Working>)>>;
static LIVE: LazyLock<Live> = LazyLock::new(Mutex::default);

/// The numbers of the queues of this name.
pub(crate) fn counts(name: &'static str) -> Arc<Series<1, QueueCounts>> {
    QUEUES.with([name]).clone()
}

/// A queue that is there as long as others hold it.
pub(crate) fn enter(name: &'static str, queue: Weak<dyn Working>) {
    let mut live = LIVE.lock();
    live.retain(|(_, queue)| queue.strong_count() > 0);
    live.push((name, queue));
}

/// Writes all queues of the process.
pub fn render_queues(text: &mut Text) {
    let all = || QUEUES.iter().map(|s| (s.labels().to_vec(), s));
    text.samples(&DEPTH, all().map(|(l, s)| (l, s.depth.get() as f64)));
    text.samples(&ADDS, all().map(|(l, s)| (l, s.adds.get() as f64)));
    text.samples(&RETRIES, all().map(|(l, s)| (l, s.retries.get() as f64)));
    text.histograms(&WAITED, all().map(|(l, s)| (l, &s.waited)));
    text.histograms(&WORKED, all().map(|(l, s)| (l, &s.worked)));
    let live: Vec<(&'static str, Vec<Duration>)> =
        LIVE.lock().iter().filter_map(|(name, queue)| Some((*name, queue.upgrade()?.running()))).collect();
    let of = |name: &str, fold: fn(f64, f64) -> f64| {
        live.iter().filter(|(n, _)| *n == name).flat_map(|(_, r)| r).map(Duration::as_secs_f64).fold(0.0, fold)
    };
    text.samples(&UNFINISHED, all().map(|(l, s)| (l, of(s.labels()[0], |a, b| a + b))));
    text.samples(&LONGEST, all().map(|(l, s)| (l, of(s.labels()[0], f64::max))));
}
