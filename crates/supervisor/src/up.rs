//! `ironkeel up`: store, API server, network, runtime, then everything that is a client of them.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ironkeel_apiserver::{ApiServer, ClientIdentity};
use ironkeel_auth::pki::{Identity, Pki, PkiConfig};
use ironkeel_auth::{AuthenticatorConfig, RequestHeaderConfig, ServiceAccountIssuer, UserInfo};
use ironkeel_cni::{BuiltinConfig, BuiltinNetwork};
use ironkeel_embedded::Embedded;
use ironkeel_informer::{Informer, WatchConfig};
use ironkeel_journal::{Entry, Journal};
use ironkeel_runtime::{RegistryConfig, Runtime, RuntimeConfig};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::components::Components;
use crate::error::Error;
use crate::instance::SHARED_RUN_DIR;
use crate::{Instance, Progress, Ranges, UpOptions, at_rest, cluster_dns, images, network, notify, preflight};

/// Where pods' tokens come from: the issuer in every ServiceAccount token.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Common name of the aggregator's certificate, the one that may name users in headers.
const FRONT_PROXY_NAME: &str = "front-proxy-client";
const CLUSTER_DOMAIN: &str = "cluster.local";
/// The kubelet's port; the next free one when another cluster of this host has it.
const KUBELET_PORT: u16 = 10250;

/// What was decided before anything was made.
struct Plan {
    instance: Instance,
    ranges: Ranges,
    node_name: String,
    node_ip: IpAddr,
    options: UpOptions,
}

/// Runs the cluster until `stop` resolves. Progress goes to stderr; the last line says what to type.
pub async fn up(options: UpOptions, shim_exe: PathBuf, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let progress = Progress::start(false);
    preflight::check_host()?;
    let instance = Instance::of(&options.data_dir)?;
    ironkeel_auth::pki::create_private_dir(&instance.dir)?;
    let _lock = preflight::lock(&instance.dir)?;
    let (ranges, node_name) = instance.decide(&options)?;
    let node_ip = match options.node_ip {
        Some(ip) => ip,
        None => network::node_ip()?,
    };
    let listener = bind(options.listen())?;
    let plan = Plan { instance, ranges, node_name, node_ip, options };
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
    let stopping = CancellationToken::new();
    images::serve(runtime.clone(), &plan.instance.image_socket(), stopping.clone()).await?;
    let cri_socket = plan.instance.cri_socket();
    let (serving, serving_stop) = (runtime.clone(), stopping.clone());
    components.start("container runtime", |stop| async move {
        tokio::select! {
            outcome = serving.serve_socket(&cri_socket, serving_stop) => outcome,
            () = stop.cancelled() => Ok(()),
        }
    });

    let cluster = Cluster { plan: &plan, pki: &pki, api: &api_server, journal: &journal };
    let ready = cluster.start_clients(&mut components, &network, &runtime).await?;
    tokio::pin!(stop);
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
    api.store.close().await;
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
    store: Arc<Embedded>,
}

async fn start_api_server(plan: &Plan, progress: &Progress) -> Result<Server, Error> {
    let dir = plan.instance.dir.clone();
    let opening =
        tokio::task::spawn_blocking(move || Embedded::open(dir.join("store"), ironkeel_embedded::Options::default()));
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
    let store = opening.await.map_err(|e| Error::ApiServer(e.to_string()))??;
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
    let kept = at_rest::own_key(store.clone(), &plan.instance.dir.join("pki/encryption.key"))?;
    let server = ApiServer::start(config, kept).await.map_err(|e| Error::ApiServer(e.to_string()))?;
    Ok(Server { server, pki, store })
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
    let (instance, dir) = (&plan.instance, &plan.instance.dir);
    let run_dir = instance.run_dir();
    journal.record(Entry::Tree { path: run_dir.display().to_string() })?;
    std::fs::create_dir_all(&run_dir).map_err(Error::file("creating", &run_dir))?;
    let config = BuiltinConfig {
        tag: instance.tag.clone(),
        state_dir: dir.join("addresses"),
        pod_cidr: plan.ranges.node_pod_cidr(),
        mtu: network::mtu_of(plan.node_ip)?,
        table: instance.name.clone(),
        shared_dir: PathBuf::from(SHARED_RUN_DIR),
    };
    let network = BuiltinNetwork::start(config, journal.clone())?;
    let runtime = Runtime::start(RuntimeConfig {
        root_dir: dir.join("runtime"),
        state_dir: run_dir.join("pods"),
        cgroup_root: format!("/{}", instance.name),
        network: Arc::new(network.clone()),
        journal: Arc::new(journal.clone()),
        shim_exe,
        registries: RegistryConfig { mirrors: plan.options.registry_mirrors.clone(), ..RegistryConfig::default() },
        seccomp_default: true,
    })
    .await?;
    Ok((network, runtime))
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
        components.start("kube-scheduler", |stop| async move {
            ironkeel_scheduler::run(ironkeel_scheduler::Config::default(), client, stop).await;
            Ok::<(), Error>(())
        });

        let api = self.api.clone();
        let controllers = ironkeel_controllers::Config {
            client_for: Some(Arc::new(move |name: &str| {
                client_of(&api, UserInfo::for_service_account("kube-system", name))
            })),
            root_ca: Some(self.pki.ca_pem().to_owned()),
            ..ironkeel_controllers::Config::default()
        };
        let client = self.client(Identity::ControllerManager);
        components.start("kube-controller-manager", |stop| ironkeel_controllers::run(controllers, client, stop));

        let proxy = ironkeel_proxy::Config {
            node_name: plan.node_name.clone(),
            service_cidr: plan.ranges.service_cidr,
            table: plan.instance.name.clone(),
            anchor_link: Some(network.anchor_link()),
            journal: self.journal.clone(),
        };
        let client = self.client(Identity::Proxy);
        components.start("kube-proxy", |stop| ironkeel_proxy::run(proxy, client, stop));

        let dns_ready = self.start_dns(components, network).await?;
        let nodes = Informer::start(
            Api::<Node>::all(self.client(Identity::Admin)),
            WatchConfig { label_selector: None, field_selector: Some(format!("metadata.name={}", plan.node_name)) },
            CancellationToken::new(),
        );
        Ok(Ready { node_name: plan.node_name.clone(), nodes, dns: dns_ready })
    }

    fn start_kubelet(&self, components: &mut Components, runtime: &Arc<Runtime>) -> Result<(), Error> {
        let plan = self.plan;
        let dir = &plan.instance.dir;
        let mut config = ironkeel_kubelet::Config::new(&plan.node_name, dir.join("kubelet"));
        config.node_ips = vec![plan.node_ip];
        config.pod_logs_dir = dir.join("logs/pods");
        config.static_pods_dir = Some(dir.join("manifests"));
        config.cluster_dns = vec![plan.ranges.dns_service().into()];
        config.cgroup_root = format!("/{}", plan.instance.name);
        config.listener = Some(kubelet_listener(plan.node_ip)?);
        let serving = self.pki.kubelet_serving();
        config.serving = Some(ironkeel_kubelet::ServingCertificate {
            certificate: serving.cert_pem.clone().into(),
            key: serving.key_pem.clone().into(),
        });
        config.client_ca = Some(self.pki.ca_pem().into());
        config.journal = Some(Arc::new(self.journal.clone()));
        config.container_id_scheme = Some("ironkeel".to_owned());
        for made in [&config.pod_logs_dir, &dir.join("manifests")] {
            std::fs::create_dir_all(made).map_err(Error::file("creating", made))?;
        }
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
            ironkeel_dns::run(config, sockets, client, tell, stop)
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

/// Upstream's port, or any other when a second cluster runs on this host.
fn kubelet_listener(node_ip: IpAddr) -> Result<std::net::TcpListener, Error> {
    let any: IpAddr = if node_ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let wanted = SocketAddr::new(any, KUBELET_PORT);
    let bound = std::net::TcpListener::bind(wanted).or_else(|_| std::net::TcpListener::bind((any, 0)));
    let listener = bound.map_err(|source| Error::Port { address: wanted, source })?;
    listener.set_nonblocking(true).map_err(|source| Error::Port { address: wanted, source })?;
    Ok(listener)
}

/// What a ready cluster is.
struct Ready {
    node_name: String,
    nodes: Informer<Node>,
    dns: tokio::sync::oneshot::Receiver<()>,
}

impl Ready {
    async fn wait(self, progress: &Progress) {
        let mut deltas = self.nodes.subscribe();
        while let Some(delta) = deltas.recv().await {
            let conditions = delta.object().and_then(|n| n.status.as_ref()?.conditions.as_ref());
            if conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True")) {
                break;
            }
        }
        progress.done(format!("node {} is Ready", self.node_name));
        if self.dns.await.is_ok() {
            progress.done("cluster DNS answers");
        }
    }
}
