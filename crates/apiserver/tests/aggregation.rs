//! APIServices: own ones register themselves; a remote one is checked, discovered and proxied to,
//! with the caller's identity under the front proxy's certificate.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::{Cluster, Http, cluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const GROUP: &str = "wardle.example.com";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// An extension API server, and the bundle that vouches for it. It lets only front proxies in.
async fn extension(c: &Cluster) -> (SocketAddr, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["wardle.default.svc".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(c.pki.front_proxy_ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = hyper::service::service_fn(answer);
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = serving.with_upgrades().await;
            });
        }
    });
    (address, made.cert.pem())
}

async fn answer(
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let json = |body: Value| {
        let response = Response::builder().header("content-type", "application/json");
        Ok(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
    };
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/apis/wardle.example.com/v1alpha1" => json(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{
                "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["create", "get", "list"],
            }],
        })),
        "/openapi/v3" => json(json!({ "paths": { "apis/wardle.example.com/v1alpha1": {
            "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC",
        }}})),
        "/openapi/v2" => json(json!({
            "paths": { "/apis/wardle.example.com/v1alpha1/flunders": { "get": {} }, "/version/": {} },
            "definitions": { "com.example.wardle.Flunder": { "type": "object" } },
        })),
        _ if path.ends_with("/moved") => {
            let moved = Response::builder().status(307).header("location", "https://evil.example.com/");
            Ok(moved.body(Full::default()).unwrap())
        }
        _ if request.headers().contains_key("upgrade") => {
            if path.ends_with("refused") {
                return Ok(Response::builder().status(403).body(Full::new("no".into())).unwrap());
            }
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                io.write_all(b"up").await.unwrap();
            });
            let switching = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "test");
            Ok(switching.body(Full::default()).unwrap())
        }
        _ => {
            let headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into()))
                .collect();
            let (method, query) = (request.method().to_string(), request.uri().query().map(str::to_owned));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            json(json!({
                "kind": "Echo", "method": method, "path": path, "query": query, "headers": headers,
                "bytes": body.len(),
            }))
        }
    }
}

async fn condition(http: &Http, name: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..100 {
        let object = http.get(&format!("{SERVICES}/{name}")).await;
        if object.status == 200 {
            last = object.json()["status"]["conditions"][0].clone();
            if last["reason"] == reason {
                return last;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} did not become {reason}: {last}");
}

async fn registered(c: &Cluster) -> Http {
    let (address, bundle) = extension(c).await;
    let http = c.admin();
    let service = json!({
        "metadata": { "name": "wardle" },
        "spec": { "type": "ExternalName", "externalName": "localhost" },
    });
    http.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let object = json!({
        "metadata": { "name": format!("v1alpha1.{GROUP}") },
        "spec": {
            "group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "caBundle": base64::engine::general_purpose::STANDARD.encode(bundle),
            "service": { "namespace": "default", "name": "wardle", "port": address.port() },
        },
    });
    http.post(SERVICES, &object).await.expect(201);
    let passed = condition(&http, "v1alpha1.wardle.example.com", "Passed").await;
    assert_eq!(passed["status"], "True");
    // What serves requests hears of it a moment after the object has it.
    for _ in 0..1000 {
        if http.get(&format!("/apis/{GROUP}/v1alpha1")).await.status == 200 {
            return http;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{GROUP} is not served although it is available")
}

#[tokio::test(flavor = "multi_thread")]
async fn own_groups_register_themselves() {
    let c = cluster().await;
    let http = c.admin();
    let local = condition(&http, "v1.apps", "Local").await;
    assert_eq!(local["status"], "True");
    assert_eq!(local["message"], "Local APIServices are always available");
    let core = http.get(&format!("{SERVICES}/v1.")).await.expect(200);
    assert_eq!(core["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(core["spec"]["groupPriorityMinimum"], 18000);
    let auth = http.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    let data = auth.expect(200)["data"].clone();
    assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(data["requestheader-username-headers"], r#"["X-Remote-User"]"#);
    assert_eq!(data["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
    assert_eq!(data["requestheader-client-ca-file"], c.pki.front_proxy_ca_pem());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_group_is_discovered_and_proxied_with_the_callers_identity() {
    let c = cluster().await;
    let admin = registered(&c).await;
    let jane = c.as_user("jane", &["system:masters", "devs"]);
    let path = format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let spoof = [("x-remote-user", "root"), ("impersonate-nothing", "x"), ("x-custom", "kept"), ("traceparent", trace)];
    let big = vec![b'x'; 5 << 20];
    let echo = jane.send(Method::POST, &format!("{path}?x=1%2F2"), &spoof, big).await.expect(200);
    assert_eq!((echo["method"].as_str(), echo["bytes"].as_u64()), (Some("POST"), Some(5 << 20)));
    assert_eq!((echo["path"].as_str(), echo["query"].as_str()), (Some(path.as_str()), Some("x=1%2F2")));
    let headers = echo["headers"].as_array().unwrap();
    let of =
        |name: &str| -> Vec<&str> { headers.iter().filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap()).collect() };
    assert_eq!(of("x-remote-user"), ["jane"]);
    assert_eq!(of("x-remote-group"), ["system:masters", "devs", "system:authenticated"]);
    assert_eq!(of("x-custom"), ["kept"]);
    let told = of("traceparent");
    assert!(told.len() == 1 && told[0].starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{told:?}");

    let groups = admin.get("/apis").await.expect(200);
    let position = |name: &str| groups["groups"].as_array().unwrap().iter().position(|g| g["name"] == name).unwrap();
    assert!(position(GROUP) > position("apps"));
    let group = admin.get(&format!("/apis/{GROUP}")).await.expect(200);
    assert_eq!(group["kind"], "APIGroup");
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = admin.send(Method::GET, "/apis", &accept, "").await.expect(200);
    let found = all["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == GROUP).unwrap();
    assert_eq!(found["versions"][0]["resources"][0]["responseKind"]["kind"], "Flunder");
    assert_eq!(found["versions"][0]["freshness"], "Current");
    let v2 = admin.get("/openapi/v2").await.expect(200);
    assert!(v2["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object());
    assert!(v2["definitions"]["com.example.wardle.Flunder"].is_object());
    let v3 = admin.get("/openapi/v3").await.expect(200);
    let url = v3["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(url, "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC");
    let eve = c.as_user("eve", &["system:authenticated"]);
    eve.get(&path).await.refused(403, "Forbidden", "cannot list resource \"flunders\"");

    admin.delete(&format!("{SERVICES}/v1alpha1.{GROUP}")).await.expect(200);
    for _ in 0..100 {
        if admin.get(&format!("/apis/{GROUP}")).await.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the group is still served");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_reaches_the_extension_server_and_a_refused_one_ends() {
    let c = cluster().await;
    let admin = registered(&c).await;
    let upgrade = |path: &str| {
        Request::builder()
            .uri(format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders/f/{path}"))
            .header("connection", "Upgrade")
            .header("upgrade", "test")
            .body(Full::default())
            .unwrap()
    };
    let mut response = admin.raw(upgrade("connect")).await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let mut found = [0; 2];
    io.read_exact(&mut found).await.unwrap();
    assert_eq!(&found, b"up");
    let response = admin.raw(upgrade("refused")).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
}

/// CVE-2022-3172: a client would show its credentials to whomever the extension names.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_server_cannot_send_clients_elsewhere() {
    let c = cluster().await;
    let admin = registered(&c).await;
    let answer = admin.get(&format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders/moved")).await;
    assert_eq!((answer.status.as_u16(), answer.headers.get("location")), (502, None));
    assert_eq!(answer.bytes, "the backend attempted to redirect this request, which is not permitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_authorized_is_what_the_extension_server_sees() {
    let c = cluster().await;
    let admin = registered(&c).await;
    let echo = admin.get(&format!("/apis/{GROUP}/v1alpha1/namespaces/default%2Fflunders%2Ff%20g")).await.expect(200);
    assert_eq!(echo["path"], format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders/f%20g"));
    let josé = c.as_user("josé", &["system:masters"]);
    let request = Request::builder().uri(format!("/apis/{GROUP}/v1alpha1/namespaces/default/flunders/bytes"));
    let body = josé.raw(request.body(Full::default()).unwrap()).await.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains(r#"["x-remote-user","josé"]"#), "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_say_why_a_remote_group_is_not_there() {
    let c = cluster().await;
    let http = c.admin();
    let object = json!({
        "metadata": { "name": "v1.absent.example.com" },
        "spec": {
            "group": "absent.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "insecureSkipTLSVerify": true,
            "service": { "namespace": "default", "name": "absent", "port": 443 },
        },
    });
    http.post(SERVICES, &object).await.expect(201);
    let missing = condition(&http, "v1.absent.example.com", "ServiceNotFound").await;
    assert_eq!(missing["status"], "False");
    assert_eq!(missing["message"], "service/absent in \"default\" is not present");
    let answer = http.get("/apis/absent.example.com/v1").await;
    assert_eq!((answer.status.as_u16(), &answer.bytes[..]), (503, &b"service unavailable\n"[..]));
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = http.send(Method::GET, "/apis", &accept, "").await.expect(200);
    let found =
        all["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == "absent.example.com").unwrap();
    assert_eq!(found["versions"][0]["freshness"], "Stale");
    let service = |ports: Value| json!({ "metadata": { "name": "absent" }, "spec": { "ports": ports } });
    http.post("/api/v1/namespaces/default/services", &service(json!([{ "name": "a", "port": 80 }]))).await.expect(201);
    condition(&http, "v1.absent.example.com", "ServicePortError").await;
    let ports = json!({ "spec": { "ports": [{ "name": "a", "port": 443 }] } });
    http.patch("/api/v1/namespaces/default/services/absent", "application/merge-patch+json", &ports).await.expect(200);
    condition(&http, "v1.absent.example.com", "EndpointsNotFound").await;
    let slice = json!({
        "metadata": { "name": "absent-1", "labels": { "kubernetes.io/service-name": "absent" } },
        "addressType": "IPv4", "endpoints": [], "ports": [{ "name": "a", "port": 443 }],
    });
    http.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(201);
    condition(&http, "v1.absent.example.com", "MissingEndpoints").await;
}
