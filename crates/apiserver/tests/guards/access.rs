//! Permissions that must not be got round.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{Cluster, Http, cluster};

pub(crate) const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Lets a user do something in the namespace `default`.
pub(crate) async fn grant(admin: &Http, user: &str, verbs: &[&str], group: &str, resources: &[&str]) {
    let name = format!("{user}-{}", verbs.join("-"));
    let rules = json!([{ "verbs": verbs, "apiGroups": [group], "resources": resources }]);
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    admin.post(&format!("{RBAC}/namespaces/default/roles"), &role).await.expect(201);
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    });
    admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.expect(201);
}

async fn with_pod() -> (Cluster, Http) {
    let c = cluster().await;
    let admin = c.admin();
    let account = json!({ "metadata": { "name": "default" } });
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    admin.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    (c, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_get_cannot_exec_by_asking_with_get() {
    let (c, admin) = with_pod().await;
    let subresources = ["exec", "attach", "portforward"];
    let paths = subresources.map(|s| format!("pods/{s}"));
    grant(&admin, "reader", &["get"], "", &paths.each_ref().map(String::as_str)).await;
    grant(&admin, "user", &["get", "create"], "", &paths.each_ref().map(String::as_str)).await;
    for sub in subresources {
        let ask = |user: &str| {
            let http = c.as_user(user, &["system:authenticated"]);
            let uri = format!("/api/v1/namespaces/default/pods/p/{sub}?command=sh&stdout=true");
            let request = Request::builder().uri(uri).header("connection", "Upgrade").header("upgrade", "websocket");
            async move { http.raw(request.body(Full::default()).unwrap()).await.status().as_u16() }
        };
        assert_eq!(ask("reader").await, 403, "{sub}");
        // The Pod is on no node.
        assert_eq!(ask("user").await, 400, "{sub}");
    }
}

#[tokio::test]
async fn an_escaped_slash_is_a_slash_for_everybody() {
    let c = cluster().await;
    let admin = c.admin();
    let object = json!({ "metadata": { "name": "x" } });
    admin.post("/api/v1/namespaces/default/configmaps", &object).await.expect(201);
    let found = admin.get("/api/v1/namespaces/default%2Fconfigmaps%2fx").await.expect(200);
    assert_eq!(found["metadata"]["name"], "x");
    grant(&admin, "eve", &["get"], "", &["pods/status"]).await;
    let eve = c.as_user("eve", &["system:authenticated"]);
    // Not a resource of the name "pods/status".
    let refused = eve.get("/api/v1/namespaces/default/pods%2Fstatus").await;
    refused.refused(403, "Forbidden", r#"cannot get resource "pods" in API group"#);
}

#[tokio::test]
async fn deleting_a_collection_is_never_about_one_name() {
    let c = cluster().await;
    let admin = c.admin();
    let role = json!({ "metadata": { "name": "one" }, "rules": [{
        "verbs": ["deletecollection", "list"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["x"],
    }] });
    admin.post(&format!("{RBAC}/namespaces/default/roles"), &role).await.expect(201);
    let binding = json!({
        "metadata": { "name": "one" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve" }],
    });
    admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.expect(201);
    let eve = c.as_user("eve", &["system:authenticated"]);
    let path = "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dx";
    eve.get(path).await.expect(200);
    eve.delete(path).await.refused(403, "Forbidden", "cannot deletecollection resource");
}

#[tokio::test]
async fn reviews_without_a_subject_are_refused() {
    let c = cluster().await;
    let admin = c.admin();
    let none: Value = json!({ "spec": {} });
    let refused = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &none).await;
    refused.refused(400, "BadRequest", "token is required for TokenReview in authentication");
    let spec = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let refused = admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &spec).await;
    refused.refused(422, "Invalid", "spec.user: Invalid value: \"\": at least one of user or group must be specified");
    let both = json!({ "spec": { "user": "u", "resourceAttributes": { "verb": "get", "resource": "pods" },
        "nonResourceAttributes": { "verb": "get", "path": "/" } } });
    let refused = admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &both).await;
    refused.refused(422, "Invalid", "cannot be specified in combination with resourceAttributes");
}

#[tokio::test]
async fn every_true_of_a_watch_is_a_watch() {
    let c = cluster().await;
    let admin = c.admin();
    grant(&admin, "eve", &["list"], "", &["configmaps"]).await;
    let eve = c.as_user("eve", &["system:authenticated"]);
    for value in ["true", "1", "True", "TRUE", "t", "yes", ""] {
        let path = format!("/api/v1/namespaces/default/configmaps?watch={value}&timeoutSeconds=1");
        let refused = eve.send(Method::GET, &path, &[], "").await;
        refused.refused(403, "Forbidden", "cannot watch resource");
    }
    for value in ["false", "0", "False"] {
        eve.get(&format!("/api/v1/namespaces/default/configmaps?watch={value}")).await.expect(200);
    }
}
