//! The controllers against a real API server over the in-process transport and a store on disk. There is no kubelet: the
//! tests say what became of pods.
#![allow(clippy::unwrap_used)]

mod cronjobs;
mod daemonsets;
mod deployments;
mod garbage;
mod jobs;
mod lifecycle;
mod nodes;
mod policies;
mod service_cidrs;
mod statefulsets;
mod storage_versions;
mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use support::{Cluster, deployment, patch, template};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_pods_rolls_and_rolls_back_and_its_pods_go_with_it() {
    let cluster = Cluster::start().await;
    let started = Instant::now();
    cluster.make::<Deployment>(deployment(3)).await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 3).await;
    println!("three pods after {:?}", started.elapsed());
    for pod in &pods {
        cluster.report(pod, "Running", "10.0.0.1").await;
    }
    let available = |deployments: &[Deployment]| {
        deployments[0].status.as_ref().is_some_and(|status| status.available_replicas == Some(3))
    };
    cluster.eventually::<Deployment>("default", available).await;

    let api = cluster.api::<Deployment>("default");
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:2"}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    // A kubelet that makes every new pod ready and every deleted one go.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for pod in cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items {
            if pod.metadata.deletion_timestamp.is_some() {
                let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                let _ = cluster.api::<Pod>("default").delete(&pod.name_any(), &at_once).await;
            } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending") {
                cluster.report(&pod, "Running", "10.0.0.2").await;
            }
        }
        let web = api.get("web").await.unwrap();
        let status = web.status.clone().unwrap();
        let complete =
            status.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
        let current = status.observed_generation == web.metadata.generation;
        if complete && current && status.updated_replicas == Some(3) && status.replicas == Some(3) {
            assert_eq!(web.annotations()["deployment.kubernetes.io/revision"], "2");
            break;
        }
        assert!(Instant::now() < deadline, "{status:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sets = cluster.eventually::<ReplicaSet>("default", |sets| sets.len() == 2).await;
    let sizes: i32 = sets.iter().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).sum();
    assert_eq!(sizes, 3);

    api.delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster.eventually::<Pod>("default", |pods| pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some())).await;
    for pod in cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = cluster.api::<Pod>("default").delete(&pod.name_any(), &at_once).await;
    }
    cluster.eventually::<Deployment>("default", |all| all.is_empty()).await;
    cluster.eventually::<ReplicaSet>("default", |all| all.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_replica_sets_stay() {
    let cluster = Cluster::start().await;
    cluster.make::<Deployment>(deployment(1)).await;
    cluster.eventually::<Pod>("default", |pods| pods.len() == 1).await;
    let orphan = DeleteParams::orphan();
    cluster.api::<Deployment>("default").delete("web", &orphan).await.unwrap();
    cluster.eventually::<Deployment>("default", |all| all.is_empty()).await;
    cluster.eventually::<ReplicaSet>("default", |sets| sets.len() == 1 && sets[0].owner_references().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_gets_its_account_and_authority_and_goes_with_all_its_content() {
    let cluster = Cluster::start().await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "short"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    cluster.eventually::<ServiceAccount>("short", |all| all.len() == 1).await;
    let published = |maps: &[ConfigMap]| maps.iter().any(|map| map.name_any() == "kube-root-ca.crt");
    cluster.eventually::<ConfigMap>("short", published).await;
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "mine"}})).unwrap();
    cluster.api::<ConfigMap>("short").create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("short", &DeleteParams::default()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(left) = namespaces.get_opt("short").await.unwrap() {
        assert!(Instant::now() < deadline, "{left:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_of_a_namespace_go_before_anything_else() {
    let cluster = Cluster::start().await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "ordered"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let held: Pod = serde_json::from_value(json!({
        "metadata": {"name": "held", "finalizers": ["example.com/held"]},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false},
    }))
    .unwrap();
    let pods = cluster.api::<Pod>("ordered");
    cluster.eventually::<ServiceAccount>("ordered", |all| !all.is_empty()).await;
    pods.create(&PostParams::default(), &held).await.unwrap();
    let policy: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "policy"}})).unwrap();
    let policies = cluster.api::<ConfigMap>("ordered");
    policies.create(&PostParams::default(), &policy).await.unwrap();
    namespaces.delete("ordered", &DeleteParams::default()).await.unwrap();
    let told = |namespace: &Namespace| {
        let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter().any(|condition| condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True")
        })
    };
    while !told(&namespaces.get("ordered").await.unwrap()) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(pods.get("held").await.unwrap().metadata.deletion_timestamp.is_some());
    assert!(policies.get_opt("policy").await.unwrap().is_some(), "a ConfigMap went before the pod");
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("held", &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    while namespaces.get_opt("ordered").await.unwrap().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_endpoints_and_slices_as_its_pods_become_ready() {
    let cluster = Cluster::start().await;
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    Api::<Node>::all(cluster.client.clone()).create(&PostParams::default(), &node).await.unwrap();
    cluster
        .make::<Service>(json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}))
        .await;
    let mut pod = template(json!({"app": "web"}));
    pod["metadata"]["name"] = json!("p1");
    cluster.make::<Pod>(pod).await;
    let pod = cluster.api::<Pod>("default").get("p1").await.unwrap();
    cluster.bind(&pod, "n1").await;
    cluster.report(&pod, "Running", "10.1.2.3").await;
    let shown = |slices: &[EndpointSlice]| {
        slices.iter().filter(|slice| slice.labels().get("kubernetes.io/service-name").is_some_and(|n| n == "web")).any(
            |slice| {
                let port = slice.ports.iter().flatten().next().and_then(|port| port.port);
                slice.endpoints.iter().flatten().any(|endpoint| {
                    endpoint.addresses == ["10.1.2.3"] && endpoint.conditions.as_ref().unwrap().ready == Some(true)
                }) && port == Some(8080)
            },
        )
    };
    cluster.eventually::<EndpointSlice>("default", shown).await;
    let listed = |all: &[Endpoints]| {
        all.iter().any(|found| {
            found.name_any() == "web"
                && found
                    .subsets
                    .iter()
                    .flatten()
                    .flat_map(|subset| subset.addresses.iter().flatten())
                    .any(|a| a.ip == "10.1.2.3")
        })
    };
    cluster.eventually::<Endpoints>("default", listed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_counts_its_pods_and_completes() {
    let cluster = Cluster::start().await;
    let mut template = template(json!({}));
    template["spec"]["restartPolicy"] = json!("Never");
    cluster
        .make::<Job>(json!({"metadata": {"name": "sum"}, "spec": {
        "completions": 2, "parallelism": 2, "template": template}}))
        .await;
    let pods = cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    for pod in &pods {
        cluster.report(pod, "Succeeded", "10.0.0.1").await;
    }
    let complete = |jobs: &[Job]| {
        let status = jobs[0].status.clone().unwrap_or_default();
        status.succeeded == Some(2) && status.conditions.iter().flatten().any(|c| c.type_ == "Complete")
    };
    cluster.eventually::<Job>("default", complete).await;
    cluster.eventually::<Pod>("default", |pods| pods.iter().all(|pod| pod.finalizers().is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_has_a_pod_a_node() {
    let cluster = Cluster::start().await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    for name in ["n1", "n2"] {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        patch(&nodes, name, json!({"spec": {"taints": []}})).await;
    }
    cluster
        .make::<DaemonSet>(json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}}, "template": template(json!({"app": "d"}))}}))
        .await;
    cluster.eventually::<Pod>("default", |pods| pods.len() == 2).await;
    let counted = |sets: &[DaemonSet]| {
        sets[0]
            .status
            .as_ref()
            .is_some_and(|status| status.desired_number_scheduled == 2 && status.current_number_scheduled == 2)
    };
    cluster.eventually::<DaemonSet>("default", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregated_role_has_the_rules_that_it_selects() {
    let cluster = Cluster::start().await;
    let roles = Api::<ClusterRole>::all(cluster.client.clone());
    let rule = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    for role in [
        json!({"metadata": {"name": "part", "labels": {"into": "whole"}}, "rules": rule}),
        json!({"metadata": {"name": "whole"},
               "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"into": "whole"}}]}}),
    ] {
        let role: ClusterRole = serde_json::from_value(role).unwrap();
        roles.create(&PostParams::default(), &role).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while roles.get("whole").await.unwrap().rules.unwrap_or_default().is_empty() {
        assert!(Instant::now() < deadline, "no rules were aggregated");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
