//! What a Job's own policies say of its pods: which failures count, which indexes have failed, when it has succeeded early.
//!
//! Answers to upstream's `job/pod_failure_policy.go`, `success_policy.go` and `backoff_utils.go`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_semantics::pods;
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::indexes;
use super::sync::{BACKOFF_FIRST, BACKOFF_LONGEST};
use crate::context::since;

/// Annotation of a pod with a back-off limit per index: how often its index failed before.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// What a failed pod means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Counts,
    Ignored,
    FailsIndex,
    FailsJob(String),
}

fn meaning(spec: &JobSpec, pod: &Pod) -> Meaning {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules).enumerate();
    for (at, rule) in rules {
        let Some(why) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignored,
            "FailIndex" => Meaning::FailsIndex,
            "FailJob" => Meaning::FailsJob(format!("{why} matching FailJob rule at index {at}")),
            _ => Meaning::Counts,
        };
    }
    Meaning::Counts
}

/// Why the rule matches, if it does.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(codes) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        return all.filter(|found| codes.container_name.as_ref().is_none_or(|name| *name == found.name)).find_map(
            |found| {
                let code = found.state.as_ref()?.terminated.as_ref()?.exit_code;
                let listed = codes.values.contains(&code);
                let hit = code != 0 && if codes.operator == "NotIn" { !listed } else { listed };
                hit.then(|| format!("Container {} for pod {name} failed with exit code {code}", found.name))
            },
        );
    }
    rule.on_pod_conditions.iter().flatten().find_map(|wanted| {
        let found = pods::condition(pod, &wanted.type_)?;
        let hit = found.status == wanted.status.as_deref().unwrap_or("True");
        hit.then(|| format!("Pod {name} has condition {}", wanted.type_))
    })
}

/// Whether the failure of `pod` is one of the Job.
pub(super) fn counts(spec: &JobSpec, pod: &Pod) -> bool {
    meaning(spec, pod) != Meaning::Ignored
}

/// The words about the first pod whose failure is that of the whole Job.
pub(super) fn failed_job(spec: &JobSpec, claimed: &[Arc<Pod>]) -> Option<String> {
    spec.pod_failure_policy.as_ref()?;
    claimed.iter().filter(|pod| pods::phase(pod) == "Failed").find_map(|pod| match meaning(spec, pod) {
        Meaning::FailsJob(message) => Some(message),
        _ => None,
    })
}

fn failures_before(pod: &Pod) -> u32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(FAILURES)?.parse().ok()).unwrap_or(0)
}

/// The indexes that have failed for good: those in the status, and those of `failed` pods beyond their limit.
pub(super) fn failed_indexes(spec: &JobSpec, status: &JobStatus, failed: &[Arc<Pod>]) -> BTreeSet<i32> {
    let completions = spec.completions.unwrap_or(0);
    let mut all = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
    let Some(limit) = spec.backoff_limit_per_index else { return all };
    let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    let beyond = failed.iter().filter(|pod| match meaning(spec, pod) {
        Meaning::FailsIndex => true,
        Meaning::Ignored => false,
        _ => i64::from(failures_before(pod)) >= i64::from(limit),
    });
    all.extend(beyond.filter_map(|pod| indexes::of_pod(pod)).filter(|index| *index < completions));
    all.difference(&done).copied().collect()
}

/// The failures that the next pod of `index` follows, and how long it has to wait, by the failed pods that are held.
pub(super) fn next_of_index(spec: &JobSpec, failed: &[Arc<Pod>], index: i32) -> (u32, Duration) {
    let of_index = failed.iter().filter(|pod| indexes::of_pod(pod) == Some(index));
    let Some(last) = of_index.max_by_key(|pod| failures_before(pod)) else { return (0, Duration::ZERO) };
    let before = failures_before(last);
    if !counts(spec, last) {
        return (before, Duration::ZERO);
    }
    let delay = BACKOFF_FIRST.saturating_mul(1 << before.min(10)).min(BACKOFF_LONGEST);
    (before.saturating_add(1), delay.saturating_sub(ended_for(last)))
}

/// How long ago the last container of a pod ended.
fn ended_for(pod: &Pod) -> Duration {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let transition = || pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    ends.max().or_else(transition).or(pod.metadata.creation_timestamp.as_ref()).map(since).unwrap_or_default()
}

/// Whether a failed pod must keep its finalizer: how often its index failed is known from it until another has taken its
/// place.
pub(super) fn awaits_replacement(spec: &JobSpec, pod: &Pod, active: &[Arc<Pod>], over: &BTreeSet<i32>) -> bool {
    let Some(index) = indexes::of_pod(pod).filter(|_| spec.backoff_limit_per_index.is_some()) else { return false };
    let replaced = active.iter().any(|other| {
        indexes::of_pod(other) == Some(index) && other.metadata.creation_timestamp >= pod.metadata.creation_timestamp
    });
    !pods::is_terminating(pod) && index < spec.completions.unwrap_or(0) && !over.contains(&index) && !replaced
}

/// The rule of the success policy that the completed indexes meet.
pub(super) fn succeeded_early(spec: &JobSpec, status: &JobStatus) -> Option<String> {
    let completions = spec.completions?;
    let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    let rules = &spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_ref().map(|text| indexes::parse(text, completions));
        let found = wanted.as_ref().map_or(done.len(), |wanted| wanted.intersection(&done).count());
        match (rule.succeeded_count, &wanted) {
            (Some(count), _) => found >= usize::try_from(count).unwrap_or(usize::MAX),
            (None, Some(wanted)) => found == wanted.len(),
            (None, None) => false,
        }
    });
    met.map(|at| format!("Matched rules at index {at}"))
}

/// Whether failed indexes end the Job: the reason, and the words for it.
pub(super) fn over_by_indexes(spec: &JobSpec, status: &JobStatus) -> Option<(&'static str, &'static str)> {
    spec.backoff_limit_per_index?;
    let completions = spec.completions.unwrap_or(0);
    let failed = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions).len();
    let failed = i32::try_from(failed).unwrap_or(i32::MAX);
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        return Some(("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"));
    }
    let finished = failed + status.succeeded.unwrap_or(0) >= completions;
    (failed > 0 && finished).then_some(("FailedIndexes", "Job has failed indexes"))
}
