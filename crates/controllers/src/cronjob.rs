//! CronJobs: a Job at every time that the schedule names.
//!
//! Here: what is watched. `schedule` reads schedules, `sync` decides what to start and what to clean up.

mod schedule;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{WorkQueue, controller_of, run_workers};
use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::context::{BY_CONTROLLER, Context, controller_key, key_of};
use crate::error::{Error, is_conflict};

pub(crate) async fn run(context: Context) {
    let crons = context.factory.informer::<CronJob>();
    let jobs = context.factory.informer::<Job>();
    jobs.add_index(BY_CONTROLLER, |job| vec![controller_key(&job.metadata)]);
    let client = context.client("cronjob-controller");
    let recorder = context.recorder(&client, "cronjob-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&crons, move |delta| {
        if let Some(cron) = delta.object() {
            own.add(key_of(cron.as_ref()));
        }
    });
    let by_job = queue.clone();
    context.feed(&jobs, move |delta| {
        let Some(job) = delta.object() else { return };
        if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
            by_job.add(format!("{}/{}", job.metadata.namespace.as_deref().unwrap_or_default(), owner.name));
        }
    });
    crons.synced().await;
    jobs.synced().await;
    let sync = Arc::new(sync::Sync { crons, jobs, client, recorder });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let sync = sync.clone();
        async move {
            match sync.sync(&key).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other,
            }
        }
    })
    .await;
}
