//! Names, labels and buckets of the server's metrics, as upstream has them.

use ironkeel_metrics::{Family, Stability::Alpha, Stability::Stable};

pub(crate) const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
pub(crate) const SLI_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
pub(crate) const RESPONSE_BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
pub(crate) const BODY_BYTES: &[f64] = &[
    5e4, 1.5e5, 2.5e5, 3.5e5, 4.5e5, 5.5e5, 6.5e5, 7.5e5, 8.5e5, 9.5e5, 1.05e6, 1.15e6, 1.25e6, 1.35e6, 1.45e6, 1.55e6,
    1.65e6, 1.75e6, 1.85e6, 1.95e6, 2.05e6, 2.15e6, 2.25e6, 2.35e6, 2.45e6, 2.55e6, 2.65e6, 2.75e6, 2.85e6, 2.95e6,
    3.05e6,
];
pub(crate) const WATCH_BYTES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
pub(crate) const FILTER_SECONDS: &[f64] =
    &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];
pub(crate) const ATTEMPT_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

pub(crate) const REQUESTS: Family =
    Family::counter("apiserver_request_total", Stable, "Requests by verb, resource and code.").by(&[
        "verb",
        "dry_run",
        "group",
        "version",
        "resource",
        "subresource",
        "scope",
        "component",
        "code",
        "system_client",
    ]);
pub(crate) const DURATION: Family = Family::histogram(
    "apiserver_request_duration_seconds",
    Stable,
    "How long requests take that are not long-running.",
)
.by(&["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"]);
const PLACED: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component"];
pub(crate) const SLI: Family = Family::histogram(
    "apiserver_request_sli_duration_seconds",
    Alpha,
    "How long requests take, without their wait for a seat.",
)
.by(PLACED);
pub(crate) const SIZES: Family =
    Family::histogram("apiserver_response_sizes", Stable, "Bytes of answers to reads.").by(PLACED);
pub(crate) const LONG_RUNNING: Family =
    Family::gauge("apiserver_longrunning_requests", Stable, "Long-running requests that go on.").by(PLACED);
pub(crate) const TERMINATIONS: Family = Family::counter(
    "apiserver_request_terminations_total",
    Alpha,
    "Requests that the server gave up to protect itself.",
)
.by(&["verb", "group", "version", "resource", "subresource", "scope", "component", "code"]);
pub(crate) const BODY_SIZE: Family =
    Family::histogram("apiserver_request_body_size_bytes", Alpha, "Bytes of request bodies.")
        .by(&["resource", "verb", "group"]);
pub(crate) const FIELD_VALIDATION: Family = Family::histogram(
    "field_validation_request_duration_seconds",
    Alpha,
    "How long writes take, by how unknown fields are treated.",
)
.by(&["field_validation"]);
pub(crate) const IN_FLIGHT: Family =
    Family::gauge("apiserver_current_inflight_requests", Stable, "Requests that run now.").by(&["request_kind"]);
pub(crate) const HANDSHAKE_ERRORS: Family = Family::counter(
    "apiserver_tls_handshake_errors_total",
    Alpha,
    "Connections that were dropped by an error of the TLS handshake.",
);
pub(crate) const WATCH_EVENTS: Family =
    Family::counter("apiserver_watch_events_total", Alpha, "Events sent to watchers.")
        .by(&["group", "version", "resource"]);
pub(crate) const WATCH_SIZES: Family =
    Family::histogram("apiserver_watch_events_sizes", Alpha, "Bytes of events sent to watchers.")
        .by(&["group", "version", "resource"]);
pub(crate) const FILTER: Family =
    Family::histogram("apiserver_request_filter_duration_seconds", Alpha, "How long the layers of a request take.")
        .by(&["filter"]);
pub(crate) const TERMINATED_WATCHERS: Family = Family::counter(
    "apiserver_terminated_watchers_total",
    Alpha,
    "Watches that were ended because their clients are too slow.",
)
.by(&["group", "resource"]);
pub(crate) const AUTHENTICATION: Family =
    Family::counter("authentication_attempts", Alpha, "Attempts to tell who asks.").by(&["result"]);
pub(crate) const AUTHENTICATION_TIME: Family =
    Family::histogram("authentication_duration_seconds", Alpha, "How long it takes to tell who asks.").by(&["result"]);
pub(crate) const USERS: Family =
    Family::counter("authenticated_user_requests", Alpha, "Requests by users of known names.").by(&["username"]);
pub(crate) const AUTHORIZATION: Family =
    Family::counter("authorization_attempts_total", Alpha, "Decisions whether somebody may.").by(&["result"]);
pub(crate) const AUTHORIZATION_TIME: Family =
    Family::histogram("authorization_duration_seconds", Alpha, "How long it takes to decide whether somebody may.")
        .by(&["result"]);
pub(crate) const IMPERSONATION: Family = Family::counter(
    "apiserver_impersonation_attempts_total",
    Alpha,
    "Attempts to act as another, by the mode that allowed it.",
)
.by(&["mode", "decision"]);
pub(crate) const IMPERSONATION_TIME: Family = Family::histogram(
    "apiserver_impersonation_attempts_duration_seconds",
    Alpha,
    "How long attempts to act as another take.",
)
.by(&["mode", "decision"]);
pub(crate) const IMPERSONATION_CHECKS: Family = Family::counter(
    "apiserver_impersonation_authorization_attempts_total",
    Alpha,
    "Questions that are asked because somebody acts as another.",
)
.by(&["mode", "decision"]);
pub(crate) const IMPERSONATION_CHECK_TIME: Family = Family::histogram(
    "apiserver_impersonation_authorization_attempts_duration_seconds",
    Alpha,
    "How long those questions take.",
)
.by(&["mode", "decision"]);
pub(crate) const HEALTH_CHECKS: Family =
    Family::counter("kubernetes_healthchecks_total", Stable, "Health checks by result.")
        .by(&["name", "type", "status"]);
pub(crate) const HEALTHY: Family =
    Family::gauge("kubernetes_healthcheck", Stable, "Whether the last health check passed.").by(&["name", "type"]);
pub(crate) const UNAVAILABLE: Family =
    Family::gauge("aggregator_unavailable_apiservice", Alpha, "Whether an aggregated API is not there.").by(&["name"]);
pub(crate) const DEPRECATED: Family = Family::gauge(
    "apiserver_requested_deprecated_apis",
    Stable,
    "Deprecated APIs that have been requested, with the release that removes them.",
)
.by(&["group", "version", "resource", "subresource", "removed_release"]);
pub(crate) const CERTIFICATES: Family = Family::histogram(
    "apiserver_client_certificate_expiration_seconds",
    Alpha,
    "Remaining lifetime of the certificates that authenticate requests.",
);
pub(crate) const DECISIONS: Family =
    Family::counter("apiserver_authorization_decisions_total", Alpha, "Decisions by authorizer.")
        .by(&["type", "name", "decision"]);
pub(crate) const CERTIFICATE_SECONDS: &[f64] = &[
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// See [`crate::measured::families`].
pub(crate) const FAMILIES: &[Family] = &[
    REQUESTS,
    DURATION,
    SLI,
    SIZES,
    LONG_RUNNING,
    TERMINATIONS,
    BODY_SIZE,
    FIELD_VALIDATION,
    IN_FLIGHT,
    HANDSHAKE_ERRORS,
    WATCH_EVENTS,
    WATCH_SIZES,
    FILTER,
    TERMINATED_WATCHERS,
    AUTHENTICATION,
    AUTHENTICATION_TIME,
    USERS,
    AUTHORIZATION,
    AUTHORIZATION_TIME,
    IMPERSONATION,
    IMPERSONATION_TIME,
    IMPERSONATION_CHECKS,
    IMPERSONATION_CHECK_TIME,
    HEALTH_CHECKS,
    HEALTHY,
    UNAVAILABLE,
    DEPRECATED,
    CERTIFICATES,
    DECISIONS,
];
