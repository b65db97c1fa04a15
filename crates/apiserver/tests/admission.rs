//! Admission, and a full disk.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;

use ironkeel_embedded::{Embedded, Options};
use serde_json::{Value, json};
use support::{Cluster, Http, Several, cluster, start_over, start_tuned, start_with};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

async fn with_account() -> (Cluster, Http) {
    let c = cluster().await;
    let http = c.admin();
    let body = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]});
    http.post("/api/v1/namespaces/default/serviceaccounts", &body).await.expect(201);
    (c, http)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_namespace_takes_nothing_new() {
    let c = cluster().await;
    let http = c.admin();
    http.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.expect(201);
    let held = http.delete("/api/v1/namespaces/n").await.expect(200);
    assert_eq!(held["status"]["phase"], "Terminating");
    let map = json!({"metadata": {"name": "a"}});
    let a = http.post("/api/v1/namespaces/n/configmaps", &map).await;
    assert_eq!(a.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    a.refused(403, "Forbidden", "unable to create new content in namespace n because it is being terminated");
    http.delete("/api/v1/namespaces/default").await.refused(403, "Forbidden", "this namespace may not be deleted");
    let mut namespace = http.get("/api/v1/namespaces/n").await.expect(200);
    namespace["spec"]["finalizers"] = json!([]);
    http.put("/api/v1/namespaces/n/finalize", &namespace).await.expect(200);
    http.get("/api/v1/namespaces/n").await.refused(404, "NotFound", "namespaces \"n\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_namespaces_pod_waits_for_its_account() {
    let c = cluster().await;
    let http = c.admin();
    let waiting = tokio::spawn({
        let http = http.clone();
        async move { http.post(PODS, &pod("p")).await.expect(201) }
    });
    tokio::task::yield_now().await;
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    assert_eq!(waiting.await.unwrap()["spec"]["serviceAccountName"], "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_priority_pull_secrets_and_limits() {
    let (_c, http) = with_account().await;
    http.post("/apis/scheduling.k8s.io/v1/priorityclasses", &json!({"metadata": {"name": "high"}, "value": 1000}))
        .await
        .expect(201);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    http.post("/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    let mut body = pod("p");
    body["spec"]["priorityClassName"] = "high".into();
    let made = http.post(PODS, &body).await.expect(201);
    assert_eq!(made["spec"]["priority"], 1000);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    let mut body = pod("q");
    body["spec"]["priorityClassName"] = "none".into();
    http.post(PODS, &body).await.refused(403, "Forbidden", "no PriorityClass with name none was found");
    let mut body = pod("q");
    body["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    http.post(PODS, &body).await.refused(403, "Forbidden", "maximum cpu usage per Container is 1, but limit is 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_under_concurrent_creates() {
    let (_c, http) = with_account().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "3"}}});
    http.post("/api/v1/namespaces/default/resourcequotas", &quota).await.expect(201);
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let http = http.clone();
            tokio::spawn(async move {
                let body = json!({"metadata": {"name": format!("m{i}")}});
                http.post("/api/v1/namespaces/default/configmaps", &body).await.status.as_u16()
            })
        })
        .collect();
    let mut codes = Vec::new();
    for t in tasks {
        codes.push(t.await.unwrap());
    }
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 3, "{codes:?}");
    http.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "x"}})).await.refused(
        403,
        "Forbidden",
        "exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_looks_at_each_change_once() {
    const OBJECTS: u64 = 5_000;
    let c = cluster().await;
    let http = c.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let hard = OBJECTS.to_string();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": hard}}});
    http.post("/api/v1/namespaces/default/resourcequotas", &quota).await.expect(201);
    let home = c.api.registry().row("", "v1", "configmaps").unwrap().stored.clone().unwrap();
    let before = home.cache.looked_at();
    let writers = (0..8).map(|w| {
        let http = http.clone();
        tokio::spawn(async move {
            for i in 0..OBJECTS / 8 {
                http.post(maps, &json!({"metadata": {"name": format!("m{w}-{i}")}})).await.expect(201);
            }
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|w| w.unwrap());
    // A scan of the namespace a write would look at twelve million.
    let looks = home.cache.looked_at() - before;
    assert!(looks <= 3 * OBJECTS, "{looks} looks at {OBJECTS} objects");
    let more = json!({"metadata": {"name": "x"}});
    http.post(maps, &more).await.refused(
        403,
        "Forbidden",
        "exceeded quota: q, requested: configmaps=1, used: configmaps=5k",
    );
    http.delete(&format!("{maps}/m0-0")).await.expect(200);
    http.post(maps, &more).await.expect(201);
    http.post(maps, &json!({"metadata": {"name": "y"}})).await.refused(403, "Forbidden", "exceeded quota: q");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_over_servers_side_by_side() {
    const LIMIT: usize = 20;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let store = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let one = start_over(dir.clone(), Arc::new(Several(store.clone())), |_| {}).await;
    let two = start_over(dir, Arc::new(Several(store)), |_| {}).await;
    let (a, b) = (one.admin(), two.admin());
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let maps = "/api/v1/namespaces/default/configmaps";
    let limit = LIMIT.to_string();
    for name in ["q", "r"] {
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": {"configmaps": limit}}});
        a.post(quotas, &quota).await.expect(201);
    }
    let post = |http: &Http, name: String| {
        let http = http.clone();
        tokio::spawn(async move { http.post(maps, &json!({"metadata": {"name": name}})).await.status.as_u16() })
    };
    let tasks: Vec<_> = (0..2 * LIMIT).flat_map(|i| [post(&a, format!("a{i}")), post(&b, format!("b{i}"))]).collect();
    let codes = futures::future::join_all(tasks).await;
    let made = codes.into_iter().filter(|c| *c.as_ref().unwrap() == 201).count();
    let there = a.get(maps).await.expect(200)["items"].as_array().unwrap().len();
    assert_eq!((made, there), (LIMIT, LIMIT));
    for name in ["q", "r"] {
        let used = b.get(&format!("{quotas}/{name}")).await.expect(200)["status"]["used"]["configmaps"].clone();
        assert_eq!(used, "20", "{name}");
    }
    for http in [a, b] {
        let refused = http.post(maps, &json!({"metadata": {"name": "x"}})).await;
        refused.refused(403, "Forbidden", "requested: configmaps=1, used: configmaps=20, limited: configmaps=20");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_told_of_a_write_once_though_another_quota_refuses_it() {
    const WRITES: usize = 24;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let store = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let server = start_over(dir, Arc::new(Several(store)), |_| {}).await;
    let http = server.admin();
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let limit = WRITES.to_string();
    for (name, hard) in [("q", "1000"), ("r", limit.as_str())] {
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": {"configmaps": hard}}});
        http.post(quotas, &quota).await.expect(201);
    }
    // Another server has charged all but one of what the second allows; this one does not see its writes.
    let charged = json!({"status": {"used": {"configmaps": (WRITES - 1).to_string()}}});
    http.patch(&format!("{quotas}/r/status"), MERGE, &charged).await.expect(200);
    let posts = (0..WRITES).map(|i| {
        let http = http.clone();
        tokio::spawn(async move {
            let map = json!({"metadata": {"name": format!("m{i}")}});
            http.post("/api/v1/namespaces/default/configmaps", &map).await.status.as_u16()
        })
    });
    let codes = futures::future::join_all(posts).await;
    assert_eq!(codes.into_iter().filter(|c| *c.as_ref().unwrap() == 201).count(), 1);
    let used = async |name: &str| {
        let quota = http.get(&format!("{quotas}/{name}")).await.expect(200);
        quota["status"]["used"]["configmaps"].as_str().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(used("r").await, WRITES);
    // What was refused is the controller's to take off, once.
    let first = used("q").await;
    assert!((1..=WRITES).contains(&first), "{first} of {WRITES} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_levels_are_enforced_and_warned_of() {
    let (_c, http) = with_account().await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}});
    http.patch("/api/v1/namespaces/default", MERGE, &label).await.expect(200);
    let mut body = pod("p");
    body["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    http.post(PODS, &body).await.refused(403, "Forbidden", "violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)");
    let a = http.post(PODS, &pod("p")).await;
    let warning = a.headers["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains("would violate PodSecurity") && warning.contains("allowPrivilegeEscalation != false"),
        "{warning}"
    );
    a.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_touches_only_its_own() {
    let (c, http) = with_account().await;
    let kubelet = c.as_user("system:node:n1", &["system:nodes"]);
    let node = |name: &str| json!({"metadata": {"name": name}});
    let made = kubelet.post("/api/v1/nodes", &node("n1")).await.expect(201);
    assert_eq!(made["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    kubelet.post("/api/v1/nodes", &node("n2")).await.refused(403, "Forbidden", "is not allowed to modify node \"n2\"");
    let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1"}}});
    kubelet.patch("/api/v1/nodes/n1", MERGE, &label).await.refused(
        403,
        "Forbidden",
        "is not allowed to modify labels: node-restriction.kubernetes.io/x",
    );
    for (name, target) in [("mine", "n1"), ("theirs", "n2")] {
        let mut body = pod(name);
        body["spec"]["nodeName"] = target.into();
        http.post(PODS, &body).await.expect(201);
    }
    let status = json!({"status": {"phase": "Running"}});
    kubelet.patch(&format!("{PODS}/mine/status"), MERGE, &status).await.expect(200);
    kubelet.patch(&format!("{PODS}/theirs/status"), MERGE, &status).await.refused(403, "Forbidden", "");
    kubelet.post(PODS, &pod("own")).await.refused(403, "Forbidden", "can only create mirror pods");
    let list = kubelet.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_objects_are_protected_and_get_the_default_class() {
    let c = cluster().await;
    let http = c.admin();
    let class = json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "x.io/y"});
    http.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.expect(201);
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = http.post(claims, &claim).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    http.delete(&format!("{claims}/c")).await.expect(200);
    assert!(http.get(&format!("{claims}/c")).await.expect(200)["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_stop_evictions() {
    let (_c, http) = with_account().await;
    let mut body = pod("p");
    body["metadata"]["labels"] = json!({"a": "b"});
    http.post(PODS, &body).await.expect(201);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    http.patch(&format!("{PODS}/p/status"), MERGE, &status).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    http.post(budgets, &budget).await.expect(201);
    let status = |allowed: i32| json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    http.patch(&format!("{budgets}/b/status"), MERGE, &status(0)).await.expect(200);
    let evict = json!({"metadata": {"name": "p"}});
    http.post(&format!("{PODS}/p/eviction"), &evict).await.refused(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    http.patch(&format!("{budgets}/b/status"), MERGE, &status(1)).await.expect(200);
    http.post(&format!("{PODS}/p/eviction"), &evict).await.expect(201);
    let after = http.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_writes_and_goes_on_reading() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let options = Options { max_bytes: 2 << 20, segment_bytes: 1 << 20, ..Options::default() };
    let c = start_with(dir, options).await;
    let http = c.admin();
    let filler = "x".repeat(100_000);
    let mut refused = None;
    for i in 0..100 {
        let body = json!({"metadata": {"name": format!("m{i}")}, "data": {"k": filler}});
        let a = http.post("/api/v1/namespaces/default/configmaps", &body).await;
        if a.status != 201 {
            refused = Some((i, a));
            break;
        }
    }
    let (written, a) = refused.expect("the store fills up");
    a.refused(507, "InsufficientStorage", "the store takes no more data");
    let list = http.get("/api/v1/namespaces/default/configmaps").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), written);
    assert_eq!(&http.get("/livez").await.bytes[..], b"ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_see_scopes_classes_and_extended_resources() {
    let (_c, http) = with_account().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let scope = |name: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"scopeName": name, "operator": operator, "values": values}]});
    let effort = json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]});
    http.post(quotas, &quota("effort", effort)).await.expect(201);
    http.post(PODS, &pod("a")).await.expect(201);
    http.post(PODS, &pod("b")).await.refused(
        403,
        "Forbidden",
        "exceeded quota: effort, requested: pods=1, used: pods=1, limited: pods=1",
    );
    let mut device = pod("b");
    device["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "1", "example.com/gpu": "2"}, "limits": {"example.com/gpu": "2"}});
    http.post(quotas, &quota("gpus", json!({"hard": {"requests.example.com/gpu": "1"}}))).await.expect(201);
    http.post(PODS, &device).await.refused(
        403,
        "Forbidden",
        "exceeded quota: gpus, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=1",
    );
    http.delete(&format!("{quotas}/gpus")).await.expect(200);
    let crossing = json!({"hard": {"pods": "0"}, "scopeSelector": scope("CrossNamespacePodAffinity", "Exists", &[])});
    http.post(quotas, &quota("crossing", crossing)).await.expect(201);
    http.post(PODS, &device).await.expect(201);
    device["metadata"]["name"] = "c".into();
    device["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "namespaces": ["x"], "labelSelector": {}}]}});
    http.post(PODS, &device).await.refused(403, "Forbidden", "exceeded quota: crossing, requested: pods=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_labels_are_checked_and_tightening_warns() {
    let (_c, http) = with_account().await;
    let namespace = "/api/v1/namespaces/default";
    let label = |key: &str, value: &str| json!({"metadata": {"labels": {(format!("pod-security.kubernetes.io/{key}")): value}}});
    http.patch(namespace, MERGE, &label("enforce", "strict")).await.refused(
        422,
        "Invalid",
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
    );
    http.patch(namespace, MERGE, &label("warn-version", "1.30")).await.refused(
        422,
        "Invalid",
        "must be \"latest\" or \"v1.x\"",
    );
    let mut body = pod("p");
    body["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    http.post(PODS, &body).await.expect(201);
    let a = http.patch(namespace, MERGE, &label("enforce", "baseline")).await;
    let warnings: Vec<_> = a.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    let said = warnings.join("\n");
    assert!(said.contains("existing pods in namespace") && said.contains("p: privileged"), "{said}");
    a.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_becomes_a_master_by_a_request() {
    let c = cluster().await;
    let http = c.admin();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.distinguished_name.push(rcgen::DnType::CommonName, "mallory");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let body = json!({"metadata": {"name": "r"}, "spec": {"request": request, "usages": ["client auth"],
        "signerName": "kubernetes.io/kube-apiserver-client"}});
    http.post("/apis/certificates.k8s.io/v1/certificatesigningrequests", &body).await.refused(
        403,
        "Forbidden",
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_gets_tokens_for_what_its_pods_name() {
    let (c, http) = with_account().await;
    let kubelet = c.as_user("system:node:n1", &["system:nodes"]);
    let mut body = pod("p");
    body["spec"]["nodeName"] = "n1".into();
    body["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "vault", "path": "token"}}]}}]);
    let made = http.post(PODS, &body).await.expect(201);
    let ask = |audiences: Value, uid: &Value| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
        let body = json!({"spec": {"audiences": audiences, "boundObjectRef": pod}});
        let kubelet = kubelet.clone();
        async move { kubelet.post("/api/v1/namespaces/default/serviceaccounts/default/token", &body).await }
    };
    let uid = &made["metadata"]["uid"];
    let token = ask(json!(["vault"]), uid).await.expect(201);
    assert_eq!(token["spec"]["audiences"], json!(["vault"]));
    ask(json!([]), uid).await.expect(201);
    ask(json!(["other"]), uid).await.refused(
        403,
        "Forbidden",
        "audience \"other\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience",
    );
    ask(json!(["vault", "other"]), uid).await.refused(403, "Forbidden", "node may only request 0 or 1 audiences");
    ask(json!(["vault"]), &json!("7e1c2d8a-0000-4000-8000-000000000001")).await.refused(
        403,
        "Forbidden",
        "does not match the UID in record",
    );
    let role = json!({"metadata": {"name": "a"}, "rules": [{"apiGroups": [""], "resources": ["other"],
        "verbs": ["request-serviceaccounts-token-audience"]}]});
    http.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    let binding = json!({"metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "a", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}]});
    http.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    ask(json!(["other"]), uid).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_pod_is_its_nodes_and_refers_to_nothing() {
    let (c, _http) = with_account().await;
    let kubelet = c.as_user("system:node:n1", &["system:nodes"]);
    let node = kubelet.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let mut body = pod("m-n1");
    body["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    body["spec"]["nodeName"] = "n1".into();
    kubelet.post(PODS, &body).await.refused(
        403,
        "Forbidden",
        "can only create pods with an owner reference set to itself",
    );
    body["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1",
        "uid": node["metadata"]["uid"], "controller": true}]);
    body["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "c"}}]);
    kubelet.post(PODS, &body).await.refused(403, "Forbidden", "can not create pods that reference configmaps");
    body["spec"]["volumes"] = json!([]);
    kubelet.post(PODS, &body).await.expect(201);
    let relabel = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running"}});
    kubelet.patch(&format!("{PODS}/m-n1/status"), MERGE, &relabel).await.refused(
        403,
        "Forbidden",
        "node \"n1\" cannot update labels through pod status",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_knows_each_versions_controls() {
    let (_c, http) = with_account().await;
    let mut body = pod("p");
    body["spec"]["securityContext"] = json!({"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1 2 3"}]});
    body["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"host": "example.com", "port": 80}});
    let try_version = |version: &str| {
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/enforce-version": version}}});
        let (http, body) = (http.clone(), body.clone());
        async move {
            http.patch("/api/v1/namespaces/default", MERGE, &labels).await.expect(200);
            http.post(&format!("{PODS}?dryRun=All"), &body).await
        }
    };
    try_version("v1.31").await.refused(403, "Forbidden", "baseline:v1.31\": forbidden sysctls (net.ipv4.tcp_rmem)");
    try_version("v1.32").await.expect(201);
    try_version("v1.34").await.refused(
        403,
        "Forbidden",
        "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"example.com\")",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn approving_and_signing_are_permissions_of_their_own() {
    let c = cluster().await;
    let http = c.admin();
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let body = json!({"metadata": {"name": "r"}, "spec": {"request": request, "usages": ["client auth"],
        "signerName": "example.com/one"}});
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    http.post(path, &body).await.expect(201);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let allow = |name: &'static str, rule: Value| {
        let http = http.clone();
        async move {
            let role = json!({"metadata": {"name": name}, "rules": [rule]});
            http.post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
            let to = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
                "roleRef": {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}});
            http.post(&format!("{rbac}/clusterrolebindings"), &to).await.expect(201);
        }
    };
    let parts = ["certificatesigningrequests/approval", "certificatesigningrequests/status"];
    allow("parts", json!({"apiGroups": ["certificates.k8s.io"], "resources": parts, "verbs": ["patch"]})).await;
    let eve = c.as_user("eve", &[]);
    let condition = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "r"}]}});
    let approval = format!("{path}/r/approval");
    eve.patch(&approval, MERGE, &condition("Approved")).await.refused(
        403,
        "Forbidden",
        "user not permitted to approve requests with signerName \"example.com/one\"",
    );
    let signers = |verb: &str| {
        json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["example.com/*"], "verbs": [verb]})
    };
    allow("approve", signers("approve")).await;
    eve.patch(&approval, MERGE, &condition("Approved")).await.expect(200);
    let failed = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "r"}, {"type": "Failed", "status": "True", "reason": "r"}]}});
    let status = format!("{path}/r/status");
    eve.patch(&status, MERGE, &failed).await.refused(
        403,
        "Forbidden",
        "user not permitted to sign requests with signerName \"example.com/one\"",
    );
    allow("sign", signers("sign")).await;
    eve.patch(&status, MERGE, &failed).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_when_a_pod_grows_in_place() {
    let (_c, http) = with_account().await;
    let mut body = pod("p");
    body["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    http.post(PODS, &body).await.expect(201);
    http.patch(&format!("{PODS}/p/status"), MERGE, &json!({"status": {"phase": "Running"}})).await.expect(200);
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "150m"}}});
    http.post("/api/v1/namespaces/default/resourcequotas", &quota).await.expect(201);
    let resize = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "200m"}}}]}});
    let strategic = "application/strategic-merge-patch+json";
    http.patch(&format!("{PODS}/p/resize"), strategic, &resize("160m")).await.refused(
        403,
        "Forbidden",
        "exceeded quota: q, requested: requests.cpu=60m, used: requests.cpu=100m, limited: requests.cpu=150m",
    );
    http.patch(&format!("{PODS}/p/resize"), strategic, &resize("140m")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_made_by_what_is_created_in_it() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |c| {
        c.admission.plugins = c.admission.plugins.with_flags(&["NamespaceAutoProvision"], &[] as &[&str]).unwrap();
    })
    .await;
    let http = c.admin();
    let map = json!({"metadata": {"name": "m"}});
    http.post("/api/v1/namespaces/made/configmaps?dryRun=All", &map).await.refused(
        404,
        "NotFound",
        "namespaces \"made\" not found",
    );
    http.post("/api/v1/namespaces/made/configmaps", &map).await.expect(201);
    http.get("/api/v1/namespaces/made").await.expect(200);
    http.post("/api/v1/namespaces/made/configmaps", &json!({"metadata": {"name": "n"}})).await.expect(201);
    // Only a create makes one.
    http.delete("/api/v1/namespaces/other/configmaps/m").await.refused(404, "NotFound", "configmaps \"m\" not found");
    http.get("/api/v1/namespaces/other").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_named_by_who_may_delete_and_finalize() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |c| {
        let on = ["OwnerReferencesPermissionEnforcement"];
        c.admission.plugins = c.admission.plugins.with_flags(&on, &[] as &[&str]).unwrap();
    })
    .await;
    let http = c.admin();
    let rules =
        |verbs: &[&str], resources: &[&str]| json!([{"apiGroups": [""], "resources": resources, "verbs": verbs}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    http.post(
        &format!("{rbac}/roles"),
        &json!({"metadata": {"name": "r"}, "rules": rules(&["create", "update", "get"], &["configmaps"])}),
    )
    .await
    .expect(201);
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    http.post(&format!("{rbac}/rolebindings"), &binding).await.expect(201);
    let ann = c.as_user("ann", &[]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = |blocks: bool| json!([{"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u", "blockOwnerDeletion": blocks}]);
    let map = |name: &str, owners: Value| json!({"metadata": {"name": name, "ownerReferences": owners}});
    ann.post(maps, &map("a", owner(true))).await.refused(
        403,
        "Forbidden",
        "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
    );
    ann.post(maps, &map("a", owner(false))).await.expect(201);
    ann.post(maps, &map("b", json!([]))).await.expect(201);
    ann.put(&format!("{maps}/b"), &map("b", owner(false))).await.refused(
        403,
        "Forbidden",
        "configmaps \"b\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>",
    );
    let more = json!({"rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "get", "delete"]},
        {"apiGroups": [""], "resources": ["secrets/finalizers"], "verbs": ["update"]},
    ]});
    http.patch(&format!("{rbac}/roles/r"), MERGE, &more).await.expect(200);
    ann.put(&format!("{maps}/b"), &map("b", owner(true))).await.expect(200);
    let odd = json!([{"apiVersion": "v9", "kind": "Odd", "name": "s", "uid": "u", "blockOwnerDeletion": true}]);
    ann.post(maps, &map("c", odd)).await.refused(
        403,
        "Forbidden",
        "cannot find RESTMapping for APIVersion v9 Kind Odd",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claims_status_is_for_who_may_bind_and_for_its_drivers() {
    let c = cluster().await;
    let http = c.admin();
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}});
    http.post(claims, &claim).await.expect(201);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = |rules: Value| json!({"metadata": {"name": "r"}, "rules": rules});
    let update =
        json!({"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/status"], "verbs": ["update", "patch"]});
    http.post(&format!("{rbac}/clusterroles"), &role(json!([update]))).await.expect(201);
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    http.post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
    let ann = c.as_user("ann", &[]);
    let result = json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "x"});
    let allocation = json!({"status": {"allocation": {"devices": {"results": [result]}}}});
    let status = format!("{claims}/c/status");
    ann.patch(&status, MERGE, &allocation).await.refused(
        422,
        "Invalid",
        "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"patch\" permission: resourceclaims.resource.k8s.io is forbidden: User \"ann\" cannot patch resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope",
    );
    // It is the verb of the request that must be allowed.
    let bind = |verb: &str| json!({"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/binding"], "verbs": [verb]});
    http.put(&format!("{rbac}/clusterroles/r"), &role(json!([update, bind("patch")]))).await.expect(200);
    let mut whole = http.get(&format!("{claims}/c")).await.expect(200);
    whole["status"] = allocation["status"].clone();
    ann.put(&status, &whole).await.refused(
        422,
        "Invalid",
        "verb=\"update\" permission: resourceclaims.resource.k8s.io is forbidden",
    );
    http.put(&format!("{rbac}/clusterroles/r"), &role(json!([update, bind("update")]))).await.expect(200);
    ann.patch(&status, MERGE, &allocation).await.refused(422, "Invalid", "verb=\"patch\" permission");
    ann.put(&status, &whole).await.expect(200);
    let bind = bind("update");
    let device = json!({"status": {"devices": [{"driver": "d.example.com", "pool": "p", "device": "x"}]}});
    ann.patch(&status, MERGE, &device).await.refused(
        422,
        "Invalid",
        "status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:patch]\" permission: resourceclaims.resource.k8s.io \"d.example.com\" is forbidden: User \"ann\" cannot arbitrary-node:patch resource \"resourceclaims/driver\" in API group \"resource.k8s.io\" in the namespace \"default\"",
    );
    let drive = |verb: &str| {
        json!({"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/driver"], "resourceNames": ["d.example.com"],
            "verbs": [verb]})
    };
    let may = async |verb: &str| {
        http.put(&format!("{rbac}/clusterroles/r"), &role(json!([update, bind, drive(verb)]))).await.expect(200);
    };
    may("arbitrary-node:update").await;
    ann.patch(&status, MERGE, &device).await.refused(422, "Invalid", "verb=\"[arbitrary-node:patch]\" permission");
    may("arbitrary-node:patch").await;
    ann.patch(&status, MERGE, &device).await.expect(200);
}
