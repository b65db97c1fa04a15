//! CronJobs: what is due is started once, policies about what still runs, limits on what ended.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Cluster, patch, template};

fn cron(spec: Value) -> Value {
    let mut template = template(json!({}));
    template["spec"]["restartPolicy"] = json!("Never");
    let mut cron = json!({"metadata": {"name": "tick"}, "spec": {
        "schedule": "* * * * *", "jobTemplate": {"metadata": {"labels": {"of": "tick"}}, "spec": {"template": template}}}});
    for (name, value) in spec.as_object().unwrap() {
        cron["spec"][name] = value.clone();
    }
    cron
}

/// Says that the CronJob last ran so many minutes ago, so that a time is due at once.
async fn last_ran(cluster: &Cluster, minutes: u64) {
    let then = Timestamp::now() - Duration::from_secs(60 * minutes);
    let then = Timestamp::from_second(then.as_second()).unwrap().to_string();
    let status = json!({"status": {"lastScheduleTime": then}});
    let api = cluster.api::<CronJob>("default");
    api.patch_status("tick", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn finish(cluster: &Cluster, job: &Job) {
    let pods = cluster
        .eventually::<k8s_openapi::api::core::v1::Pod>("default", |pods| pods.iter().any(|pod| of(pod, job)))
        .await;
    cluster.report(pods.iter().find(|pod| of(pod, job)).unwrap(), "Succeeded", "10.0.0.1").await;
}

fn of(pod: &k8s_openapi::api::core::v1::Pod, job: &Job) -> bool {
    pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}

fn active(cron: &CronJob) -> usize {
    cron.status.as_ref().and_then(|status| status.active.as_ref()).map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_missed_times_the_latest_is_started_once() {
    let cluster = Cluster::start().await;
    // Both times are over, so that no minute that begins meanwhile is due. Tokyo's minutes are UTC's.
    let now = Timestamp::now().as_second() / 60;
    let schedule = format!("{},{} * * * *", (now - 3) % 60, (now - 1) % 60);
    cluster.make::<CronJob>(cron(json!({"timeZone": "Asia/Tokyo", "schedule": schedule}))).await;
    last_ran(&cluster, 5).await;
    let tick = cluster.becomes::<CronJob>("tick", |tick| active(tick) == 1).await;
    let jobs = cluster.eventually::<Job>("default", |_| true).await;
    assert_eq!(jobs.len(), 1);
    let due = tick.status.unwrap().last_schedule_time.unwrap().0;
    assert_eq!(jobs[0].name_any(), format!("tick-{}", due.as_second() / 60));
    assert_eq!(jobs[0].labels()["of"], "tick");
    let noted: Timestamp = jobs[0].annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"].parse().unwrap();
    assert_eq!(noted, due);
    assert!(jobs[0].annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"].ends_with("+09:00"));
    finish(&cluster, &jobs[0]).await;
    let done = cluster.becomes::<CronJob>("tick", |tick| active(tick) == 0).await;
    assert!(done.status.unwrap().last_successful_time.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_or_too_late_nothing_is_started() {
    let cluster = Cluster::start().await;
    cluster.make::<CronJob>(cron(json!({"suspend": true, "schedule": "0 0 1 1 *"}))).await;
    last_ran(&cluster, 60 * 24 * 400).await;
    let api = cluster.api::<CronJob>("default");
    // Resumed, but New Year is longer ago than the deadline.
    patch(&api, "tick", json!({"spec": {"suspend": false, "startingDeadlineSeconds": 10}})).await;
    let late = json!({"spec": {"startingDeadlineSeconds": null}});
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(cluster.eventually::<Job>("default", |_| true).await.is_empty());
    patch(&api, "tick", late).await;
    cluster.eventually::<Job>("default", |jobs| jobs.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_still_runs_forbids_the_next_or_is_replaced_by_it() {
    let cluster = Cluster::start().await;
    cluster.make::<CronJob>(cron(json!({"concurrencyPolicy": "Forbid", "schedule": "@every 1s"}))).await;
    let first = cluster.eventually::<Job>("default", |jobs| jobs.len() == 1).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(cluster.eventually::<Job>("default", |_| true).await.len(), 1);
    patch(&cluster.api::<CronJob>("default"), "tick", json!({"spec": {"concurrencyPolicy": "Replace"}})).await;
    let replaced = |jobs: &[Job]| !jobs.is_empty() && jobs.iter().all(|job| job.uid() != first[0].uid());
    cluster.eventually::<Job>("default", replaced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_jobs_beyond_the_limit_are_deleted() {
    let cluster = Cluster::start().await;
    let limits = json!({"successfulJobsHistoryLimit": 1, "schedule": "@every 1s", "concurrencyPolicy": "Forbid"});
    cluster.make::<CronJob>(cron(limits)).await;
    let first = cluster.eventually::<Job>("default", |jobs| jobs.len() == 1).await;
    finish(&cluster, &first[0]).await;
    let second = cluster.eventually::<Job>("default", |jobs| jobs.len() == 2).await;
    finish(&cluster, second.iter().find(|job| job.uid() != first[0].uid()).unwrap()).await;
    cluster.eventually::<Job>("default", |jobs| jobs.iter().all(|job| job.uid() != first[0].uid())).await;
}
