//! Disruption budgets, quotas, and the protection of volumes and claims.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Cluster, condition, deployment, template};

fn budget(name: &str, limit: Value) -> Value {
    let mut budget = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    for (field, value) in limit.as_object().unwrap() {
        budget["spec"][field] = value.clone();
    }
    budget
}

/// Allowed disruptions, healthy, desired and expected pods.
fn numbers(budget: &PodDisruptionBudget) -> Option<[i32; 4]> {
    let status = budget.status.as_ref()?;
    Some([status.disruptions_allowed?, status.current_healthy?, status.desired_healthy?, status.expected_pods?])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_counts_healthy_pods_against_what_their_controllers_want() {
    let cluster = Cluster::start().await;
    cluster.make::<Deployment>(deployment(4)).await;
    cluster.make::<PodDisruptionBudget>(budget("most", json!({"maxUnavailable": "25%"}))).await;
    cluster.make::<PodDisruptionBudget>(budget("least", json!({"minAvailable": 2}))).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 4).await;
    let held = cluster.becomes::<PodDisruptionBudget>("most", |found| numbers(found) == Some([0, 0, 3, 4])).await;
    assert_eq!(condition(&held, "DisruptionAllowed"), ("False".to_owned(), "InsufficientPods".to_owned()));
    for pod in &pods {
        cluster.bind(pod, "n1").await;
        cluster.report(pod, "Running", "10.0.0.1").await;
    }
    let open = cluster.becomes::<PodDisruptionBudget>("most", |found| numbers(found) == Some([1, 4, 3, 4])).await;
    assert_eq!(condition(&open, "DisruptionAllowed").0, "True");
    cluster.becomes::<PodDisruptionBudget>("least", |found| numbers(found) == Some([2, 4, 2, 4])).await;
    cluster.report(&pods[0], "Pending", "10.0.0.1").await;
    cluster.becomes::<PodDisruptionBudget>("most", |found| numbers(found) == Some([0, 3, 3, 4])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_in_use_stays_until_its_pod_is_gone() {
    let cluster = Cluster::start().await;
    cluster
        .make::<PersistentVolumeClaim>(json!({"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}))
        .await;
    let held = |claim: &PersistentVolumeClaim| claim.finalizers().iter().any(|f| f == "kubernetes.io/pvc-protection");
    cluster.becomes("data", held).await;
    let mut pod = template(json!({}));
    pod["metadata"]["name"] = json!("user");
    pod["spec"]["nodeName"] = json!("n1");
    pod["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]);
    cluster.make::<Pod>(pod).await;
    let user = cluster.api::<Pod>("default").get("user").await.unwrap();
    cluster.report(&user, "Running", "10.0.0.1").await;
    // The controller knows the pod once the pod's own caches do; a claim is looked at again with every change of it.
    let api = cluster.api::<PersistentVolumeClaim>("default");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    api.delete("data", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(api.get("data").await.unwrap().metadata.deletion_timestamp.is_some());
    cluster.report(&user, "Succeeded", "10.0.0.1").await;
    cluster.eventually::<PersistentVolumeClaim>("default", |claims| claims.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_volume_stays_until_it_is_released() {
    let cluster = Cluster::start().await;
    let api = Api::<PersistentVolume>::all(cluster.client.clone());
    let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}}))
    .unwrap();
    api.create(&PostParams::default(), &volume).await.unwrap();
    let phase = |phase: &str| Patch::Merge(json!({"status": {"phase": phase}}));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !api.get("v").await.unwrap().finalizers().iter().any(|f| f == "kubernetes.io/pv-protection") {
        assert!(std::time::Instant::now() < deadline);
    }
    api.patch_status("v", &PatchParams::default(), &phase("Bound")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    api.delete("v", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(api.get("v").await.unwrap().metadata.deletion_timestamp.is_some());
    api.patch_status("v", &PatchParams::default(), &phase("Released")).await.unwrap();
    while api.get_opt("v").await.unwrap().is_some() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn used(quota: &ResourceQuota) -> Value {
    serde_json::to_value(quota.status.as_ref().and_then(|status| status.used.clone())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_tells_what_is_used() {
    let cluster = Cluster::start().await;
    let hard = json!({"pods": "5", "requests.cpu": "2", "limits.memory": "1Gi", "services": "3", "services.nodeports": "2",
        "count/configmaps": "9", "count/deployments.apps": "4", "requests.storage": "5Gi"});
    cluster.make::<ResourceQuota>(json!({"metadata": {"name": "all"}, "spec": {"hard": hard}})).await;
    let scoped = json!({"metadata": {"name": "lasting"},
        "spec": {"hard": {"pods": "5"}, "scopes": ["NotTerminating", "NotBestEffort"]}});
    cluster.make::<ResourceQuota>(scoped).await;
    // The API server's own Service and the published authority are there from the start.
    let none = json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0", "services": "1", "services.nodeports": "0",
        "count/configmaps": "1", "count/deployments.apps": "0", "requests.storage": "0"});
    let quota = cluster.becomes::<ResourceQuota>("all", |quota| used(quota) == none).await;
    assert_eq!(serde_json::to_value(quota.status.unwrap().hard).unwrap(), hard);

    let mut web = deployment(2);
    web["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi", "cpu": "1"}});
    cluster.make::<Deployment>(web).await;
    cluster
        .make::<Service>(json!({"metadata": {"name": "s"}, "spec": {
            "type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}}))
        .await;
    cluster.make::<ConfigMap>(json!({"metadata": {"name": "c"}})).await;
    cluster
        .make::<PersistentVolumeClaim>(json!({"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}))
        .await;
    let some = json!({"pods": "2", "requests.cpu": "500m", "limits.memory": "128Mi", "services": "2",
        "services.nodeports": "2", "count/configmaps": "2", "count/deployments.apps": "1", "requests.storage": "1Gi"});
    cluster.becomes::<ResourceQuota>("all", |quota| used(quota) == some).await;
    cluster.becomes::<ResourceQuota>("lasting", |quota| used(quota) == json!({"pods": "2"})).await;

    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    cluster.api::<Service>("default").delete("s", &DeleteParams::default()).await.unwrap();
    cluster.bind(&pods[0], "n1").await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::default()).await.unwrap();
    let less = |quota: &ResourceQuota| {
        let used = used(quota);
        used["services"] == "1" && used["count/deployments.apps"] == "0"
    };
    cluster.becomes::<ResourceQuota>("all", less).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_tells_the_devices_that_claims_ask_for() {
    let cluster = Cluster::start().await;
    let hard = json!({"gpu.deviceclass.resource.k8s.io/devices": "40", "nic.deviceclass.resource.k8s.io/devices": "9",
        "count/resourceclaims.resource.k8s.io": "9"});
    cluster.make::<ResourceQuota>(json!({"metadata": {"name": "devices"}, "spec": {"hard": hard}})).await;
    let told = |gpus: &str, nics: &str, claims: &str| {
        json!({"gpu.deviceclass.resource.k8s.io/devices": gpus, "nic.deviceclass.resource.k8s.io/devices": nics,
            "count/resourceclaims.resource.k8s.io": claims})
    };
    cluster.becomes::<ResourceQuota>("devices", |quota| used(quota) == told("0", "0", "0")).await;
    let claim =
        |name: &str, requests: Value| json!({"metadata": {"name": name}, "spec": {"devices": {"requests": requests}}});
    let of = |name: &str, class: &str, count: i64| json!({"name": name, "deviceClassName": class, "count": count});
    let exactly = |name: &str, class: &str, count: i64| json!({"name": name, "exactly": {"deviceClassName": class, "count": count}});
    let either = json!({"name": "e", "firstAvailable": [of("a", "gpu", 3), of("b", "gpu", 1), of("c", "nic", 2)]});
    cluster.make::<ResourceClaim>(claim("a", json!([exactly("r", "gpu", 2), either]))).await;
    cluster.becomes::<ResourceQuota>("devices", |quota| used(quota) == told("5", "2", "1")).await;
    let all = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}});
    cluster.make::<ResourceClaim>(claim("b", json!([all]))).await;
    cluster.becomes::<ResourceQuota>("devices", |quota| used(quota) == told("37", "2", "2")).await;
    cluster.api::<ResourceClaim>("default").delete("a", &DeleteParams::default()).await.unwrap();
    cluster.becomes::<ResourceQuota>("devices", |quota| used(quota) == told("32", "0", "1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_keeps_what_it_told_of_a_resource_whose_server_does_not_answer() {
    let cluster = Cluster::start().await;
    let resource = ApiResource {
        group: "apiregistration.k8s.io".into(),
        version: "v1".into(),
        api_version: "apiregistration.k8s.io/v1".into(),
        kind: "APIService".into(),
        plural: "apiservices".into(),
    };
    let services = Api::<DynamicObject>::all_with(cluster.client.clone(), &resource);
    let mut service = DynamicObject::new("v1.example.com", &resource);
    service.data = json!({"spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000,
        "versionPriority": 1, "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "nobody"}}});
    services.create(&PostParams::default(), &service).await.unwrap();
    let hidden = async || {
        let groups = cluster.client.list_api_groups().await.unwrap().groups;
        let known = groups.iter().any(|group| group.name == "example.com");
        known && cluster.client.list_api_group_resources("example.com/v1").await.is_err()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !hidden().await {
        assert!(std::time::Instant::now() < deadline, "the group is never told of");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let hard = json!({"count/widgets.example.com": "9", "count/gadgets.example.org": "9", "configmaps": "9"});
    cluster.make::<ResourceQuota>(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    // Of the one nobody can say how many there are; the other is not served at all.
    let known = |maps: &str| json!({"count/gadgets.example.org": "0", "configmaps": maps});
    cluster.becomes::<ResourceQuota>("q", |quota| used(quota) == known("1")).await;
    let quotas = cluster.api::<ResourceQuota>("default");
    let told = Patch::Merge(json!({"status": {"used": {"count/widgets.example.com": "3"}}}));
    quotas.patch_status("q", &PatchParams::default(), &told).await.unwrap();
    cluster.make::<ConfigMap>(json!({"metadata": {"name": "c"}})).await;
    let mut kept = known("2");
    kept["count/widgets.example.com"] = json!("3");
    let quota = cluster.becomes::<ResourceQuota>("q", |quota| used(quota)["configmaps"] == "2").await;
    assert_eq!(used(&quota), kept);
}
