//! The service proxy: Services and EndpointSlices into one nftables table, in proportion to the change.
//!
//! `model` computes what a Service needs, `rules` draws the fixed chains, `table` keeps the difference
//! between what is wanted and what the kernel has. Answers to kube-proxy. Layout: one verdict map for
//! all Services, one shared chain per number of endpoints, so that a change costs a few map elements,
//! however many Services there are. IPv4 only; `externalIPs` of Services are ignored (CVE-2020-8554).

mod model;
mod rules;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use ironkeel_informer::{Delta, Informer, WatchConfig};
use ironkeel_journal::{Entry, Journal};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

pub use table::{ServiceTable, TableConfig};

/// Services whose proxy is somebody else's carry this label.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Slices of headless Services carry this label.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Pause before rules that the kernel refused are written anew, in milliseconds.
const RESYNC_DELAY_MS: u64 = 1_000;

/// Settings of the proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; endpoints on it are local.
    pub node_name: String,
    /// Addresses of Services; `None` leaves packets to Services without endpoints to the host's routes.
    pub service_cidr: Option<Ipv4Net>,
    /// Pods' addresses, all nodes': who comes to a Service's address from elsewhere is hidden behind
    /// this node's address, so that answers come back through it. Needs `service_cidr`.
    pub cluster_cidr: Option<Ipv4Net>,
    /// The nftables table (family `inet`).
    pub table: String,
    /// The link that Service addresses are routed to, so that they never leave the host; `None`
    /// leaves routing to the host's default route.
    pub anchor_link: Option<String>,
    /// Where the table is recorded.
    pub journal: Journal,
}

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the rules.
    #[error("service rules in nftables table {table}: {source}")]
    Rules {
        /// The table.
        table: String,
        /// The kernel's words.
        source: ironkeel_netlink::NetlinkError,
    },
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] ironkeel_journal::JournalError),
    /// A blocking task died.
    #[error("the rule writer stopped: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

/// Runs until `shutdown`. Rules stay in place afterwards, so that connections outlive a restart.
pub fn run(
    config: Config,
    client: kube::Client,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
    Box::pin(follow(config, client, shutdown))
}

async fn follow(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    config.journal.record(Entry::NftTable { family: "inet".into(), name: config.table.clone() })?;
    let selector = format!("!{PROXY_NAME_LABEL}");
    let watch = |label_selector: String| WatchConfig { label_selector: Some(label_selector), field_selector: None };
    let services = Informer::start(Api::<Service>::all(client.clone()), watch(selector.clone()), shutdown.clone());
    let slice_selector = format!("{selector},!{HEADLESS_LABEL}");
    let slices = Informer::start(Api::<EndpointSlice>::all(client), watch(slice_selector), shutdown.clone());
    slices.add_index("service", |slice| {
        slice_service(slice).map(|(ns, name)| format!("{ns}/{name}")).into_iter().collect()
    });
    let proxy = Proxy { node_name: config.node_name.clone(), services: services.clone(), slices: slices.clone() };
    let mut service_deltas = services.subscribe();
    let mut slice_deltas = slices.subscribe();
    tokio::select! {
        () = async { services.synced().await; slices.synced().await } => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let table = TableConfig {
        table: config.table.clone(),
        service_cidr: config.service_cidr,
        cluster_cidr: config.cluster_cidr,
        anchor_link: config.anchor_link.clone(),
    };
    let mut table = ServiceTable::new(table);
    let mut dirty = Dirty::All;
    loop {
        let outcome = {
            let wanted: Vec<_> = proxy.wanted(&dirty);
            let full = matches!(dirty, Dirty::All);
            let joined = tokio::task::spawn_blocking(move || {
                let result = if full { table.replace_all(wanted) } else { table.update(wanted) };
                (table, result)
            });
            let (back, result) = joined.await?;
            table = back;
            result
        };
        dirty = match outcome {
            Ok(()) => Dirty::Some(BTreeSet::new()),
            Err(error) => {
                tracing::warn!(%error, table = config.table, "service rules were refused; writing all of them anew");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(RESYNC_DELAY_MS)) => {}
                    () = shutdown.cancelled() => return Ok(()),
                }
                Dirty::All
            }
        };
        while dirty.is_empty() {
            tokio::select! {
                delta = service_deltas.recv() => dirty.note(delta.as_ref().and_then(Delta::object).map(|s| service_key(s))),
                delta = slice_deltas.recv() => dirty.note(delta.as_ref().and_then(Delta::object).and_then(|s| slice_service(s))),
                () = shutdown.cancelled() => return Ok(()),
            }
        }
        drain(&mut service_deltas, |s| dirty.note(Some(service_key(s))));
        drain(&mut slice_deltas, |s| dirty.note(slice_service(s)));
    }
}

fn drain<K>(deltas: &mut UnboundedReceiver<Delta<K>>, mut each: impl FnMut(&Arc<K>)) {
    while let Ok(delta) = deltas.try_recv() {
        if let Some(object) = delta.object() {
            each(object);
        }
    }
}

/// Namespace and name of a Service.
pub(crate) type ServiceKey = (String, String);

fn service_key(service: &Service) -> ServiceKey {
    (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default())
}

fn slice_service(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// Which Services have to be looked at again.
enum Dirty {
    All,
    Some(BTreeSet<ServiceKey>),
}

impl Dirty {
    fn is_empty(&self) -> bool {
        matches!(self, Dirty::Some(keys) if keys.is_empty())
    }

    fn note(&mut self, key: Option<ServiceKey>) {
        if let (Dirty::Some(keys), Some(key)) = (self, key) {
            keys.insert(key);
        }
    }
}

struct Proxy {
    node_name: String,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Proxy {
    fn wanted(&self, dirty: &Dirty) -> Vec<(ServiceKey, Option<model::ServiceRules>)> {
        let keys: BTreeSet<ServiceKey> = match dirty {
            Dirty::All => self.services.list().iter().map(|s| service_key(s)).collect(),
            Dirty::Some(keys) => keys.clone(),
        };
        keys.into_iter()
            .map(|key| {
                let rules = self.services.get(&key.0, &key.1).map(|service| {
                    let slices = self.slices.by_index("service", &format!("{}/{}", key.0, key.1));
                    model::rules_of(&service, &slices, &self.node_name)
                });
                (key, rules)
            })
            .collect()
    }
}

/// The IPv4 address in a text, if it is one.
pub(crate) fn ipv4(text: &str) -> Option<std::net::Ipv4Addr> {
    match text.parse() {
        Ok(IpAddr::V4(a)) => Some(a),
        _ => None,
    }
}

#[cfg(test)]
mod kernel_tests;
