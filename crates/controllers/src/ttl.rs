//! Jobs that finished longer ago than their `ttlSecondsAfterFinished` are deleted, with their pods.

use std::time::Duration;

use ironkeel_informer::{Delta, WorkQueue, run_workers};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions};

use crate::context::{Context, key_of, split, until_after};
use crate::error::{Error, unless_gone};

pub(crate) async fn run(context: Context) {
    let jobs = context.factory.informer::<Job>();
    let client = context.client("ttl-after-finished-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&jobs, move |delta| {
        if let Delta::Added(job) | Delta::Updated { new: job, .. } = delta
            && time_left(&job).is_some()
        {
            own.add(key_of(job.as_ref()));
        }
    });
    jobs.synced().await;
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let (jobs, client) = (jobs.clone(), client.clone());
        async move {
            let (namespace, name) = split(&key);
            let Some(cached) = jobs.get(namespace, name) else { return Ok(None) };
            match time_left(&cached) {
                None => return Ok(None),
                Some(left) if !left.is_zero() => return Ok(Some(left)),
                Some(_) => {}
            }
            // The cache may be behind a change of the TTL.
            let api = Api::<Job>::namespaced(client, namespace);
            let Some(job) = api.get_opt(name).await? else { return Ok(None) };
            match time_left(&job) {
                None => Ok(None),
                Some(left) if !left.is_zero() => Ok(Some(left)),
                Some(_) => {
                    let same = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
                    let foreground = DeleteParams::foreground().preconditions(same);
                    unless_gone(api.delete(name, &foreground).await)?;
                    Ok::<_, Error>(None)
                }
            }
        }
    })
    .await;
}

/// How long a finished job may stay; none when it is unfinished, has no TTL or is being deleted.
fn time_left(job: &Job) -> Option<Duration> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let finished =
        job.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| {
            matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
        })?;
    Some(until_after(finished.last_transition_time.as_ref()?, i64::from(seconds)))
}
