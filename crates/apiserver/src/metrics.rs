//! What the server counts, under upstream's names, and the page of `/metrics`.
//!
//! Counting takes no lock: a series is found by its labels in an append-only table. What clients
//! choose freely (paths that are not served, subresources that are not there) shares one series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_metrics::{Counter, Family, Gauge, Histogram, Labeled, Series, Text};
use ironkeel_object::ObjectSource;
use ironkeel_registry::Row;

use crate::measured::admission::AdmissionMetrics;
use crate::measured::caches::CacheMetrics;
use crate::measured::features;
use crate::measured::reloads::ReloadMetrics;
use crate::metric_names as names;
use crate::request_info::{Query, RequestInfo};
use crate::server::Server;
use crate::{deprecated, process};

/// What a watch of one resource has sent.
#[derive(Debug)]
pub(crate) struct WatchTraffic {
    pub(crate) events: Counter,
    pub(crate) sizes: Histogram,
    /// Watches that were ended because their clients are too slow.
    pub(crate) terminated: Counter,
}

/// Answers of one kind.
#[derive(Debug)]
struct Answers {
    duration: Histogram,
    sli: Histogram,
    sizes: Histogram,
}

/// Outcomes of one kind and how long they took.
#[derive(Debug)]
pub(crate) struct Attempts {
    pub(crate) count: Counter,
    pub(crate) duration: Histogram,
}

impl Attempts {
    fn new() -> Self {
        Attempts { count: Counter::new(), duration: Histogram::new(names::ATTEMPT_SECONDS) }
    }

    fn note(&self, took: Duration) {
        self.count.inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Labeled<10, Counter>,
    answers: Labeled<8, Answers>,
    long_running: Labeled<7, Gauge>,
    terminations: Labeled<8, Counter>,
    bodies: Labeled<3, Histogram>,
    field_validation: Labeled<1, Histogram>,
    watches: Labeled<3, WatchTraffic>,
    /// Plugins, webhooks, policies.
    pub(crate) admission: Arc<AdmissionMetrics>,
    /// Watch caches and the store.
    pub(crate) caches: CacheMetrics,
    pub(crate) reloads: ReloadMetrics,
    filters: Labeled<1, Histogram>,
    authentication: Labeled<1, Attempts>,
    users: Labeled<1, Counter>,
    authorization: Labeled<1, Attempts>,
    impersonation: Labeled<2, Attempts>,
    impersonation_checks: Labeled<2, Attempts>,
    health: Labeled<3, Counter>,
    healthy: Labeled<2, Gauge>,
    deprecated: Labeled<5, Gauge>,
    certificates: Histogram,
    decisions: Labeled<3, Counter>,
    /// Requests that broke down.
    pub(crate) panics: Counter,
    pub(crate) reading: Gauge,
    pub(crate) mutating: Gauge,
    pub(crate) handshake_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            requests: Labeled::new(Counter::new),
            answers: Labeled::new(|| Answers {
                duration: Histogram::new(names::REQUEST_SECONDS),
                sli: Histogram::new(names::SLI_SECONDS),
                sizes: Histogram::new(names::RESPONSE_BYTES),
            }),
            long_running: Labeled::new(Gauge::new),
            terminations: Labeled::new(Counter::new),
            bodies: Labeled::new(|| Histogram::new(names::BODY_BYTES)),
            field_validation: Labeled::new(|| Histogram::new(names::SLI_SECONDS)),
            watches: Labeled::new(|| WatchTraffic {
                events: Counter::new(),
                sizes: Histogram::new(names::WATCH_BYTES),
                terminated: Counter::new(),
            }),
            admission: Arc::default(),
            caches: CacheMetrics::default(),
            reloads: ReloadMetrics::default(),
            filters: Labeled::new(|| Histogram::new(names::FILTER_SECONDS)),
            authentication: Labeled::new(Attempts::new),
            users: Labeled::new(Counter::new),
            authorization: Labeled::new(Attempts::new),
            impersonation: Labeled::new(Attempts::new),
            impersonation_checks: Labeled::new(Attempts::new),
            health: Labeled::new(Counter::new),
            healthy: Labeled::new(Gauge::new),
            deprecated: Labeled::new(Gauge::new),
            certificates: Histogram::new(names::CERTIFICATE_SECONDS),
            decisions: Labeled::new(Counter::new),
            panics: Counter::new(),
            reading: Gauge::new(),
            mutating: Gauge::new(),
            handshake_errors: Counter::new(),
        }
    }
}

/// The labels that requests share.
pub(crate) struct Labels<'a> {
    verb: &'static str,
    dry_run: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
    system_client: &'static str,
}

/// Paths with a series of their own.
const PATHS: &[&str] =
    &["/", "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

impl<'a> Labels<'a> {
    /// `row` says whether the resource is served; what is not shares a series.
    pub(crate) fn new(
        info: &'a RequestInfo,
        row: Option<&'a Row>,
        method: &http::Method,
        headers: &http::HeaderMap,
        query: &Query,
    ) -> Self {
        let scope = match (info.is_resource, info.name.is_empty() && info.verb != "create", info.namespace.is_empty()) {
            (false, ..) => "",
            (_, false, _) => "resource",
            (_, true, false) => "namespace",
            (_, true, true) => "cluster",
        };
        let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "log" | "proxy");
        let verb = match (method.as_str(), info.verb) {
            _ if connects && info.is_resource => "CONNECT",
            (_, "watch") => "WATCH",
            (_, "list") => "LIST",
            ("GET" | "HEAD", _) => "GET",
            ("PATCH", _) => {
                let kind = headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
                if kind.is_some_and(|k| k.starts_with(b"application/apply-patch")) { "APPLY" } else { "PATCH" }
            }
            ("POST", _) => "POST",
            ("PUT", _) => "PUT",
            ("DELETE", "deletecollection") => "DELETECOLLECTION",
            ("DELETE", _) => "DELETE",
            _ => "other",
        };
        let dry_run = match query.get("dryRun").as_deref() {
            None => "",
            Some("All") => "All",
            Some(_) => "invalid",
        };
        let subresource = match row {
            Some(row) => row.kind.resource.subresource(&info.subresource).map_or("", |s| s.name),
            None if !info.is_resource => PATHS.iter().find(|p| **p == info.path).copied().unwrap_or(""),
            None => "",
        };
        let agent = headers.get(http::header::USER_AGENT).and_then(|a| a.to_str().ok()).and_then(|a| a.split_once('/'));
        let system_client = match agent.map(|(name, _)| name) {
            Some("kube-apiserver") => "kube-apiserver",
            Some("kube-controller-manager") => "kube-controller-manager",
            Some("kube-scheduler") => "kube-scheduler",
            _ => "",
        };
        let (group, version, resource) =
            row.map_or(("", "", ""), |r| (r.kind.resource.group, r.kind.resource.version, r.kind.resource.plural));
        Labels { verb, dry_run, group, version, resource, subresource, scope, system_client }
    }

    fn placed(&self) -> [&str; 7] {
        let component = "apiserver";
        [self.verb, self.group, self.version, self.resource, self.subresource, self.scope, component]
    }
}

/// A long-running request that goes on, until this is dropped.
#[derive(Debug)]
pub(crate) struct LongRunning(std::sync::Arc<Series<7, Gauge>>);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Metrics {
    /// Counts an answered request. `waited` is what priority and fairness took; `size` is the answer's
    /// length, where it is known. Durations of long-running requests are not observed.
    pub(crate) fn answered(
        &self,
        l: &Labels<'_>,
        code: u16,
        took: Duration,
        waited: Duration,
        size: Option<usize>,
        long: bool,
    ) {
        let mut digits = [0u8; 3];
        let code = code_text(code, &mut digits);
        let all = [
            l.verb,
            l.dry_run,
            l.group,
            l.version,
            l.resource,
            l.subresource,
            l.scope,
            "apiserver",
            code,
            l.system_client,
        ];
        self.requests.with(all).inc();
        if let Some(release) = deprecated::removed_release(l.group, l.version, l.resource) {
            self.deprecated.with([l.group, l.version, l.resource, l.subresource, release]).set(1);
        }
        if long {
            return;
        }
        let series =
            self.answers.with([l.verb, l.dry_run, l.group, l.version, l.resource, l.subresource, l.scope, "apiserver"]);
        series.duration.observe(took.as_secs_f64());
        if l.dry_run.is_empty() {
            series.sli.observe(took.saturating_sub(waited).as_secs_f64());
        }
        if let Some(size) = size.filter(|_| matches!(l.verb, "GET" | "LIST")) {
            series.sizes.observe(size as f64);
        }
    }

    /// Counts a long-running request in until the guard is dropped.
    pub(crate) fn long_running(&self, l: &Labels<'_>) -> LongRunning {
        let series = self.long_running.with(l.placed()).clone();
        series.add(1);
        LongRunning(series)
    }

    /// Counts a request that the server gave up on its own.
    pub(crate) fn terminated(&self, l: &Labels<'_>, code: u16) {
        let mut digits = [0u8; 3];
        let p = l.placed();
        self.terminations.with([p[0], p[1], p[2], p[3], p[4], p[5], p[6], code_text(code, &mut digits)]).inc();
    }

    /// Observes a request body, and with it how unknown fields are treated.
    pub(crate) fn body(&self, l: &Labels<'_>, bytes: usize) {
        if bytes > 0 {
            self.bodies.with([l.resource, l.verb, l.group]).observe(bytes as f64);
        }
    }

    /// Observes a write by its `fieldValidation`.
    pub(crate) fn field_validation(&self, query: &Query, took: Duration) {
        let value = match query.get("fieldValidation").as_deref() {
            None | Some("") => "",
            Some("Ignore") => "Ignore",
            Some("Warn") => "Warn",
            Some("Strict") => "Strict",
            Some(_) => "invalid",
        };
        self.field_validation.with([value]).observe(took.as_secs_f64());
    }

    /// The traffic of watches of a resource.
    pub(crate) fn watch_traffic(&self, row: &Row) -> std::sync::Arc<Series<3, WatchTraffic>> {
        let r = &row.kind.resource;
        self.watches.with([r.group, r.version, r.plural]).clone()
    }

    /// Observes one layer of a request's way.
    pub(crate) fn filter(&self, name: &str, took: Duration) {
        self.filters.with([name]).observe(took.as_secs_f64());
    }

    /// Counts an attempt to tell who asks.
    pub(crate) fn authenticated(&self, user: Option<&str>, took: Duration) {
        self.filter("authentication", took);
        let Some(user) = user else {
            self.authentication.with(["failure"]).note(took);
            return;
        };
        self.authentication.with(["success"]).note(took);
        let known = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];
        self.users.with([known.iter().find(|k| **k == user).copied().unwrap_or("other")]).inc();
    }

    /// Counts a decision whether somebody may.
    pub(crate) fn authorized(&self, allowed: bool, took: Duration) {
        self.filter("authorization", took);
        self.authorization.with([if allowed { "allowed" } else { "no-opinion" }]).note(took);
    }

    /// An attempt to act as another, by the mode that allowed it.
    pub(crate) fn impersonated(&self, mode: &str, allowed: bool, took: Duration) {
        self.impersonation.with([mode, if allowed { "allowed" } else { "denied" }]).note(took);
    }

    /// A check on the way there.
    pub(crate) fn impersonation_asked(&self, mode: &str, allowed: bool, took: Duration) {
        self.impersonation_checks.with([mode, if allowed { "allowed" } else { "denied" }]).note(took);
    }

    /// Counts a health check.
    pub(crate) fn health_check(&self, name: &str, kind: &str, fine: bool) {
        self.health.with([name, kind, if fine { "success" } else { "error" }]).inc();
        self.healthy.with([name, kind]).set(i64::from(fine));
    }

    /// The text of `/metrics`.
    pub(crate) async fn render(&self, server: &Server, text: &mut Text) {
        use names as n;
        text.counters(&n::REQUESTS, &self.requests);
        text.histograms(&n::DURATION, self.answers.iter().map(|s| (s.labels().to_vec(), &s.duration)));
        // Dry runs have no objective.
        let served = || self.answers.iter().filter(|s| s.labels()[1].is_empty());
        let of = |s: &Series<8, Answers>| {
            let l = s.labels();
            [l[0], l[2], l[3], l[4], l[5], l[6], l[7]].map(str::to_owned).to_vec()
        };
        text.histograms(&n::SLI, served().map(|s| (of(s), &s.sli)));
        text.histograms(&n::SIZES, served().filter(|s| s.sizes.count() > 0).map(|s| (of(s), &s.sizes)));
        text.gauges(&n::LONG_RUNNING, &self.long_running);
        text.counters(&n::TERMINATIONS, &self.terminations);
        text.histogram_table(&n::BODY_SIZE, &self.bodies);
        text.histogram_table(&n::FIELD_VALIDATION, &self.field_validation);
        let in_flight = [("readOnly", &self.reading), ("mutating", &self.mutating)];
        text.samples(&n::IN_FLIGHT, in_flight.map(|(kind, g)| (vec![kind], g.get() as f64)));
        text.single(&n::HANDSHAKE_ERRORS, self.handshake_errors.get() as f64);
        text.samples(&n::WATCH_EVENTS, self.watches.iter().map(|s| (s.labels().to_vec(), s.events.get() as f64)));
        text.histograms(&n::WATCH_SIZES, self.watches.iter().map(|s| (s.labels().to_vec(), &s.sizes)));
        self.admission.render(text);
        text.histogram_table(&n::FILTER, &self.filters);
        // Versions share a series.
        let mut terminated: BTreeMap<[&str; 2], u64> = BTreeMap::new();
        for series in self.watches.iter().filter(|s| s.terminated.get() > 0) {
            let [group, _, resource] = series.labels();
            *terminated.entry([group, resource]).or_default() += series.terminated.get();
        }
        text.samples(&n::TERMINATED_WATCHERS, terminated.iter().map(|(l, n)| (l.to_vec(), *n as f64)));
        attempts(text, &n::AUTHENTICATION, &n::AUTHENTICATION_TIME, &self.authentication);
        text.counters(&n::USERS, &self.users);
        attempts(text, &n::AUTHORIZATION, &n::AUTHORIZATION_TIME, &self.authorization);
        attempts(text, &n::IMPERSONATION, &n::IMPERSONATION_TIME, &self.impersonation);
        attempts(text, &n::IMPERSONATION_CHECKS, &n::IMPERSONATION_CHECK_TIME, &self.impersonation_checks);
        text.gauges(&n::DEPRECATED, &self.deprecated);
        text.histograms(&n::CERTIFICATES, [(Vec::<&str>::new(), &self.certificates)]);
        text.counters(&n::DECISIONS, &self.decisions);
        self.caches.render(server, text).await;
        self.reloads.render(&server.identity, text);
        features::render(text, &server.features, &self.panics);
        aggregated(server, text);
        server.fairness.render(text);
        if let Some(auditor) = &server.auditor {
            auditor.render(text);
        }
        process::render(text);
    }

    /// The text of `/metrics/slis`.
    pub(crate) fn render_slis(&self, text: &mut Text) {
        text.gauges(&names::HEALTHY, &self.healthy);
        text.counters(&names::HEALTH_CHECKS, &self.health);
    }

    /// A request was authenticated by a certificate that lives so much longer, in seconds.
    pub(crate) fn certificate(&self, left: i64) {
        self.certificates.observe(left as f64);
    }

    /// An authorizer has decided.
    pub(crate) fn decided(&self, kind: &str, name: &str, allowed: bool) {
        self.decisions.with([kind, name, if allowed { "allowed" } else { "denied" }]).inc();
    }

    /// Counts a request that priority and fairness has refused.
    pub(crate) fn dropped(&self, info: &RequestInfo) {
        let verb = if info.is_mutating() { "mutating" } else { "readOnly" };
        tracing::debug!(verb, path = %info.path, "refused: too many requests");
    }
}

/// A family of counters and one of times.
fn attempts<const N: usize>(text: &mut Text, counts: &Family, times: &Family, table: &Labeled<N, Attempts>) {
    text.samples(counts, table.iter().map(|s| (s.labels().to_vec(), s.count.get() as f64)));
    text.histograms(times, table.iter().map(|s| (s.labels().to_vec(), &s.duration)));
}

/// Which aggregated APIs are not there.
fn aggregated(server: &Server, text: &mut Text) {
    let Some(resource) = ironkeel_schema::resource("apiregistration.k8s.io", "v1", "apiservices") else { return };
    let services = ObjectSource::list(&*server.registry, resource, "");
    let samples = services.iter().map(|s| {
        let conditions = s.items_at(&["status", "conditions"]);
        let available = conditions.iter().find(|c| c["type"].as_str() == Some("Available"));
        let down = available.is_some_and(|c| c["status"].as_str() == Some("False"));
        (vec![ironkeel_object::ObjectMeta::name(&**s).to_owned()], f64::from(u8::from(down)))
    });
    text.samples(&names::UNAVAILABLE, samples);
}

/// The code as text, without an allocation.
fn code_text(code: u16, digits: &mut [u8; 3]) -> &str {
    let code = code.min(999);
    *digits = [b'0' + (code / 100) as u8, b'0' + (code / 10 % 10) as u8, b'0' + (code % 10) as u8];
    std::str::from_utf8(digits).unwrap_or("0")
}
