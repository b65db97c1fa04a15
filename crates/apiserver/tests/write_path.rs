//! What the one write path holds whoever asks: permissions, quotas, what admission may not touch.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use support::{Cluster, Http, cluster};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MERGE: &str = "application/merge-patch+json";

/// A user who may do just this in the namespace `default`.
async fn user_who_may(c: &Cluster, name: &str, group: &str, resource: &str, verbs: &[&str]) -> Http {
    let http = c.admin();
    let role =
        json!({"metadata": {"name": name}, "rules": [{"apiGroups": [group], "resources": [resource], "verbs": verbs}]});
    http.post(&format!("{RBAC}/roles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
    http.post(&format!("{RBAC}/rolebindings"), &binding).await.expect(201);
    c.as_user(name, &["system:authenticated"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_creates_only_for_who_may_create() {
    let c = cluster().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    let path = format!("{LEASES}/l");
    let eve = user_who_may(&c, "eve", "coordination.k8s.io", "leases", &["get", "update"]).await;
    eve.put(&path, &lease).await.refused(
        403,
        "Forbidden",
        "leases.coordination.k8s.io \"l\" is forbidden: User \"eve\" cannot create resource \"leases\" in API group \
         \"coordination.k8s.io\" in the namespace \"default\"",
    );
    eve.get(&path).await.refused(404, "NotFound", "");
    let ann = user_who_may(&c, "ann", "coordination.k8s.io", "leases", &["create", "update"]).await;
    ann.put(&path, &lease).await.expect(201);
    let there = eve.get(&path).await.expect(200);
    eve.put(&path, &there).await.expect(200);
    // A kind that a PUT never makes is not there, whoever asks.
    let bob = user_who_may(&c, "bob", "", "configmaps", &["update"]).await;
    let map = json!({"metadata": {"name": "m"}});
    bob.put("/api/v1/namespaces/default/configmaps/m", &map).await.refused(404, "NotFound", "\"m\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_needs_its_version_where_the_object_does() {
    let c = cluster().await;
    let http = c.admin();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let mut made = http.post(budgets, &budget).await.expect(201);
    made["status"] = json!({"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1});
    let path = format!("{budgets}/b/status");
    let mut blind = made.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    http.put(&path, &blind).await.refused(
        422,
        "Invalid",
        "poddisruptionbudgets.policy \"b\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an \
         update",
    );
    http.put(&path, &made).await.expect(200);
    http.patch(&path, MERGE, &json!({"status": {"currentHealthy": 2}})).await.expect(200);
    // A Scale names a version or none.
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    http.post(deployments, &deployment).await.expect(201);
    let scale = json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 2}});
    http.put(&format!("{deployments}/d/scale"), &scale).await.expect(200);
}

fn service(name: &str, more: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (k, v) in more.as_object().unwrap() {
        service["spec"][k] = v.clone();
    }
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_under_concurrent_updates() {
    let c = cluster().await;
    let http = c.admin();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"services.nodeports": "3"}}});
    http.post(QUOTAS, &quota).await.expect(201);
    for round in 0..8 {
        let names: Vec<String> = (0..12).map(|i| format!("s{round}-{i}")).collect();
        for name in &names {
            http.post(SERVICES, &service(name, json!({}))).await.expect(201);
        }
        let change = |name: String, body: Value| {
            let http = http.clone();
            tokio::spawn(async move { http.patch(&format!("{SERVICES}/{name}"), MERGE, &body).await.status.as_u16() })
        };
        let tasks: Vec<_> = names.iter().map(|n| change(n.clone(), json!({"spec": {"type": "NodePort"}}))).collect();
        let mut codes = Vec::new();
        for t in tasks {
            codes.push(t.await.unwrap());
        }
        assert_eq!(codes.iter().filter(|c| **c == 200).count(), 3, "{codes:?}");
        // What a refused or undone update had reserved is free again.
        for (name, _) in names.iter().zip(&codes).filter(|(_, c)| **c == 200) {
            change(name.clone(), json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
        }
        let one = json!({"spec": {"type": "NodePort"}});
        http.patch(&format!("{SERVICES}/{}?dryRun=All", names[0]), MERGE, &one).await.expect(200);
        for name in &names[..3] {
            http.patch(&format!("{SERVICES}/{name}"), MERGE, &one).await.expect(200);
        }
        http.patch(&format!("{SERVICES}/{}", names[3]), MERGE, &one).await.refused(
            403,
            "Forbidden",
            "exceeded quota: q",
        );
        http.delete(SERVICES).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_given_back_late_is_not_taken_from_its_new_owner() {
    let c = cluster().await;
    let http = c.admin();
    // One name, made and deleted over and over by several clients, while others take addresses.
    let churn = |_: usize| {
        let http = http.clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                http.post(SERVICES, &service("same", json!({}))).await;
                http.delete(&format!("{SERVICES}/same")).await;
            }
        })
    };
    let tasks: Vec<_> = (0..4).map(churn).collect();
    let takes = {
        let http = http.clone();
        tokio::spawn(async move {
            for i in 0..120 {
                http.post(SERVICES, &service(&format!("t{i}"), json!({}))).await.expect(201);
            }
        })
    };
    for t in tasks {
        t.await.unwrap();
    }
    takes.await.unwrap();
    http.post(SERVICES, &service("same", json!({}))).await;
    let all = http.get(SERVICES).await.expect(200);
    let mut addresses: Vec<String> = Vec::new();
    for s in all["items"].as_array().unwrap() {
        addresses.push(s["spec"]["clusterIP"].as_str().unwrap().to_owned());
    }
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "two Services hold one address");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_unknown_fields_are_told_in_short() {
    let c = cluster().await;
    let http = c.admin();
    let mut map = json!({"metadata": {"name": "m"}});
    for i in 0..120_000 {
        map[format!("unknown-{i}")] = 1.into();
    }
    let body = map.to_string();
    let json = [("content-type", "application/json")];
    let maps = "/api/v1/namespaces/default/configmaps";
    let sent = http.send(http::Method::POST, maps, &json, body.clone());
    let a = tokio::time::timeout(std::time::Duration::from_secs(50), sent).await.expect("an answer in time");
    let warnings: Vec<&str> = a.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert!(warnings[0].starts_with("299 - \"unknown field \\\"unknown-"), "{}", warnings[0]);
    let bytes: usize = warnings.iter().map(|w| w.len()).sum();
    assert!(warnings.len() <= 100 && bytes <= 8_192, "{} warnings of {bytes} bytes", warnings.len());
    a.expect(201);
    let strict = http.send(http::Method::POST, &format!("{maps}?fieldValidation=Strict"), &json, body).await;
    assert!(strict.bytes.len() < 16_384, "{} bytes", strict.bytes.len());
    strict.refused(400, "BadRequest", "strict decoding error: unknown field \"unknown-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_exact_revision_holds_nothing_later() {
    let c = cluster().await;
    let http = c.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    for i in 0..40 {
        http.post(maps, &json!({"metadata": {"name": format!("m{i:02}")}})).await.expect(201);
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..3)
        .map(|w| {
            let (http, stop) = (http.clone(), stop.clone());
            tokio::spawn(async move {
                let mut i = w;
                while !stop.is_cancelled() {
                    i = (i + 7) % 40;
                    let change = json!({"data": {"at": format!("{w}-{i}-{:?}", std::time::Instant::now())}});
                    http.patch(&format!("{maps}/m{i:02}"), MERGE, &change).await;
                }
            })
        })
        .collect();
    for _ in 0..400 {
        let first = http.get(&format!("{maps}?limit=1")).await.expect(200);
        let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let at: u64 = version.parse().unwrap();
        let exact = format!("{maps}?resourceVersion={version}&resourceVersionMatch=Exact");
        let rest = format!("{maps}?limit=50&continue={}", first["metadata"]["continue"].as_str().unwrap());
        for path in [exact, rest] {
            let list = http.get(&path).await.expect(200);
            assert_eq!(list["metadata"]["resourceVersion"], version.as_str());
            for item in list["items"].as_array().unwrap() {
                let own: u64 = item["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                assert!(own <= at, "{} stands at {own} in a list of {at}", item["metadata"]["name"]);
            }
        }
    }
    stop.cancel();
    for w in writers {
        w.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_that_make_one_object_at_once_are_all_heard() {
    let c = cluster().await;
    let http = c.admin();
    for round in 0..10 {
        let appliers: Vec<_> = (0..8)
            .map(|i| {
                let http = http.clone();
                let mut map =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{round}")}});
                map["data"][format!("k{i}")] = "v".into();
                let path = format!("/api/v1/namespaces/default/configmaps/m{round}?fieldManager=f{i}");
                tokio::spawn(async move { http.patch(&path, "application/apply-patch+yaml", &map).await })
            })
            .collect();
        let mut made = 0;
        for applier in appliers {
            let answer = applier.await.unwrap();
            made += usize::from(answer.status == 201);
            assert!(answer.status.is_success(), "{}", answer.json());
        }
        let map = http.get(&format!("/api/v1/namespaces/default/configmaps/m{round}")).await.expect(200);
        assert_eq!((made, map["data"].as_object().unwrap().len()), (1, 8), "{map}");
    }
}
