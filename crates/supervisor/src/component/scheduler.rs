//! `ironkeel kube-scheduler`.

use std::path::PathBuf;

use ironkeel_informer::LeaderElectorConfig;
use tokio_util::sync::CancellationToken;

use super::{Component, election, lead, required};
use crate::Error;
use crate::flags::Effect::{Nothing, Refused};
use crate::flags::Takes::Value;
use crate::flags::{Flag, FlagError, Given, flag};

pub(super) const TABLE: &[Flag] = &[
    flag("config", Value, Refused("the default profile is the only one"), "KubeSchedulerConfiguration"),
    flag("write-config-to", Value, Refused("there is no configuration file"), ""),
    flag("pod-max-in-unschedulable-pods-duration", Value, Nothing("events bring pods back, and time does too"), ""),
];

/// What the command was given.
pub(super) struct SchedulerOptions {
    kubeconfig: PathBuf,
    election: Option<LeaderElectorConfig>,
}

pub(super) fn options(given: &Given) -> Result<SchedulerOptions, FlagError> {
    let kubeconfig = required(given, "kubeconfig")?;
    Ok(SchedulerOptions { kubeconfig, election: election(given, Component::Scheduler)? })
}

pub(super) async fn run(options: SchedulerOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let client = ironkeel_client::from_kubeconfig(&options.kubeconfig).await?;
    let elector = client.clone();
    lead(elector, options.election, shutdown, |leading| {
        ironkeel_scheduler::run(ironkeel_scheduler::Config::default(), client, leading)
    })
    .await
}
