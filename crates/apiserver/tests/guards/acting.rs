//! Acting as another: the modes of constrained impersonation (KEP-5284), the old way behind them, and what
//! the audit log and the metrics say of it.

use http::Method;
use ironkeel_apiserver::{Feature, UserInfo};
use ironkeel_embedded::Options;
use serde_json::{Value, json};

use crate::access::RBAC;
use crate::support::{Answer, Cluster, Http, cluster, start_tuned};

/// A ClusterRole of one rule a line (`verb group resource`), and its binding to a user.
pub(crate) async fn allow(admin: &Http, user: &str, rules: &[&str]) {
    let rules: Vec<Value> = rules
        .iter()
        .map(|rule| {
            let words: Vec<&str> = rule.split(' ').map(|w| if w == "-" { "" } else { w }).collect();
            match words[..] {
                [verb, path] => json!({ "verbs": [verb], "nonResourceURLs": [path] }),
                [verb, group, resource] => json!({ "verbs": [verb], "apiGroups": [group], "resources": [resource] }),
                [verb, group, resource, name] => json!({ "verbs": [verb], "apiGroups": [group],
                    "resources": [resource], "resourceNames": [name] }),
                _ => panic!("{rule}"),
            }
        })
        .collect();
    let name = user.replace(':', "-");
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    });
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn acting(http: &Http, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    http.send(method, path, headers, "").await
}

#[tokio::test]
async fn a_mode_needs_leave_for_the_user_and_for_the_request() {
    let c = cluster().await;
    let admin = c.admin();
    let eve = c.as_user("eve", &[]);
    let bob = [("impersonate-user", "bob")];
    let get = async |path: &str| acting(&eve, Method::GET, path, &bob).await;
    // Bob himself may do both.
    allow(&admin, "bob", &["list - configmaps", "list - secrets", "get /metrics"]).await;
    let why = r#"configmaps is forbidden: User "eve" cannot impersonate-on:user-info:list resource "configmaps" in API group "" in the namespace "default""#;
    get(MAPS).await.refused(403, "Forbidden", why);
    let why = r#"forbidden: User "eve" cannot impersonate-on:user-info:get path "/metrics""#;
    get("/metrics").await.refused(403, "Forbidden", why);
    let on = "impersonate-on:user-info:list - configmaps";
    allow(&admin, "eve", &[on, "impersonate:user-info authentication.k8s.io users bob"]).await;
    get(MAPS).await.expect(200);
    // Not for another request, and not for another user.
    get("/api/v1/namespaces/default/secrets").await.refused(403, "Forbidden", "impersonate-on:user-info:list");
    let ann = acting(&eve, Method::GET, MAPS, &[("impersonate-user", "ann")]).await;
    let why = r#"users.authentication.k8s.io "ann" is forbidden: User "eve" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope"#;
    ann.refused(403, "Forbidden", why);
    // A group of one's choice is asked about, too.
    let more = [("impersonate-user", "bob"), ("impersonate-group", "devs")];
    let why = r#"groups.authentication.k8s.io "devs" is forbidden"#;
    acting(&eve, Method::GET, MAPS, &more).await.refused(403, "Forbidden", why);
    let more = [("impersonate-group", "devs"), ("impersonate-uid", "7")];
    let why = r#"requested &user.DefaultInfo{Name:"", UID:"7", Groups:[]string{"devs"}, Extra:map[string][]string(nil)} without impersonating a user name"#;
    acting(&eve, Method::GET, MAPS, &more).await.refused(400, "BadRequest", why);
    let page = admin.get("/metrics").await;
    let page = std::str::from_utf8(&page.bytes).unwrap();
    for wanted in [
        "apiserver_impersonation_attempts_total{mode=\"user-info\",decision=\"allowed\"} 1",
        "apiserver_impersonation_attempts_total{mode=\"\",decision=\"denied\"} 5",
    ] {
        assert!(page.lines().any(|l| l == wanted), "{wanted}\n{page}");
    }
}

#[tokio::test]
async fn the_old_way_goes_on_and_its_order_is_remembered() {
    let c = cluster().await;
    let admin = c.admin();
    let eve = c.as_user("eve", &[]);
    allow(&admin, "eve", &["impersonate - users", "impersonate - groups"]).await;
    allow(&admin, "bob", &["list - configmaps"]).await;
    acting(&eve, Method::GET, MAPS, &[("impersonate-user", "bob")]).await.expect(200);
    let masters = [("impersonate-user", "bob"), ("impersonate-group", "system:masters")];
    acting(&eve, Method::GET, "/api/v1/nodes", &masters).await.expect(200);
    // Who came in by the old way is refused in its words.
    let refused = acting(&eve, Method::GET, MAPS, &[("impersonate-user", "bob"), ("impersonate-uid", "7")]).await;
    refused.refused(
        403,
        "Forbidden",
        r#"User "eve" cannot impersonate resource "uids" in API group "authentication.k8s.io""#,
    );
    let who = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }).to_string();
    let headers = [("impersonate-user", "bob"), ("impersonate-group", "devs"), ("content-type", "application/json")];
    let said =
        eve.send(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, who).await.expect(201);
    assert_eq!(said["status"]["userInfo"], json!({ "username": "bob", "groups": ["devs", "system:authenticated"] }));
}

#[tokio::test]
async fn without_the_gate_there_is_the_old_way_alone() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let features = vec![Feature { name: "ConstrainedImpersonation", stage: "BETA", enabled: false }];
    let c = start_tuned(dir, Options::default(), |config| config.features = features).await;
    let admin = c.admin();
    let rules = ["impersonate-on:user-info:list - configmaps", "impersonate:user-info authentication.k8s.io users"];
    allow(&admin, "eve", &rules).await;
    let eve = c.as_user("eve", &[]);
    let refused = acting(&eve, Method::GET, MAPS, &[("impersonate-user", "bob")]).await;
    refused.refused(403, "Forbidden", r#"cannot impersonate resource "users" in API group """#);
}

fn agent(c: &Cluster, node: &str) -> Http {
    let mut user = UserInfo::for_service_account("default", "agent");
    user.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec![node.to_owned()]);
    Http::over(c.api.in_process(user))
}

#[tokio::test]
async fn an_agent_acts_as_the_node_that_it_runs_on_and_as_no_other() {
    let c = cluster().await;
    let admin = c.admin();
    let user = "system:serviceaccount:default:agent";
    let rules =
        ["impersonate-on:associated-node:list - pods", "impersonate:associated-node authentication.k8s.io nodes"];
    allow(&admin, user, &rules).await;
    let pods = |node: &str| format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
    for node in ["n1", "n2"] {
        let name = format!("system:node:{node}");
        let headers = [("impersonate-user", name.as_str())];
        acting(&agent(&c, node), Method::GET, &pods(node), &headers).await.expect(200);
    }
    let foreign = acting(&agent(&c, "n1"), Method::GET, &pods("n2"), &[("impersonate-user", "system:node:n2")]).await;
    foreign.refused(403, "Forbidden", "cannot impersonate-on:arbitrary-node:list");
    // As the node, with a node's groups and rights: not all pods.
    let all = acting(&agent(&c, "n1"), Method::GET, "/api/v1/pods", &[("impersonate-user", "system:node:n1")]).await;
    all.refused(403, "Forbidden", r#"User "system:node:n1" cannot list resource "pods""#);
    let more = [("impersonate-user", "system:node:n1"), ("impersonate-group", "system:nodes")];
    let grouped = acting(&agent(&c, "n1"), Method::GET, &pods("n1"), &more).await;
    grouped.refused(403, "Forbidden", r#"cannot impersonate resource "users""#);

    let rules = [
        "impersonate-on:serviceaccount:list - configmaps",
        "impersonate:serviceaccount authentication.k8s.io serviceaccounts web",
    ];
    allow(&admin, "eve", &rules).await;
    allow(&admin, "system:serviceaccount:shop:web", &["list - configmaps"]).await;
    let eve = c.as_user("eve", &[]);
    let of = |name: &'static str| [("impersonate-user", name)];
    acting(&eve, Method::GET, MAPS, &of("system:serviceaccount:shop:web")).await.expect(200);
    let other = acting(&eve, Method::GET, MAPS, &of("system:serviceaccount:shop:db")).await;
    other.refused(403, "Forbidden", r#"cannot impersonate:serviceaccount resource "serviceaccounts" in API group "authentication.k8s.io" in the namespace "shop""#);
    let nobody = acting(&eve, Method::GET, MAPS, &of("system:serviceaccount:shop:web:x")).await;
    nobody.refused(403, "Forbidden", "impersonate-on:user-info:list");
}
