//! Resources that change while a pod runs.

use k8s_openapi::api::{core::v1::Pod, node::v1::RuntimeClass};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, condition, fixture};

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_resources_change_in_place() {
    let f = fixture().await;
    let spec = json!({"resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
        "containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "50m"}}}]});
    f.create("p", spec).await;
    f.until_runs("p").await;
    f.until("p", |status| {
        status["allocatedResources"] == json!({"cpu": "100m", "memory": "32Mi"})
            && status["resources"]["limits"] == json!({"cpu": "200m", "memory": "64Mi"})
    })
    .await;
    assert!(f.node().await.status.unwrap().declared_features.unwrap().is_sorted());
    let before = f.pods.get("p").await.unwrap();
    f.resize("p", json!({"resources": {"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}}})).await.unwrap();
    f.until("p", |status| {
        status["allocatedResources"] == json!({"cpu": "150m", "memory": "32Mi"})
            && status["resources"]["limits"] == json!({"cpu": "300m", "memory": "64Mi"})
            && status["containerStatuses"][0]["restartCount"] == 0
            && condition(status, "PodResizePending").is_none()
            && condition(status, "PodResizeInProgress").is_none()
    })
    .await;
    let after = f.pods.get("p").await.unwrap();
    let id = |pod: &Pod| pod.status.clone().unwrap().container_statuses.unwrap()[0].container_id.clone();
    assert_eq!(id(&after), id(&before));
    assert_eq!(after.metadata.generation, Some(2));
    // What no resize may do is refused before the node hears of it.
    let message = |result: kube::Result<Pod>| match result.unwrap_err() {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("{other}"),
    };
    let equal = json!({"resources": {"requests": {"cpu": "300m", "memory": "64Mi"}}});
    assert!(message(f.resize("p", equal).await).contains("Pod QOS Class may not change as a result of resizing"));
    let gone = json!({"resources": {"limits": {"cpu": null}}});
    let said = message(f.resize("p", gone).await);
    assert!(said.contains("spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"), "{said}");
    let gone = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": null}}}]});
    let said = message(f.resize("p", gone).await);
    assert!(
        said.contains("spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"),
        "{said}"
    );
    let other = json!({"containers": [{"name": "c", "resources": {"requests": {"ephemeral-storage": "1Gi"}}}]});
    let said = message(f.resize("p", other).await);
    assert!(said.contains("spec: Forbidden: only cpu and memory resources are mutable"), "{said}");
    let more = json!({"containers": [{"name": "d", "image": "i:1"}]});
    let said = message(f.resize("p", more).await);
    assert!(said.contains("spec.containers: Forbidden: containers may not be added or removed on resize"), "{said}");
}

/// What the node has, in thousandths of a core.
async fn milli(f: &Fixture) -> usize {
    let cores: usize = f.node().await.status.unwrap().allocatable.unwrap()["cpu"].0.parse().unwrap();
    cores * 1000
}

/// A container that asks for so many thousandths of a core.
fn container(milli: usize) -> Value {
    json!({"name": "c", "image": "i:1", "resources": {"requests": {"cpu": format!("{milli}m")}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_waits_for_others_to_go() {
    let f = fixture().await;
    let most = milli(&f).await - 200;
    f.create("other", json!({"terminationGracePeriodSeconds": 0, "containers": [container(most)]})).await;
    f.create("p", json!({"containers": [container(100)]})).await;
    f.until_runs("other").await;
    f.until_runs("p").await;
    f.resize("p", json!({"containers": [container(500)]})).await.unwrap();
    f.until("p", |status| {
        condition(status, "PodResizePending").is_some_and(|c| c["reason"] == "Deferred")
            && status["containerStatuses"][0]["allocatedResources"]["cpu"] == "100m"
            && status["allocatedResources"]["cpu"] == "100m"
    })
    .await;
    let shares = |f: &Fixture| {
        f.runtime
            .configs("c")
            .iter()
            .map(|c| c.linux.as_ref().unwrap().resources.as_ref().unwrap().cpu_shares)
            .collect::<Vec<_>>()
    };
    assert!(shares(&f).contains(&102));
    // Room comes by a smaller neighbour, without waiting for the next try.
    f.resize("other", json!({"containers": [container(100)]})).await.unwrap();
    f.until("p", |status| {
        condition(status, "PodResizePending").is_none()
            && status["containerStatuses"][0]["allocatedResources"]["cpu"] == "500m"
            && status["containerStatuses"][0]["resources"]["requests"]["cpu"] == "500m"
    })
    .await;
    assert!(shares(&f).contains(&512));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_asked_for_refuses_nobody() {
    let f = fixture().await;
    let all = milli(&f).await;
    f.create("p", json!({"containers": [container(100)]})).await;
    f.until_runs("p").await;
    // Its worker is busy with one resize while the next comes.
    let held = f.runtime.changes.hold().await;
    f.resize("p", json!({"containers": [container(200)]})).await.unwrap();
    f.runtime.changes.until_waiting(1).await;
    f.resize("p", json!({"containers": [container(all - 100)]})).await.unwrap();
    f.create("q", json!({"containers": [container(200)]})).await;
    f.until_runs("q").await;
    drop(held);
    f.until("p", |status| {
        condition(status, "PodResizePending").is_some_and(|c| c["reason"] == "Deferred")
            && status["allocatedResources"]["cpu"] == "200m"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kubelet_knows_what_was_granted() {
    let mut f = fixture().await;
    let all = milli(&f).await;
    let class = json!({"metadata": {"name": "heavy"}, "handler": "heavy", "overhead": {"podFixed": {"cpu": "50m"}}});
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(f.client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let asks = |milli: usize| json!({"requests": {"cpu": format!("{milli}m")}});
    f.create("o", json!({"containers": [container(all - 500)]})).await;
    let p = json!({"runtimeClassName": "heavy", "resources": asks(100), "containers": [{"name": "c", "image": "i:1"}]});
    f.create("p", p).await;
    f.until_runs("o").await;
    f.until_runs("p").await;
    f.resize("p", json!({"resources": asks(600)})).await.unwrap();
    let waits = |status: &Value, generation: i64| {
        condition(status, "PodResizePending").is_some_and(|c| c["reason"] == "Deferred")
            && status["observedGeneration"] == generation
            && status["allocatedResources"]["cpu"] == "150m"
            && status["resources"]["requests"]["cpu"] == "150m"
    };
    f.until("p", |status| waits(status, 2)).await;
    f.stop().await;
    f.resize("p", json!({"resources": asks(700)})).await.unwrap();
    // The first comes before all others and never fits; the last fits beside what was granted.
    f.create("a", json!({"containers": [container(all + 100)]})).await;
    f.create("q", json!({"containers": [container(200)]})).await;
    f.start();
    f.until("a", |status| status["reason"] == "OutOfcpu").await;
    f.until_runs("q").await;
    f.until("p", |status| waits(status, 3)).await;
    f.resize("o", json!({"containers": [container(100)]})).await.unwrap();
    f.until("p", |status| {
        condition(status, "PodResizePending").is_none() && status["resources"]["requests"]["cpu"] == "750m"
    })
    .await;
}
