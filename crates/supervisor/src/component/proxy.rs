//! `ironkeel kube-proxy`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use ipnet::Ipv4Net;
use ironkeel_cni::NodeRoutesConfig;
use ironkeel_journal::Journal;
use tokio_util::sync::CancellationToken;

use super::serving::{self, Told};
use super::{Component, required};
use crate::flags::Effect::{Honoured, Nothing, Refused, RefusedUnless};
use crate::flags::Takes::{Bool, Commas, Value};
use crate::flags::{Flag, FlagError, Given, flag, invalid};
use crate::instance::host_name;
use crate::kube_apiserver::shown;
use crate::{Error, Instance, preflight};

/// Upstream's ports.
const HEALTH_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;
const NFTABLES: &str = "nftables is the only mode";
const CONNTRACK: &str = "the kernel's connection tracking is left as it is";

pub(super) const TABLE: &[Flag] = &[
    flag("hostname-override", Value, Honoured, "Name of this node [the host's name]"),
    flag("cluster-cidr", Value, Honoured, "All pods' addresses; needs --service-cluster-ip-range"),
    flag("service-cluster-ip-range", Value, Honoured, "Services' addresses: those without endpoints are refused"),
    flag("data-dir", Value, Honoured, "Where what is made on this host is written down [/var/lib/ironkeel-proxy]"),
    flag("node-routes", Bool, Honoured, "Also keep routes to the pods of other nodes [false]"),
    flag("master", Value, Refused("the kubeconfig names the server"), ""),
    flag("config", Value, Refused("flags say all of it"), "KubeProxyConfiguration"),
    flag("write-config-to", Value, Refused("there is no configuration file"), ""),
    flag("proxy-mode", Value, RefusedUnless("nftables", NFTABLES), ""),
    flag("detect-local-mode", Value, RefusedUnless("ClusterCIDR", "--cluster-cidr tells who is local"), ""),
    flag("bind-address", Value, Nothing("node ports are open on every address"), ""),
    flag("bind-address-hard-fail", Bool, Nothing("a port that is taken ends the process"), ""),
    flag("cleanup", Bool, RefusedUnless("false", "`ironkeel reset --data-dir …` cleans up"), ""),
    flag("config-sync-period", Value, Nothing("changes are watched"), ""),
    flag("conntrack-max-per-core", Value, Nothing(CONNTRACK), ""),
    flag("conntrack-min", Value, Nothing(CONNTRACK), ""),
    flag("conntrack-tcp-be-liberal", Bool, Nothing(CONNTRACK), ""),
    flag("conntrack-tcp-timeout-close-wait", Value, Nothing(CONNTRACK), ""),
    flag("conntrack-tcp-timeout-established", Value, Nothing(CONNTRACK), ""),
    flag("conntrack-udp-timeout", Value, Nothing(CONNTRACK), ""),
    flag("conntrack-udp-timeout-stream", Value, Nothing(CONNTRACK), ""),
    flag(
        "healthz-bind-address",
        Value,
        Honoured,
        "Where /healthz and /livez are served; empty for nowhere [0.0.0.0:10256]",
    ),
    flag("healthz-port", Value, Honoured, "Its port; 0 for none [10256]"),
    flag("metrics-bind-address", Value, Honoured, "Where /metrics is served; empty for nowhere [127.0.0.1:10249]"),
    flag("metrics-port", Value, Honoured, "Its port; 0 for none [10249]"),
    flag("init-only", Bool, RefusedUnless("false", "nothing has to be prepared"), ""),
    flag("iptables-localhost-nodeports", Bool, Nothing(NFTABLES), ""),
    flag("iptables-masquerade-bit", Value, Nothing(NFTABLES), ""),
    flag("iptables-min-sync-period", Value, Nothing(NFTABLES), ""),
    flag("iptables-sync-period", Value, Nothing(NFTABLES), ""),
    flag("ipvs-exclude-cidrs", Commas, Nothing(NFTABLES), ""),
    flag("ipvs-min-sync-period", Value, Nothing(NFTABLES), ""),
    flag("ipvs-scheduler", Value, Nothing(NFTABLES), ""),
    flag("ipvs-strict-arp", Bool, Nothing(NFTABLES), ""),
    flag("ipvs-sync-period", Value, Nothing(NFTABLES), ""),
    flag("ipvs-tcp-timeout", Value, Nothing(NFTABLES), ""),
    flag("ipvs-tcpfin-timeout", Value, Nothing(NFTABLES), ""),
    flag("ipvs-udp-timeout", Value, Nothing(NFTABLES), ""),
    flag("masquerade-all", Bool, RefusedUnless("false", "pods keep their addresses"), ""),
    flag("nodeport-addresses", Commas, Refused("node ports are open on every address"), ""),
    flag("oom-score-adj", Value, Nothing("the process keeps its score"), ""),
    flag("pod-bridge-interface", Value, Refused("--cluster-cidr tells who is local"), ""),
    flag("pod-interface-name-prefix", Value, Refused("--cluster-cidr tells who is local"), ""),
    flag("profiling", Bool, Nothing("there is no /debug/pprof"), ""),
    flag("show-hidden-metrics-for-version", Value, Nothing("no metric is hidden"), ""),
];

/// What the command was given.
pub(super) struct ProxyOptions {
    kubeconfig: PathBuf,
    data_dir: PathBuf,
    node_name: String,
    service_cidr: Option<Ipv4Net>,
    cluster_cidr: Option<Ipv4Net>,
    node_routes: bool,
    health: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    told: Arc<Told>,
}

/// Where one of the plain servers listens: `host:port`, `host`, or nothing at all.
fn address(
    given: &Given,
    flags: (&'static str, &'static str),
    usual: (IpAddr, u16),
) -> Result<Option<SocketAddr>, FlagError> {
    let port = given.parsed(flags.1, usual.1)?;
    let address = match given.all(flags.0).last().map(String::as_str) {
        Some("") => return Ok(None),
        Some(text) => match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => address,
            (Err(_), Ok(ip)) => SocketAddr::new(ip, port),
            (Err(_), Err(_)) => return Err(invalid(flags.0, text, "must be an IP address with a port")),
        },
        None => SocketAddr::new(usual.0, port),
    };
    Ok(Some(address).filter(|a| a.port() != 0))
}

pub(super) fn options(given: &Given, table: &[Flag]) -> Result<ProxyOptions, FlagError> {
    let range = |flag: &'static str| {
        given.text(flag).map(|_| given.parsed(flag, Ipv4Net::default()).map(|net| net.trunc())).transpose()
    };
    Ok(ProxyOptions {
        kubeconfig: required(given, "kubeconfig")?,
        data_dir: given.text("data-dir").unwrap_or("/var/lib/ironkeel-proxy").into(),
        node_name: given.text("hostname-override").map_or_else(host_name, str::to_lowercase),
        service_cidr: range("service-cluster-ip-range")?,
        cluster_cidr: range("cluster-cidr")?,
        node_routes: given.switch("node-routes", false),
        health: address(given, ("healthz-bind-address", "healthz-port"), ([0, 0, 0, 0].into(), HEALTH_PORT))?,
        metrics: address(given, ("metrics-bind-address", "metrics-port"), ([127, 0, 0, 1].into(), METRICS_PORT))?,
        told: Told::new(Component::Proxy.name(), false, shown(given, table)),
    })
}

pub(super) async fn run(options: ProxyOptions, shutdown: CancellationToken) -> Result<(), Error> {
    preflight::check_host()?;
    let instance = Instance::of(&options.data_dir)?;
    ironkeel_auth::pki::create_private_dir(&instance.dir)?;
    let _lock = preflight::lock(&instance.dir)?;
    let journal = Journal::open(&instance.journal())?;
    let told = options.told.clone();
    if let Some(address) = options.health {
        serving::start_plain(address, health, &shutdown).await?;
    }
    if let Some(address) = options.metrics {
        let answer = move |request: &Request<Incoming>| match request.uri().path() {
            "/proxyMode" => serving::text(StatusCode::OK, "nftables"),
            _ => serving::respond(&told, request),
        };
        serving::start_plain(address, answer, &shutdown).await?;
    }
    let client = ironkeel_client::from_kubeconfig(&options.kubeconfig).await?;
    let config = ironkeel_proxy::Config {
        node_name: options.node_name.clone(),
        service_cidr: options.service_cidr,
        cluster_cidr: options.cluster_cidr,
        table: instance.name.clone(),
        anchor_link: None,
        journal: journal.clone(),
    };
    let proxy = ironkeel_proxy::run(config, client.clone(), shutdown.clone());
    let proxy = async { proxy.await.map_err(|e| Error::Component { component: "kube-proxy", reason: e.to_string() }) };
    let routes = async {
        if !options.node_routes {
            return Ok(());
        }
        let config = NodeRoutesConfig { node_name: options.node_name.clone(), journal: journal.clone() };
        ironkeel_cni::follow_nodes(config, client.clone(), shutdown.clone()).await.map_err(Error::from)
    };
    tokio::try_join!(proxy, routes).map(drop)
}

/// `/healthz` and `/livez`, in upstream's JSON: the proxy is well as long as it runs, since a failure to write its rules
/// ends it.
fn health(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    // Whether the node is one for traffic is said to load balancers alone.
    let eligible = match request.uri().path() {
        "/healthz" => "\"nodeEligible\":true,",
        "/livez" => "",
        _ => return serving::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let now = jiff::Timestamp::now();
    let body = format!("{{\"lastUpdated\":\"{now}\",\"currentTime\":\"{now}\",{eligible}\"healthy\":true}}");
    let mut response = serving::text(StatusCode::OK, body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
