//! `ironkeel kube-scheduler`.

use std::path::PathBuf;
use std::sync::Arc;

use ironkeel_informer::LeaderElectorConfig;
use tokio_util::sync::CancellationToken;

use super::serving::{self, ServingOptions, Told};
use super::{Component, SCHEDULER_PORT, election, lead, required};
use crate::Error;
use crate::flags::Effect::{Nothing, Refused};
use crate::flags::Takes::Value;
use crate::flags::{Flag, FlagError, Given, flag};
use crate::kube_apiserver::shown;

pub(super) const TABLE: &[Flag] = &[
    flag("config", Value, Refused("the default profile is the only one"), "KubeSchedulerConfiguration"),
    flag("write-config-to", Value, Refused("there is no configuration file"), ""),
    flag("pod-max-in-unschedulable-pods-duration", Value, Nothing("events bring pods back, and time does too"), ""),
];

/// What the command was given.
pub(super) struct SchedulerOptions {
    kubeconfig: PathBuf,
    election: Option<LeaderElectorConfig>,
    serving: Option<ServingOptions>,
    told: Arc<Told>,
}

pub(super) fn options(given: &Given, table: &[Flag]) -> Result<SchedulerOptions, FlagError> {
    let kubeconfig = required(given, "kubeconfig")?;
    let (election, name) = (election(given, Component::Scheduler)?, Component::Scheduler.name());
    let told = Told::new(name, election.is_some(), shown(given, table));
    let serving = serving::options(given, name, SCHEDULER_PORT)?;
    Ok(SchedulerOptions { kubeconfig, election, serving, told })
}

pub(super) async fn run(options: SchedulerOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let client = ironkeel_client::from_kubeconfig(&options.kubeconfig).await?;
    serving::start(options.serving, options.told.clone(), &shutdown).await?;
    let elector = client.clone();
    lead(elector, options.election, &options.told, shutdown, |leading| {
        ironkeel_scheduler::run(ironkeel_scheduler::Config::default(), client, leading)
    })
    .await
}
