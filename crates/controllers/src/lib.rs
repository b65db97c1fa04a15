//! The controllers of kube-controller-manager.
//!
//! Each controller is a module: it subscribes to shared caches, queues keys, and brings what it observes towards what is
//! wanted, through the API alone. Here: how they are started together. Not here: the caches and queues (the informer
//! crate), rules shared with other components (the semantics crate), scheduling, and anything on a node.

mod aggregation;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod error;
mod garbage;
mod job;
mod namespace;
mod node;
mod podgc;
mod protection;
mod quota;
mod replicas;
mod revision;
mod rootca;
mod service_cidrs;
mod serviceaccount;
mod statefulset;
mod storage_version_migration;
mod ttl;

use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use context::{ClientFactory, Config, NodeIpam};
pub use error::Error;
pub use ironkeel_informer::LeaderElectorConfig;
pub use storage_version_migration::StorageVersionMigrator;

use context::Context;
use ironkeel_informer::LeaderElector;

/// Runs every controller until `shutdown`.
///
/// `client` reads the shared caches; each controller writes with the client that `config.client_for` makes for it, or
/// else with `client`. With leader election the controllers start once the lease is ours, and losing it is an error, so
/// that the process starts again from nothing. Outages of the API are waited out.
///
/// # Errors
/// The lease was lost, or a controller ended by itself, which is a defect.
pub fn run(config: Config, client: Client, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
    // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
    Box::pin(elect(config, client, shutdown))
}

async fn elect(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let Some(election) = config.leader_election.clone() else {
        return run_controllers(Context::new(config, client, shutdown)).await;
    };
    let elector = LeaderElector::new(client.clone(), election);
    let (acquired, leading) = tokio::sync::oneshot::channel();
    let election = tokio::spawn(elector.run(shutdown.clone(), move |token| {
        // The receiver is gone on shutdown only.
        let _ = acquired.send(token);
    }));
    let Ok(leading) = leading.await else { return Ok(()) };
    let outcome = run_controllers(Context::new(config, client, leading)).await;
    if shutdown.is_cancelled() {
        // Gives the elector the time to release the lease.
        let _ = election.await;
        return outcome;
    }
    outcome.and(Err(Error::LeadershipLost))
}

/// How long controllers may finish what they are doing after a shutdown.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

async fn run_controllers(context: Context) -> Result<(), Error> {
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    macro_rules! start {
        ($($name:literal => $run:expr),* $(,)?) => {
            $({
                let context = context.clone();
                tasks.spawn(async move { $run(context).await; $name });
            })*
        };
    }
    start! {
        "namespace" => namespace::run,
        "serviceaccount" => serviceaccount::run,
        "root-ca-publisher" => rootca::run,
        "deployment" => deployment::run,
        "replicaset" => replicas::run_replica_sets,
        "replicationcontroller" => replicas::run_replication_controllers,
        "daemonset" => daemonset::run,
        "statefulset" => statefulset::run,
        "job" => job::run,
        "cronjob" => cronjob::run,
        "disruption" => disruption::run,
        "resourcequota" => quota::run,
        "persistentvolumeclaim-protection" => protection::run_claims,
        "persistentvolume-protection" => protection::run_volumes,
        "endpoints" => endpoints::run,
        "endpointslice" => endpointslice::run,
        "garbage-collector" => garbage::run,
        "node-lifecycle" => node::run_lifecycle,
        "node-ipam" => node::run_ipam,
        "taint-eviction" => node::run_eviction,
        "pod-gc" => podgc::run,
        "ttl-after-finished" => ttl::run,
        "clusterrole-aggregation" => aggregation::run,
        "service-cidrs" => service_cidrs::run,
        "storage-version-migrator" => storage_version_migration::run,
    }
    let overdue = async {
        context.shutdown.cancelled().await;
        tokio::time::sleep(STOP_PATIENCE).await;
    };
    tokio::pin!(overdue);
    let mut outcome = Ok(());
    loop {
        let ended = tokio::select! {
            ended = tasks.join_next() => ended,
            () = &mut overdue => break,
        };
        let Some(ended) = ended else { break };
        if !context.shutdown.is_cancelled() {
            context.shutdown.cancel();
            let controller = ended.map(str::to_owned).unwrap_or_else(|error| error.to_string());
            outcome = Err(Error::Ended { controller });
        }
    }
    // Those that wait for an API that does not answer, or for a first list.
    tasks.shutdown().await;
    outcome
}
