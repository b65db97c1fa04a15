//! Webhooks behind Services: reached at the ClusterIP and port, or at an endpoint, with the Service's name
//! in the certificate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use ironkeel_embedded::Options;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::support::{Http, start_tuned};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

struct Hook {
    address: SocketAddr,
    ca: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Listens at an address of this host under a Service's name.
    async fn start(ip: IpAddr) -> Hook {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert =
            rcgen::CertificateParams::new(vec!["hook.default.svc".to_owned()]).unwrap().self_signed(&key).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, noted) = (acceptor.clone(), noted.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let answer = hyper::service::service_fn(move |r| answer(r, noted.clone()));
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
                });
            }
        });
        Hook { address, ca: STANDARD.encode(cert.pem()), seen, task }
    }

    fn client(&self, path: &str, port: u16) -> Value {
        json!({ "caBundle": self.ca, "service": { "namespace": "default", "name": "hook", "path": path, "port": port } })
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<String>>>,
) -> Result<http::Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    seen.lock().push(path.clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    let asked = review["request"].take();
    let response = match path.as_str() {
        "/mutate" => {
            let patch = json!([{ "op": "add", "path": "/data", "value": { "touched": "yes" } }]);
            json!({ "uid": asked["uid"], "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string()) })
        }
        "/validate" => {
            json!({ "uid": asked["uid"], "allowed": asked["object"]["metadata"]["name"] != "bad", "status": { "message": "not that name" } })
        }
        _ => {
            let objects = asked["objects"].as_array().unwrap().iter().map(|o| {
                let mut o = o.clone();
                o["apiVersion"] = asked["desiredAPIVersion"].clone();
                o["converted"] = "here".into();
                o
            });
            json!({ "uid": asked["uid"], "result": { "status": "Success" }, "convertedObjects": objects.collect::<Vec<_>>() })
        }
    };
    let out = json!({ "apiVersion": review["apiVersion"], "kind": review["kind"], "response": response });
    Ok(http::Response::new(Full::new(Bytes::from(out.to_string()))))
}

fn registration(kind: &str, client: &Value) -> Value {
    let mut hook = json!({
        "name": "hook.example.com", "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }]
    });
    hook["timeoutSeconds"] = 5.into();
    json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "hook" }, "webhooks": [hook] })
}

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

async fn admission(http: &Http, hook: &Hook, port: u16) {
    let mutating = registration("MutatingWebhookConfiguration", &hook.client("/mutate", port));
    http.post(&format!("{REGISTRATION}/mutatingwebhookconfigurations"), &mutating).await.expect(201);
    let validating = registration("ValidatingWebhookConfiguration", &hook.client("/validate", port));
    http.post(&format!("{REGISTRATION}/validatingwebhookconfigurations"), &validating).await.expect(201);
    let made = http.post(MAPS, &map("good")).await.expect(201);
    assert_eq!(made["data"]["touched"], "yes");
    let denied = http.post(MAPS, &map("bad")).await.expect(400);
    assert_eq!(denied["message"], "admission webhook \"hook.example.com\" denied the request: not that name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_answer_at_a_cluster_ip() {
    // Every address of 127/8 is this host's: the ClusterIP needs no proxy.
    let ip: IpAddr = [127, 64, 0, 20].into();
    let hook = Hook::start(ip).await;
    let port = hook.address.port();
    let cluster = start_tuned(Arc::new(tempfile::tempdir().unwrap()), Options::default(), |c| {
        c.service_cidr = ([127, 64, 0, 0].into(), 24);
    })
    .await;
    let http = cluster.admin();
    let service = |name: &str, ip: &str| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "clusterIP": ip, "ports": [{ "name": "a", "port": 1 }, { "name": "b", "port": port, "targetPort": 9443 }] } })
    };
    http.post(SERVICES, &service("hook", &ip.to_string())).await.expect(201);
    admission(&http, &hook, port).await;
    assert!(hook.seen.lock().iter().any(|p| p == "/mutate"));

    // A port that the Service does not have.
    let configuration = format!("{REGISTRATION}/mutatingwebhookconfigurations/hook");
    let other = json!([{ "op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": 7 }]);
    http.patch(&configuration, "application/json-patch+json", &other).await.expect(200);
    let why = "failed calling webhook \"hook.example.com\": failed to call webhook: Post \"https://hook.default.svc:7/mutate?timeout=5s\": no service port 7 found for service \"hook\"";
    http.post(MAPS, &map("good-2")).await.refused(500, "InternalError", why);
    http.delete(&format!("{SERVICES}/hook")).await.expect(200);
    let why = "service \"hook\" not found";
    http.post(MAPS, &map("good-2")).await.refused(500, "InternalError", why);
    http.delete(&configuration).await.expect(200);
    http.delete(&format!("{REGISTRATION}/validatingwebhookconfigurations/hook")).await.expect(200);

    // Conversion goes the same way.
    http.post(SERVICES, &service("hook", &ip.to_string())).await.expect(201);
    let version = |name: &str, storage: bool| json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "things.hook.example.com" },
        "spec": {
            "group": "hook.example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [version("v1", true), version("v2", false)],
            "conversion": { "strategy": "Webhook", "webhook": { "clientConfig": hook.client("/convert", port), "conversionReviewVersions": ["v1"] } }
        }
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut watch = http.watch(&format!("{definitions}?watch=1")).await;
    http.post(definitions, &definition).await.expect(201);
    loop {
        let event = watch.next().await.unwrap();
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            break;
        }
    }
    let thing = json!({ "apiVersion": "hook.example.com/v1", "kind": "Thing", "metadata": { "name": "t" } });
    http.post("/apis/hook.example.com/v1/namespaces/default/things", &thing).await.expect(201);
    let seen = http.get("/apis/hook.example.com/v2/namespaces/default/things/t").await.expect(200);
    assert_eq!((&seen["apiVersion"], &seen["converted"]), (&json!("hook.example.com/v2"), &json!("here")));
}

/// An address of this host that is not the loopback's: endpoints may not be there.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Chooses a route, and sends nothing.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_answer_at_endpoints_where_the_server_routes_there() {
    let Some(ip) = own_address() else {
        println!("skipped: this host has no address but the loopback's");
        return;
    };
    let hook = Hook::start(ip).await;
    let cluster =
        start_tuned(Arc::new(tempfile::tempdir().unwrap()), Options::default(), |c| c.route_to_endpoints = true).await;
    let http = cluster.admin();
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook" },
        "spec": { "ports": [{ "name": "https", "port": 443 }] } });
    http.post(SERVICES, &service).await.expect(201);
    let slice = |ready: bool| {
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "hook-1", "labels": { "kubernetes.io/service-name": "hook" } },
            "endpoints": [{ "addresses": [ip], "conditions": { "ready": ready } }],
            "ports": [{ "name": "other", "port": 1 }, { "name": "https", "port": hook.address.port() }] })
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    http.post(slices, &slice(false)).await.expect(201);
    let validating = registration("ValidatingWebhookConfiguration", &hook.client("/validate", 443));
    http.post(&format!("{REGISTRATION}/validatingwebhookconfigurations"), &validating).await.expect(201);
    http.post(MAPS, &map("good")).await.refused(500, "InternalError", "no endpoints available for service \"hook\"");
    http.delete(&format!("{REGISTRATION}/validatingwebhookconfigurations/hook")).await.expect(200);
    http.put(&format!("{slices}/hook-1"), &slice(true)).await.expect(200);
    admission(&http, &hook, 443).await;
}
