//! `apiserver_flowcontrol_*`: what each flow schema and level has seen.

use std::sync::Arc;

use ironkeel_metrics::{Counter, Family, Gauge, Histogram, Stability, Text};
use tokio::time::Instant;

use crate::level::Level;
use crate::seat::RefusalReason;

const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// What requests of one schema in one level have come to.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) level: Box<str>,
    pub(crate) schema: Box<str>,
    executing: Gauge,
    executing_seats: Gauge,
    in_queue: Gauge,
    in_queue_seats: Gauge,
    dispatched: Counter,
    refused: [Counter; 3],
    /// Not executed, executed.
    pub(crate) wait: [Histogram; 2],
    /// Regular, watch.
    pub(crate) execution: [Histogram; 2],
    pub(crate) queue_length: Histogram,
    pub(crate) seats: Histogram,
    pub(crate) watch_count: Histogram,
    pub(crate) no_accommodation: Counter,
}

impl Flow {
    pub(crate) fn new(level: &str, schema: &str) -> Arc<Self> {
        Arc::new(Flow {
            level: level.into(),
            schema: schema.into(),
            executing: Gauge::new(),
            executing_seats: Gauge::new(),
            in_queue: Gauge::new(),
            in_queue_seats: Gauge::new(),
            dispatched: Counter::new(),
            refused: Default::default(),
            wait: [Histogram::new(SECONDS), Histogram::new(SECONDS)],
            execution: [Histogram::new(SECONDS), Histogram::new(SECONDS)],
            queue_length: Histogram::new(LENGTHS),
            seats: Histogram::new(SEATS),
            watch_count: Histogram::new(WATCHES),
            no_accommodation: Counter::new(),
        })
    }

    pub(crate) fn begin(&self, seats: usize) {
        self.executing.add(1);
        self.executing_seats.add(seats as i64);
        self.dispatched.inc();
    }

    pub(crate) fn end(&self) {
        self.executing.add(-1);
    }

    pub(crate) fn free(&self, seats: usize) {
        self.executing_seats.add(-(seats as i64));
    }

    pub(crate) fn queued(&self, requests: i64, seats: i64) {
        self.in_queue.add(requests);
        self.in_queue_seats.add(seats);
    }

    pub(crate) fn rejected(&self, reason: RefusalReason) {
        self.refused[reason as usize].inc();
    }
}

const FLOW: &[&str] = &["priority_level", "flow_schema"];
const LEVEL: &[&str] = &["priority_level"];

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family::gauge(name, Stability::Alpha, help).by(labels)
}

const fn histogram(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family::histogram(name, Stability::Alpha, help).by(labels)
}

const REJECTED: Family = Family::counter(
    "apiserver_flowcontrol_rejected_requests_total",
    Stability::Beta,
    "Requests that priority and fairness has refused",
)
.by(&["priority_level", "flow_schema", "reason"]);
const DISPATCHED: Family = Family::counter(
    "apiserver_flowcontrol_dispatched_requests_total",
    Stability::Beta,
    "Requests that priority and fairness has let run",
)
.by(FLOW);
const IN_QUEUE: Family =
    Family::gauge("apiserver_flowcontrol_current_inqueue_requests", Stability::Beta, "Requests that wait in queues")
        .by(FLOW);
const EXECUTING: Family = Family::gauge(
    "apiserver_flowcontrol_current_executing_requests",
    Stability::Beta,
    "Requests that run; a watch only while it begins",
)
.by(FLOW);
const EXECUTING_SEATS: Family =
    Family::gauge("apiserver_flowcontrol_current_executing_seats", Stability::Beta, "Seats that are taken").by(FLOW);
const WAIT: Family = Family::histogram(
    "apiserver_flowcontrol_request_wait_duration_seconds",
    Stability::Beta,
    "How long requests have waited in their queues",
)
.by(&["priority_level", "flow_schema", "execute"]);
const NOMINAL: Family = Family::gauge(
    "apiserver_flowcontrol_nominal_limit_seats",
    Stability::Beta,
    "Seats that each priority level is due",
)
.by(LEVEL);
const IN_QUEUE_SEATS: Family =
    gauge("apiserver_flowcontrol_current_inqueue_seats", "Seats that waiting requests will take", FLOW);
const NO_ACCOMMODATION: Family = Family::counter(
    "apiserver_flowcontrol_request_dispatch_no_accommodation_total",
    Stability::Alpha,
    "Times that the next request did not fit into the free seats",
)
.by(FLOW);
const EXECUTION: Family = histogram(
    "apiserver_flowcontrol_request_execution_seconds",
    "How long requests run; a watch only while it begins",
    &["priority_level", "flow_schema", "type"],
);
const QUEUE_LENGTH: Family = histogram(
    "apiserver_flowcontrol_request_queue_length_after_enqueue",
    "Length of the queue as each request has seen it",
    FLOW,
);
const WORK_SEATS: Family =
    histogram("apiserver_flowcontrol_work_estimated_seats", "Seats that requests are estimated to take", FLOW);
const WATCH_COUNT: Family =
    histogram("apiserver_flowcontrol_watch_count_samples", "Watchers that writes have woken", FLOW);
const LOWER: Family = gauge("apiserver_flowcontrol_lower_limit_seats", "Seats that a level keeps when it lends", LEVEL);
const UPPER: Family = gauge("apiserver_flowcontrol_upper_limit_seats", "Seats that a level may borrow up to", LEVEL);
const CURRENT: Family = gauge(
    "apiserver_flowcontrol_current_limit_seats",
    "Seats of a level for now, with what it lends and borrows",
    LEVEL,
);
const TARGET: Family = gauge("apiserver_flowcontrol_target_seats", "Seats that the last adjustment aimed at", LEVEL);
const HIGH: Family = gauge(
    "apiserver_flowcontrol_demand_seats_high_watermark",
    "Most seats wanted at once in the last adjustment period",
    LEVEL,
);
const AVERAGE: Family = gauge(
    "apiserver_flowcontrol_demand_seats_average",
    "Average of seats wanted in the last adjustment period, by time",
    LEVEL,
);
const DEVIATION: Family = gauge(
    "apiserver_flowcontrol_demand_seats_stdev",
    "Standard deviation of seats wanted in the last adjustment period, by time",
    LEVEL,
);
const SMOOTHED: Family = gauge("apiserver_flowcontrol_demand_seats_smoothed", "Seats wanted, smoothed", LEVEL);
const FAIR: Family = gauge(
    "apiserver_flowcontrol_seat_fair_frac",
    "Fraction of its target that every level gets where its bounds allow",
    &[],
);
const CURRENT_R: Family = gauge("apiserver_flowcontrol_current_r", "Virtual time at its last change", LEVEL);
const DISPATCH_R: Family = gauge("apiserver_flowcontrol_dispatch_r", "Virtual time of the last dispatch", LEVEL);
const LATEST_S: Family = gauge("apiserver_flowcontrol_latest_s", "Virtual start of the request dispatched last", LEVEL);
const NEXT_S: Family = gauge(
    "apiserver_flowcontrol_next_s_bounds",
    "Least and greatest virtual start of the requests at the heads of queues",
    &["priority_level", "bound"],
);
const NEXT_DISCOUNTED_S: Family = gauge(
    "apiserver_flowcontrol_next_discounted_s_bounds",
    "The same less the estimated work in progress",
    &["priority_level", "bound"],
);
const DEMAND: Family = histogram(
    "apiserver_flowcontrol_demand_seats",
    "Seats wanted over seats due, at the end of every nanosecond",
    LEVEL,
);
const SEAT_USE: Family = histogram(
    "apiserver_flowcontrol_priority_level_seat_utilization",
    "Share of seats in use, at the end of every nanosecond",
    &["priority_level", "phase"],
);
const REQUEST_USE: Family = histogram(
    "apiserver_flowcontrol_priority_level_request_utilization",
    "Share of the places for requests in use, at the end of every nanosecond",
    &["priority_level", "phase"],
);

/// All families.
pub const METRIC_FAMILIES: &[Family] = &[
    REJECTED,
    DISPATCHED,
    IN_QUEUE,
    EXECUTING,
    EXECUTING_SEATS,
    WAIT,
    NOMINAL,
    IN_QUEUE_SEATS,
    NO_ACCOMMODATION,
    EXECUTION,
    QUEUE_LENGTH,
    WORK_SEATS,
    WATCH_COUNT,
    LOWER,
    UPPER,
    CURRENT,
    TARGET,
    HIGH,
    AVERAGE,
    DEVIATION,
    SMOOTHED,
    FAIR,
    CURRENT_R,
    DISPATCH_R,
    LATEST_S,
    NEXT_S,
    NEXT_DISCOUNTED_S,
    DEMAND,
    SEAT_USE,
    REQUEST_USE,
];

/// Writes everything.
pub(crate) fn render(text: &mut Text, flows: &[Arc<Flow>], levels: &[Arc<Level>], fair_fraction: f64) {
    let of = |f: &Flow| vec![f.level.to_string(), f.schema.to_string()];
    let with = |f: &Flow, last: &str| vec![f.level.to_string(), f.schema.to_string(), last.to_owned()];
    text.samples(
        &REJECTED,
        flows.iter().flat_map(|f| {
            let reasons = RefusalReason::ALL.into_iter().map(move |r| (r, f.refused[r as usize].get()));
            reasons.filter(|(_, n)| *n > 0).map(move |(r, n)| (with(f, r.as_str()), n as f64))
        }),
    );
    text.samples(&DISPATCHED, flows.iter().map(|f| (of(f), f.dispatched.get() as f64)));
    text.samples(&IN_QUEUE, flows.iter().map(|f| (of(f), f.in_queue.get() as f64)));
    text.samples(&IN_QUEUE_SEATS, flows.iter().map(|f| (of(f), f.in_queue_seats.get() as f64)));
    text.samples(&EXECUTING, flows.iter().map(|f| (of(f), f.executing.get() as f64)));
    text.samples(&EXECUTING_SEATS, flows.iter().map(|f| (of(f), f.executing_seats.get() as f64)));
    text.samples(&NO_ACCOMMODATION, flows.iter().map(|f| (of(f), f.no_accommodation.get() as f64)));
    let pairs = |which: fn(&Flow) -> &[Histogram; 2], names: [&'static str; 2]| {
        let all = flows.iter().flat_map(move |f| {
            let series = which(f).iter().zip(names).filter(|(h, _)| h.count() > 0);
            series.map(move |(h, name)| (vec![f.level.to_string(), f.schema.to_string(), name.to_owned()], h))
        });
        all.collect::<Vec<_>>()
    };
    text.histograms(&WAIT, pairs(|f| &f.wait, ["false", "true"]));
    text.histograms(&EXECUTION, pairs(|f| &f.execution, ["regular", "watch"]));
    text.histograms(&QUEUE_LENGTH, flows.iter().map(|f| (of(f), &f.queue_length)));
    text.histograms(&WORK_SEATS, flows.iter().map(|f| (of(f), &f.seats)));
    text.histograms(&WATCH_COUNT, flows.iter().map(|f| (of(f), &f.watch_count)));
    let limits: Vec<_> = levels.iter().map(|l| (l.name.to_string(), *l.limits())).collect();
    let mut each = |family: &Family, value: fn(&crate::level::Limits) -> f64| {
        text.samples(family, limits.iter().map(|(name, l)| (vec![name.as_str()], value(l))));
    };
    each(&NOMINAL, |l| l.nominal as f64);
    each(&LOWER, |l| l.low as f64);
    each(&UPPER, |l| l.high as f64);
    each(&CURRENT, |l| l.current as f64);
    each(&TARGET, |l| l.target);
    each(&HIGH, |l| l.demand.max);
    each(&AVERAGE, |l| l.demand.average);
    each(&DEVIATION, |l| l.demand.deviation);
    each(&SMOOTHED, |l| l.smoothed);
    text.single(&FAIR, fair_fraction);
    virtual_times(text, levels);
    shares(text, levels);
}

fn virtual_times(text: &mut Text, levels: &[Arc<Level>]) {
    let points: Vec<_> = levels
        .iter()
        .map(|l| {
            let q = l.queues();
            (l.name.to_string(), q.r, q.last_dispatch)
        })
        .collect();
    text.samples(&CURRENT_R, points.iter().map(|(n, r, _)| (vec![n.as_str()], *r)));
    text.samples(&DISPATCH_R, points.iter().map(|(n, _, d)| (vec![n.as_str()], d.r)));
    text.samples(&LATEST_S, points.iter().map(|(n, _, d)| (vec![n.as_str()], d.s)));
    for (family, discounted) in [(&NEXT_S, false), (&NEXT_DISCOUNTED_S, true)] {
        let both = points.iter().flat_map(|(n, _, d)| {
            let bounds = if discounted { d.discounted } else { d.bounds };
            ["min", "max"].into_iter().zip(bounds).map(move |(bound, v)| (vec![n.as_str(), bound], v))
        });
        text.samples(family, both.collect::<Vec<_>>());
    }
}

fn shares(text: &mut Text, levels: &[Arc<Level>]) {
    let now = Instant::now();
    let nanos = |(bounds, below, sum, all): (&'static [f64], Vec<u64>, f64, u64)| (bounds, below, sum, all);
    let series = |labels: Vec<String>, s| {
        let (bounds, below, sum, all) = nanos(s);
        (labels, bounds, below, sum, all)
    };
    let name = |l: &Level| vec![l.name.to_string()];
    text.distributions(&DEMAND, levels.iter().map(|l| series(name(l), l.queues().demand_shares.read(now))));
    // Of seats there is one phase, and upstream names it all the same.
    let executing = |l: &Level| vec![l.name.to_string(), "executing".to_owned()];
    text.distributions(&SEAT_USE, levels.iter().map(|l| series(executing(l), l.queues().seat_shares.read(now))));
    text.distributions(
        &REQUEST_USE,
        levels.iter().flat_map(|l| {
            let mut q = l.queues();
            let waiting = series(vec![l.name.to_string(), "waiting".into()], q.waiting_shares.read(now));
            let executing = series(vec![l.name.to_string(), "executing".into()], q.executing_shares.read(now));
            [waiting, executing]
        }),
    );
}
