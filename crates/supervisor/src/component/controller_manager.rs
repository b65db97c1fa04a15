//! `ironkeel kube-controller-manager`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use ironkeel_controllers::{Config, NodeIpam, StorageVersionMigrator};
use tokio_util::sync::CancellationToken;

use super::service_accounts::Accounts;
use super::serving::{self, ServingOptions, Told};
use super::{CONTROLLER_MANAGER_PORT, Component, election, read, required};
use crate::Error;
use crate::flags::{Flag, FlagError, Given, invalid};
use crate::kube_apiserver::{MIGRATOR_GATE, gate, shown};

/// Prefix length of a Node's range where no flag says it.
const NODE_MASK: u8 = 24;

/// What the command was given.
pub(super) struct ControllerManagerOptions {
    kubeconfig: PathBuf,
    own_accounts: bool,
    config: Config,
    serving: Option<ServingOptions>,
    told: Arc<Told>,
}

pub(super) fn options(given: &Given, table: &[Flag]) -> Result<ControllerManagerOptions, FlagError> {
    let kubeconfig = required(given, "kubeconfig")?;
    let root_ca = read(given, "root-ca-file")?.map(String::from_utf8).transpose();
    let root_ca = root_ca
        .map_err(|_| invalid("root-ca-file", given.text("root-ca-file").unwrap_or_default(), "the file is not PEM"))?;
    let defaults = Config::default();
    let config = Config {
        root_ca,
        leader_election: election(given, Component::ControllerManager)?,
        node_ipam: node_ipam(given)?,
        node_monitor_grace_period: given.duration("node-monitor-grace-period", defaults.node_monitor_grace_period)?,
        node_startup_grace_period: given.duration("node-startup-grace-period", defaults.node_startup_grace_period)?,
        node_monitor_period: given.duration("node-monitor-period", defaults.node_monitor_period)?,
        storage_version_migrator: gate(given, MIGRATOR_GATE).then(StorageVersionMigrator::default),
        terminated_pod_threshold: given.parsed("terminated-pod-gc-threshold", defaults.terminated_pod_threshold)?,
        ..defaults
    };
    let name = Component::ControllerManager.name();
    Ok(ControllerManagerOptions {
        serving: serving::options(given, name, CONTROLLER_MANAGER_PORT)?,
        told: Told::new(name, false, shown(given, table)),
        kubeconfig,
        own_accounts: given.switch("use-service-account-credentials", false),
        config,
    })
}

fn node_ipam(given: &Given) -> Result<Option<NodeIpam>, FlagError> {
    if !given.switch("allocate-node-cidrs", false) {
        return Ok(None);
    }
    let text = given.text("cluster-cidr").ok_or(FlagError::Required("cluster-cidr"))?;
    let cluster_cidr: Ipv4Net = given.parsed("cluster-cidr", Ipv4Net::default())?.trunc();
    let flag = if given.text("node-cidr-mask-size-ipv4").is_some() {
        "node-cidr-mask-size-ipv4"
    } else {
        "node-cidr-mask-size"
    };
    let node_mask_size = given.parsed(flag, NODE_MASK.max(cluster_cidr.prefix_len()))?;
    if node_mask_size < cluster_cidr.prefix_len() || node_mask_size > 30 {
        let reason = format!("must be between {} ({text}'s) and 30", cluster_cidr.prefix_len());
        return Err(invalid(flag, &node_mask_size.to_string(), reason));
    }
    Ok(Some(NodeIpam { cluster_cidr, node_mask_size, kept: BTreeMap::new() }))
}

pub(super) async fn run(options: ControllerManagerOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let client = ironkeel_client::from_kubeconfig(&options.kubeconfig).await?;
    serving::start(options.serving, options.told, &shutdown).await?;
    let mut config = options.config;
    if options.own_accounts {
        let accounts = Accounts::new(&options.kubeconfig, client.clone()).await?;
        config.client_for = Some(Arc::new(move |name: &str| accounts.client(name)));
    }
    let ended = ironkeel_controllers::run(config, client, shutdown).await;
    ended.map_err(|e| Error::Component { component: "kube-controller-manager", reason: e.to_string() })
}
