//! What a kubeconfig says reaches the server: certificates, tokens, plugins, impersonation, names.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ironkeel_client::{Error, Kubeconfig, KubeconfigError};
use k8s_openapi::api::core::v1::ConfigMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap(), key)
    }
}

/// Answers every request with a ConfigMap that says what the request was; one with the token `old` is not taken.
async fn serve(authority: &Authority, name: &str) -> SocketAddr {
    ironkeel_client::install_crypto_provider();
    let (certificate, key) = authority.issue(name);
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_client_cert_verifier(clients);
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(&request, &shown);
                async move { answer }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn answer(request: &Request<Incoming>, shown: &[CertificateDer<'_>]) -> http::Result<Response<Full<bytes::Bytes>>> {
    let all = |name: &str| {
        let values = request.headers().get_all(name).iter().map(|v| v.to_str().unwrap());
        values.collect::<Vec<_>>().join(",")
    };
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "seen" }, "data": {
        "path": request.uri().path(), "certificates": shown.len().to_string(), "certificate": shown.first().map_or_else(String::new, |c| STANDARD.encode(c)),
        "authorization": all("authorization"),
        "user": all("impersonate-user"), "groups": all("impersonate-group"),
        "extra": all("impersonate-extra-example.com%2fscope"),
    } });
    let known = all("authorization") != "Bearer old";
    let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    Response::builder().status(status).body(Full::new(body.to_string().into()))
}

fn write(dir: &Path, cluster: Value, user: Value) -> std::path::PathBuf {
    let path = dir.join("kubeconfig");
    let text = serde_yaml_ng::to_string(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "preferences": {},
        "clusters": [{ "name": "c", "cluster": cluster }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [{ "name": "here", "context": { "cluster": "c", "user": "u" } },
                     { "name": "astray", "context": { "cluster": "elsewhere", "user": "u" } }],
    }));
    std::fs::write(&path, text.unwrap()).unwrap();
    path
}

async fn ask(client: ironkeel_client::Client) -> Result<std::collections::BTreeMap<String, String>, kube::Error> {
    kube::Api::<ConfigMap>::default_namespaced(client).get("seen").await.map(|map| map.data.unwrap())
}

async fn seen(path: &Path) -> std::collections::BTreeMap<String, String> {
    ask(ironkeel_client::from_kubeconfig(path).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn certificates_and_tokens_reach_the_server_inline_or_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let address = serve(&authority, "127.0.0.1").await;
    let server = format!("https://{address}");
    let inline = json!({ "server": server, "certificate-authority-data": STANDARD.encode(authority.pem()) });
    let (certificate, key) = authority.issue("somebody");
    let user = json!({
        "client-certificate-data": STANDARD.encode(certificate.pem()),
        "client-key-data": STANDARD.encode(key.serialize_pem()),
    });
    let got = seen(&write(dir.path(), inline.clone(), user.clone())).await;
    assert_eq!((got["certificates"].as_str(), got["authorization"].as_str()), ("1", ""));
    assert_eq!(got["path"], "/api/v1/namespaces/default/configmaps/seen");
    let anonymous = ironkeel_client::anonymous_from_kubeconfig(dir.path().join("kubeconfig")).await.unwrap();
    assert_eq!(ask(anonymous).await.unwrap()["certificates"], "0");

    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("c.pem", certificate.pem()),
        ("k.pem", key.serialize_pem()),
        ("t", "abc\n".into()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let beside = json!({ "server": format!("{server}/below/"), "certificate-authority": "ca.pem" });
    let user = json!({ "client-certificate": "c.pem", "client-key": "k.pem", "tokenFile": "t" });
    let got = seen(&write(dir.path(), beside, user)).await;
    assert_eq!((got["certificates"].as_str(), got["authorization"].as_str()), ("1", "Bearer abc"));
    assert_eq!(got["path"], "/below/api/v1/namespaces/default/configmaps/seen");

    let got = seen(&write(dir.path(), inline.clone(), json!({ "token": "xyz" }))).await;
    assert_eq!(got["authorization"], "Bearer xyz");
    let got = seen(&write(dir.path(), inline, json!({ "username": "a", "password": "b" }))).await;
    assert_eq!(got["authorization"], "Basic YTpi");
}

#[tokio::test]
async fn a_server_is_believed_by_authority_and_name_or_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let address = serve(&authority, "kubernetes.example").await;
    let server = format!("https://{address}");
    let ca = STANDARD.encode(authority.pem());
    let named = json!({ "server": server, "certificate-authority-data": ca, "tls-server-name": "kubernetes.example" });
    assert_eq!(seen(&write(dir.path(), named, json!({}))).await["certificates"], "0");
    let insecure = json!({ "server": server, "insecure-skip-tls-verify": true });
    assert_eq!(seen(&write(dir.path(), insecure, json!({}))).await["certificates"], "0");
    for wrong in [
        json!({ "server": server, "certificate-authority-data": ca }),
        json!({ "server": server, "certificate-authority-data": STANDARD.encode(Authority::new().pem()),
                "tls-server-name": "kubernetes.example" }),
    ] {
        let client = ironkeel_client::from_kubeconfig(write(dir.path(), wrong, json!({}))).await.unwrap();
        assert!(ask(client).await.is_err());
    }
}

#[tokio::test]
async fn who_is_impersonated_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let address = serve(&authority, "127.0.0.1").await;
    let cluster = json!({ "server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority.pem()) });
    let user = json!({ "as": "jane", "as-groups": ["a", "b"], "as-user-extra": { "example.com/Scope": ["x"] } });
    let got = seen(&write(dir.path(), cluster, user)).await;
    assert_eq!((got["user"].as_str(), got["groups"].as_str(), got["extra"].as_str()), ("jane", "a,b", "x"));
}

#[tokio::test]
async fn a_plugin_gives_tokens_until_they_expire_and_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let address = serve(&authority, "127.0.0.1").await;
    let cluster = json!({ "server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority.pem()) });
    let user = |script: &str| {
        json!({ "exec": { "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
                "env": [{ "name": "WHO", "value": "me" }], "interactiveMode": "Never", "provideClusterInfo": true } })
    };
    let print = |status: &str| {
        format!(
            r#"echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}'"#
        )
    };
    let counter = dir.path().join("count");
    let counted = |end: &str| {
        let status = format!(r#"{{"token":"'$WHO-$(wc -l < {})'"{end}}}"#, counter.display());
        format!("echo >> {}; {}", counter.display(), print(&status))
    };
    // One that never expires is asked for once, an expired one each time.
    for (end, second) in [("", "Bearer me-1"), (r#","expirationTimestamp":"2001-01-01T00:00:00Z""#, "Bearer me-3")] {
        let _ = std::fs::remove_file(&counter);
        let path = write(dir.path(), cluster.clone(), user(&counted(end)));
        let client = ironkeel_client::from_kubeconfig(path).await.unwrap();
        ask(client.clone()).await.unwrap();
        assert_eq!(ask(client).await.unwrap()["authorization"], second);
    }
    let (certificate, key) = authority.issue("plugged");
    let status = json!({ "clientCertificateData": certificate.pem(), "clientKeyData": key.serialize_pem() });
    let script = print(&status.to_string().replace("\\n", "\\\\n")).replacen("echo '", "printf '%b' '", 1);
    assert_eq!(seen(&write(dir.path(), cluster.clone(), user(&script))).await["certificates"], "1");

    // What the plugin gives later counts for new connections; the old ones show what has expired.
    let later = authority.issue("later");
    for (name, (certificate, key)) in [("1", (certificate, key)), ("2", later)] {
        let mut status = json!({ "clientCertificateData": certificate.pem(), "clientKeyData": key.serialize_pem() });
        status["expirationTimestamp"] = "2001-01-01T00:00:00Z".into();
        let answer =
            json!({ "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status });
        std::fs::write(dir.path().join(name), answer.to_string()).unwrap();
    }
    let given = dir.path().join("given");
    std::fs::copy(dir.path().join("1"), &given).unwrap();
    let path = write(dir.path(), cluster.clone(), user(&format!("cat {}", given.display())));
    let client = ironkeel_client::from_kubeconfig(path).await.unwrap();
    let first = ask(client.clone()).await.unwrap()["certificate"].clone();
    assert_eq!(ask(client.clone()).await.unwrap()["certificate"], first);
    std::fs::copy(dir.path().join("2"), &given).unwrap();
    let second = ask(client).await.unwrap()["certificate"].clone();
    assert!(!second.is_empty() && second != first);

    let told =
        r#"echo "$KUBERNETES_EXEC_INFO" > "$0.seen"; exit 3"#.replace("$0", &dir.path().join("info").to_string_lossy());
    let error = ironkeel_client::from_kubeconfig(write(dir.path(), cluster, user(&told))).await.err().unwrap();
    assert!(error.to_string().contains("executable sh failed with exit status: 3"), "{error}");
    let info: Value = serde_json::from_slice(&std::fs::read(dir.path().join("info.seen")).unwrap()).unwrap();
    assert_eq!(info["spec"]["cluster"]["server"], format!("https://{address}"));
    assert_eq!(info["spec"]["interactive"], false);
}

#[tokio::test]
async fn what_the_server_refuses_is_looked_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let address = serve(&authority, "127.0.0.1").await;
    let cluster = json!({ "server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority.pem()) });
    let token = dir.path().join("token");
    let print = format!(
        r#"echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"'$(cat {})'"}}}}'"#,
        token.display()
    );
    let exec = json!({ "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", print],
        "interactiveMode": "IfAvailable" });
    for user in [json!({ "tokenFile": token }), json!({ "exec": exec })] {
        std::fs::write(&token, "old").unwrap();
        let client = ironkeel_client::from_kubeconfig(write(dir.path(), cluster.clone(), user)).await.unwrap();
        std::fs::write(&token, "new").unwrap();
        assert!(ask(client.clone()).await.is_err());
        assert_eq!(ask(client).await.unwrap()["authorization"], "Bearer new");
    }

    let (old, new) = (authority.issue("somebody"), authority.issue("somebody"));
    let put = |(certificate, key): &(rcgen::Certificate, KeyPair)| {
        std::fs::write(dir.path().join("c.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("k.pem"), key.serialize_pem()).unwrap();
    };
    put(&old);
    std::fs::write(&token, "old").unwrap();
    let user = json!({ "client-certificate": "c.pem", "client-key": "k.pem", "tokenFile": token });
    let client = ironkeel_client::from_kubeconfig(write(dir.path(), cluster, user)).await.unwrap();
    assert!(ask(client.clone()).await.is_err());
    put(&new);
    std::fs::write(&token, "new").unwrap();
    assert_eq!(ask(client).await.unwrap()["certificate"], STANDARD.encode(new.0.der()));
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let check = async |cluster: Value, user: Value, told: &str| {
        let path = write(dir.path(), cluster, user);
        let error = ironkeel_client::from_kubeconfig(&path).await.err().unwrap().to_string();
        assert!(error.contains(told) && error.contains(path.to_str().unwrap()), "{error}");
    };
    let server = || json!({ "server": "https://192.0.2.1" });
    let proxied = json!({ "server": "https://192.0.2.1", "proxy-url": "http://192.0.2.2" });
    check(proxied, json!({}), "proxy-url is not supported").await;
    check(json!({}), json!({}), "no server found").await;
    check(json!({ "server": 5 }), json!({}), "server: must be text").await;
    check(server(), json!({ "auth-provider": { "name": "gcp" } }), "auth-provider is not supported").await;
    check(server(), json!({ "token": "a\nb" }), "token: must be text that a header can carry").await;
    check(server(), json!({ "client-certificate-data": "YQ==" }), "must be given together").await;
    check(server(), json!({ "client-key": "nowhere" }), "nowhere").await;
    check(server(), json!({ "exec": { "apiVersion": "v9", "command": "x" } }), "exec.apiVersion").await;
    let modeless = json!({ "exec": { "apiVersion": "client.authentication.k8s.io/v1", "command": "true" } });
    check(server(), modeless, "exec.interactiveMode: must be Never").await;
    let both = json!({ "server": "https://192.0.2.1", "insecure-skip-tls-verify": true,
        "certificate-authority-data": STANDARD.encode(Authority::new().pem()) });
    check(both, json!({}), "insecure-skip-tls-verify: must be absent").await;
    let path = write(dir.path(), server(), json!({}));
    for (context, told) in
        [("nowhere", "context was not found for specified context: nowhere"), ("astray", "\"elsewhere\"")]
    {
        let error = ironkeel_client::from_kubeconfig_context(&path, Some(context)).await.err().unwrap();
        assert!(error.to_string().contains(told), "{error}");
    }
    let secret = Kubeconfig::read_from(&write(dir.path(), server(), json!({ "token": "s3cret" }))).unwrap();
    assert!(!format!("{secret:?}").contains("s3cret"));
    std::fs::write(&path, "a: [").unwrap();
    let error = Kubeconfig::read_from(&path).unwrap_err();
    assert!(matches!(error, Error::Kubeconfig { source: KubeconfigError::Yaml(_), .. }), "{error}");
}
