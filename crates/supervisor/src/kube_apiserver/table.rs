//! The flags of `ironkeel kube-apiserver`: upstream's names, and what comes of each.

use crate::flags::Effect::{Honoured, Nothing, Refused, RefusedUnless};
use crate::flags::Takes::{Bool, Commas, List, Value};
use crate::flags::{Effect, Flag, Takes};

const fn flag(name: &'static str, takes: Takes, effect: Effect, help: &'static str) -> Flag {
    Flag { name, takes, effect, help }
}

const GO: &str = "it tunes Go's runtime or its logging";
const CACHE: &str = "every resource has a watch cache of its own making";

pub(super) const TABLE: &[Flag] = &[
    // Store.
    flag("etcd-servers", Commas, Honoured, "etcd members, https://host:port; without it --data-dir holds the store"),
    flag("etcd-cafile", Value, Honoured, "Authorities that vouch for etcd"),
    flag("etcd-certfile", Value, Honoured, "Client certificate towards etcd"),
    flag("etcd-keyfile", Value, Honoured, "Its key"),
    flag("etcd-prefix", Value, Honoured, "What keys begin with [/registry]"),
    flag("etcd-compaction-interval", Value, Honoured, "Time between compactions; 0 for never [5m]"),
    flag("etcd-servers-overrides", Value, Refused("all resources live in one store"), "Other etcds for some resources"),
    flag("etcd-count-metric-poll-period", Value, Nothing("counts are exact at any time"), ""),
    flag("etcd-db-metric-poll-interval", Value, Nothing("sizes are exact at any time"), ""),
    flag("etcd-healthcheck-timeout", Value, Nothing("a check has its own limit"), ""),
    flag("etcd-readycheck-timeout", Value, Nothing("a check has its own limit"), ""),
    flag("lease-reuse-duration-seconds", Value, Nothing("leases of events are shared by time"), ""),
    flag("storage-backend", Value, RefusedUnless("etcd3", "there is no other protocol"), "etcd3"),
    flag("storage-media-type", Value, Nothing("objects are read in every form"), ""),
    flag("storage-initialization-timeout", Value, Nothing("the store answers or the start fails"), ""),
    flag("data-dir", Value, Honoured, "The embedded store and generated certificates, without --etcd-servers"),
    flag("encryption-provider-config", Value, Honoured, "EncryptionConfiguration for what is stored"),
    flag("encryption-provider-config-automatic-reload", Bool, RefusedUnless("false", "the file is read at start"), ""),
    flag("watch-cache", Bool, RefusedUnless("true", "there is no serving without it"), ""),
    flag("watch-cache-sizes", Commas, Nothing(CACHE), ""),
    flag("default-watch-cache-size", Value, Nothing(CACHE), ""),
    flag("delete-collection-workers", Value, Nothing("collections are deleted in parallel"), ""),
    flag("enable-garbage-collector", Bool, RefusedUnless("true", "finalizers of dependents are always kept"), ""),
    // Serving.
    flag("bind-address", Value, Honoured, "Where to listen [0.0.0.0]"),
    flag("secure-port", Value, Honoured, "Port [6443]"),
    flag("advertise-address", Value, Honoured, "Endpoint of the kubernetes Service [the one of the default route]"),
    flag("external-hostname", Value, Honoured, "Host name in discovery documents"),
    flag("cert-dir", Value, Honoured, "Where a generated serving certificate is kept [/var/run/kubernetes]"),
    flag("tls-cert-file", Value, Honoured, "Serving certificate"),
    flag("tls-private-key-file", Value, Honoured, "Its key"),
    flag("tls-sni-cert-key", List, Honoured, "cert,key[:name,…] for server names"),
    flag("tls-min-version", Value, Honoured, "VersionTLS12 or VersionTLS13"),
    flag("tls-cipher-suites", Commas, Honoured, "Allowed TLS 1.2 cipher suites"),
    flag("tls-curve-preferences", Commas, Nothing("rustls' groups are offered"), ""),
    flag("permit-address-sharing", Bool, Nothing("addresses are bound plainly"), ""),
    flag("permit-port-sharing", Bool, Honoured, "SO_REUSEPORT"),
    flag("http2-max-streams-per-connection", Value, Nothing("the limit is 1000"), ""),
    flag("disable-http2-serving", Bool, RefusedUnless("false", "HTTP/2 is always offered"), ""),
    flag("cors-allowed-origins", Commas, Refused("browsers of other origins are not served"), ""),
    flag("strict-transport-security-directives", Commas, Refused("no such header is sent"), ""),
    flag("goaway-chance", Value, Honoured, "Share of HTTP/2 requests that close their connection, up to 0.02 [0]"),
    flag("request-timeout", Value, Honoured, "Longest time for a request that is not long-running [1m]"),
    flag(
        "min-request-timeout",
        Value,
        RefusedUnless("1800", "watches without a time-out live 1800 to 3600 seconds"),
        "",
    ),
    flag("livez-grace-period", Value, Nothing("/livez tells the truth from the beginning"), ""),
    flag("shutdown-delay-duration", Value, Honoured, "How long to go on serving while /readyz fails [0]"),
    flag("shutdown-send-retry-after", Bool, Nothing("requests are finished, new connections refused"), ""),
    flag("shutdown-watch-termination-grace-period", Value, Nothing("watches end at once, politely"), ""),
    flag("send-retry-after-while-not-ready-once", Bool, Nothing("nothing is served before it is ready"), ""),
    flag("max-requests-inflight", Value, Honoured, "Reading requests at once [400]"),
    flag("max-mutating-requests-inflight", Value, Honoured, "Writing requests at once [200]"),
    flag("enable-priority-and-fairness", Bool, Honoured, "Divide seats by priority [true]"),
    flag("max-connection-bytes-per-sec", Value, RefusedUnless("0", "proxied connections are not throttled"), ""),
    flag("profiling", Bool, Nothing("there is no /debug/pprof"), ""),
    flag("contention-profiling", Bool, Nothing(GO), ""),
    flag("debug-socket-path", Value, Nothing("there is no /debug/pprof"), ""),
    flag("enable-logs-handler", Bool, Nothing("there is no /logs"), ""),
    flag("v", Value, Honoured, "Log level: 0 warnings, 2 information, 4 and more debugging"),
    flag("vmodule", Value, Nothing(GO), ""),
    flag("log-flush-frequency", Value, Nothing(GO), ""),
    flag("logging-format", Value, RefusedUnless("text", "logs are text"), ""),
    flag("log-json-info-buffer-size", Value, Nothing(GO), ""),
    flag("log-json-split-stream", Bool, Nothing(GO), ""),
    flag("log-text-info-buffer-size", Value, Nothing(GO), ""),
    flag("log-text-split-stream", Bool, Nothing(GO), ""),
    flag("tracing-config-file", Value, Refused("traces are not exported"), ""),
    flag("egress-selector-config-file", Value, Refused("connections go out directly"), ""),
    // Who.
    flag("client-ca-file", Value, Honoured, "Authorities of client certificates"),
    flag("anonymous-auth", Bool, Honoured, "Let requests without credentials in as system:anonymous [true]"),
    flag("token-auth-file", Value, Honoured, "Static tokens"),
    flag("enable-bootstrap-token-auth", Bool, Honoured, "Bootstrap tokens [false]"),
    flag("authentication-config", Value, Honoured, "AuthenticationConfiguration: JWT issuers, anonymous"),
    flag("authentication-token-webhook-config-file", Value, Honoured, "kubeconfig of a webhook for tokens"),
    flag("authentication-token-webhook-version", Value, Honoured, "v1 or v1beta1 [v1beta1]"),
    flag("authentication-token-webhook-cache-ttl", Value, Honoured, "How long its answers are kept [2m]"),
    flag("oidc-issuer-url", Value, Honoured, "Issuer of ID tokens"),
    flag("oidc-client-id", Value, Honoured, "The audience that they must be for"),
    flag("oidc-username-claim", Value, Honoured, "Claim with the user's name [sub]"),
    flag("oidc-username-prefix", Value, Honoured, "What is put before it; - for nothing"),
    flag("oidc-groups-claim", Value, Honoured, "Claim with groups"),
    flag("oidc-groups-prefix", Value, Honoured, "What is put before them"),
    flag("oidc-required-claim", Commas, Honoured, "key=value that tokens must have"),
    flag("oidc-signing-algs", Commas, Honoured, "Allowed algorithms [RS256]"),
    flag("oidc-ca-file", Value, Honoured, "Authorities of the issuer's server"),
    flag("requestheader-client-ca-file", Value, Honoured, "Authorities of front proxies"),
    flag("requestheader-allowed-names", Commas, Honoured, "Common names of front proxies"),
    flag("requestheader-username-headers", Commas, Honoured, "[X-Remote-User]"),
    flag("requestheader-uid-headers", Commas, Honoured, "[X-Remote-Uid]"),
    flag("requestheader-group-headers", Commas, Honoured, "[X-Remote-Group]"),
    flag("requestheader-extra-headers-prefix", Commas, Honoured, "[X-Remote-Extra-]"),
    flag("proxy-client-cert-file", Value, Honoured, "Client certificate towards extension API servers"),
    flag("proxy-client-key-file", Value, Honoured, "Its key"),
    flag("aggregator-reject-forwarding-redirect", Bool, Nothing("redirects are passed to the client"), ""),
    flag("enable-aggregator-routing", Bool, Nothing("extension API servers are reached at their endpoints"), ""),
    flag("service-account-issuer", List, Honoured, "Issuer of ServiceAccount tokens; the first one signs"),
    flag("service-account-key-file", List, Honoured, "Keys that verify them"),
    flag("service-account-signing-key-file", Value, Honoured, "The key that signs them"),
    flag("service-account-signing-endpoint", Value, Refused("tokens are signed in this process"), ""),
    flag("service-account-max-token-expiration", Value, Honoured, "Longest lifetime of a token"),
    flag("service-account-extend-token-expiration", Bool, Nothing("tokens live as long as they were asked for"), ""),
    flag("service-account-lookup", Bool, RefusedUnless("true", "accounts are always looked up"), ""),
    flag("service-account-jwks-uri", Value, Honoured, "Where the discovery document says the keys are"),
    flag("api-audiences", Commas, Honoured, "Audiences of this server [the first issuer]"),
    // May they.
    flag("authorization-mode", Commas, Honoured, "Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [AlwaysAllow]"),
    flag("authorization-webhook-config-file", Value, Honoured, "kubeconfig of a webhook for authorization"),
    flag("authorization-webhook-version", Value, Honoured, "v1 or v1beta1 [v1beta1]"),
    flag("authorization-webhook-cache-authorized-ttl", Value, Honoured, "[5m]"),
    flag("authorization-webhook-cache-unauthorized-ttl", Value, Honoured, "[30s]"),
    flag("authorization-config", Value, Refused("--authorization-mode says the modes"), ""),
    flag("authorization-policy-file", Value, Refused("there is no ABAC; use RBAC"), ""),
    // Should they.
    flag("enable-admission-plugins", Commas, Honoured, "Plugins besides those that are on"),
    flag("disable-admission-plugins", Commas, Honoured, "Plugins that are on otherwise"),
    flag("admission-control", Commas, Refused("use --enable-admission-plugins and --disable-admission-plugins"), ""),
    flag("admission-control-config-file", Value, Refused("plugins have no configuration files"), ""),
    flag("allow-privileged", Bool, RefusedUnless("true", "PodSecurity decides about privileged pods"), ""),
    // The cluster.
    flag("service-cluster-ip-range", Commas, Honoured, "Range of ClusterIPs [10.0.0.0/24]"),
    flag("service-node-port-range", Value, Honoured, "Range of NodePorts [30000-32767]"),
    flag("kubernetes-service-node-port", Value, RefusedUnless("0", "the kubernetes Service is a ClusterIP"), ""),
    flag("endpoint-reconciler-type", Value, Honoured, "lease or none [lease]"),
    flag("apiserver-count", Value, Nothing("replicas are counted by their leases"), ""),
    flag("event-ttl", Value, RefusedUnless("1h0m0s", "events live an hour"), ""),
    flag("kubelet-client-certificate", Value, Honoured, "Client certificate towards kubelets"),
    flag("kubelet-client-key", Value, Honoured, "Its key"),
    flag("kubelet-certificate-authority", Value, Honoured, "Authorities of kubelets; anybody's without it"),
    flag(
        "kubelet-preferred-address-types",
        Commas,
        Honoured,
        "[Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP]",
    ),
    flag("kubelet-port", Value, Nothing("Nodes say their port"), ""),
    flag("kubelet-timeout", Value, Nothing("connecting has a limit, streams have none"), ""),
    flag("kubelet-read-only-port", Value, Nothing("it is never used"), ""),
    flag("runtime-config", Commas, Honoured, "group/version=true|false, api/all|ga|beta|alpha=…"),
    flag(
        "runtime-config-emulation-forward-compatible",
        Bool,
        RefusedUnless("false", "one version is emulated: 1.36"),
        "",
    ),
    flag("emulation-forward-compatible", Bool, RefusedUnless("false", "one version is emulated: 1.36"), ""),
    flag("emulated-version", Commas, RefusedUnless("1.36", "one version is emulated: 1.36"), ""),
    flag("min-compatibility-version", Commas, Nothing("one version is emulated: 1.36"), ""),
    flag("feature-gates", Commas, Honoured, "Gate=true|false; unknown gates are refused"),
    flag("show-hidden-metrics-for-version", Value, Nothing("no metric is hidden"), ""),
    flag("disabled-metrics", Commas, Nothing("every metric is served"), ""),
    flag("allow-metric-labels", Commas, Nothing("labels are bounded"), ""),
    flag("allow-metric-labels-manifest", Value, Nothing("labels are bounded"), ""),
    flag("peer-advertise-ip", Value, Nothing("replicas serve the same versions"), ""),
    flag("peer-advertise-port", Value, Nothing("replicas serve the same versions"), ""),
    flag("peer-ca-file", Value, Nothing("replicas serve the same versions"), ""),
    flag("coordinated-leadership-lease-duration", Value, Nothing("leaders elect themselves"), ""),
    flag("coordinated-leadership-renew-deadline", Value, Nothing("leaders elect themselves"), ""),
    flag("coordinated-leadership-retry-period", Value, Nothing("leaders elect themselves"), ""),
    // Audit.
    flag("audit-policy-file", Value, Honoured, "Which requests are written, and how much of them"),
    flag("audit-log-path", Value, Honoured, "The log; - for stdout"),
    flag("audit-log-maxage", Value, Honoured, "Days that old logs are kept"),
    flag("audit-log-maxbackup", Value, Honoured, "How many old logs are kept"),
    flag("audit-log-maxsize", Value, Honoured, "Megabytes before the log is rotated"),
    flag("audit-log-compress", Bool, RefusedUnless("false", "old logs are not compressed"), ""),
    flag("audit-log-format", Value, RefusedUnless("json", "the log is JSON"), ""),
    flag("audit-log-mode", Value, Nothing("events are written in order"), ""),
    flag("audit-log-version", Value, RefusedUnless("audit.k8s.io/v1", "there is no other version"), ""),
    flag("audit-log-truncate-enabled", Bool, RefusedUnless("false", "events are written whole"), ""),
    flag("audit-webhook-config-file", Value, Refused("events go to a log"), ""),
];

/// What `--help` begins with.
pub(super) const ABOUT: &str = "The API server alone, with upstream's flags. It serves the Kubernetes API over TLS; \
its store is an etcd (--etcd-servers) or embedded (--data-dir).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_stands_once() {
        for (i, flag) in TABLE.iter().enumerate() {
            assert!(!TABLE[..i].iter().any(|f| f.name == flag.name), "--{} stands twice", flag.name);
        }
        assert!(TABLE.iter().any(|f| f.effect == Nothing(CACHE)));
    }
}
