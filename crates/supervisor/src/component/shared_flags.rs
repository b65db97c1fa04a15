//! Flags that several components have: logging, the client, leader election, the server that is not here.

use crate::flags::Effect::{Honoured, Nothing, Refused, RefusedUnless};
use crate::flags::Takes::{Bool, Commas, List, Value};
use crate::flags::{Flag, flag};

const GO: &str = "it tunes Go's runtime or its logging";
const NO_SERVER: &str = "this component has no server of its own: neither /healthz nor /metrics";

/// Logging and gates.
pub(super) const LOGGING: &[Flag] = &[
    flag("v", Value, Honoured, "Log level: 0 warnings, 2 information, 4 and more debugging"),
    flag("vmodule", Value, Nothing(GO), ""),
    flag("log-flush-frequency", Value, Nothing(GO), ""),
    flag("logging-format", Value, RefusedUnless("text", "logs are text"), ""),
    flag("log-json-info-buffer-size", Value, Nothing(GO), ""),
    flag("log-json-split-stream", Bool, Nothing(GO), ""),
    flag("log-text-info-buffer-size", Value, Nothing(GO), ""),
    flag("log-text-split-stream", Bool, Nothing(GO), ""),
    flag("feature-gates", Commas, Honoured, "Gate=true|false; unknown gates are refused"),
];

/// The client of the API.
pub(super) const CLIENT: &[Flag] = &[
    flag("kubeconfig", Value, Honoured, "Server and identity"),
    flag("kube-api-burst", Value, Nothing("requests are not throttled by their sender"), ""),
    flag("kube-api-qps", Value, Nothing("requests are not throttled by their sender"), ""),
    flag("kube-api-content-type", Value, Nothing("the API is read as JSON"), ""),
];

/// Leader election.
pub(super) const LEADING: &[Flag] = &[
    flag("master", Value, Refused("the kubeconfig names the server"), ""),
    flag("leader-elect", Bool, Honoured, "Work only while holding the lease [true]"),
    flag("leader-elect-lease-duration", Value, Honoured, "How long a lease that nobody renews keeps others out [15s]"),
    flag("leader-elect-renew-deadline", Value, Honoured, "How long the leader tries to renew [10s]"),
    flag("leader-elect-retry-period", Value, Honoured, "Time between two tries [2s]"),
    flag("leader-elect-resource-lock", Value, RefusedUnless("leases", "leases are the only lock"), ""),
    flag("leader-elect-resource-name", Value, Honoured, "The lease [the component's name]"),
    flag("leader-elect-resource-namespace", Value, Honoured, "Its namespace [kube-system]"),
    flag("contention-profiling", Bool, Nothing(GO), ""),
    flag("profiling", Bool, Nothing("there is no /debug/pprof"), ""),
    flag("emulated-version", Commas, RefusedUnless("1.36", "one version is emulated: 1.36"), ""),
    flag("unsupported-kube-api-over-localhost", Bool, RefusedUnless("false", "the kubeconfig names the server"), ""),
];

/// Upstream's own server of a component.
pub(super) const SERVING: &[Flag] = &[
    flag("authentication-kubeconfig", Value, Nothing(NO_SERVER), ""),
    flag("authentication-skip-lookup", Bool, Nothing(NO_SERVER), ""),
    flag("authentication-token-webhook-cache-ttl", Value, Nothing(NO_SERVER), ""),
    flag("authentication-tolerate-lookup-failure", Bool, Nothing(NO_SERVER), ""),
    flag("authorization-always-allow-paths", Commas, Nothing(NO_SERVER), ""),
    flag("authorization-kubeconfig", Value, Nothing(NO_SERVER), ""),
    flag("authorization-webhook-cache-authorized-ttl", Value, Nothing(NO_SERVER), ""),
    flag("authorization-webhook-cache-unauthorized-ttl", Value, Nothing(NO_SERVER), ""),
    flag("bind-address", Value, Nothing(NO_SERVER), ""),
    flag("secure-port", Value, Nothing(NO_SERVER), ""),
    flag("cert-dir", Value, Nothing(NO_SERVER), ""),
    flag("client-ca-file", Value, Nothing(NO_SERVER), ""),
    flag("disable-http2-serving", Bool, Nothing(NO_SERVER), ""),
    flag("http2-max-streams-per-connection", Value, Nothing(NO_SERVER), ""),
    flag("permit-address-sharing", Bool, Nothing(NO_SERVER), ""),
    flag("permit-port-sharing", Bool, Nothing(NO_SERVER), ""),
    flag("requestheader-allowed-names", Commas, Nothing(NO_SERVER), ""),
    flag("requestheader-client-ca-file", Value, Nothing(NO_SERVER), ""),
    flag("requestheader-extra-headers-prefix", Commas, Nothing(NO_SERVER), ""),
    flag("requestheader-group-headers", Commas, Nothing(NO_SERVER), ""),
    flag("requestheader-uid-headers", Commas, Nothing(NO_SERVER), ""),
    flag("requestheader-username-headers", Commas, Nothing(NO_SERVER), ""),
    flag("tls-cert-file", Value, Nothing(NO_SERVER), ""),
    flag("tls-private-key-file", Value, Nothing(NO_SERVER), ""),
    flag("tls-cipher-suites", Commas, Nothing(NO_SERVER), ""),
    flag("tls-curve-preferences", Commas, Nothing(NO_SERVER), ""),
    flag("tls-min-version", Value, Nothing(NO_SERVER), ""),
    flag("tls-sni-cert-key", List, Nothing(NO_SERVER), ""),
    flag("show-hidden-metrics-for-version", Value, Nothing(NO_SERVER), ""),
];
