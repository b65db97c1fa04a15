//! Jobs: each pod counts once, indexes, suspension, failure, deadlines.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Cluster, condition, patch, template};

fn job(name: &str, spec: Value) -> Value {
    let mut template = template(json!({}));
    template["spec"]["restartPolicy"] = json!("Never");
    let mut job = json!({"metadata": {"name": name}, "spec": spec});
    job["spec"]["template"] = template;
    job
}

fn alive(pods: &[Pod]) -> usize {
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_of_a_job_counts_twice() {
    const PODS: i32 = 30;
    let cluster = Cluster::start().await;
    cluster.make::<Job>(job("many", json!({"completions": PODS, "parallelism": PODS}))).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 30).await;
    // One after the other, so that counting one meets caches that lag behind having counted another.
    for pod in &pods {
        cluster.report(pod, "Succeeded", "10.0.0.1").await;
    }
    let job = cluster.becomes::<Job>("many", |job| condition(job, "Complete").0 == "True").await;
    assert_eq!(job.status.unwrap().succeeded, Some(PODS));
    cluster.eventually::<Pod>("default", |pods| pods.iter().all(|pod| pod.finalizers().is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_has_a_pod_an_index_and_remembers_which_are_done() {
    let cluster = Cluster::start().await;
    let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    cluster.make::<Job>(job("parts", spec)).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    let index = |pod: &Pod| pod.labels()["batch.kubernetes.io/job-completion-index"].clone();
    let mut indexes: Vec<_> = pods.iter().map(index).collect();
    indexes.sort();
    assert_eq!(indexes, ["0", "1"]);
    let first = pods.iter().find(|pod| index(pod) == "0").unwrap();
    assert_eq!(first.spec.as_ref().unwrap().hostname.as_deref(), Some("parts-0"));
    assert!(first.name_any().starts_with("parts-0-"), "{}", first.name_any());
    let env = first.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap();
    assert_eq!(env[0].name, "JOB_COMPLETION_INDEX");
    for pod in &pods {
        cluster.report(pod, "Succeeded", "10.0.0.1").await;
    }
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 4).await;
    let half = cluster.becomes::<Job>("parts", |job| job.status.as_ref().unwrap().succeeded == Some(2)).await;
    assert_eq!(half.status.unwrap().completed_indexes.as_deref(), Some("0,1"));
    for pod in pods.iter().filter(|pod| index(pod).parse::<i32>().unwrap() > 1) {
        cluster.report(pod, "Succeeded", "10.0.0.1").await;
    }
    let done = cluster.becomes::<Job>("parts", |job| condition(job, "Complete").0 == "True").await;
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0-3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_job_has_no_pods_until_it_is_resumed_and_loses_them_again() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<Job>(job("later", json!({"suspend": true, "parallelism": 2, "completions": 2}))).await;
    let held = cluster.becomes::<Job>("later", |job| condition(job, "Suspended").0 == "True").await;
    assert!(held.status.unwrap().start_time.is_none());
    assert!(cluster.eventually::<Pod>("default", |_| true).await.is_empty());
    let api = cluster.api::<Job>("default");
    patch(&api, "later", json!({"spec": {"suspend": false}})).await;
    cluster.eventually::<Pod>("default", |pods| alive(pods) == 2).await;
    let resumed = |job: &Job| condition(job, "Suspended").0 == "False" && job.status.as_ref().unwrap().ready == Some(2);
    let running = cluster.becomes::<Job>("later", resumed).await;
    assert!(running.status.unwrap().start_time.is_some());
    patch(&api, "later", json!({"spec": {"suspend": true}})).await;
    cluster.eventually::<Pod>("default", |pods| pods.is_empty()).await;
    let held = |job: &Job| condition(job, "Suspended").0 == "True" && job.status.as_ref().unwrap().active.is_none();
    cluster.becomes::<Job>("later", held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_fails_beyond_its_backoff_limit_and_its_other_pods_go() {
    let cluster = Cluster::start().await;
    cluster.make::<Job>(job("bad", json!({"parallelism": 2, "completions": 2, "backoffLimit": 0}))).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    cluster.report(&pods[1], "Running", "10.0.0.1").await;
    cluster.report(&pods[0], "Failed", "10.0.0.1").await;
    let _kubelet = cluster.kubelet();
    let failed = cluster.becomes::<Job>("bad", |job| condition(job, "Failed").0 == "True").await;
    assert_eq!(condition(&failed, "Failed").1, "BackoffLimitExceeded");
    assert_eq!(condition(&failed, "FailureTarget").0, "True");
    let status = failed.status.unwrap();
    assert_eq!((status.active, status.succeeded), (None, None));
    cluster.eventually::<Pod>("default", |pods| alive(pods) == 1 && pods[0].finalizers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_fails_at_its_deadline() {
    let cluster = Cluster::start().await;
    let _kubelet = cluster.kubelet();
    cluster.make::<Job>(job("slow", json!({"activeDeadlineSeconds": 1}))).await;
    cluster.eventually::<Pod>("default", |pods| pods.len() == 1).await;
    let failed = cluster.becomes::<Job>("slow", |job| condition(job, "Failed").0 == "True").await;
    assert_eq!(condition(&failed, "Failed").1, "DeadlineExceeded");
    let Time(started) = failed.status.unwrap().start_time.unwrap();
    assert!(Timestamp::now().duration_since(started).as_secs() >= 1);
    cluster.eventually::<Pod>("default", |pods| pods.is_empty()).await;
}

/// Says that a pod's container ended with that code, a minute ago.
async fn fail(cluster: &Cluster, pod: &Pod, code: i32) {
    let then = Timestamp::from_second(Timestamp::now().as_second() - 60).unwrap().to_string();
    let status = json!({"status": {"phase": "Failed", "containerStatuses": [{
        "name": "a", "image": "a:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": then, "startedAt": then}}}]}});
    let api = cluster.api::<Pod>("default");
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
}

fn of_index<'a>(pods: &'a [Pod], index: &str) -> Vec<&'a Pod> {
    let label = "batch.kubernetes.io/job-completion-index";
    pods.iter()
        .filter(|pod| pod.labels()[label] == index && pod.status.as_ref().unwrap().phase.as_deref() == Some("Pending"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_failure_policy_ignores_counts_and_fails_the_job() {
    let cluster = Cluster::start().await;
    let rules = json!([
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    let spec = json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}});
    cluster.make::<Job>(job("ruled", spec)).await;
    let first = cluster.eventually::<Pod>("default", |pods| pods.len() == 1).await;
    let disrupted = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}});
    let api = cluster.api::<Pod>("default");
    api.patch_status(&first[0].name_any(), &PatchParams::default(), &Patch::Strategic(disrupted)).await.unwrap();
    fail(&cluster, &first[0], 1).await;
    // Ignored: another one comes at once, although no failure is allowed.
    let both = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    let second = both.iter().find(|pod| pod.uid() != first[0].uid()).unwrap();
    fail(&cluster, second, 42).await;
    let failed = cluster.becomes::<Job>("ruled", |job| condition(job, "Failed").0 == "True").await;
    assert_eq!(condition(&failed, "Failed").1, "PodFailurePolicy");
    assert_eq!(failed.status.unwrap().failed, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_limit_an_index_each_index_fails_for_itself() {
    let cluster = Cluster::start().await;
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    cluster.make::<Job>(job("parts", spec)).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    cluster.report(of_index(&pods, "1")[0], "Succeeded", "10.0.0.1").await;
    fail(&cluster, of_index(&pods, "0")[0], 1).await;
    let pods = cluster.eventually::<Pod>("default", |pods| of_index(pods, "0").len() == 1 && pods.len() == 3).await;
    let again = of_index(&pods, "0")[0];
    assert_eq!(again.annotations()["batch.kubernetes.io/job-index-failure-count"], "1");
    fail(&cluster, again, 1).await;
    let failed = cluster.becomes::<Job>("parts", |job| condition(job, "Failed").0 == "True").await;
    assert_eq!(condition(&failed, "Failed").1, "FailedIndexes");
    let status = failed.status.unwrap();
    assert_eq!((status.failed_indexes.as_deref(), status.completed_indexes.as_deref()), (Some("0"), Some("1")));
    assert_eq!((status.failed, status.succeeded), (Some(2), Some(1)));
    cluster.eventually::<Pod>("default", |pods| pods.iter().all(|pod| pod.finalizers().is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_policy_ends_a_job_early() {
    let cluster = Cluster::start().await;
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    cluster.make::<Job>(job("led", spec)).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 3).await;
    cluster.report(of_index(&pods, "0")[0], "Succeeded", "10.0.0.1").await;
    let done = cluster.becomes::<Job>("led", |job| condition(job, "Complete").0 == "True").await;
    assert_eq!(condition(&done, "Complete").1, "SuccessPolicy");
    cluster.eventually::<Pod>("default", |pods| alive(pods) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_of_a_deleted_job_are_free() {
    let cluster = Cluster::start().await;
    let kubelet = cluster.kubelet();
    let spec = json!({"completions": 2, "parallelism": 2});
    cluster.make::<Job>(job("gone", spec.clone())).await;
    cluster.becomes::<Job>("gone", |job| job.status.as_ref().is_some_and(|status| status.ready == Some(2))).await;
    cluster.api::<Job>("default").delete("gone", &DeleteParams::background()).await.unwrap();
    cluster.eventually::<Pod>("default", |pods| pods.is_empty()).await;
    drop(kubelet);

    cluster.make::<Job>(job("left", spec)).await;
    cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    cluster.api::<Job>("default").delete("left", &DeleteParams::orphan()).await.unwrap();
    let free = |pod: &Pod| pod.finalizers().is_empty() && pod.owner_references().is_empty();
    cluster.eventually::<Pod>("default", |pods| pods.len() == 2 && pods.iter().all(free)).await;
}
