//! Webhooks and issuers that are asked about callers: their word counts as far as upstream lets it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironkeel_apiserver::{DelegatesConfig, WebhookConfig};
use ironkeel_auth::OidcConfig;
use ironkeel_embedded::Options;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::access::grant;
use crate::support::{Cluster, start_tuned};
use crate::wire::{answering, http1};

pub(crate) fn webhook(url: String) -> WebhookConfig {
    WebhookConfig {
        url,
        ca_pem: None,
        insecure: false,
        identity: None,
        token: None,
        version: "v1".to_owned(),
        yes_ttl: Duration::ZERO,
        no_ttl: Duration::ZERO,
    }
}

async fn with(delegates: DelegatesConfig) -> Cluster {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    start_tuned(dir, Options::default(), |config| config.delegates = Arc::new(delegates)).await
}

/// A cluster whose webhook for tokens takes the token for the status that it is to answer.
async fn believing() -> Cluster {
    let url = answering(|_, review| {
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        match token.as_str() {
            "array" => json!([]),
            "other" => {
                json!({ "status": { "authenticated": true, "user": { "username": "eve" }, "audiences": ["other"] } })
            }
            "nobody" => json!({ "status": { "authenticated": true, "user": { "username": "" } } }),
            _ => json!({ "status": { "authenticated": true, "user": { "username": "eve" } } }),
        }
    })
    .await;
    with(DelegatesConfig { tokens: Some(webhook(format!("http://{url}/"))), ..DelegatesConfig::default() }).await
}

async fn review(c: &Cluster, token: &str, audiences: Value) -> Value {
    let body = json!({ "spec": { "token": token, "audiences": audiences } });
    c.admin().post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await.expect(201)["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhooks_token_is_good_for_its_audiences_alone() {
    let c = believing().await;
    let mut http = http1(&c, None).await;
    let of = |token: &str| format!("Bearer {token}");
    assert_eq!(http.get("/api", &[("authorization", &of("good"))]).await, 200);
    for bad in ["other", "nobody", "array"] {
        assert_eq!(http.get("/api", &[("authorization", &of(bad))]).await, 401, "{bad}");
    }
    // It said nothing of audiences: then the API server's are meant.
    assert_eq!(review(&c, "good", json!(["other"])).await["authenticated"], false);
    let own = json!(["https://kubernetes.default.svc.cluster.local"]);
    let good = review(&c, "good", own.clone()).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &own));
    let other = review(&c, "other", json!(["other", "third"])).await;
    assert_eq!((&other["authenticated"], &other["audiences"]), (&json!(true), &json!(["other"])));
}

struct Issuer {
    key: EcdsaKeyPair,
    url: String,
}

impl Issuer {
    async fn new() -> Issuer {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k", "x": text(x), "y": text(y) }] });
        let own = Arc::new(std::sync::OnceLock::<String>::new());
        let address = answering({
            let own = own.clone();
            move |path, _| match path {
                "/keys" => jwks.clone(),
                _ => json!({ "issuer": own.get(), "jwks_uri": format!("{}/keys", own.get().unwrap()) }),
            }
        })
        .await;
        let url = format!("http://{address}");
        own.set(url.clone()).unwrap();
        Issuer { key, url }
    }

    fn token(&self, more: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({ "iss": self.url, "sub": "jane", "aud": "client", "exp": now + 3600 });
        for (key, value) in more.as_object().unwrap() {
            claims[key] = value.clone();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "ES256", "kid": "k" })), part(&claims));
        let signature = self.key.sign(&ring::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_is_good_for_the_api_server_alone() {
    let issuer = Issuer::new().await;
    let mut oidc = OidcConfig::new(issuer.url.clone(), "client");
    oidc.algorithms = vec!["ES256".to_owned()];
    let c = with(DelegatesConfig { issuers: vec![oidc], ..DelegatesConfig::default() }).await;
    let now = jiff::Timestamp::now().as_second();
    let own = json!(["https://kubernetes.default.svc.cluster.local"]);
    let good = review(&c, &issuer.token(json!({})), json!([])).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &own), "{good}");
    assert_eq!(review(&c, &issuer.token(json!({})), json!(["other"])).await["authenticated"], false);
    for bad in [json!({ "exp": now - 60 }), json!({ "aud": "other" }), json!({ "nbf": now + 3600 })] {
        assert_eq!(review(&c, &issuer.token(bad.clone()), json!([])).await["authenticated"], false, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_that_creates_is_asked_of_the_webhook_too() {
    let url = answering(|_, review| {
        let creates = review["spec"]["resourceAttributes"]["verb"] == "create";
        json!({ "status": { "allowed": false, "denied": creates, "reason": "frozen" } })
    })
    .await;
    let access = Some(webhook(format!("http://{url}/")));
    let c = with(DelegatesConfig { access, access_first: true, ..DelegatesConfig::default() }).await;
    grant(&c.admin(), "ann", &["create", "patch", "update"], "", &["configmaps"]).await;
    let ann = c.as_user("ann", &["system:authenticated"]);
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" } });
    ann.post("/api/v1/namespaces/default/configmaps", &object).await.refused(403, "Forbidden", "frozen");
    let path = "/api/v1/namespaces/default/configmaps/x?fieldManager=m";
    ann.patch(path, "application/apply-patch+yaml", &object).await.refused(403, "Forbidden", "frozen");
    c.admin().post("/api/v1/namespaces/default/configmaps", &object).await.expect(201);
    ann.patch(path, "application/apply-patch+yaml", &object).await.expect(200);
}
