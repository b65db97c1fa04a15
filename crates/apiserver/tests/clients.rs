//! kube clients over TLS and in-process, informer-style list and watch, tokens, RBAC's refusals.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use support::cluster;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"x": "y"}}, "data": {"k": "v"}})).unwrap()
}

async fn crud(client: kube::Client) {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let made = api.create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some());
    assert_eq!(api.get("a").await.unwrap(), made);
    let listed = api.list(&ListParams::default().labels("x=y")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    let watch_from = listed.metadata.resource_version.unwrap();
    let mut events = api.watch(&WatchParams::default(), &watch_from).await.unwrap().boxed();
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k2": "w"}}))).await.unwrap();
    assert_eq!(patched.data.as_ref().unwrap().len(), 2);
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k3": "z"}});
    let applied = api.patch("a", &PatchParams::apply("me").force(), &Patch::Apply(apply)).await.unwrap();
    assert_eq!(applied.data.as_ref().unwrap().len(), 3);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Modified(o) => seen.push(("modified", o.data.unwrap().len())),
            WatchEvent::Deleted(o) => seen.push(("deleted", o.data.unwrap().len())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [("modified", 2), ("modified", 3), ("deleted", 3)]);
    let gone = api.get("a").await.unwrap_err();
    assert!(gone.to_string().contains("configmaps \"a\" not found"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_clients_work_in_process_and_over_tls() {
    let c = cluster().await;
    crud(c.kube()).await;
    crud(c.kube_tls().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_begins_with_its_namespaces_roles_and_service() {
    let c = cluster().await;
    let namespaces: Api<Namespace> = Api::all(c.kube());
    let names: Vec<String> =
        namespaces.list(&ListParams::default()).await.unwrap().iter().map(|n| n.name_any()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let http = c.admin();
    let service = http.get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.0.1"]));
    let slice = http.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    http.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin").await.expect(200);
    http.get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_account_tokens_authenticate_and_rbac_decides() {
    let c = cluster().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(c.kube(), "default");
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "robot"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let token = accounts.create_token_request("robot", &PostParams::default(), &request).await.unwrap();
    let token = token.status.unwrap().token.unwrap_or_default();

    let mut config = kube::Config::new(format!("https://{}", c.address).parse().unwrap());
    config.root_cert = Some(vec![c.pki.ca_der().to_vec()]);
    config.auth_info.token = Some(token.clone().into());
    let robot = kube::Client::try_from(config.clone()).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(robot, "default");
    let refused = maps.list(&ListParams::default()).await.unwrap_err().to_string();
    let why = "configmaps is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert!(refused.contains(why), "{refused}");

    let binding = json!({
        "metadata": {"name": "robot"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    c.admin().post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await.expect(201);
    maps.list(&ListParams::default()).await.unwrap();
    let refused = maps.create(&PostParams::default(), &config_map("a")).await.unwrap_err().to_string();
    assert!(refused.contains("cannot create resource \"configmaps\""), "{refused}");

    let review = json!({"spec": {"token": token}});
    let review = c.admin().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:robot");

    config.auth_info.token = Some("nonsense".to_owned().into());
    let stranger: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config.clone()).unwrap(), "default");
    assert!(stranger.list(&ListParams::default()).await.unwrap_err().to_string().contains("Unauthorized"));
    config.auth_info.token = None;
    let nobody: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config).unwrap(), "default");
    assert!(nobody.list(&ListParams::default()).await.unwrap_err().to_string().contains("Unauthorized"));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_reviews_and_impersonation_ask_the_same_rules() {
    let c = cluster().await;
    let http = c.admin();
    let can = |verb: &str| json!({"spec": {"user": "system:kube-scheduler", "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(http.post(path, &can("list")).await.expect(201)["status"]["allowed"], true);
    assert_eq!(http.post(path, &can("create")).await.expect(201)["status"]["allowed"], false);
    let scheduler = [("impersonate-user", "system:kube-scheduler")];
    http.send(http::Method::GET, "/api/v1/namespaces/default/pods", &scheduler, "").await.expect(200);
    let a = http.send(http::Method::GET, "/api/v1/namespaces/default/secrets", &scheduler, "").await;
    a.refused(403, "Forbidden", "User \"system:kube-scheduler\" cannot list resource \"secrets\"");
    let a = c.as_user("eve", &["system:authenticated"]);
    let a = a.send(http::Method::GET, "/api/v1/namespaces/default/pods", &scheduler, "").await;
    a.refused(403, "Forbidden", "cannot impersonate-on:user-info:list resource \"pods\"");
    let rules = json!({"spec": {"namespace": "default"}});
    let rules = http.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &rules).await.expect(201);
    assert_eq!(rules["status"]["resourceRules"][0]["verbs"], json!(["*"]));
    let me = http.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "admin");
    let grant =
        json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    c.as_user("system:serviceaccount:kube-system:clusterrole-aggregation-controller", &["system:serviceaccounts"])
        .get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view")
        .await
        .expect(200);
    let editor = json!({
        "metadata": {"name": "eve"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"}],
    });
    http.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &editor).await.expect(201);
    let a = c.as_user("eve", &["system:authenticated"]);
    a.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &grant).await.refused(
        403,
        "Forbidden",
        "is attempting to grant RBAC permissions not currently held",
    );
}
