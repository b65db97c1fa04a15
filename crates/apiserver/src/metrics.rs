//! Counters and durations of requests, in Prometheus' text form, under upstream's names.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::request_info::RequestInfo;
use crate::server::Server;

/// Upper bounds of `apiserver_request_duration_seconds`, in seconds.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    row: Option<usize>,
    verb: &'static str,
    subresource: Box<str>,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u32; BUCKETS.len()],
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<HashMap<Key, Series>>,
    pub(crate) in_flight_reading: AtomicI64,
    pub(crate) in_flight_mutating: AtomicI64,
}

impl Metrics {
    /// Counts a finished request. Paths that are not served share one series.
    pub(crate) fn count(&self, info: &RequestInfo, row: Option<usize>, code: u16, took: Duration) {
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (_, false, _) => "resource",
            (_, true, false) => "namespace",
            (_, true, true) => "cluster",
        };
        let subresource = if row.is_some() { info.subresource.as_str().into() } else { Box::default() };
        let key = Key { row, verb: info.verb, subresource, scope, code };
        let seconds = took.as_secs_f64();
        let mut requests = self.requests.lock();
        let series =
            requests.entry(key).or_insert_with(|| Series { count: 0, seconds: 0.0, buckets: [0; BUCKETS.len()] });
        series.count += 1;
        series.seconds += seconds;
        if info.is_long_running() {
            return;
        }
        if let Some(slot) = BUCKETS.iter().position(|b| seconds <= *b).and_then(|i| series.buckets.get_mut(i)) {
            *slot += 1;
        }
    }

    /// The text of `/metrics`.
    pub(crate) async fn render(&self, server: &Server) -> String {
        let mut out = String::with_capacity(16 << 10);
        let requests = self.requests.lock().clone();
        let mut total = String::new();
        let mut durations = String::new();
        for (key, s) in &requests {
            let row = key.row.and_then(|id| server.registry.row_by_id(id));
            let (group, version, resource) =
                row.as_ref().map_or(("", "", ""), |r| (r.group(), r.kind.resource.version, r.plural()));
            let verb = key.verb.to_uppercase();
            let labels = format!(
                "verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{}\",scope=\"{}\"",
                key.subresource, key.scope
            );
            let _ =
                writeln!(total, "apiserver_request_total{{{labels},code=\"{}\",dry_run=\"\"}} {}", key.code, s.count);
            let mut below = 0u64;
            for (bound, n) in BUCKETS.iter().zip(&s.buckets) {
                below += u64::from(*n);
                let _ = writeln!(
                    durations,
                    "apiserver_request_duration_seconds_bucket{{{labels},code=\"{}\",le=\"{bound}\"}} {below}",
                    key.code
                );
            }
            let c = key.code;
            let _ = writeln!(
                durations,
                "apiserver_request_duration_seconds_bucket{{{labels},code=\"{c}\",le=\"+Inf\"}} {}",
                s.count
            );
            let _ =
                writeln!(durations, "apiserver_request_duration_seconds_sum{{{labels},code=\"{c}\"}} {}", s.seconds);
            let _ =
                writeln!(durations, "apiserver_request_duration_seconds_count{{{labels},code=\"{c}\"}} {}", s.count);
        }
        out.push_str("# TYPE apiserver_request_total counter\n");
        out.push_str(&total);
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        out.push_str(&durations);
        out.push_str("# TYPE apiserver_current_inflight_requests gauge\n");
        for (kind, gauge) in [("readOnly", &self.in_flight_reading), ("mutating", &self.in_flight_mutating)] {
            let _ = writeln!(
                out,
                "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {}",
                gauge.load(Ordering::Relaxed)
            );
        }
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        for stored in server.registry.stored().iter() {
            let name = ironkeel_registry::qualified(stored.group, stored.plural);
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{name}\"}} {}", stored.cache.len());
        }
        if let Ok(status) = server.registry.store().status().await {
            out.push_str("# TYPE apiserver_storage_size_bytes gauge\n");
            let _ = writeln!(out, "apiserver_storage_size_bytes{{storage_cluster_id=\"0\"}} {}", status.disk_bytes);
        }
        out
    }
}
