//! One sync of one Job: count what ended, decide whether it is over, create or delete pods, write the status.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ironkeel_informer::{ControllerRefManager, EventRecorder, Expectations, Informer, controller_of, slow_start_batch};
use ironkeel_semantics::well_known::JOB_TRACKING_FINALIZER;
use ironkeel_semantics::{pods, selectors};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;

use super::indexes;
use super::pod::pod_of;
use super::policy;
use crate::context::{BY_CONTROLLER, key_of, now, orphan_key, since, split, until_after};
use crate::error::{Error, namespace_terminating, unless_gone};
use crate::replicas::words;

/// Pods created or deleted in one sync.
const BURST_PODS: usize = 500;
/// Outcomes counted in one write of the status.
const COUNTED_AT_ONCE: usize = 500;
/// The delay before a failed pod is replaced; it doubles with every failure since the last success.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// The longest such delay.
pub(super) const BACKOFF_LONGEST: Duration = Duration::from_secs(600);
/// Names that managers other than this controller go by are not ours.
const OUR_NAME: &str = "kubernetes.io/job-controller";

pub(super) struct Sync {
    pub(super) jobs: Informer<Job>,
    pub(super) pods: Informer<Pod>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) expectations: Arc<Expectations>,
    /// By Job: failures since the last success, and when the last one was counted.
    pub(super) failures: Mutex<HashMap<String, (u32, Time)>>,
    pub(super) freed: super::Freed,
}

/// The pods of a Job, sorted by what they mean for it.
struct Sorted {
    active: Vec<Arc<Pod>>,
    terminating: i32,
    ready: i32,
    /// With our finalizer, and not yet in the status.
    succeeded: Vec<Arc<Pod>>,
    failed: Vec<Arc<Pod>>,
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend.unwrap_or(false)
}

fn is_true(status: &JobStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn may_adopt(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    job.metadata.deletion_timestamp.is_none() && selectors::matches_optional(selector, pod.metadata.labels.as_ref())
}

/// Whether the pod has our finalizer.
pub(super) fn tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == JOB_TRACKING_FINALIZER)
}

fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn length<T>(list: &[T]) -> i32 {
    i32::try_from(list.len()).unwrap_or(i32::MAX)
}

impl Sync {
    pub(super) async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(job) = self.jobs.get(namespace, name) else {
            self.expectations.forget(key);
            self.failures.lock().remove(key);
            return Ok(None);
        };
        let Some(spec) = &job.spec else { return Ok(None) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != OUR_NAME) {
            return Ok(None);
        }
        let api = Api::<Job>::namespaced(self.client.clone(), namespace);
        let claimed = self.claim(&api, &job, spec).await?;
        let mut status = job.status.clone().unwrap_or_default();
        if is_true(&status, "Complete") || is_true(&status, "Failed") {
            self.untrack(claimed.iter().filter(|pod| tracked(pod))).await?;
            return Ok(None);
        }
        let satisfied = self.expectations.satisfied(key);
        let suspended = is_suspended(spec);
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(now());
        }
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let held = self.held(&claimed);
        settle(uncounted, &held, &mut status.succeeded, &mut status.failed);
        let mut sorted = sort(spec, uncounted, &claimed, &held);
        let failed_job = policy::failed_job(spec, &claimed);
        if is_indexed(spec) {
            let failed = policy::failed_indexes(spec, &status, &sorted.failed);
            status.failed_indexes = spec.backoff_limit_per_index.map(|_| indexes::format(&failed));
        }
        let ending = failed_job.is_some()
            || job.metadata.deletion_timestamp.is_some()
            || is_true(&status, "SuccessCriteriaMet")
            || is_true(&status, "FailureTarget")
            || policy::over_by_indexes(spec, &status).is_some();
        let failed = sorted.failed.clone();
        if !ending {
            let over = finished_indexes(spec, &status, &sorted);
            sorted.failed.retain(|pod| !policy::awaits_replacement(spec, pod, &sorted.active, &over));
        }
        let job = self.count(&api, &job, spec, &mut status, &sorted).await?;
        let Some(spec) = &job.spec else { return Ok(None) };

        sorted.failed = failed;
        let verdict = match failed_job {
            Some(message) => Some(("FailureTarget", "PodFailurePolicy", message)),
            None => self.judge(spec, &status, &sorted),
        };
        let mut again = deadline_left(spec, &status);
        let over = verdict.is_some() || is_true(&status, "SuccessCriteriaMet") || is_true(&status, "FailureTarget");
        let mut active = length(&sorted.active);
        if job.metadata.deletion_timestamp.is_some() {
            // The garbage collector takes the pods; their outcome is counted to the end.
        } else if over || suspended {
            if satisfied || over {
                self.delete(&job, key, &sorted.active).await?;
                active = 0;
            }
        } else if satisfied {
            let (delta, wait) = self.manage(&job, spec, key, &status, &sorted).await?;
            active += delta;
            again = [again, wait].into_iter().flatten().min();
        }
        status.active = some(active);
        status.ready = Some(sorted.ready);
        let deleted = if over || suspended { length(&sorted.active) } else { 0 };
        status.terminating = Some(sorted.terminating + deleted);
        self.tell(&job, &mut status, verdict, suspended);
        if job.status.as_ref() != Some(&status) {
            let mut changed = job.clone();
            changed.status = Some(status);
            unless_gone(api.replace_status(name, &PostParams::default(), &changed).await)?;
        }
        Ok(again)
    }

    async fn claim(&self, api: &Api<Job>, job: &Job, spec: &JobSpec) -> Result<Vec<Arc<Pod>>, Error> {
        let mut candidates = self.pods.by_index(BY_CONTROLLER, &job.uid().unwrap_or_default());
        candidates.extend(self.pods.by_index(BY_CONTROLLER, &orphan_key(&job.namespace().unwrap_or_default())));
        let name = job.name_any();
        Ok(ControllerRefManager::new(self.client.clone(), job)
            .claim(
                candidates,
                |labels| selectors::matches_optional(spec.selector.as_ref(), Some(labels)),
                || async { Ok(api.get_opt(&name).await?.map(|job| job.metadata)) },
            )
            .await?)
    }

    /// Takes ended pods into the status: first as uncounted, then their finalizer goes, then they are numbers.
    async fn count(
        &self,
        api: &Api<Job>,
        job: &Job,
        spec: &JobSpec,
        status: &mut JobStatus,
        sorted: &Sorted,
    ) -> Result<Job, Error> {
        if sorted.succeeded.is_empty() && sorted.failed.is_empty() {
            return Ok(job.clone());
        }
        let completions = spec.completions.unwrap_or(0);
        let mut done = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let mut ended: Vec<&Arc<Pod>> = Vec::new();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        for pod in sorted.succeeded.iter().take(COUNTED_AT_ONCE) {
            ended.push(pod);
            if is_indexed(spec) {
                // Only the first success of an index counts, and the index itself is the count.
                done.extend(indexes::of_pod(pod).filter(|index| *index < completions));
            } else {
                uncounted.succeeded.get_or_insert_default().push(pod.uid().unwrap_or_default());
            }
        }
        for pod in sorted.failed.iter().take(COUNTED_AT_ONCE - ended.len().min(COUNTED_AT_ONCE)) {
            ended.push(pod);
            if policy::counts(spec, pod) {
                uncounted.failed.get_or_insert_default().push(pod.uid().unwrap_or_default());
            }
        }
        if is_indexed(spec) {
            status.succeeded = some(i32::try_from(done.len()).unwrap_or(i32::MAX));
            status.completed_indexes = Some(indexes::format(&done)).filter(|text| !text.is_empty());
        }
        self.note_failures(&key_of(job), spec, sorted);
        let mut changed = job.clone();
        changed.status = Some(status.clone());
        let written = api.replace_status(&job.name_any(), &PostParams::default(), &changed).await?;
        self.untrack(ended.iter().copied()).await?;
        let freed: HashSet<String> = ended.iter().map(|pod| pod.uid().unwrap_or_default()).collect();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        move_counted(&mut uncounted.succeeded, &mut status.succeeded, |uid| freed.contains(uid));
        move_counted(&mut uncounted.failed, &mut status.failed, |uid| freed.contains(uid));
        Ok(written)
    }

    /// The uids of the pods that have our finalizer and are not known to have lost it.
    fn held(&self, claimed: &[Arc<Pod>]) -> HashSet<String> {
        let freed = self.freed.lock();
        let uids = claimed.iter().filter(|pod| tracked(pod)).filter_map(|pod| pod.metadata.uid.as_ref());
        uids.filter(|uid| !freed.contains(*uid)).cloned().collect()
    }

    async fn untrack(&self, pods: impl Iterator<Item = &Arc<Pod>>) -> Result<(), Error> {
        let results = join_all(pods.map(|pod| async {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let uid = pod.uid().unwrap_or_default();
            // Before the call: its event may be here before its answer.
            self.freed.lock().insert(uid.clone());
            let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let patch = Patch::Strategic(json!({"metadata": {
                "uid": uid,
                "$deleteFromPrimitiveList/finalizers": [JOB_TRACKING_FINALIZER],
            }}));
            let result = unless_gone(api.patch(&name, &PatchParams::default(), &patch).await).map(drop);
            let shown =
                self.pods.get(&namespace, &name).is_none_or(|known| known.uid() != pod.uid() || !tracked(&known));
            if result.is_err() || shown {
                self.freed.lock().remove(&uid);
            }
            result
        }))
        .await;
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    /// Frees a pod whose Job is gone: nobody will count it.
    pub(super) async fn free(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(pod) = self.pods.get(namespace, name).filter(|pod| tracked(pod)) else { return Ok(None) };
        if let Some(owner) = controller_of(&pod.metadata) {
            let api = Api::<Job>::namespaced(self.client.clone(), namespace);
            // Past the cache, which may not have the Job yet.
            let live = if owner.kind == "Job" { api.get_opt(&owner.name).await? } else { None };
            if live.is_some_and(|job| job.metadata.uid.as_deref() == Some(&owner.uid)) {
                return Ok(None);
            }
        } else if self.jobs.list_namespace(namespace).iter().any(|job| may_adopt(job, &pod)) {
            return Ok(None);
        }
        self.untrack(std::iter::once(&pod)).await?;
        Ok(None)
    }

    fn note_failures(&self, key: &str, spec: &JobSpec, sorted: &Sorted) {
        let counted = sorted.failed.iter().filter(|pod| policy::counts(spec, pod)).count();
        let mut failures = self.failures.lock();
        if !sorted.succeeded.is_empty() {
            failures.remove(key);
        }
        // With a limit an index, each index waits for itself.
        if counted > 0 && spec.backoff_limit_per_index.is_none() {
            let entry = failures.entry(key.to_owned()).or_insert_with(|| (0, now()));
            *entry = (entry.0.saturating_add(u32::try_from(counted).unwrap_or(u32::MAX)), now());
        }
    }

    /// Whether the Job is over: the condition type that says so, its reason and message.
    fn judge(
        &self,
        spec: &JobSpec,
        status: &JobStatus,
        sorted: &Sorted,
    ) -> Option<(&'static str, &'static str, String)> {
        let failed = status.failed.unwrap_or(0);
        let limit = spec.backoff_limit.unwrap_or(6);
        let restarts: i32 = sorted.active.iter().map(|pod| pods::most_restarts(pod)).sum();
        let restarts_in_place =
            spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
        if failed > limit || (restarts_in_place && restarts > 0 && restarts >= limit.max(1)) {
            let message = "Job has reached the specified backoff limit".to_owned();
            return Some(("FailureTarget", "BackoffLimitExceeded", message));
        }
        if !is_suspended(spec) && deadline_left(spec, status).is_some_and(|left| left.is_zero()) {
            let message = "Job was active longer than specified deadline".to_owned();
            return Some(("FailureTarget", "DeadlineExceeded", message));
        }
        if let Some((reason, message)) = policy::over_by_indexes(spec, status) {
            return Some(("FailureTarget", reason, message.to_owned()));
        }
        if let Some(message) = policy::succeeded_early(spec, status).filter(|_| !is_suspended(spec)) {
            return Some(("SuccessCriteriaMet", "SuccessPolicy", message));
        }
        let succeeded = status.succeeded.unwrap_or(0);
        let complete = match spec.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && sorted.active.is_empty(),
        };
        let message = "Reached expected number of succeeded pods".to_owned();
        (complete && !is_suspended(spec)).then_some(("SuccessCriteriaMet", "CompletionsReached", message))
    }

    /// Creates or deletes pods; the answer is by how many the active ones change, and when to look again.
    async fn manage(
        &self,
        job: &Job,
        spec: &JobSpec,
        key: &str,
        status: &JobStatus,
        sorted: &Sorted,
    ) -> Result<(i32, Option<Duration>), Error> {
        let parallelism = spec.parallelism.unwrap_or(1);
        let succeeded = status.succeeded.unwrap_or(0);
        let active = length(&sorted.active);
        let wanted = match spec.completions {
            Some(completions) => {
                let failed = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
                let failed = i32::try_from(failed.len()).unwrap_or(i32::MAX);
                parallelism.min(completions - succeeded - failed).max(0)
            }
            None if succeeded > 0 => active.min(parallelism),
            None => parallelism,
        };
        if active > wanted {
            let mut surplus = sorted.active.clone();
            surplus.sort_by_key(|pod| (pods::is_ready(pod), pod.metadata.creation_timestamp.clone()));
            surplus.truncate(usize::try_from(active - wanted).unwrap_or(0));
            self.delete(job, key, &surplus).await?;
            return Ok((-length(&surplus), None));
        }
        let waits_for_failed = spec.pod_replacement_policy.as_deref() == Some("Failed");
        let held = if waits_for_failed { sorted.terminating } else { 0 };
        let missing = usize::try_from(wanted - active - held).unwrap_or(0).min(BURST_PODS);
        if missing == 0 {
            return Ok((0, None));
        }
        if let Some(wait) = self.backoff(key) {
            return Ok((0, Some(wait)));
        }
        self.create(job, spec, key, status, sorted, missing).await
    }

    /// How long to wait before a failed pod is replaced.
    fn backoff(&self, key: &str) -> Option<Duration> {
        let failures = self.failures.lock();
        let (count, last) = failures.get(key)?;
        let delay = BACKOFF_FIRST.saturating_mul(1 << (count.saturating_sub(1)).min(10)).min(BACKOFF_LONGEST);
        Some(delay.saturating_sub(since(last))).filter(|left| !left.is_zero())
    }

    async fn create(
        &self,
        job: &Job,
        spec: &JobSpec,
        key: &str,
        status: &JobStatus,
        sorted: &Sorted,
        count: usize,
    ) -> Result<(i32, Option<Duration>), Error> {
        let mut free: Vec<(i32, u32)> = Vec::new();
        let mut again: Option<Duration> = None;
        if is_indexed(spec) {
            let mut taken = finished_indexes(spec, status, sorted);
            taken.extend(sorted.active.iter().filter_map(|pod| indexes::of_pod(pod)));
            for index in (0..spec.completions.unwrap_or(0)).filter(|index| !taken.contains(index)) {
                if free.len() == count {
                    break;
                }
                match policy::next_of_index(spec, &sorted.failed, index) {
                    (_, wait) if spec.backoff_limit_per_index.is_some() && !wait.is_zero() => {
                        again = [again, Some(wait)].into_iter().flatten().min();
                    }
                    (failures, _) => free.push((index, failures)),
                }
            }
        }
        let count = if is_indexed(spec) { free.len() } else { count };
        let api = Api::<Pod>::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        self.expectations.expect_creations(key, count);
        let (made, skipped, failed) = slow_start_batch(count, |at| {
            let pod = pod_of(job, spec, free.get(at).copied());
            let api = &api;
            async move {
                match api.create(&PostParams::default(), &pod).await {
                    Ok(made) => {
                        let message = format!("Created pod: {}", made.name_any());
                        self.recorder.normal(job, "SuccessfulCreate", message);
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.creation_observed(key);
                        let message = format!("Error creating: {}", words(&error));
                        self.recorder.warning(job, "FailedCreate", message);
                        Err(error)
                    }
                }
            }
        })
        .await;
        for _ in 0..skipped {
            self.expectations.creation_observed(key);
        }
        match failed {
            Some(error) if !namespace_terminating(&error) => Err(error.into()),
            _ => Ok((i32::try_from(made).unwrap_or(i32::MAX), again)),
        }
    }

    async fn delete(&self, job: &Job, key: &str, doomed: &[Arc<Pod>]) -> Result<(), Error> {
        if doomed.is_empty() {
            return Ok(());
        }
        let doomed = &doomed[..doomed.len().min(BURST_PODS)];
        self.expectations.expect_deletions(key, doomed.iter().map(|pod| key_of(pod.as_ref())));
        let api = Api::<Pod>::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        let results = join_all(doomed.iter().map(|pod| async {
            let name = pod.name_any();
            let result = unless_gone(api.delete(&name, &DeleteParams::default()).await);
            match &result {
                Ok(Some(_)) => self.recorder.normal(job, "SuccessfulDelete", format!("Deleted pod: {name}")),
                _ => self.expectations.deletion_observed(key, &key_of(pod.as_ref())),
            }
            result.map(drop)
        }))
        .await;
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    /// Brings the conditions to the verdict; the final one follows when no pod is left.
    fn tell(&self, job: &Job, status: &mut JobStatus, verdict: Option<(&str, &str, String)>, suspended: bool) {
        let was_suspended = is_true(status, "Suspended");
        if suspended && !was_suspended {
            set(status, "Suspended", "True", "JobSuspended", "Job suspended");
            status.start_time = None;
            self.recorder.normal(job, "Suspended", "Job suspended");
        } else if !suspended && was_suspended {
            set(status, "Suspended", "False", "JobResumed", "Job resumed");
            status.start_time = Some(now());
            self.recorder.normal(job, "Resumed", "Job resumed");
        }
        let told = ["SuccessCriteriaMet", "FailureTarget"].into_iter().find(|type_| is_true(status, type_));
        if let (None, Some((type_, reason, message))) = (told, &verdict) {
            set(status, type_, "True", reason, message);
        }
        let found = status.conditions.iter().flatten().find(|condition| {
            matches!(condition.type_.as_str(), "SuccessCriteriaMet" | "FailureTarget") && condition.status == "True"
        });
        let Some(found) = found.cloned() else { return };
        let uncounted = status.uncounted_terminated_pods.as_ref();
        let open = uncounted.is_some_and(|lists| {
            lists.succeeded.as_ref().is_some_and(|list| !list.is_empty())
                || lists.failed.as_ref().is_some_and(|list| !list.is_empty())
        });
        if status.active.unwrap_or(0) > 0 || status.terminating.unwrap_or(0) > 0 || open {
            return;
        }
        let (reason, message) = (found.reason.unwrap_or_default(), found.message.unwrap_or_default());
        if found.type_ == "SuccessCriteriaMet" {
            set(status, "Complete", "True", &reason, &message);
            status.completion_time = Some(now());
            self.recorder.normal(job, "Completed", "Job completed");
        } else {
            set(status, "Failed", "True", &reason, &message);
            self.recorder.warning(job, &reason, message);
        }
    }
}

fn set(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: &str) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now()),
        last_transition_time: Some(now()),
    });
}

/// The time left of the active deadline; none without one.
fn deadline_left(spec: &JobSpec, status: &JobStatus) -> Option<Duration> {
    Some(until_after(status.start_time.as_ref()?, spec.active_deadline_seconds?))
}

/// Turns uncounted pods whose finalizer is gone into numbers: an earlier sync was interrupted.
fn settle(
    uncounted: &mut UncountedTerminatedPods,
    held: &HashSet<String>,
    succeeded: &mut Option<i32>,
    failed: &mut Option<i32>,
) {
    move_counted(&mut uncounted.succeeded, succeeded, |uid| !held.contains(uid));
    move_counted(&mut uncounted.failed, failed, |uid| !held.contains(uid));
}

fn move_counted(list: &mut Option<Vec<String>>, count: &mut Option<i32>, counted: impl Fn(&str) -> bool) {
    let Some(uids) = list else { return };
    let before = uids.len();
    uids.retain(|uid| !counted(uid));
    let moved = i32::try_from(before - uids.len()).unwrap_or(i32::MAX);
    if uids.is_empty() {
        *list = None;
    }
    *count = some(count.unwrap_or(0).saturating_add(moved));
}

fn sort(spec: &JobSpec, uncounted: &UncountedTerminatedPods, claimed: &[Arc<Pod>], held: &HashSet<String>) -> Sorted {
    let known: HashSet<&String> =
        uncounted.succeeded.iter().flatten().chain(uncounted.failed.iter().flatten()).collect();
    let only_failed = spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some();
    let mut sorted = Sorted { active: Vec::new(), terminating: 0, ready: 0, succeeded: Vec::new(), failed: Vec::new() };
    for pod in claimed {
        let open = pod.metadata.uid.as_ref().is_some_and(|uid| held.contains(uid) && !known.contains(uid));
        let terminal = pods::is_terminal(pod);
        let terminating = pods::is_terminating(pod);
        if terminating && !terminal {
            sorted.terminating += 1;
        }
        if pods::phase(pod) == "Succeeded" {
            if open {
                sorted.succeeded.push(pod.clone());
            }
        } else if pods::phase(pod) == "Failed" || (terminating && !only_failed) {
            if open {
                sorted.failed.push(pod.clone());
            }
        } else if !terminating {
            sorted.ready += i32::from(pods::is_ready(pod));
            sorted.active.push(pod.clone());
        }
    }
    sorted
}

/// The indexes that need no pod any more: done, about to be counted as done, or failed for good.
fn finished_indexes(spec: &JobSpec, status: &JobStatus, sorted: &Sorted) -> BTreeSet<i32> {
    let completions = spec.completions.unwrap_or(0);
    let mut over = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    over.extend(indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions));
    over.extend(sorted.succeeded.iter().filter_map(|pod| indexes::of_pod(pod)));
    over
}
