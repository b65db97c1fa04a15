//! `ironkeel kube-apiserver`: upstream's flags, over real TLS, on the embedded store and on an etcd.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ironkeel_auth::{Identity, Pki, PkiConfig};
use ironkeel_testkit::etcd::{Server as Etcd, installed};
use ironkeel_testkit::free_port;
use serde_json::{Value, json};

const IRONKEEL: &str = env!("CARGO_BIN_EXE_ironkeel");
/// How long a server may take to start, to stop or to agree with another, in seconds.
const PATIENCE_SECONDS: u64 = 30;

fn run(arguments: &[&str]) -> Output {
    Command::new(IRONKEEL).arg("kube-apiserver").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], words: &str) {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(words), "{text:?} does not contain {words:?}");
}

#[test]
fn flags_that_cannot_be_honoured_are_named() {
    refused(&["--no-such-flag=1"], "unknown flag: --no-such-flag");
    refused(
        &["--etcd-servers-overrides=x"],
        "--etcd-servers-overrides is not supported: all resources live in one store",
    );
    refused(&["--feature-gates=NoSuchGate=true"], "unrecognized feature gate: NoSuchGate");
    refused(&["--secure-port=many"], "invalid argument \"many\" for \"--secure-port\" flag");
    refused(&["--runtime-config=nobody.example.com/v1=true"], "unknown api groups or versions");
    refused(&["--service-account-issuer=https://a"], "is required");
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--etcd-servers"));
}

/// Names and keys of encryption at rest.
const FIRST_KEY: (&str, &str) = ("k1", "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/MTIzNDU=");
const SECOND_KEY: (&str, &str) = ("k2", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");

struct Files {
    dir: tempfile::TempDir,
    pki: Pki,
}

impl Files {
    fn new() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(&dir.path().join("pki"), PkiConfig::default()).unwrap();
        std::fs::write(dir.path().join("tokens.csv"), "a-static-token,jane,uid-1,\"devs\"\n").unwrap();
        let files = Files { dir, pki };
        files.encrypt_with(&[FIRST_KEY]);
        files
    }

    /// Secrets are written with the first of these keys, and read with any.
    fn encrypt_with(&self, keys: &[(&str, &str)]) {
        let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets]\n  providers:\n  - aesgcm:\n      keys:\n"
            .to_owned();
        for (name, secret) in keys {
            text += &format!("      - name: {name}\n        secret: {secret}\n");
        }
        let (new, path) = (self.path("encryption.new"), self.path("encryption.yaml"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn serve(&self, more: &[String]) -> Server {
        let port = free_port();
        let pki = |name: &str| self.path(&format!("pki/{name}"));
        let mut flags = vec![
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--service-account-key-file={}", pki("sa.pub")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--token-auth-file={}", self.path("tokens.csv")),
            format!("--encryption-provider-config={}", self.path("encryption.yaml")),
        ];
        flags.extend(more.iter().cloned());
        let log = self.dir.path().join(format!("{port}.log"));
        let child = Command::new(IRONKEEL)
            .arg("kube-apiserver")
            .args(flags)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let kubeconfig = self.dir.path().join(format!("admin-{port}.kubeconfig"));
        let url = format!("https://127.0.0.1:{port}");
        self.pki.write_kubeconfig(&kubeconfig, &url, Identity::Admin).unwrap();
        Server { child, kubeconfig, log }
    }
}

struct Server {
    child: Child,
    kubeconfig: PathBuf,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        // A test that failed midway leaves nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<String, String> {
        self.try_call_as("", method, path, body).await
    }

    /// As the administrator where there is no `user`.
    async fn try_call_as(&self, user: &str, method: &str, path: &str, body: &Value) -> Result<String, String> {
        let client = ironkeel_client::from_kubeconfig(&self.kubeconfig).await.map_err(|e| e.to_string())?;
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", "application/json").body(bytes);
        let mut request = request.unwrap();
        if !user.is_empty() {
            request.headers_mut().insert("impersonate-user", user.parse().unwrap());
        }
        client.request_text(request).await.map_err(|e| e.to_string())
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let text = self.try_call(method, path, &body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        serde_json::from_str(&text).unwrap()
    }

    async fn ready(&self) {
        let until = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
        while let Err(why) = self.try_call("GET", "/readyz", &Value::Null).await {
            assert!(Instant::now() < until, "not ready: {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let until = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "the server did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let until = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    while !check().await {
        assert!(Instant::now() < until, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn contains(dir: &Path, words: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        bytes.windows(words.len()).any(|w| w == words)
    })
}

#[tokio::test]
async fn it_serves_from_its_own_store_encrypts_and_drains() {
    let files = Files::new();
    let data = vec![format!("--data-dir={}", files.path("data"))];
    let mut server = files.serve(&data);
    server.ready().await;
    let secret = json!({ "metadata": { "name": "s" }, "data": { "a": "dGVsbC1uby1vbmU=" } });
    server.call("POST", SECRETS, secret).await;
    let store = files.dir.path().join("data/store");
    assert!(contains(&store, b"k8s:enc:aesgcm:v1:k1:"));
    assert!(!contains(&store, b"dGVsbC1uby1vbmU="));
    let keys = server.call("GET", "/openid/v1/jwks", Value::Null).await;
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": "a-static-token" },
    });
    let who = server.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(who["status"]["user"]["username"], "jane");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let wanted = format!("{leases}?labelSelector=apiserver.kubernetes.io%2Fidentity%3Dkube-apiserver");
    eventually("the identity lease", async || {
        let found = server.call("GET", &wanted, Value::Null).await;
        found["items"].as_array().is_some_and(|i| i.len() == 1)
    })
    .await;
    server.stop();
    let mut again = files.serve(&data);
    again.ready().await;
    let found = again.call("GET", &format!("{SECRETS}/s"), Value::Null).await;
    assert_eq!(found["data"]["a"], "dGVsbC1uby1vbmU=");
    again.stop();
}

#[tokio::test]
async fn a_value_whose_key_is_missing_is_an_error_of_its_own_until_the_key_is_back() {
    let files = Files::new();
    let flags =
        [format!("--data-dir={}", files.path("data")), "--encryption-provider-config-automatic-reload=true".to_owned()];
    let secret = |name: &str| json!({ "metadata": { "name": name }, "data": { "a": "YQ==" } });
    let mut server = files.serve(&flags);
    server.ready().await;
    server.call("POST", SECRETS, secret("old")).await;
    server.stop();
    files.encrypt_with(&[SECOND_KEY]);
    let mut server = files.serve(&flags);
    server.ready().await;
    let old = format!("{SECRETS}/old");
    for (method, path, body) in [
        ("GET", old.as_str(), Value::Null),
        ("GET", SECRETS, Value::Null),
        ("GET", "/api/v1/secrets?watch=true&timeoutSeconds=5", Value::Null),
        ("PUT", old.as_str(), secret("old")),
        ("DELETE", old.as_str(), Value::Null),
    ] {
        let error = server.try_call(method, path, &body).await.unwrap_err();
        assert!(error.contains("default/old cannot be read from the store"), "{method} {path}: {error}");
    }
    // Deleting it takes the gate, which is off by default.
    let ignoring = format!("{old}?ignoreStoreReadErrorWithClusterBreakingPotential=true");
    assert!(server.try_call("DELETE", &ignoring, &Value::Null).await.unwrap_err().contains("cannot be read"));
    let taken = server.try_call("POST", SECRETS, &secret("old")).await.unwrap_err();
    assert!(taken.contains("already exists"), "{taken}");
    server.call("POST", SECRETS, secret("new")).await;
    server.call("GET", &format!("{SECRETS}/new"), Value::Null).await;
    server.call("GET", "/api/v1/namespaces/kube-system/secrets", Value::Null).await;
    server.call("GET", "/api/v1/configmaps", Value::Null).await;
    files.encrypt_with(&[SECOND_KEY, FIRST_KEY]);
    eventually("the value", async || server.try_call("GET", &old, &Value::Null).await.is_ok()).await;
    let all = server.call("GET", SECRETS, Value::Null).await;
    let names: Vec<_> = all["items"].as_array().unwrap().iter().map(|s| s["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["new", "old"]);
    server.stop();

    // Once more without the key; the gate is on.
    files.encrypt_with(&[SECOND_KEY]);
    let gate = "--feature-gates=AllowUnsafeMalformedObjectDeletion=true".to_owned();
    let mut server = files.serve(&[flags.to_vec(), vec![gate]].concat());
    server.ready().await;
    let error = server.try_call("DELETE", &old, &Value::Null).await.unwrap_err();
    assert!(error.contains("default/old cannot be read from the store"), "{error}");
    let wrong = [
        (format!("{ignoring}&gracePeriodSeconds=0"), "cannot be set together with .gracePeriodSeconds"),
        (ignoring.replace("/old", "/new"), "is exclusively used to delete corrupt object(s)"),
        (ignoring.replace("/old", ""), "is not allowed with DELETECOLLECTION"),
    ];
    for (path, why) in wrong {
        let error = server.try_call("DELETE", &path, &Value::Null).await.unwrap_err();
        assert!(error.contains(why), "{path}: {error}");
    }
    // It takes a permission of its own.
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["delete"] }]);
    server.call("POST", &format!("{rbac}/roles"), json!({ "metadata": { "name": "r" }, "rules": rules })).await;
    let binding = json!({
        "metadata": { "name": "r" }, "subjects": [{ "kind": "User", "name": "jane" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" },
    });
    server.call("POST", &format!("{rbac}/rolebindings"), binding).await;
    let refused = server.try_call_as("jane", "DELETE", &ignoring, &Value::Null).await.unwrap_err();
    assert!(refused.contains(r#"not permitted to do \"unsafe-delete-ignore-read-errors\""#), "{refused}");
    let body = json!({ "ignoreStoreReadErrorWithClusterBreakingPotential": true, "preconditions": {} });
    let error = server.try_call("DELETE", &old, &body).await.unwrap_err();
    assert!(error.contains("cannot be set together with .preconditions"), "{error}");
    assert!(server.try_call("GET", &old, &Value::Null).await.unwrap_err().contains("cannot be read"), "it is gone");
    let body = json!({ "ignoreStoreReadErrorWithClusterBreakingPotential": true });
    let status = server.call("DELETE", &old, body).await;
    assert_eq!((&status["status"], &status["details"]["kind"]), (&json!("Success"), &json!("Secret")));
    let all = server.call("GET", SECRETS, Value::Null).await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    server.stop();
}

#[tokio::test]
async fn replicas_on_one_etcd_share_objects_and_the_kubernetes_service() {
    if !installed() {
        return;
    }
    let (files, etcd) = (Files::new(), Etcd::start(&[]));
    let replica = |address: &str| {
        files.serve(&[format!("--etcd-servers={}", etcd.url), format!("--advertise-address={address}")])
    };
    let (mut one, mut two) = (replica("192.0.2.1"), replica("192.0.2.2"));
    one.ready().await;
    two.ready().await;
    let endpoints = async |server: &Server, wanted: &[&str]| {
        eventually(&format!("endpoints {wanted:?}"), async || {
            let path = "/api/v1/namespaces/default/endpoints/kubernetes";
            let Ok(text) = server.try_call("GET", path, &Value::Null).await else { return false };
            let found: Value = serde_json::from_str(&text).unwrap();
            let addresses = found["subsets"][0]["addresses"].as_array().cloned().unwrap_or_default();
            addresses.iter().map(|a| a["ip"].as_str().unwrap_or_default()).eq(wanted.iter().copied())
        })
        .await;
    };
    endpoints(&one, &["192.0.2.1", "192.0.2.2"]).await;
    one.call("POST", SECRETS, json!({ "metadata": { "name": "s" }, "data": { "a": "YQ==" } })).await;
    let seen = two.call("GET", &format!("{SECRETS}/s"), Value::Null).await;
    assert_eq!(seen["data"]["a"], "YQ==", "what one has acknowledged the other shows at once");
    two.stop();
    endpoints(&one, &["192.0.2.1"]).await;
    one.stop();
}
