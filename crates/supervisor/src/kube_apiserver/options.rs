//! From flags to the API server's configuration: files are read, values checked, and what does not
//! fit is named by its flag.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ironkeel_apiserver::{ClientIdentity, Config, DelegatesConfig, InFlightLimits, ServedVersions, WebhookConfig};
use ironkeel_auth::{AuthenticatorConfig, RequestHeaderConfig, ServiceAccountIssuer};

use super::dynamic::{Files, service_account_keys};
use super::gates::GATES;
use super::observing;
use super::reload::Reload;
use crate::engine::StoreOptions;
use crate::flags::{FlagError, Given, invalid};
use crate::network;

/// Upstream's `--service-cluster-ip-range` where none is given.
const SERVICE_RANGE: &str = "10.0.0.0/24";

/// Everything that the command needs.
pub(super) struct Options {
    pub(super) store: StoreOptions,
    pub(super) listen: SocketAddr,
    pub(super) share_port: bool,
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) config: Config,
    /// The file, and whether it is read again when it changes.
    pub(super) encryption: Option<(PathBuf, bool)>,
    /// What is read again when it changes, once there is a server to tell.
    pub(super) files: Files,
    pub(super) reload: Reload,
    pub(super) notes: Vec<String>,
}

fn read(flag: &'static str, path: &str) -> Result<String, FlagError> {
    std::fs::read_to_string(path).map_err(|e| invalid(flag, path, e.to_string()))
}

pub(super) fn optional(given: &Given, flag: &'static str) -> Result<Option<String>, FlagError> {
    given.text(flag).map(|path| read(flag, path)).transpose()
}

fn identity(given: &Given, cert: &'static str, key: &'static str) -> Result<Option<ClientIdentity>, FlagError> {
    match (given.text(cert), given.text(key)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(k)) => {
            let pem = read(cert, certificate)?;
            ClientIdentity::from_pem(pem.as_bytes(), read(key, k)?.as_bytes())
                .map(Some)
                .map_err(|e| invalid(cert, certificate, e))
        }
        (Some(_), None) => Err(FlagError::Required(key)),
        (None, Some(_)) => Err(FlagError::Required(cert)),
    }
}

/// Reads everything that the flags name.
pub(super) fn options(given: &Given) -> Result<Options, FlagError> {
    let mut notes = given.notes.clone();
    let mut reload = Reload::default();
    feature_gates(given, HONOURED_GATES, &mut notes)?;
    super::egress::selections(given)?;
    let versions = runtime_config(given)?;
    let listen =
        SocketAddr::new(given.parsed("bind-address", IpAddr::from([0, 0, 0, 0]))?, given.parsed("secure-port", 6443)?);
    let advertise = match given.text("advertise-address") {
        Some(_) => given.parsed("advertise-address", listen.ip())?,
        None if !listen.ip().is_unspecified() => listen.ip(),
        None => network::node_ip().unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    let (service_cidr, secondary, first) = service_ranges(given)?;
    let tls = super::serving::tls(given, advertise, first, &mut notes, &mut reload)?;
    let (authenticator, issuer) = tokens(given)?;
    let mut config = Config::new(authenticator, issuer);
    config.advertise_address = advertise;
    config.secure_port = listen.port();
    config.service_cidr = service_cidr;
    config.secondary_service_cidr = secondary;
    config.versions = versions;
    config.cbor = gate(given, CBOR_GATE);
    config.route_to_endpoints = given.switch("enable-aggregator-routing", false);
    config.node_ports = node_ports(given)?;
    config.client_ca_pem = optional(given, "client-ca-file")?.unwrap_or_default();
    config.request_header = front_proxies(given)?;
    config.proxy_client = identity(given, "proxy-client-cert-file", "proxy-client-key-file")?.map(Arc::new);
    config.kubelet_tls = Some(kubelets(given)?);
    let types = given.all("kubelet-preferred-address-types");
    config.kubelet_address_types = if types.is_empty() {
        ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"].map(str::to_owned).into()
    } else {
        types.to_vec()
    };
    let chain = super::authorization::chain(given, &mut config)?;
    let issuers = super::authentication::issuers(given, &mut config)?;
    config.delegates =
        Arc::new(DelegatesConfig { tokens: token_webhook(given)?, chain, issuers, ..DelegatesConfig::default() });
    let plugins = config.admission.plugins;
    let (on, off) = (given.all("enable-admission-plugins"), given.all("disable-admission-plugins"));
    config.admission.plugins =
        plugins.with_flags(on, off).map_err(|e| invalid("enable-admission-plugins", &on.join(","), e.to_string()))?;
    let file = given.text("admission-control-config-file");
    let unusable =
        |e: &dyn std::fmt::Display| invalid("admission-control-config-file", file.unwrap_or_default(), e.to_string());
    config.admission.configure(file.map(std::path::Path::new)).map_err(|e| unusable(&e))?;
    config.request_timeout = given.duration("request-timeout", Duration::from_secs(60))?;
    config.shutdown_delay = given.duration("shutdown-delay-duration", Duration::ZERO)?;
    config.goaway_chance = given.parsed("goaway-chance", 0.0)?;
    if !(0.0..=0.02).contains(&config.goaway_chance) {
        let value = given.text("goaway-chance").unwrap_or_default();
        return Err(invalid("goaway-chance", value, "must be within [0, 0.02]"));
    }
    let reading = given.parsed("max-requests-inflight", ironkeel_apiserver::MAX_READING_IN_FLIGHT)?;
    let mutating = given.parsed("max-mutating-requests-inflight", ironkeel_apiserver::MAX_MUTATING_IN_FLIGHT)?;
    if given.switch("enable-priority-and-fairness", true) {
        if reading + mutating == 0 {
            let why = "--max-requests-inflight and --max-mutating-requests-inflight must not both be 0 with priority and fairness";
            return Err(invalid("max-requests-inflight", "0", why));
        }
        config.seats = reading + mutating;
    } else {
        config.in_flight_limits = Some(InFlightLimits { reading, mutating });
    }
    let seconds = given.parsed("min-request-timeout", config.min_request_timeout.as_secs())?;
    config.min_request_timeout = Duration::from_secs(seconds);
    config.external_host = given.text("external-hostname").map(|h| format!("{h}:{}", listen.port()));
    config.reconcile_endpoints = match given.text("endpoint-reconciler-type") {
        None | Some("lease" | "master-count") => true,
        Some("none") => false,
        Some(other) => return Err(invalid("endpoint-reconciler-type", other, "must be lease or none")),
    };
    config.hostname = nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    config.audit = observing::audit(given)?;
    config.tracing = observing::tracing(given, &config.hostname)?;
    config.features = observing::features();
    for feature in config.features.iter_mut().filter(|f| HONOURED_GATES.contains(&f.name)) {
        feature.enabled = gate(given, feature.name);
    }
    config.flags = observing::shown(given, super::table::TABLE);
    Ok(Options {
        store: store(given)?,
        listen,
        share_port: given.switch("permit-port-sharing", false),
        tls,
        config,
        encryption: encryption(given)?,
        files: Files::of(given),
        reload,
        notes,
    })
}

fn encryption(given: &Given) -> Result<Option<(PathBuf, bool)>, FlagError> {
    const FILE: &str = "encryption-provider-config";
    let again = given.switch("encryption-provider-config-automatic-reload", false);
    match given.text(FILE) {
        Some(path) => Ok(Some((PathBuf::from(path), again))),
        None if again => Err(FlagError::Required(FILE)),
        None => Ok(None),
    }
}

fn store(given: &Given) -> Result<StoreOptions, FlagError> {
    let endpoints = given.all("etcd-servers");
    if endpoints.is_empty() {
        let dir = given.text("data-dir").ok_or(FlagError::Required("etcd-servers"))?;
        return Ok(StoreOptions::Embedded(PathBuf::from(dir)));
    }
    let path = |flag| given.text(flag).map(PathBuf::from);
    let defaults = ironkeel_etcd::Config::default();
    Ok(StoreOptions::Etcd(ironkeel_etcd::Config {
        endpoints: endpoints.to_vec(),
        ca: path("etcd-cafile"),
        cert: path("etcd-certfile"),
        key: path("etcd-keyfile"),
        prefix: given.text("etcd-prefix").map_or(defaults.prefix, str::to_owned),
        compaction_interval: given.duration("etcd-compaction-interval", defaults.compaction_interval)?,
        ..ironkeel_etcd::Config::default()
    }))
}

/// The range of ClusterIPs, one of the other family where there is, and the first address.
type Ranges = ((IpAddr, u8), Option<(IpAddr, u8)>, IpAddr);

fn service_ranges(given: &Given) -> Result<Ranges, FlagError> {
    const FLAG: &str = "service-cluster-ip-range";
    let all = given.all(FLAG);
    let wrong = |why: &str| invalid(FLAG, &all.join(","), why);
    let range = |text: &str| {
        let net: ipnet::IpNet = text.parse().map_err(|_| wrong("must be a CIDR such as 10.96.0.0/12"))?;
        Ok(net.trunc())
    };
    let net = range(all.first().map_or(SERVICE_RANGE, String::as_str))?;
    let second = match all {
        [] | [_] => None,
        [_, second] => Some(range(second)?),
        _ => return Err(wrong("must be one range, or one of each family")),
    };
    if second.is_some_and(|s| s.addr().is_ipv4() == net.addr().is_ipv4()) {
        return Err(wrong("must be one range, or one of each family"));
    }
    let first = net.hosts().next().unwrap_or_else(|| net.network());
    Ok(((net.network(), net.prefix_len()), second.map(|s| (s.network(), s.prefix_len())), first))
}

fn node_ports(given: &Given) -> Result<std::ops::RangeInclusive<u16>, FlagError> {
    const FLAG: &str = "service-node-port-range";
    let Some(text) = given.text(FLAG) else { return Ok(30_000..=32_767) };
    let wrong = || invalid(FLAG, text, "must be a range such as 30000-32767");
    let (low, high) = match (text.split_once('-'), text.split_once('+')) {
        (Some((low, high)), _) => (low.parse().map_err(|_| wrong())?, high.parse::<u16>().map_err(|_| wrong())?),
        (None, Some((low, size))) => {
            let low: u16 = low.parse().map_err(|_| wrong())?;
            (low, low.checked_add(size.parse().map_err(|_| wrong())?).ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    };
    if low == 0 || low > high { Err(wrong()) } else { Ok(low..=high) }
}

fn front_proxies(given: &Given) -> Result<Option<RequestHeaderConfig>, FlagError> {
    let Some(pem) = optional(given, "requestheader-client-ca-file")? else { return Ok(None) };
    let mut config = RequestHeaderConfig::new(pem, given.all("requestheader-allowed-names").to_vec());
    for (flag, into) in [
        ("requestheader-username-headers", &mut config.username_headers),
        ("requestheader-uid-headers", &mut config.uid_headers),
        ("requestheader-group-headers", &mut config.group_headers),
        ("requestheader-extra-headers-prefix", &mut config.extra_header_prefixes),
    ] {
        if !given.all(flag).is_empty() {
            *into = given.all(flag).to_vec();
        }
    }
    Ok(Some(config))
}

fn kubelets(given: &Given) -> Result<Arc<rustls::ClientConfig>, FlagError> {
    const CA: &str = "kubelet-certificate-authority";
    let own = identity(given, "kubelet-client-certificate", "kubelet-client-key")?;
    let ca = optional(given, CA)?;
    ironkeel_apiserver::kubelet_tls(ca.as_deref().map(str::as_bytes), own.as_ref())
        .map_err(|e| invalid(CA, given.text(CA).unwrap_or_default(), e))
}

/// How tokens are verified and signed.
fn tokens(given: &Given) -> Result<(AuthenticatorConfig, ServiceAccountIssuer), FlagError> {
    let issuers = given.all("service-account-issuer").to_vec();
    let first = issuers.first().cloned().ok_or(FlagError::Required("service-account-issuer"))?;
    let (key, keys) = service_account_keys(given)?;
    let audiences = match given.all("api-audiences") {
        [] => vec![first.clone()],
        all => all.to_vec(),
    };
    let mut issuer = ServiceAccountIssuer::new(first, audiences.clone(), key, keys.clone());
    let longest = given.duration("service-account-max-token-expiration", Duration::ZERO)?;
    if !longest.is_zero() {
        if longest < Duration::from_secs(3600) {
            let value = given.text("service-account-max-token-expiration").unwrap_or_default();
            return Err(invalid("service-account-max-token-expiration", value, "must be at least 1h"));
        }
        issuer = issuer.limited_to(longest.as_secs() as i64);
    }
    if let Some(uri) = given.text("service-account-jwks-uri") {
        issuer = issuer.with_jwks_uri(uri);
    }
    let authenticator = AuthenticatorConfig {
        issuers,
        keys,
        api_audiences: audiences,
        static_tokens: optional(given, "token-auth-file")?,
        anonymous: given.switch("anonymous-auth", true),
        bootstrap_tokens: given.switch("enable-bootstrap-token-auth", false),
        ..AuthenticatorConfig::default()
    };
    Ok((authenticator, issuer))
}

fn webhook(given: &Given, flag: &'static str, version: &'static str) -> Result<Option<WebhookConfig>, FlagError> {
    let Some(path) = given.text(flag) else { return Ok(None) };
    let mut config = WebhookConfig::from_kubeconfig(Path::new(path)).map_err(|e| invalid(flag, path, e))?;
    match given.text(version) {
        None => {}
        Some(v @ ("v1" | "v1beta1")) => config.version = v.to_owned(),
        Some(other) => return Err(invalid(version, other, "must be v1 or v1beta1")),
    }
    Ok(Some(config))
}

fn token_webhook(given: &Given) -> Result<Option<WebhookConfig>, FlagError> {
    let found = webhook(given, "authentication-token-webhook-config-file", "authentication-token-webhook-version")?;
    let Some(mut config) = found else { return Ok(None) };
    config.yes_ttl = given.duration("authentication-token-webhook-cache-ttl", Duration::from_secs(120))?;
    config.no_ttl = config.yes_ttl.min(config.no_ttl);
    Ok(Some(config))
}

/// Whether CBOR is served and stored.
const CBOR_GATE: &str = "CBORServingAndStorage";
/// Those that do something here; the second lets objects be deleted that cannot be read.
const HONOURED_GATES: &[&str] = &[CBOR_GATE, "AllowUnsafeMalformedObjectDeletion"];
/// Whether the controllers migrate storage versions.
pub(crate) const MIGRATOR_GATE: &str = "StorageVersionMigrator";

/// Whether a gate that is off by default is on: what is said of it last counts.
pub(crate) fn gate(given: &Given, gate: &str) -> bool {
    let pairs = given.all("feature-gates").iter().rev().filter_map(|pair| pair.rsplit_once('='));
    let mut said = pairs.filter(|(name, _)| name.rsplit_once(':').map_or(*name, |n| n.1).trim() == gate);
    said.next().is_some_and(|(_, value)| matches!(value.trim(), "true" | "1" | "t"))
}

/// Known gates are taken note of; a change of a default of others than the `honoured` is said to have no effect.
pub(crate) fn feature_gates(given: &Given, honoured: &[&str], notes: &mut Vec<String>) -> Result<(), FlagError> {
    const FLAG: &str = "feature-gates";
    for pair in given.all(FLAG) {
        let (name, value) =
            pair.rsplit_once('=').ok_or_else(|| invalid(FLAG, pair, format!("missing bool value for {pair}")))?;
        // `component:Gate=true` is the form of several components in one flag.
        let name = name.rsplit_once(':').map_or(name, |(_, n)| n).trim();
        let on = match value.trim() {
            "true" | "1" | "t" => true,
            "false" | "0" | "f" => false,
            other => return Err(invalid(FLAG, pair, format!("invalid value of {name}={other}"))),
        };
        if matches!(name, "AllAlpha" | "AllBeta") {
            notes.push(format!("--feature-gates={pair} has no effect: what is here is always on"));
            continue;
        }
        let gate = GATES.binary_search_by(|g| g.0.cmp(name)).ok().map(|i| GATES[i]);
        let Some((_, default, locked, _)) = gate else {
            return Err(invalid(FLAG, pair, format!("unrecognized feature gate: {name}")));
        };
        if on != default && locked {
            let why = format!("cannot set feature gate {name} to {on}, feature is locked to {default}");
            return Err(invalid(FLAG, pair, why));
        }
        if on != default && !honoured.contains(&name) {
            notes.push(format!("--feature-gates={pair} has no effect: what is here is always on, the rest absent"));
        }
    }
    Ok(())
}

/// The versions that are served; what is asked for must be here.
fn runtime_config(given: &Given) -> Result<ServedVersions, FlagError> {
    const FLAG: &str = "runtime-config";
    let pairs = given.all(FLAG).iter().map(String::as_str);
    ServedVersions::chosen(pairs).map_err(|e| invalid(FLAG, &e.pair, e.reason))
}
