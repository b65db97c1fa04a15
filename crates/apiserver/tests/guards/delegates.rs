//! Webhooks and issuers that are asked about callers: their word counts as far as upstream lets it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironkeel_apiserver::{DelegatesConfig, WebhookConfig};
use ironkeel_auth::{ClaimMapping, OidcConfig};
use ironkeel_embedded::Options;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::access::grant;
use crate::support::{Cluster, start_tuned};
use crate::wire::{answering, http1, secure};

pub(crate) fn webhook(url: String) -> WebhookConfig {
    WebhookConfig {
        url,
        ca_pem: None,
        insecure: false,
        identity: None,
        token: None,
        token_file: None,
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

/// An issuer over TLS, that also answers for groups (`/groups`, to whoever brings the token `open`).
struct Elsewhere {
    key: Arc<EcdsaKeyPair>,
    url: String,
    ca: String,
}

impl Elsewhere {
    async fn new() -> Elsewhere {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let key = Arc::new(key);
        let own = Arc::new(std::sync::OnceLock::<String>::new());
        let (url, signing) = (own.clone(), key.clone());
        let (address, ca) = secure(move |path, authorization| {
            let url = url.get().unwrap();
            let claims = |more: Value| {
                let mut claims = json!({ "iss": url, "sub": "jane", "aud": "client", "exp": i64::MAX / 2 });
                claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                claims
            };
            let groups = json!({ "groups": ["devs", "ops"] });
            match path {
                "/keys" => (200, jwks(&signing).to_string()),
                "/groups" if authorization == "Bearer open" => (200, signed(&signing, &claims(groups))),
                "/groups" => (401, "no".to_owned()),
                "/none" => (200, signed(&signing, &claims(json!({})))),
                "/foreign" => (200, signed(&signing, &claims(json!({ "aud": "other", "groups": ["x"] })))),
                "/text" => (200, "no token".to_owned()),
                _ => (200, json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string()),
            }
        })
        .await;
        let url = format!("https://{address}");
        own.set(url.clone()).unwrap();
        Elsewhere { key, url, ca }
    }
}

fn jwks(key: &EcdsaKeyPair) -> Value {
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k", "x": text(x), "y": text(y) }] })
}

fn signed(key: &EcdsaKeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "ES256", "kid": "k" })), part(claims));
    let signature = key.sign(&ring::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_fetched_from_where_they_stand() {
    let (issuer, other) = (Elsewhere::new().await, Elsewhere::new().await);
    let mut oidc = OidcConfig::new(issuer.url.clone(), "client");
    oidc.algorithms = vec!["ES256".to_owned()];
    oidc.groups = ClaimMapping::Claim { name: "groups".to_owned(), prefix: "oidc:".to_owned() };
    oidc.ca_pem = format!("{}{}", issuer.ca, other.ca);
    let c = with(DelegatesConfig { issuers: vec![oidc], ..DelegatesConfig::default() }).await;
    let ask = async |source: Value| {
        let claims = json!({ "iss": issuer.url, "sub": "jane", "aud": "client", "exp": i64::MAX / 2,
            "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": source } });
        review(&c, &signed(&issuer.key, &claims), json!([])).await
    };
    let groups = json!(["oidc:devs", "oidc:ops", "system:authenticated"]);
    for url in [&issuer.url, &other.url] {
        let told = ask(json!({ "endpoint": format!("{url}/groups"), "access_token": "open" })).await;
        assert_eq!(told["user"]["groups"], groups, "{told}");
    }
    // Whoever cannot be asked grants nothing, and refuses the whole token.
    for (path, token) in [("groups", "shut"), ("none", "open"), ("foreign", "open"), ("text", "open")] {
        let told = ask(json!({ "endpoint": format!("{}/{path}", other.url), "access_token": token })).await;
        assert_eq!(told["authenticated"], false, "{path}: {told}");
    }
    let none = ask(json!({ "JWT": "a.b.c" })).await;
    assert_eq!(none["user"]["groups"], json!(["system:authenticated"]), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_names_its_token_among_the_subprotocols() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |config| {
        config.authenticator.static_tokens = Some("sesame,jane,1,system:masters\n".to_owned());
        config.authenticator.anonymous = true;
    })
    .await;
    let mut http = http1(&c, None).await;
    let path = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdout=true";
    let of = |token: &str| format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(token));
    let mut ask = async |protocols: &str, upgrade: &str| {
        let headers = [("connection", "Upgrade"), ("upgrade", upgrade), ("sec-websocket-protocol", protocols)];
        http.get(path, &headers).await
    };
    // There is no such pod; who may not know is told something else.
    assert_eq!(ask(&format!("v5.channel.k8s.io, {}", of("sesame")), "websocket").await, 404);
    assert_eq!(ask(&format!("v5.channel.k8s.io,{}", of("wrong")), "websocket").await, 401);
    assert_eq!(ask(&of("sesame"), "websocket").await, 401, "there must be another one");
    assert_eq!(ask(&format!("v5.channel.k8s.io,{},{}", of("sesame"), of("sesame")), "websocket").await, 401);
    assert_eq!(ask(&format!("v5.channel.k8s.io,{}", of("sesame")), "spdy/3.1").await, 403, "nobody");
    assert_eq!(ask("v5.channel.k8s.io", "websocket").await, 403);
    let mut bearer = async |value: &str| http.get("/api/v1/nodes", &[("authorization", value)]).await;
    assert_eq!(bearer("Bearer sesame").await, 200);
    assert_eq!(bearer("bearer sesame and more").await, 200, "the second word counts");
    assert_eq!(bearer("Bearer  sesame").await, 403, "an empty token is none");
    assert_eq!(bearer("Basic sesame").await, 403);
    assert_eq!(bearer("Bearer \u{fc}").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_asks_as_its_own_account() {
    let home = tempfile::tempdir().unwrap();
    let heard: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    let noted = heard.clone();
    let (address, ca) = secure(move |_, authorization| {
        noted.lock().push(authorization.to_owned());
        (200, json!({ "status": { "authenticated": true, "user": { "username": "eve" } } }).to_string())
    })
    .await;
    let variable = move |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some(address.ip().to_string()),
        "KUBERNETES_SERVICE_PORT" => Some(address.port().to_string()),
        _ => None,
    };
    let nowhere = WebhookConfig::in_cluster(&|_| None, home.path()).unwrap_err();
    assert!(nowhere.contains("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"), "{nowhere}");
    assert!(WebhookConfig::in_cluster(&variable, home.path()).unwrap_err().contains("token"));
    std::fs::write(home.path().join("token"), "one\n").unwrap();
    std::fs::write(home.path().join("ca.crt"), ca).unwrap();
    let mut config = WebhookConfig::in_cluster(&variable, home.path()).unwrap();
    config.version = "v1".to_owned();
    (config.yes_ttl, config.no_ttl) = (Duration::ZERO, Duration::ZERO);
    let c = with(DelegatesConfig { tokens: Some(config), ..DelegatesConfig::default() }).await;
    assert_eq!(review(&c, "a", json!([])).await["authenticated"], true);
    std::fs::write(home.path().join("token"), "two").unwrap();
    assert_eq!(review(&c, "a", json!([])).await["authenticated"], true);
    assert_eq!(*heard.lock(), ["Bearer one", "Bearer two"], "the token is read anew");
}
