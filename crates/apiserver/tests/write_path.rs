//! What the one write path holds whoever asks: permissions, quotas, what admission may not touch.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::{Value, json};
use support::{Cluster, Http, cluster};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
const SERVICES: &str = "/api/v1/namespaces/default/services";

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

fn service(name: &str, more: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (k, v) in more.as_object().unwrap() {
        service["spec"][k] = v.clone();
    }
    service
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
