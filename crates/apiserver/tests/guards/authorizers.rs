//! A chain of authorizers with a webhook in it, and what is replaced while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ironkeel_auth::{
    AbacPolicies, AnonymousRule, AuthorizerEntry, Identity, KeySet, Pki, PkiConfig, SigningKey, read_authorization,
};
use ironkeel_embedded::Options;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::access::grant;
use crate::support::{cluster, start_tuned};
use crate::wire::{answering, http1};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A webhook that is asked about resources alone, and then RBAC.
fn chain(dir: &std::path::Path, url: &str) -> Vec<AuthorizerEntry> {
    let kubeconfig = dir.join("webhook.kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'http://{url}/'}}}}]\ncontexts: [{{name: c, context: {{cluster: c}}}}]\ncurrent-context: c\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    read_authorization(&format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- type: Webhook\n  name: hook\n  webhook:\n    timeout: 3s\n    authorizedTTL: 1m\n    unauthorizedTTL: 1m\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n    matchConditions:\n    - expression: has(request.resourceAttributes)\n- {{type: RBAC, name: rbac}}\n",
        kubeconfig.display()
    ))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_decides_in_its_place_where_its_conditions_hold() {
    let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Value::Null)));
    let (count, seen) = (asked.clone(), last.clone());
    let url = answering(move |_, review| {
        count.fetch_add(1, Ordering::SeqCst);
        *seen.lock() = review["spec"].clone();
        match review["spec"]["user"].as_str() {
            Some("jane") => json!({ "status": { "allowed": true, "reason": "a friend" } }),
            Some("eve") => json!({ "status": { "allowed": false, "denied": true, "reason": "no friend" } }),
            _ => json!({ "status": { "allowed": false, "reason": "a stranger" } }),
        }
    })
    .await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let chain = chain(dir.path(), &url.to_string());
    let c = start_tuned(dir.clone(), Options::default(), |config| {
        let delegates = ironkeel_apiserver::DelegatesConfig { chain: Some(chain.clone()), ..Default::default() };
        config.delegates = Arc::new(delegates);
    })
    .await;
    let (jane, eve, joe) =
        (c.as_user("jane", &["devs"]), c.as_user("eve", &[]), c.as_user("joe", &["system:authenticated"]));
    for user in ["eve", "joe"] {
        grant(&c.admin(), user, &["list"], "", &["pods"]).await;
    }
    let before = asked.load(Ordering::SeqCst);
    jane.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1&labelSelector=a%20in%20(b),!d")).await.expect(200);
    let spec = last.lock().clone();
    assert_eq!(spec["groups"], json!(["devs", "system:authenticated"]));
    let requirement = |key: &str, operator: &str, values: &[&str]| match values {
        [] => json!({ "key": key, "operator": operator }),
        values => json!({ "key": key, "operator": operator, "values": values }),
    };
    let attributes = &spec["resourceAttributes"];
    assert_eq!(attributes["fieldSelector"]["requirements"], json!([requirement("spec.nodeName", "In", &["n1"])]));
    let labels = json!([requirement("a", "In", &["b"]), requirement("d", "DoesNotExist", &[])]);
    assert_eq!(attributes["labelSelector"]["requirements"], labels);
    // Its no is final, its silence is not.
    eve.get(PODS).await.refused(403, "Forbidden", "no friend");
    joe.get(PODS).await.expect(200);
    joe.get("/api/v1/namespaces/default/secrets").await.refused(403, "Forbidden", "a stranger");
    let with_answers = asked.load(Ordering::SeqCst);
    assert_eq!(with_answers - before, 4);
    // Answers are kept; a path is nothing that it is asked about, and masters are asked about by nobody.
    joe.get(PODS).await.expect(200);
    joe.get("/version").await.expect(200);
    c.admin().get(PODS).await.expect(200);
    assert_eq!(asked.load(Ordering::SeqCst), with_answers);

    // A webhook that does not answer, and whose failure is a no.
    let dead = self::chain(dir.path(), "127.0.0.1:1");
    c.api.replace_authorizers(&dead).unwrap();
    joe.get(PODS).await.refused(403, "Forbidden", "cannot list resource");
    c.api.replace_authorizers(&dead[1..]).unwrap();
    joe.get(PODS).await.expect(200);
    jane.get(PODS).await.refused(403, "Forbidden", "cannot list resource");
    let abac = read_authorization(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: ABAC, name: abac}]\n",
    );
    c.api.replace_authorizers(&abac.unwrap()).unwrap();
    c.api.replace_policies(AbacPolicies::parse("{\"user\":\"jane\",\"resource\":\"pods\"}").unwrap());
    jane.get(PODS).await.expect(200);
    joe.get(PODS).await.refused(403, "Forbidden", "No policy matched.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_replaced_counts_on_connections_that_are_there() {
    let c = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let other = Pki::load_or_create(dir.path(), PkiConfig::default()).unwrap();
    let mut old = http1(&c, Some(c.pki.client(Identity::Admin))).await;
    let mut new = http1(&c, Some(other.client(Identity::Admin))).await;
    assert_eq!((old.get("/api", &[]).await, new.get("/api", &[]).await), (200, 401));
    c.api.replace_client_ca(other.ca_pem()).await.unwrap();
    assert_eq!((old.get("/api", &[]).await, new.get("/api", &[]).await), (401, 200));
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    assert_eq!(c.admin().get(path).await.expect(200)["data"]["client-ca-file"], other.ca_pem());
    assert!(c.api.replace_client_ca("nothing").await.is_err());
    assert_eq!(new.get("/api", &[]).await, 200, "the one of before stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_keys_and_anonymous_callers_are_as_the_last_file_says() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |config| {
        config.authenticator.static_tokens = Some("one,jane,1\n".to_owned());
    })
    .await;
    let mut http = http1(&c, None).await;
    let bearer = |token: &str| format!("Bearer {token}");
    assert_eq!(http.get("/api", &[("authorization", &bearer("one"))]).await, 200);
    c.api.replace_static_tokens("two,jane,1\n").unwrap();
    assert_eq!(http.get("/api", &[("authorization", &bearer("one"))]).await, 401);
    assert_eq!(http.get("/api", &[("authorization", &bearer("two"))]).await, 200);
    assert!(c.api.replace_static_tokens("three\n").is_err());
    assert_eq!(http.get("/api", &[("authorization", &bearer("two"))]).await, 200, "the file of before stays");

    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "robot" } });
    c.admin().post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let token = async || {
        let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
        let made = c.admin().post(path, &json!({ "spec": {} })).await.expect(201);
        made["status"]["token"].as_str().unwrap().to_owned()
    };
    let first = token().await;
    assert_eq!(http.get("/api", &[("authorization", &bearer(&first))]).await, 200);
    let key = SigningKey::generate().unwrap();
    let mut keys = KeySet::default();
    keys.add_signing_key(&key);
    c.api.replace_service_account_keys(key.clone(), keys.clone());
    assert_eq!(http.get("/api", &[("authorization", &bearer(&first))]).await, 401, "its key verifies nothing now");
    let second = token().await;
    assert_eq!(http.get("/api", &[("authorization", &bearer(&second))]).await, 200);
    assert_eq!(c.admin().get("/openid/v1/jwks").await.expect(200)["keys"][0]["kid"], key.id());

    assert_eq!(http.get("/version", &[]).await, 401);
    let rule = AnonymousRule { enabled: true, paths: vec!["/version".to_owned()] };
    c.api.replace_issuers(&[], Some(rule)).unwrap();
    assert_eq!((http.get("/version", &[]).await, http.get("/readyz", &[]).await), (200, 401));
    c.api.replace_issuers(&[], Some(AnonymousRule { enabled: false, paths: Vec::new() })).unwrap();
    assert_eq!(http.get("/version", &[]).await, 401);
}
