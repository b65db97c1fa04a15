//! A server over a store in a temporary directory, and clients for it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use ironkeel_apiserver::{ApiServer, Body, ClientIdentity, Config, InProcess, UserInfo};
use ironkeel_auth::{AuthenticatorConfig, Identity, Pki, PkiConfig, RequestHeaderConfig, ServiceAccountIssuer};
use ironkeel_embedded::{Embedded, EmbeddedError, Options};
use ironkeel_store::{Layer, Store};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

pub struct Cluster {
    pub api: ApiServer,
    pub pki: Arc<Pki>,
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub serving: tokio::task::JoinHandle<()>,
    pub dir: Arc<tempfile::TempDir>,
}

/// A store that several servers write: built-in kinds are stored as protobuf.
#[derive(Debug)]
pub struct Several(pub Arc<Embedded>);

impl Layer for Several {
    fn beneath(&self) -> &dyn Store {
        &*self.0
    }

    fn shared(&self) -> bool {
        true
    }
}

pub async fn cluster() -> Cluster {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    start(dir).await
}

pub async fn start(dir: Arc<tempfile::TempDir>) -> Cluster {
    start_with(dir, Options::default()).await
}

pub async fn start_with(dir: Arc<tempfile::TempDir>, options: Options) -> Cluster {
    start_tuned(dir, options, |_| {}).await
}

/// With a configuration of one's own.
pub async fn start_tuned(dir: Arc<tempfile::TempDir>, options: Options, tune: impl FnOnce(&mut Config)) -> Cluster {
    // A process that another test is just starting holds the lock of a store that was closed, too, until it has become
    // its program.
    let deadline = Instant::now() + Duration::from_secs(10);
    let store = loop {
        match Embedded::open(dir.path().join("store"), options.clone()) {
            Err(EmbeddedError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => break opened.unwrap(),
        }
    };
    start_over(dir, store, tune).await
}

/// Over a store of one's own.
pub async fn start_over(dir: Arc<tempfile::TempDir>, store: Arc<dyn Store>, tune: impl FnOnce(&mut Config)) -> Cluster {
    let node_ips = vec![[127, 0, 0, 1].into()];
    let config = PkiConfig { node_name: "node-1".into(), node_ips, ..PkiConfig::default() };
    let pki = Arc::new(Pki::load_or_create(&dir.path().join("pki"), config).unwrap());
    let issuer_url = "https://kubernetes.default.svc.cluster.local";
    let keys = pki.service_account_public_keys().clone();
    let issuer =
        ServiceAccountIssuer::new(issuer_url, vec![issuer_url.into()], pki.service_account_key().clone(), keys.clone());
    let authenticator = AuthenticatorConfig {
        issuers: vec![issuer_url.into()],
        keys,
        api_audiences: vec![issuer_url.into()],
        ..AuthenticatorConfig::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = Config::new(authenticator, issuer);
    config.advertise_address = [192, 0, 2, 1].into();
    config.secure_port = address.port();
    config.kubelet_tls = Some(pki.client_tls(Identity::ApiServerKubeletClient).unwrap());
    config.client_ca_pem = pki.ca_pem().to_owned();
    let proxies = RequestHeaderConfig::new(pki.front_proxy_ca_pem(), vec!["front-proxy-client".to_owned()]);
    config.request_header = Some(proxies);
    let front = pki.front_proxy_client();
    let identity = ClientIdentity { chain: vec![front.cert_der.clone()], key: front.key_der() };
    config.proxy_client = Some(Arc::new(identity));
    tune(&mut config);
    let api = ApiServer::start(config, store).await.unwrap();
    let shutdown = CancellationToken::new();
    let tls = pki.api_server_tls().unwrap();
    let serving = tokio::spawn({
        let (api, shutdown) = (api.clone(), shutdown.clone());
        async move {
            api.serve(listener, tls, shutdown).await.unwrap();
            api.stop().await;
        }
    });
    Cluster { api, pki, address, shutdown, serving, dir }
}

impl Cluster {
    pub fn admin(&self) -> Http {
        Http { service: self.api.in_process(UserInfo::new("admin", ["system:masters"])) }
    }

    pub fn as_user(&self, name: &str, groups: &[&str]) -> Http {
        Http { service: self.api.in_process(UserInfo::new(name, groups.iter().copied())) }
    }

    pub fn kube(&self) -> kube::Client {
        kube::Client::new(self.api.in_process(UserInfo::new("admin", ["system:masters"])), "default")
    }

    /// A kube client over a real TLS socket, with the admin's certificate.
    pub async fn kube_tls(&self) -> kube::Client {
        let text = self.pki.kubeconfig(&format!("https://{}", self.address), Identity::Admin);
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Waits until every check passes: the server serves before its hooks have done their work.
    pub async fn ready(&self) {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let answer = self.admin().get("/readyz").await;
            if answer.status == StatusCode::OK {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{}", String::from_utf8_lossy(&answer.bytes));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Stops everything and starts again on the same directory.
    pub async fn restart(self) -> Cluster {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        let dir = self.dir.clone();
        // The store closes with its last user: whatever outlives the server makes the start fail.
        drop(self.api);
        start(dir).await
    }
}

#[derive(Clone)]
pub struct Http {
    service: InProcess,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.status.as_u16(), code, "{}", String::from_utf8_lossy(&self.bytes));
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    #[track_caller]
    pub fn refused(self, code: u16, reason: &str, message: &str) {
        let body = self.json();
        assert_eq!(self.status.as_u16(), code, "{body}");
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        assert_eq!(body["code"], code, "{body}");
        let found = body["message"].as_str().unwrap_or_default();
        assert!(found.contains(message), "{found:?} does not contain {message:?}");
    }
}

impl Http {
    /// A client of one's own identity.
    pub fn over(service: InProcess) -> Http {
        Http { service }
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        let response = self.raw(request.body(Full::new(body.into())).unwrap()).await;
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, bytes: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn raw(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let mut service = self.service.clone();
        ServiceExt::<Request<Full<Bytes>>>::ready(&mut service).await.unwrap().call(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, &[("content-type", content_type)], body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    /// Starts a watch; lines come out of the receiver.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.raw(request).await;
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame())
                .await
                .expect("an event in time")?;
            self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    pub async fn event(&mut self) -> (String, Value) {
        let event = self.next().await.expect("an event");
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    }
}
