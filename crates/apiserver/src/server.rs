//! The server: what it is made of, starting it, serving sockets and in-process callers.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ironkeel_audit::Auditor;
use ironkeel_auth::{
    AbacPolicies, Authenticator, AuthenticatorConfig, AuthorizationMode, Authorizer, ClientCertificates,
    RequestHeaderConfig, ServiceAccountIssuer, UserInfo,
};
use ironkeel_fairness::Controller;
use ironkeel_object::{ObjectSource, Value};
use ironkeel_registry::{Chain, Clock, Registry, ServiceAddresses, SystemClock};
use ironkeel_schema::Resource;
use ironkeel_store::Store;
use ironkeel_trace::Tracer;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acting::Acting;
use crate::aggregation::Aggregator;
use crate::body::Body;
use crate::component_status::{HostedComponent, HostedComponents};
use crate::definitions::Definitions;
use crate::delegates::{Delegates, DelegatesConfig};
use crate::documents::Documents;
use crate::error::Error;
use crate::escalation::Escalation;
use crate::health::HealthCheck;
use crate::hooks::{Hook, Hooks};
use crate::layers::{self, AnonymousPaths, Caller, Connection, Nobody, REQUEST_SECONDS};
use crate::limits::{InFlightLimits, Limits};
use crate::measured::features::Feature;
use crate::metered::{MeteredAdmission, MeteredStore};
use crate::metrics::Metrics;
use crate::outbound::ClientIdentity;
use crate::policy_status;
use crate::tasks::Tasks;
use crate::{
    aggregation, bootstrap, flow, identity, identity_leases, in_process, legacy_tokens, service_ranges, stalled,
};

/// Wait after a connection could not be accepted, in milliseconds: the next one cannot be, either.
const ACCEPT_PAUSE_MS: u64 = 50;
/// How long a TLS handshake may take, in seconds.
const HANDSHAKE_SECONDS: u64 = 10;
/// How long a client may take to send the head of a request, and to keep a connection idle, in seconds.
const HEADER_SECONDS: u64 = 90;
/// Time between two pings of a quiet HTTP/2 connection, in seconds.
const PING_SECONDS: u64 = 30;
/// How long a connection may be silent before its peer is asked whether it is there, and between two such questions
/// (Go's default).
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Questions without an answer after which a connection ends (Go's default).
const KEEPALIVE_RETRIES: u32 = 9;
/// How long requests may go on after shutdown has begun, in seconds.
const DRAIN_SECONDS: u64 = 10;
/// How long writes may go on after the server has stopped, in seconds.
const STOP_SECONDS: u64 = 2;
/// Streams that one HTTP/2 connection may have open.
const HTTP2_STREAMS: u32 = 1_000;
/// Streams that a client may reset before they are looked at; above it the connection ends (rapid reset).
const HTTP2_RESETS: usize = 100;
/// Streams that the server may reset for a client's errors; above it the connection ends.
const HTTP2_ERROR_RESETS: usize = 1_024;
/// Most bytes of a request's headers (upstream's default: a mebibyte).
const HEADER_BYTES: u32 = 1 << 20;
/// Headers of an HTTP/1 request: a front proxy names each group in one of its own.
const HTTP1_HEADERS: usize = 4_096;
/// Bytes that an HTTP/1 connection buffers; the head of a request must fit.
const HTTP1_BUFFER_BYTES: usize = HEADER_BYTES as usize + (64 << 10);
/// Shortest life of a watch without `timeoutSeconds`, in seconds (upstream's default).
const MIN_REQUEST_SECONDS: u64 = 1800;
/// Requests at once that read; long-running ones do not count (upstream's default).
pub const MAX_READING_IN_FLIGHT: usize = 400;
/// Requests at once that write (upstream's default).
pub const MAX_MUTATING_IN_FLIGHT: usize = 200;

/// How the server is run.
#[derive(Clone)]
pub struct Config {
    /// Where clients reach the server: the endpoint of the `kubernetes` Service.
    pub advertise_address: IpAddr,
    /// Its port.
    pub secure_port: u16,
    /// Range of ClusterIPs: network and prefix length.
    pub service_cidr: (IpAddr, u8),
    /// A range of the other family, for dual-stack Services.
    pub secondary_service_cidr: Option<(IpAddr, u8)>,
    /// Webhooks behind Services are reached at endpoints instead of ClusterIPs.
    pub route_to_endpoints: bool,
    /// Which built-in versions are served.
    pub versions: crate::ServedVersions,
    /// CBOR is read and written (the gate `CBORServingAndStorage`); objects are stored as ever.
    pub cbor: bool,
    /// Range of NodePorts.
    pub node_ports: RangeInclusive<u16>,
    /// How callers are told apart.
    pub authenticator: AuthenticatorConfig,
    /// Signs ServiceAccount tokens.
    pub issuer: ServiceAccountIssuer,
    /// TLS towards kubelets, with the API server's client certificate; without it exec, logs and
    /// their like are refused.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// The authority of client certificates in PEM; without it no certificate names a user.
    pub client_ca_pem: String,
    /// Front proxies that may name users in headers.
    pub request_header: Option<RequestHeaderConfig>,
    /// The aggregator's client certificate towards extension API servers.
    pub proxy_client: Option<Arc<ClientIdentity>>,
    /// Which of a Node's addresses its kubelet is reached at, the best first.
    pub kubelet_address_types: Vec<String>,
    /// Admission plugins: which run, and how.
    pub admission: ironkeel_admission::Config,
    /// Who else is asked about callers.
    pub delegates: Arc<DelegatesConfig>,
    /// Which local authorizers are asked, in order.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// The policies of ABAC, where it is among them.
    pub policies: AbacPolicies,
    /// Paths that anonymous callers may ask for; empty for all.
    pub anonymous_paths: Vec<String>,
    /// Longest time for a request that is not long-running.
    pub request_timeout: Duration,
    /// How long to go on serving after `/readyz` has begun to fail.
    pub shutdown_delay: Duration,
    /// Host name (and port) in discovery documents instead of the advertised address.
    pub external_host: Option<String>,
    /// Whether the `kubernetes` Service gets endpoints.
    pub reconcile_endpoints: bool,
    /// This host's name, for the server's identity lease; empty for no lease.
    pub hostname: String,
    /// What is recorded of requests, and where; nothing by default.
    pub audit: ironkeel_audit::Config,
    /// Seats that requests share (`--max-requests-inflight` and `--max-mutating-requests-inflight` together).
    pub seats: usize,
    /// Share of HTTP/2 requests after which the client must open another connection (`--goaway-chance`).
    pub goaway_chance: f64,
    /// Two plain limits instead of priority and fairness (`--enable-priority-and-fairness=false`).
    pub in_flight_limits: Option<InFlightLimits>,
    /// A watch without `timeoutSeconds` lives that long, or up to twice as long; zero for ever.
    pub min_request_timeout: Duration,
    /// Where spans of requests go.
    pub tracing: Option<ironkeel_trace::Config>,
    /// The command line as `/flagz` shows it: names and values, by name.
    pub flags: Vec<(String, String)>,
    /// The feature gates, as they are set.
    pub features: Vec<Feature>,
    /// What else must be well, besides what is looked at anyway.
    pub health_checks: Vec<HealthCheck>,
    /// Where timestamps come from.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// A configuration with upstream's defaults around these two.
    pub fn new(authenticator: AuthenticatorConfig, issuer: ServiceAccountIssuer) -> Self {
        Config {
            advertise_address: IpAddr::from([127, 0, 0, 1]),
            secure_port: 6443,
            service_cidr: (IpAddr::from([10, 96, 0, 0]), 12),
            secondary_service_cidr: None,
            route_to_endpoints: false,
            versions: crate::ServedVersions::default(),
            cbor: false,
            node_ports: 30_000..=32_767,
            authenticator,
            issuer,
            kubelet_tls: None,
            client_ca_pem: String::new(),
            request_header: None,
            proxy_client: None,
            kubelet_address_types: ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
                .map(str::to_owned)
                .into(),
            admission: ironkeel_admission::Config {
                plugins: ironkeel_admission::PluginSet::recommended(),
                ..ironkeel_admission::Config::default()
            },
            delegates: Arc::default(),
            authorization_modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            policies: AbacPolicies::default(),
            anonymous_paths: Vec::new(),
            request_timeout: Duration::from_secs(REQUEST_SECONDS),
            shutdown_delay: Duration::ZERO,
            external_host: None,
            reconcile_endpoints: true,
            hostname: String::new(),
            audit: ironkeel_audit::Config::default(),
            seats: MAX_READING_IN_FLIGHT + MAX_MUTATING_IN_FLIGHT,
            goaway_chance: 0.0,
            in_flight_limits: None,
            min_request_timeout: Duration::from_secs(MIN_REQUEST_SECONDS),
            tracing: None,
            flags: Vec::new(),
            features: Vec::new(),
            health_checks: Vec::new(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What requests share.
pub(crate) struct Server {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) admission: Chain,
    pub(crate) issuer: ServiceAccountIssuer,
    pub(crate) kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) kubelet_address_types: Vec<String>,
    pub(crate) certificates: ClientCertificates,
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) delegates: Delegates,
    pub(crate) anonymous_paths: AnonymousPaths,
    pub(crate) acting: Acting,
    pub(crate) request_timeout: Duration,
    pub(crate) documents: Documents,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fairness: Arc<Controller>,
    pub(crate) auditor: Option<Arc<Auditor>>,
    pub(crate) goaway_chance: f64,
    pub(crate) cbor: bool,
    pub(crate) limits: Option<Limits>,
    pub(crate) min_request_timeout: Duration,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) hooks: Hooks,
    pub(crate) flags: Vec<(String, String)>,
    pub(crate) started: jiff::Timestamp,
    pub(crate) features: Vec<Feature>,
    pub(crate) server_address: String,
    /// This server among replicas: the name of its identity lease, where it has one.
    pub(crate) identity: String,
    pub(crate) shutdown_delay: Duration,
    pub(crate) health_checks: Vec<HealthCheck>,
    /// `/readyz` fails; requests are still served.
    pub(crate) stopping: CancellationToken,
    pub(crate) draining: CancellationToken,
    pub(crate) tasks: Tasks,
    /// Components of this process.
    pub(crate) hosted: HostedComponents,
}

/// A running API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) server: Arc<Server>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("address", &self.server.server_address).finish_non_exhaustive()
    }
}

impl Server {
    /// Whether a feature gate is on.
    pub(crate) fn has_feature(&self, name: &str) -> bool {
        self.features.iter().any(|f| f.name == name && f.enabled)
    }
}

impl ApiServer {
    /// Fills the watch cache, and writes what every cluster has. Serves nothing yet.
    pub fn start(config: Config, store: Arc<dyn Store>) -> BoxFuture<'static, Result<ApiServer, Error>> {
        // Boxed (as below), so that the code of it all is made in this crate, not once more where it is awaited.
        Box::pin(Self::fill(config, store))
    }

    async fn fill(config: Config, store: Arc<dyn Store>) -> Result<ApiServer, Error> {
        let mut services =
            ServiceAddresses::new(config.service_cidr.0, config.service_cidr.1, config.node_ports.clone());
        if let Some((network, bits)) = config.secondary_service_cidr {
            services = services.and(network, bits);
        }
        let kubernetes_ip = services.nth(1);
        let service_ranges = services.ranges();
        let metrics: Arc<Metrics> = Arc::default();
        let store: Arc<dyn Store> = Arc::new(MeteredStore { inner: store, metrics: metrics.clone() });
        let kinds: Vec<_> =
            ironkeel_kinds::kinds().iter().filter(|k| config.versions.serves(&k.resource)).cloned().collect();
        let registry = Registry::start(store, config.clock.clone(), &kinds, services).await?;
        let absent: &[Hook] =
            if config.hostname.is_empty() { &[Hook::IdentityLease, Hook::IdentityLeases] } else { &[] };
        let hooks = Hooks::without(absent);
        hooks.finished(&[Hook::Informers, Hook::ObjectCounts, Hook::Storage, Hook::ServiceAddresses]);
        let source: Arc<dyn ObjectSource> = registry.clone();
        let authorizer = Arc::new(Authorizer::with_modes(source.clone(), config.authorization_modes.clone()));
        authorizer.set_policies(config.policies.clone());
        // Rows hold the client, and the registry holds the rows.
        let services = ironkeel_admission::ClusterServices::new(
            Arc::new(Passing(Arc::downgrade(&registry))),
            config.route_to_endpoints,
        );
        let webhooks = Arc::new(ironkeel_webhook::WebhookClient::new(Arc::new(services)));
        let mut admission = config.admission.clone();
        let escalation = Escalation::default();
        admission.others.push(Arc::new(escalation.clone()));
        admission.observer = Some(metrics.admission.clone());
        let tasks = Tasks::default();
        let mut authenticator = config.authenticator.clone();
        authenticator.token_used = Some(legacy_tokens::last_used(&registry, &tasks));
        let server = Arc::new(Server {
            authenticator: Authenticator::new(authenticator, source.clone())?,
            admission: Arc::new(MeteredAdmission {
                inner: ironkeel_admission::chain(registry.clone(), authorizer.clone(), webhooks.clone(), admission),
                metrics: metrics.clone(),
            }),
            authorizer,
            issuer: config.issuer.clone(),
            kubelet_tls: config.kubelet_tls.clone(),
            kubelet_address_types: config.kubelet_address_types.clone(),
            certificates: ClientCertificates::new(&config.client_ca_pem, config.request_header.clone())?,
            delegates: Delegates::new(&config.delegates).map_err(Error::Delegates)?,
            anonymous_paths: AnonymousPaths::new(config.anonymous_paths.clone()),
            acting: Acting::new(!config.features.iter().any(|f| f.name == "ConstrainedImpersonation" && !f.enabled)),
            request_timeout: config.request_timeout,
            aggregator: Arc::new(Aggregator::new(config.proxy_client.clone())),
            documents: Documents::default(),
            fairness: Arc::new(Controller::new(config.seats)),
            auditor: crate::audit::start(&config.audit)?,
            goaway_chance: config.goaway_chance,
            cbor: config.cbor,
            limits: config.in_flight_limits.map(Limits::new),
            min_request_timeout: config.min_request_timeout,
            tracer: config.tracing.as_ref().map(Tracer::start).transpose()?,
            hooks: hooks.clone(),
            flags: config.flags.clone(),
            started: config.clock.now(),
            features: config.features.clone(),
            metrics: metrics.clone(),
            server_address: config
                .external_host
                .clone()
                .unwrap_or_else(|| std::net::SocketAddr::new(config.advertise_address, config.secure_port).to_string()),
            identity: match config.hostname.as_str() {
                "" => String::new(),
                hostname => identity::lease_name(hostname),
            },
            shutdown_delay: config.shutdown_delay,
            health_checks: config.health_checks.clone(),
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
            hosted: HostedComponents::default(),
            tasks,
            registry,
        });
        escalation.belongs_to(&server);
        let registry = &server.registry;
        bootstrap::insist(registry, || service_ranges::ensure(registry, &service_ranges)).await?;
        hooks.finished(&[Hook::Admission, Hook::FlowFilter]);
        bootstrap::insist(registry, || bootstrap::run(registry, &config, kubernetes_ip, &hooks)).await?;
        bootstrap::insist(registry, || flow::ensure(registry)).await?;
        hooks.finished(&[Hook::FlowProducer]);
        flow::digest_stored(&server.registry, &server.fairness).await?;
        hooks.finished(&[Hook::FlowConsumer]);
        let (tasks, draining) = (&server.tasks, &server.draining);
        tasks.until(draining, flow::run(server.registry.clone(), server.fairness.clone()));
        let ends = (tasks.clone(), draining.clone());
        // There is nothing to follow where `--runtime-config` has switched their version off.
        let definitions = Definitions::new(server.registry.clone(), webhooks, ends);
        hooks.finished(&[Hook::DefinitionInformers]);
        if let Some(mut definitions) = definitions {
            definitions.install_all().await;
            tasks.until(draining, definitions.run());
        }
        hooks.finished(&[Hook::DefinitionsSynced, Hook::Definitions]);
        tasks.until(draining, legacy_tokens::run(server.registry.clone()));
        tasks.until(draining, service_ranges::run(server.registry.clone(), service_ranges));
        tasks.until(draining, policy_status::run(server.registry.clone()));
        tasks.until(draining, aggregation::run(server.registry.clone(), server.aggregator.clone(), hooks.clone()));
        // Takes its address back at the end.
        tasks.spawn(identity::run(server.registry.clone(), config.clone(), server.stopping.clone(), hooks.clone()));
        if !config.hostname.is_empty() {
            tasks.until(draining, identity_leases::run(server.registry.clone(), hooks));
        }
        Ok(ApiServer { server })
    }

    /// Stored objects, for whoever must read them without a request.
    pub fn object_source(&self) -> Arc<dyn ObjectSource> {
        self.server.registry.clone()
    }

    /// The registry beneath.
    pub fn registry(&self) -> Arc<Registry> {
        self.server.registry.clone()
    }

    /// Serves TLS connections until `shutdown`; returns when they are drained.
    pub fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.accept(listener, tls, shutdown))
    }

    async fn accept(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(tls);
        let connections = TaskTracker::new();
        let ending = CancellationToken::new();
        let mut end = std::pin::pin!(async {
            shutdown.cancelled().await;
            self.server.stopping.cancel();
            // Load balancers see /readyz fail before the port is gone.
            tokio::time::sleep(self.server.shutdown_delay).await;
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = end.as_mut() => break,
            };
            match accepted {
                Ok((socket, address)) => {
                    let (server, counted) = (self.server.clone(), connections.token());
                    let serving = connection(server, (socket, address), acceptor.clone(), ending.clone());
                    self.server.tasks.spawn(async move {
                        let _counted = counted;
                        serving.await;
                    });
                }
                // Out of descriptors, say: other connections must go on, and one of them may end.
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
        ending.cancel();
        self.server.draining.cancel();
        connections.close();
        if tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS), connections.wait()).await.is_err() {
            tracing::warn!(left = connections.len(), "connections were still busy when the drain timeout ran out");
        }
        if let Some(auditor) = &self.server.auditor {
            auditor.stop().await;
        }
        Ok(())
    }

    /// Ends watches, every task and the cache's feed. After the last [`ApiServer::serve`] has returned.
    /// What the server held of the store is free when this clone and the callers' are dropped.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }

    async fn end(&self) {
        self.server.stopping.cancel();
        self.server.draining.cancel();
        self.server.tasks.end(Duration::from_secs(STOP_SECONDS)).await;
        self.server.registry.stop().await;
        if let Some(tracer) = &self.server.tracer {
            tracer.stop().await;
        }
        if let Some(auditor) = &self.server.auditor {
            auditor.stop().await;
        }
    }

    /// Tells of a component that runs in this process (`scheduler`, `controller-manager`): it is healthy
    /// until what is answered here is dropped.
    pub fn hosts(&self, component: &'static str) -> HostedComponent {
        self.server.hosted.enter(component)
    }

    /// A client's transport without sockets; every request comes from `user`. Authorization,
    /// admission and limits hold as for others.
    pub fn in_process(&self, user: UserInfo) -> InProcess {
        InProcess { server: self.server.clone(), caller: Caller::Stamped(Arc::new(user)) }
    }
}

/// The registry, as long as the server has it.
struct Passing(Weak<Registry>);

impl ObjectSource for Passing {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        ObjectSource::get(&*self.0.upgrade()?, resource, namespace, name)
    }

    fn list(&self, resource: &'static Resource, namespace: &str) -> Vec<Arc<Value>> {
        self.0.upgrade().map_or_else(Vec::new, |r| ObjectSource::list(&*r, resource, namespace))
    }

    fn version(&self, resource: &'static Resource) -> u64 {
        self.0.upgrade().map_or(0, |r| ObjectSource::version(&*r, resource))
    }
}

/// Has a connection end when its peer is lost: a watch that nothing happens to would last until its time is over
/// otherwise.
fn notice_lost_peer(socket: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_RETRIES);
    if let Err(error) = SockRef::from(socket).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "the loss of a connection's peer will be noticed late");
    }
}

async fn connection(
    server: Arc<Server>,
    (socket, address): (TcpStream, SocketAddr),
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    notice_lost_peer(&socket);
    let handshake = tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECONDS), acceptor.accept(socket));
    let Some(shaken) = shutdown.run_until_cancelled(handshake).await else { return };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            server.metrics.handshake_errors.inc();
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            server.metrics.handshake_errors.inc();
            return;
        }
    };
    let peer = stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned());
    let caller = Caller::Peer(Arc::new(Connection::new(address, peer.collect())));
    serve_stream(server, TokioIo::new(stream), caller, shutdown).await;
}

/// Serves one byte stream; ends with the stream, or after `shutdown` when its requests are done.
pub(crate) async fn serve_stream<I>(server: Arc<Server>, io: I, caller: Caller, shutdown: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let tasks = server.tasks.clone();
    let shutdown = shutdown.child_token();
    let goaway = shutdown.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (server, caller) = (server.clone(), caller.clone());
        // Connections are spread over several servers when their clients open new ones now and then.
        let chance = server.goaway_chance;
        if chance > 0.0 && request.version() == http::Version::HTTP_2 && rand::random::<f64>() < chance {
            goaway.cancel();
        }
        let (goaway, version) = (goaway.clone(), request.version());
        // A stream's task lives as long as its answer, which may be a watch of hours: what answers is large, and
        // must not be a part of it.
        Box::pin(async move {
            let response = layers::respond(server, &caller, request).await;
            // Strangers get one answer a connection, so that floods of streams cost them handshakes
            // (CVE-2023-44487; upstream's gate UnauthenticatedHTTP2DOSMitigation).
            if version == http::Version::HTTP_2 && response.extensions().get::<Nobody>().is_some() {
                goaway.cancel();
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .max_headers(HTTP1_HEADERS)
        .header_read_timeout(Duration::from_secs(HEADER_SECONDS));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(PING_SECONDS))
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_pending_accept_reset_streams(Some(HTTP2_RESETS))
        .max_local_error_reset_streams(Some(HTTP2_ERROR_RESETS))
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20);
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
    let ended = stalled::watched(async {
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    });
    match ended.await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(error, "a connection ended early"),
        None => tracing::debug!("a connection was ended: its client does not read an answer"),
    }
}

/// See [`ApiServer::in_process`].
#[derive(Clone)]
pub struct InProcess {
    server: Arc<Server>,
    caller: Caller,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        in_process::answer(self.server.clone(), self.caller.clone(), request.map(in_process::erased))
    }
}
