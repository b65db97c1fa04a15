//! `ironkeel up`: store, API server, network, runtime, then everything that is a client of them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use ironkeel_apiserver::{ApiServer, ClientIdentity, ServedVersions};
use ironkeel_auth::pki::{Identity, Pki, PkiConfig};
use ironkeel_auth::{AuthenticatorConfig, RequestHeaderConfig, ServiceAccountIssuer, UserInfo};
use ironkeel_cni::{BuiltinNetwork, NodeRoutesConfig};
use ironkeel_informer::Informer;
use ironkeel_journal::Journal;
use ironkeel_runtime::Runtime;
use k8s_openapi::api::core::v1::Node;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::components::Components;
use crate::engine::{Engine, StoreOptions};
use crate::error::Error;
use crate::host::{self, RuntimeParts};
use crate::{Instance, Progress, Ranges, Stop, UpOptions, at_rest, cluster_dns, network, node, notify, preflight};

/// Where pods' tokens come from: the issuer in every ServiceAccount token.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Common name of the aggregator's certificate, the one that may name users in headers.
const FRONT_PROXY_NAME: &str = "front-proxy-client";
/// The cluster's domain.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// What was decided before anything was made.
struct Plan {
    instance: Instance,
    ranges: Ranges,
    node_name: String,
    node_ip: IpAddr,
    versions: ServedVersions,
    options: UpOptions,
}

/// Runs the cluster until `stop` resolves. Progress goes to stderr; the last line says what to type.
pub fn up(options: UpOptions, shim_exe: PathBuf, stop: Stop) -> LocalBoxFuture<'static, Result<(), Error>> {
    Box::pin(cluster(options, shim_exe, stop))
}

async fn cluster(options: UpOptions, shim_exe: PathBuf, mut stop: Stop) -> Result<(), Error> {
    let progress = Progress::start(false);
    let versions = ServedVersions::chosen(options.runtime_config.iter().map(String::as_str))?;
    preflight::check_host()?;
    let instance = Instance::of(&options.data_dir)?;
    ironkeel_auth::pki::create_private_dir(&instance.dir)?;
    let _lock = preflight::lock(&instance.dir)?;
    node::refuse_node_directory(&instance)?;
    let (ranges, node_name) = instance.decide(&options)?;
    let node_ip = match options.node_ip {
        Some(ip) => ip,
        None => network::node_ip()?,
    };
    let listener = bind(options.listen())?;
    let plan = Plan { instance, ranges, node_name, node_ip, versions, options };
    let journal = Journal::open(&plan.instance.journal())?;

    let api = start_api_server(&plan, &progress).await?;
    let pki = api.pki;
    let api_server = api.server;
    let mut components = Components::default();
    let tls = pki.api_server_tls()?;
    let serving = api_server.clone();
    components.start("kube-apiserver", |stop| async move { serving.serve(listener, tls, stop).await });
    let url = format!("https://{}", reachable(plan.options.listen(), plan.node_ip));
    pki.write_kubeconfig(&plan.instance.admin_kubeconfig(), &url, Identity::Admin)?;
    progress.done(format!("API server answers at {url}"));

    let (network, runtime) = start_node(&plan, &journal, shim_exe).await?;
    progress.done(format!("pod network {}, container runtime", plan.ranges.node_pod_cidr()));
    let stopping = host::serve_runtime(&plan.instance, &runtime, &mut components).await?;

    let cluster = Cluster { plan: &plan, pki: &pki, api: &api_server, journal: &journal };
    let ready = cluster.start_clients(&mut components, &network, &runtime).await?;
    tokio::select! {
        () = ready.wait(&progress) => {
            notify::notify("READY=1");
            progress.say(format!(
                "The cluster is ready after {} ms. Next:\n  export KUBECONFIG={}\n  kubectl get nodes",
                progress.elapsed_ms(),
                plan.instance.admin_kubeconfig().display(),
            ));
        }
        error = components.failed() => return Err(error),
        () = &mut stop => {}
    }
    let outcome = tokio::select! {
        error = components.failed() => Err(error),
        () = &mut stop => Ok(()),
    };
    notify::notify("STOPPING=1");
    if outcome.is_ok() {
        progress.say("Stopping.");
    }
    stopping.cancel();
    components.stop().await;
    if outcome.is_ok() && !plan.options.keep_pods {
        runtime.remove_all().await?;
    }
    runtime.stop();
    api_server.stop().await;
    api.engine.close().await;
    outcome
}

fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = std::net::TcpListener::bind(address).and_then(|l| {
        l.set_nonblocking(true)?;
        TcpListener::from_std(l)
    });
    bound.map_err(|source| Error::Port { address, source })
}

/// An address that a client on this host can use.
fn reachable(listen: SocketAddr, node_ip: IpAddr) -> SocketAddr {
    let ip = if listen.ip().is_unspecified() { node_ip } else { listen.ip() };
    SocketAddr::new(ip, listen.port())
}

struct Server {
    server: ApiServer,
    pki: Arc<Pki>,
    engine: Engine,
}

async fn start_api_server(plan: &Plan, progress: &Progress) -> Result<Server, Error> {
    let place = match &plan.options.etcd {
        Some(etcd) => StoreOptions::Etcd(etcd.clone()),
        None => StoreOptions::Embedded(plan.instance.dir.clone()),
    };
    let opening = tokio::spawn(Engine::open(place));
    let mut node_ips = network::host_addresses(plan.node_ip);
    node_ips.push(ironkeel_first(plan.ranges));
    let pki = Arc::new(Pki::load_or_create(
        &plan.instance.dir.join("pki"),
        PkiConfig {
            node_name: plan.node_name.clone(),
            node_ips,
            bind_address: Some(plan.options.bind_address).filter(|a| !a.is_unspecified()),
            service_ips: vec![plan.ranges.api_service().into()],
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            ..PkiConfig::default()
        },
    )?);
    let engine = opening.await.map_err(|e| Error::ApiServer(e.to_string()))??;
    progress.done(format!("store and certificates in {}", plan.instance.dir.display()));
    let audiences = vec![ISSUER.to_owned()];
    let authenticator = AuthenticatorConfig {
        issuers: vec![ISSUER.to_owned()],
        keys: pki.service_account_public_keys().clone(),
        api_audiences: audiences.clone(),
        bootstrap_tokens: true,
        ..AuthenticatorConfig::default()
    };
    let issuer = ServiceAccountIssuer::new(
        ISSUER.to_owned(),
        audiences,
        pki.service_account_key().clone(),
        pki.service_account_public_keys().clone(),
    );
    let mut config = ironkeel_apiserver::Config::new(authenticator, issuer);
    config.features = crate::kube_apiserver::features();
    config.versions = plan.versions.clone();
    config.advertise_address = reachable(plan.options.listen(), plan.node_ip).ip();
    config.secure_port = plan.options.secure_port;
    config.service_cidr = (plan.ranges.service_cidr.network().into(), plan.ranges.service_cidr.prefix_len());
    config.kubelet_tls = Some(pki.client_tls(Identity::ApiServerKubeletClient)?);
    pki.ca_pem().clone_into(&mut config.client_ca_pem);
    let front = pki.front_proxy_client();
    let identity = ClientIdentity { chain: vec![front.cert_der.clone()], key: front.key_der() };
    config.proxy_client = Some(Arc::new(identity));
    let proxies = vec![FRONT_PROXY_NAME.to_owned()];
    config.request_header = Some(RequestHeaderConfig::new(pki.front_proxy_ca_pem(), proxies));
    let kept = at_rest::own_key(engine.store(), &plan.instance.dir.join("pki/encryption.key")).await?;
    let server = ApiServer::start(config, kept).await.map_err(|e| Error::ApiServer(e.to_string()))?;
    Ok(Server { server, pki, engine })
}

/// The node's own address in the pod range, so that pods can reach the API server there too.
fn ironkeel_first(ranges: Ranges) -> IpAddr {
    IpAddr::from(std::net::Ipv4Addr::from(u32::from(ranges.node_pod_cidr().network()) + 1))
}

async fn start_node(
    plan: &Plan,
    journal: &Journal,
    shim_exe: PathBuf,
) -> Result<(Arc<BuiltinNetwork>, Arc<Runtime>), Error> {
    let instance = &plan.instance;
    host::make_run_dir(instance, journal)?;
    let config = host::network_config(instance, plan.ranges.node_pod_cidr(), plan.ranges.pod_cidr, plan.node_ip)?;
    let network = BuiltinNetwork::start(config, journal.clone())?;
    let parts = RuntimeParts {
        instance,
        journal,
        network: Arc::new(network.clone()),
        shim_exe,
        registry_mirrors: &plan.options.registry_mirrors,
    };
    Ok((network, host::start_runtime(parts).await?))
}

struct Cluster<'a> {
    plan: &'a Plan,
    pki: &'a Arc<Pki>,
    api: &'a ApiServer,
    journal: &'a Journal,
}

impl Cluster<'_> {
    fn client(&self, identity: Identity) -> kube::Client {
        client_of(self.api, identity.user(&self.plan.node_name))
    }

    async fn start_clients(
        &self,
        components: &mut Components,
        network: &Arc<BuiltinNetwork>,
        runtime: &Arc<Runtime>,
    ) -> Result<Ready, Error> {
        let plan = self.plan;
        self.start_kubelet(components, runtime)?;

        let client = self.client(Identity::Scheduler);
        let hosted = self.api.hosts("scheduler");
        components.start("kube-scheduler", |stop| async move {
            let _hosted = hosted;
            ironkeel_scheduler::run(ironkeel_scheduler::Config::default(), client, stop).await;
            Ok::<(), Error>(())
        });

        let api = self.api.clone();
        let migrations = plan.versions.is_served("storagemigration.k8s.io", "v1beta1", "storageversionmigrations");
        let controllers = ironkeel_controllers::Config {
            client_for: Some(Arc::new(move |name: &str| {
                client_of(&api, UserInfo::for_service_account("kube-system", name))
            })),
            root_ca: Some(self.pki.ca_pem().to_owned()),
            node_ipam: Some(ironkeel_controllers::NodeIpam {
                cluster_cidr: plan.ranges.pod_cidr,
                node_mask_size: plan.ranges.node_pod_cidr().prefix_len(),
                // This host's pod network is up before its Node is.
                kept: [(plan.node_name.clone(), plan.ranges.node_pod_cidr())].into(),
            }),
            storage_version_migrator: migrations.then(ironkeel_controllers::StorageVersionMigrator::default),
            ..ironkeel_controllers::Config::default()
        };
        let client = self.client(Identity::ControllerManager);
        let hosted = self.api.hosts("controller-manager");
        components.start("kube-controller-manager", |stop| async move {
            let _hosted = hosted;
            ironkeel_controllers::run(controllers, client, stop).await
        });

        let proxy = ironkeel_proxy::Config {
            node_name: plan.node_name.clone(),
            service_cidr: Some(plan.ranges.service_cidr),
            cluster_cidr: Some(plan.ranges.pod_cidr),
            table: plan.instance.name.clone(),
            anchor_link: Some(network.anchor_link()),
            journal: self.journal.clone(),
        };
        let client = self.client(Identity::Proxy);
        components.start("kube-proxy", |stop| ironkeel_proxy::run(proxy, client, stop));

        let routes = NodeRoutesConfig { node_name: plan.node_name.clone(), journal: self.journal.clone() };
        let client = self.client(Identity::Proxy);
        components.start("node routes", |stop| ironkeel_cni::follow_nodes(routes, client, stop));

        let dns_ready = self.start_dns(components, network).await?;
        let nodes = node::own_node(&self.client(Identity::Admin), &plan.node_name, CancellationToken::new());
        Ok(Ready { node_name: plan.node_name.clone(), nodes, dns: dns_ready })
    }

    fn start_kubelet(&self, components: &mut Components, runtime: &Arc<Runtime>) -> Result<(), Error> {
        let plan = self.plan;
        let mut config = host::kubelet_config(&plan.instance, self.journal, &plan.node_name, plan.node_ip)?;
        config.cluster_dns = vec![plan.ranges.dns_service().into()];
        config.listener = Some(host::kubelet_listener(plan.node_ip)?);
        let serving = self.pki.kubelet_serving();
        config.serving = Some(ironkeel_kubelet::ServingCertificate {
            certificate: serving.cert_pem.clone().into(),
            key: serving.key_pem.clone().into(),
        });
        config.client_ca = Some(self.pki.ca_pem().into());
        let (client, cri) = (self.client(Identity::Kubelet), runtime.cri_client());
        components.start("kubelet", |stop| ironkeel_kubelet::run(config, client, cri, stop));
        Ok(())
    }

    async fn start_dns(
        &self,
        components: &mut Components,
        network: &Arc<BuiltinNetwork>,
    ) -> Result<tokio::sync::oneshot::Receiver<()>, Error> {
        let plan = self.plan;
        let address = SocketAddr::new(network.gateway().into(), 53);
        let sockets = vec![ironkeel_dns::Bound::bind(address).await?];
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let own = [IpAddr::from(network.gateway()), plan.ranges.dns_service().into()];
        let config = ironkeel_dns::Config {
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            upstreams: ironkeel_dns::upstreams_of_host(&resolv_conf, &own),
            stub_domains: Vec::new(),
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let client = self.client(Identity::Dns);
        components.start("cluster DNS", |stop| {
            let tell = move || {
                // Nobody waits any more once the cluster is stopping.
                let _ = sender.send(());
            };
            ironkeel_dns::run(config, sockets, client, Box::new(tell), stop)
        });
        let publisher = self.client(Identity::Admin);
        let service = plan.ranges.dns_service().into();
        cluster_dns::publish(&publisher, service, address, &plan.node_name)
            .await
            .map_err(|e| Error::Component { component: "cluster DNS", reason: e.to_string() })?;
        Ok(receiver)
    }
}

fn client_of(api: &ApiServer, user: UserInfo) -> kube::Client {
    let name = user.name.clone();
    ironkeel_client::from_service(api.in_process(user), &name)
}

/// What a ready cluster is.
struct Ready {
    node_name: String,
    nodes: Informer<Node>,
    dns: tokio::sync::oneshot::Receiver<()>,
}

impl Ready {
    async fn wait(self, progress: &Progress) {
        node::ready(&self.nodes).await;
        progress.done(format!("node {} is Ready", self.node_name));
        if self.dns.await.is_ok() {
            progress.done("cluster DNS answers");
        }
    }
}
