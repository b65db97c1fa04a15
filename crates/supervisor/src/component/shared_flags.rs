//! Flags that several components have: logging, the client, leader election, the server.

use crate::flags::Effect::{Honoured, Nothing, Refused, RefusedUnless};
use crate::flags::Takes::{Bool, Commas, List, Value};
use crate::flags::{Flag, flag};

const GO: &str = "it tunes Go's runtime or its logging";
const ASKED: &str = "every request is asked about";
const PROXIES: &str = "front proxies may not name users here";

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

/// The server of a component.
pub(super) const SERVING: &[Flag] = &[
    flag("authentication-kubeconfig", Value, Honoured, "Who reviews tokens; without it tokens are nobody's"),
    flag(
        "authentication-skip-lookup",
        Bool,
        Honoured,
        "Do not look for the authorities of clients in the cluster [false]",
    ),
    flag("authentication-token-webhook-cache-ttl", Value, Nothing(ASKED), ""),
    flag("authentication-tolerate-lookup-failure", Bool, Honoured, "Go on where they are not found [true]"),
    flag("authorization-always-allow-paths", Commas, Honoured, "Paths for everybody [/healthz,/readyz,/livez]"),
    flag("authorization-kubeconfig", Value, Honoured, "Who reviews accesses; without it only those paths are served"),
    flag("authorization-webhook-cache-authorized-ttl", Value, Nothing(ASKED), ""),
    flag("authorization-webhook-cache-unauthorized-ttl", Value, Nothing(ASKED), ""),
    flag("bind-address", Value, Honoured, "Where to listen [0.0.0.0]"),
    flag("secure-port", Value, Honoured, "Port; 0 for none"),
    flag("cert-dir", Value, Honoured, "Where a generated certificate is kept; in memory without it"),
    flag("client-ca-file", Value, Honoured, "Authorities of client certificates"),
    flag("disable-http2-serving", Bool, RefusedUnless("false", "HTTP/2 is always offered"), ""),
    flag("http2-max-streams-per-connection", Value, Nothing("hyper's limit holds"), ""),
    flag("permit-address-sharing", Bool, Nothing("addresses are bound plainly"), ""),
    flag("permit-port-sharing", Bool, RefusedUnless("false", "the port is this process's own"), ""),
    flag("requestheader-allowed-names", Commas, Nothing(PROXIES), ""),
    flag("requestheader-client-ca-file", Value, Nothing(PROXIES), ""),
    flag("requestheader-extra-headers-prefix", Commas, Nothing(PROXIES), ""),
    flag("requestheader-group-headers", Commas, Nothing(PROXIES), ""),
    flag("requestheader-uid-headers", Commas, Nothing(PROXIES), ""),
    flag("requestheader-username-headers", Commas, Nothing(PROXIES), ""),
    flag("tls-cert-file", Value, Honoured, "Serving certificate"),
    flag("tls-private-key-file", Value, Honoured, "Its key"),
    flag("tls-cipher-suites", Commas, Honoured, "Allowed TLS 1.2 cipher suites"),
    flag("tls-curve-preferences", Commas, Nothing("rustls' groups are offered"), ""),
    flag("tls-min-version", Value, Honoured, "VersionTLS12 or VersionTLS13"),
    flag("tls-sni-cert-key", List, Refused("there is one serving certificate"), ""),
    flag("show-hidden-metrics-for-version", Value, Nothing("no metric is hidden"), ""),
];
