//! The watch caches, and the store beneath them.

use std::time::Duration;

use ironkeel_metrics::Stability::{Alpha, Beta, Stable};
use ironkeel_metrics::{Counter, Family, Histogram, Labeled, Text};
use ironkeel_registry::{Cache, qualified};

use crate::metric_names::REQUEST_SECONDS;
use crate::server::Server;

const READ_WAIT_SECONDS: &[f64] = &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];
const WATCH_LIST_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// What the one store is called in labels; upstream numbers its etcds.
const STORE: &str = "etcd-0";

const RESOURCE: &[&str] = &["group", "resource"];
const INDEXED: &[&str] = &["group", "resource", "index"];
const CALLS: &[&str] = &["operation", "group", "resource"];

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family::counter(name, Alpha, help).by(RESOURCE)
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family::gauge(name, Alpha, help).by(RESOURCE)
}

const STORE_TIME: Family =
    Family::histogram("etcd_request_duration_seconds", Alpha, "How long calls of the store take.").by(CALLS);
const STORE_CALLS: Family = Family::counter("etcd_requests_total", Alpha, "Calls of the store.").by(CALLS);
const STORE_ERRORS: Family =
    Family::counter("etcd_request_errors_total", Alpha, "Calls of the store that failed.").by(CALLS);
const STORAGE_OBJECTS: Family = Family::gauge("apiserver_storage_objects", Stable, "Stored objects.").by(&["resource"]);
const STORAGE_SIZE: Family =
    Family::gauge("apiserver_storage_size_bytes", Stable, "Bytes of the store on disk.").by(&["storage_cluster_id"]);
const STORAGE_EVENTS: Family = Family::counter(
    "apiserver_storage_events_received_total",
    Beta,
    "Number of events received from the store, by resource.",
)
.by(RESOURCE);
const STORAGE_LISTS: Family = counter("apiserver_storage_list_total", "LIST requests served from the store.");
const STORAGE_FETCHED: Family =
    counter("apiserver_storage_list_fetched_objects_total", "Objects read from the store for LIST requests.");
const STORAGE_EVALUATED: Family =
    counter("apiserver_storage_list_evaluated_objects_total", "Objects from the store that LIST requests looked at.");
const STORAGE_RETURNED: Family =
    counter("apiserver_storage_list_returned_objects_total", "Objects from the store that LIST requests returned.");
const OBJECTS: Family = gauge("apiserver_resource_objects", "Stored objects.");
const BYTES: Family = gauge("apiserver_resource_size_estimate_bytes", "Bytes of stored objects.");
const REVISION: Family =
    gauge("apiserver_watch_cache_resource_version", "Revision of the last change in the watch cache.");
const CAPACITY: Family = gauge("watch_cache_capacity", "Most changes that the watch cache keeps.");
const RECEIVED: Family = counter("apiserver_watch_cache_events_received_total", "Events that the watch cache has got.");
const DISPATCHED: Family =
    counter("apiserver_watch_cache_events_dispatched_total", "Events that the watch cache has passed on.");
const INITIALIZATIONS: Family =
    counter("apiserver_watch_cache_initializations_total", "How often the watch cache was filled.");
const READ_WAIT: Family = Family::histogram(
    "apiserver_watch_cache_read_wait_seconds",
    Alpha,
    "How long requests wait for the watch cache to be fresh.",
)
.by(RESOURCE);
const CONSISTENT: Family =
    Family::counter("apiserver_watch_cache_consistent_read_total", Alpha, "Consistent reads from the watch cache.")
        .by(&["group", "resource", "success", "fallback"]);
const LISTS: Family =
    Family::counter("apiserver_cache_list_total", Alpha, "LIST requests served from the watch cache.").by(INDEXED);
const FETCHED: Family = Family::counter(
    "apiserver_cache_list_fetched_objects_total",
    Alpha,
    "Objects of the watch cache that LIST requests looked at.",
)
.by(INDEXED);
const RETURNED: Family =
    counter("apiserver_cache_list_returned_objects_total", "Objects of the watch cache that LIST requests returned.");
const WATCH_LIST: Family = Family::histogram(
    "apiserver_watch_list_duration_seconds",
    Beta,
    "How long watches take until all initial events are sent.",
)
.by(&["group", "version", "resource", "scope"]);

/// See [`super::families`].
pub(crate) const FAMILIES: &[Family] = &[
    STORE_TIME,
    STORE_CALLS,
    STORE_ERRORS,
    STORAGE_OBJECTS,
    STORAGE_SIZE,
    STORAGE_EVENTS,
    STORAGE_LISTS,
    STORAGE_FETCHED,
    STORAGE_EVALUATED,
    STORAGE_RETURNED,
    OBJECTS,
    BYTES,
    REVISION,
    CAPACITY,
    RECEIVED,
    DISPATCHED,
    INITIALIZATIONS,
    READ_WAIT,
    CONSISTENT,
    LISTS,
    FETCHED,
    RETURNED,
    WATCH_LIST,
];

/// Calls of the store of one kind.
#[derive(Debug)]
struct StoreCalls {
    duration: Histogram,
    errors: Counter,
}

/// Lists of one resource.
#[derive(Debug, Default)]
struct Lists {
    count: Counter,
    fetched: Counter,
    returned: Counter,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct CacheMetrics {
    store: Labeled<3, StoreCalls>,
    stored_lists: Labeled<2, Lists>,
    lists: Labeled<2, Lists>,
    waits: Labeled<2, Histogram>,
    consistent: Labeled<3, Counter>,
    watch_lists: Labeled<4, Histogram>,
}

impl Default for CacheMetrics {
    fn default() -> Self {
        CacheMetrics {
            store: Labeled::new(|| StoreCalls { duration: Histogram::new(REQUEST_SECONDS), errors: Counter::new() }),
            stored_lists: Labeled::new(Lists::default),
            lists: Labeled::new(Lists::default),
            waits: Labeled::new(|| Histogram::new(READ_WAIT_SECONDS)),
            consistent: Labeled::new(Counter::new),
            watch_lists: Labeled::new(|| Histogram::new(WATCH_LIST_SECONDS)),
        }
    }
}

impl CacheMetrics {
    /// A call of the store is over.
    pub(crate) fn store_call(&self, operation: &str, group: &str, resource: &str, took: Duration, failed: bool) {
        let series = self.store.with([operation, group, resource]);
        series.duration.observe(took.as_secs_f64());
        if failed {
            series.errors.inc();
        }
    }

    /// So many objects were read from the store.
    pub(crate) fn store_list(&self, group: &str, resource: &str, objects: usize) {
        let series = self.stored_lists.with([group, resource]);
        series.count.inc();
        series.fetched.add(objects as u64);
        series.returned.add(objects as u64);
    }

    /// A list was answered from the cache.
    pub(crate) fn list(&self, group: &str, resource: &str, fetched: usize, returned: usize) {
        let series = self.lists.with([group, resource]);
        series.count.inc();
        series.fetched.add(fetched as u64);
        series.returned.add(returned as u64);
    }

    /// A read has waited for the cache to be as new as the store.
    pub(crate) fn waited(&self, group: &str, resource: &str, took: Duration, fresh: bool) {
        self.waits.with([group, resource]).observe(took.as_secs_f64());
        self.consistent.with([group, resource, if fresh { "true" } else { "false" }]).inc();
    }

    /// A watch has sent all that was there when it began.
    pub(crate) fn watch_list(&self, labels: [&str; 4], took: Duration) {
        self.watch_lists.with(labels).observe(took.as_secs_f64());
    }

    pub(crate) async fn render(&self, server: &Server, text: &mut Text) {
        let calls = || self.store.iter().map(|s| (s.labels().to_vec(), s));
        text.histograms(&STORE_TIME, calls().map(|(l, s)| (l, &s.duration)));
        text.samples(&STORE_CALLS, calls().map(|(l, s)| (l, s.duration.count() as f64)));
        text.samples(&STORE_ERRORS, calls().map(|(l, s)| (l, s.errors.get() as f64)));
        let lists = || self.stored_lists.iter().map(|s| (s.labels().to_vec(), s));
        text.samples(&STORAGE_LISTS, lists().map(|(l, s)| (l, s.count.get() as f64)));
        for family in [&STORAGE_FETCHED, &STORAGE_EVALUATED] {
            text.samples(family, lists().map(|(l, s)| (l, s.fetched.get() as f64)));
        }
        text.samples(&STORAGE_RETURNED, lists().map(|(l, s)| (l, s.returned.get() as f64)));
        if let Ok(status) = server.registry.store().status().await {
            text.samples(&STORAGE_SIZE, [(vec![STORE], status.disk_bytes as f64)]);
        }
        let stored = server.registry.stored();
        let names = stored.iter().map(|s| (vec![qualified(s.group, s.plural)], s.cache.len() as f64));
        text.samples(&STORAGE_OBJECTS, names);
        let mut each = |family: &Family, value: fn(&Cache) -> f64| {
            text.samples(family, stored.iter().map(|s| (vec![s.group, s.plural], value(&s.cache))));
        };
        each(&OBJECTS, |c| c.len() as f64);
        each(&BYTES, |c| c.bytes() as f64);
        each(&REVISION, |c| c.last() as f64);
        each(&CAPACITY, |_| Cache::CAPACITY as f64);
        each(&STORAGE_EVENTS, |c| c.received() as f64);
        each(&RECEIVED, |c| c.received() as f64);
        each(&DISPATCHED, |c| c.received() as f64);
        each(&INITIALIZATIONS, |c| c.initializations() as f64);
        text.histogram_table(&READ_WAIT, &self.waits);
        let consistent = self.consistent.iter().map(|s| {
            let [group, resource, fresh] = s.labels();
            (vec![group, resource, fresh, "false"], s.get() as f64)
        });
        text.samples(&CONSISTENT, consistent);
        let lists = || self.lists.iter().map(|s| (s.labels(), s));
        let indexed = |l: [&str; 2]| vec![l[0].to_owned(), l[1].to_owned(), String::new()];
        text.samples(&LISTS, lists().map(|(l, s)| (indexed(l), s.count.get() as f64)));
        text.samples(&FETCHED, lists().map(|(l, s)| (indexed(l), s.fetched.get() as f64)));
        text.samples(&RETURNED, lists().map(|(l, s)| (l.to_vec(), s.returned.get() as f64)));
        text.histogram_table(&WATCH_LIST, &self.watch_lists);
    }
}
