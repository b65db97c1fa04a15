//! One sync of one CronJob: settle what ended, start what is due, and say when to look again.
//!
//! Answers to upstream's `cronjob/cronjob_controllerv2.go`.

use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{EventRecorder, Informer, controller_of, controller_reference, reference_to};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};

use super::schedule::Schedule;
use crate::context::{BY_CONTROLLER, split};
use crate::error::{Error, already_exists, namespace_terminating, unless_gone};
use crate::replicas::words;

/// Annotation of a Job: the time that it was started for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Finished Jobs kept when the CronJob does not say.
const SUCCESSFUL_KEPT: i32 = 3;
const FAILED_KEPT: i32 = 1;
/// Missed times from which on a warning is due.
const MANY_MISSED: usize = 100;
/// Missed times that are walked through one by one; a clock that is off by more is not caught up with.
const MOST_MISSED: usize = 1_000_000;
/// How long after a time it is looked at, so that clocks that run ahead a little do not miss it.
const AFTER: Duration = Duration::from_millis(100);

pub(super) struct Sync {
    pub(super) crons: Informer<CronJob>,
    pub(super) jobs: Informer<Job>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
}

/// How a Job ended.
fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    found.map(|condition| condition.type_.as_str())
}

fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), at.as_second().div_euclid(60))
}

impl Sync {
    pub(super) async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(cached) = self.crons.get(namespace, name) else { return Ok(None) };
        let spec = &cached.spec;
        let jobs = self.jobs.by_index(BY_CONTROLLER, &cached.uid().unwrap_or_default());
        let mut cron = cached.as_ref().clone();
        self.settle(&mut cron, &jobs);
        self.clean_up(&cron, spec, &jobs).await?;
        cron = self.put_status(&cached, cron).await?;
        if cron.metadata.deletion_timestamp.is_some() || spec.suspend.unwrap_or(false) {
            return Ok(None);
        }
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::system(),
            Some(Ok(zone)) => zone,
            Some(Err(_)) => {
                let zone = spec.time_zone.as_deref().unwrap_or_default();
                self.recorder.warning(&cron, "UnknownTimeZone", format!("invalid timeZone: \"{zone}\""));
                return Ok(None);
            }
        };
        let Some(schedule) = Schedule::parse(&spec.schedule) else {
            let message = format!("unparseable schedule: {}", spec.schedule);
            self.recorder.warning(&cron, "UnparseableCronJobSchedule", message);
            return Ok(None);
        };
        let now = Timestamp::now();
        if let Some(due) = self.due(&cron, spec, &schedule, &zone, now) {
            self.start(&mut cron, spec, due, now).await?;
        }
        let next = schedule.next(now, &zone);
        Ok(next.map(|next| Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default() + AFTER))
    }

    /// Brings the list of active Jobs to what the Jobs say.
    fn settle(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) {
        let mut status = cron.status.clone().unwrap_or_default();
        let mut active = status.active.take().unwrap_or_default();
        active.retain(|entry| {
            let Some(job) = jobs.iter().find(|job| job.metadata.uid == entry.uid) else {
                // The cache of Jobs may not have it yet: it is missing only if nothing of that name is made any more.
                return self.just_started(cron, entry.name.as_deref().unwrap_or_default());
            };
            let Some(how) = finished(job) else { return true };
            let message = format!("Saw completed job: {}, condition: {how}", job.name_any());
            self.recorder.normal(cron, "SawCompletedJob", message);
            false
        });
        let completed = jobs.iter().filter(|job| finished(job) == Some("Complete"));
        let latest = completed.filter_map(|job| job.status.as_ref()?.completion_time.clone()).max();
        status.last_successful_time = latest.max(status.last_successful_time.take());
        status.active = (!active.is_empty()).then_some(active);
        cron.status = Some(status);
    }

    /// Whether the active Job `name` is of the last time that was started, and so may be too new for the cache.
    fn just_started(&self, cron: &CronJob, name: &str) -> bool {
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let fresh = last.is_some_and(|last| {
            job_name(cron, last.0) == name && crate::context::since(last) < Duration::from_secs(10)
        });
        if !fresh {
            self.recorder.normal(cron, "MissingJob", format!("Active job went missing: {name}"));
        }
        fresh
    }

    /// Deletes finished Jobs beyond the limits, the oldest first.
    async fn clean_up(&self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Result<(), Error> {
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(SUCCESSFUL_KEPT)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(FAILED_KEPT)),
        ];
        for (how, limit) in limits {
            let mut ended: Vec<&Arc<Job>> = jobs
                .iter()
                .filter(|job| finished(job) == Some(how) && job.metadata.deletion_timestamp.is_none())
                .collect();
            ended.sort_by_key(|job| {
                (job.status.as_ref().and_then(|status| status.start_time.clone()), job.metadata.name.clone())
            });
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in ended.into_iter().take(surplus) {
                self.delete(cron, &job.name_any()).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, name: &str) -> Result<(), Error> {
        let api = Api::<Job>::namespaced(self.client.clone(), &cron.namespace().unwrap_or_default());
        if unless_gone(api.delete(name, &DeleteParams::background()).await)?.is_some() {
            self.recorder.normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
        }
        Ok(())
    }

    /// The latest time that passed since the last one; none when none did.
    fn due(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        schedule: &Schedule,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let mut earliest = last.or(cron.metadata.creation_timestamp.as_ref())?.0;
        if let Some(seconds) = spec.starting_deadline_seconds {
            let limit = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok()?;
            earliest = earliest.max(limit);
        }
        let (mut latest, mut missed) = (None, 0);
        let mut at = earliest;
        while let Some(next) = schedule.next(at, zone).filter(|next| *next <= now) {
            (latest, at) = (Some(next), next);
            missed += 1;
            if missed > MOST_MISSED {
                break;
            }
        }
        if missed > MANY_MISSED {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.recorder.warning(cron, "TooManyMissedTimes", message);
        }
        latest
    }

    async fn start(&self, cron: &mut CronJob, spec: &CronJobSpec, due: Timestamp, now: Timestamp) -> Result<(), Error> {
        let namespace = cron.namespace().unwrap_or_default();
        let late = spec.starting_deadline_seconds.is_some_and(|seconds| now.duration_since(due).as_secs() > seconds);
        if late {
            let message = format!("Missed scheduled time to start a job: {due}");
            self.recorder.warning(cron, "MissSchedule", message);
            return Ok(());
        }
        let name = match Schedule::parse(&spec.schedule) {
            // Times within one minute need names of their own.
            Some(Schedule::Every(period)) if period < Duration::from_secs(60) => {
                format!("{}-{}", cron.name_any(), due.as_second())
            }
            _ => job_name(cron, due),
        };
        let mut active = cron.status.as_ref().and_then(|status| status.active.clone()).unwrap_or_default();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.normal(cron, "JobAlreadyActive", message);
                return Ok(());
            }
            Some("Replace") => {
                for entry in std::mem::take(&mut active) {
                    self.delete(cron, entry.name.as_deref().unwrap_or_default()).await?;
                }
            }
            _ => {}
        }
        let api = Api::<Job>::namespaced(self.client.clone(), &namespace);
        let made = match api.create(&PostParams::default(), &job_of(cron, spec, name.clone(), due)).await {
            Ok(made) => {
                self.recorder.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            Err(error) if already_exists(&error) => {
                let found = api.get(&name).await?;
                if controller_of(&found.metadata).map(|owner| &owner.uid) != cron.metadata.uid.as_ref() {
                    return Err(Error::NameTaken { kind: "Job", name });
                }
                found
            }
            Err(error) if namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                self.recorder.warning(cron, "FailedCreate", format!("Error creating job: {}", words(&error)));
                return Err(error.into());
            }
        };
        if finished(&made).is_none() && !active.iter().any(|entry| entry.uid == made.metadata.uid) {
            active.push(reference_to(&made));
        }
        let before = cron.clone();
        let status = cron.status.get_or_insert_with(CronJobStatus::default);
        status.active = (!active.is_empty()).then_some(active);
        status.last_schedule_time = Some(Time(due));
        *cron = self.put_status(&before, cron.clone()).await?;
        Ok(())
    }

    async fn put_status(&self, before: &CronJob, after: CronJob) -> Result<CronJob, Error> {
        if before.status == after.status {
            return Ok(after);
        }
        let api = Api::<CronJob>::namespaced(self.client.clone(), &after.namespace().unwrap_or_default());
        Ok(unless_gone(api.replace_status(&after.name_any(), &PostParams::default(), &after).await)?.unwrap_or(after))
    }
}

fn job_of(cron: &CronJob, spec: &CronJobSpec, name: String, due: Timestamp) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let zone = spec.time_zone.as_deref().and_then(|zone| TimeZone::get(zone).ok()).unwrap_or(TimeZone::UTC);
    let local = due.to_zoned(zone.clone());
    annotations.insert(SCHEDULED.to_owned(), due.display_with_offset(local.offset()).to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}
