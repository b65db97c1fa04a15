//! Load on an API server over TLS: the same client code for ours and theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::report::Better;

/// Clients at once in the write and read rows.
const CLIENTS: usize = 32;
/// Objects of the list row.
const LIST_OBJECTS: usize = 5_000;
/// Watchers of the fan-out row, and updates that each must see.
const WATCHERS: usize = 500;
const WATCHED_UPDATES: usize = 200;
const NAMESPACE: &str = "default";

/// An API server and an administrator's credentials.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: std::net::SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    pub(crate) fn new(address: std::net::SocketAddr, ca: &str, cert: &str, key: &str) -> Result<Target> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.context("the authority's certificate")?)?;
        }
        let chain =
            CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<Vec<_>, _>>().context("certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("key")?;
        let mut tls =
            rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Target { address, tls: Arc::new(tls) })
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, socket).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, host: self.address.to_string() })
    }
}

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<http::Response<hyper::body::Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("accept", "application/json")
            .header("content-type", kind)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends and reads the whole answer; answers other than 2xx are errors.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes> {
        let response = self.send(method, path, kind, body.into()).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
        }
        Ok(bytes)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.call(Method::GET, path, "application/json", Bytes::new()).await
    }
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// One measured row.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) better: Better,
    pub(crate) unit: &'static str,
}

/// The rows of the API server.
pub(crate) struct Rows {
    pub(crate) seconds: u64,
}

fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn config_map(name: &str, bytes: usize) -> Vec<u8> {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "payload": "x".repeat(bytes) } })
        .to_string()
        .into_bytes()
}

impl Rows {
    pub(crate) async fn measure(&self, target: &Target) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut rate = |name: &str, value: f64| {
            rows.push(Row { name: name.to_owned(), value, better: Better::More, unit: "" });
        };
        let path = collection();
        let create = self.rate(target, |c, client, i| {
            let (path, body) = (path.clone(), config_map(&format!("bench-{client}-{i}"), 1024));
            async move { c.lock().await.call(Method::POST, &path, JSON, body).await.map(drop) }
        });
        rate("create a 1 KiB ConfigMap, 32 clients, a second", create.await?);
        let get = self.rate(target, |c, client, _| {
            let path = format!("{path}/bench-{client}-0");
            async move { c.lock().await.get(&path).await.map(drop) }
        });
        rate("get it, 32 clients, a second", get.await?);
        let patch = self.rate(target, |c, client, i| {
            let (path, body) =
                (format!("{path}/bench-{client}-0"), json!({ "data": { "n": i.to_string() } }).to_string());
            async move { c.lock().await.call(Method::PATCH, &path, MERGE, body).await.map(drop) }
        });
        rate("patch it, 32 clients, a second", patch.await?);
        self.clear(target).await?;
        self.fill(target).await?;
        let list = self.rate(target, |c, _, _| {
            let path = path.clone();
            async move { c.lock().await.get(&path).await.map(drop) }
        });
        rate("list 5,000 objects (7 MiB), 32 clients, a second", list.await?);
        self.clear(target).await?;
        rate("500 watchers x 200 updates, events a second", self.fan_out(target).await?);
        Ok(rows)
    }

    /// Calls a second over all clients.
    async fn rate<F, Fut>(&self, target: &Target, call: F) -> Result<f64>
    where
        F: Fn(Arc<tokio::sync::Mutex<Client>>, usize, usize) -> Fut + Clone,
        Fut: Future<Output = Result<()>>,
    {
        let duration = Duration::from_secs(self.seconds);
        let clients = try_join_all((0..CLIENTS).map(|_| target.connect())).await?;
        let done = AtomicU64::new(0);
        let started = Instant::now();
        let loops = clients.into_iter().enumerate().map(|(client, connection)| {
            let (call, done) = (call.clone(), &done);
            let connection = Arc::new(tokio::sync::Mutex::new(connection));
            async move {
                let mut i = 0;
                while started.elapsed() < duration {
                    call(connection.clone(), client, i).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                    i += 1;
                }
                anyhow::Ok(())
            }
        });
        try_join_all(loops).await?;
        Ok(done.into_inner() as f64 / started.elapsed().as_secs_f64())
    }

    async fn fill(&self, target: &Target) -> Result<()> {
        let loops = (0..CLIENTS).map(|client| async move {
            let mut connection = target.connect().await?;
            for i in (client..LIST_OBJECTS).step_by(CLIENTS) {
                connection.call(Method::POST, &collection(), JSON, config_map(&format!("list-{i}"), 1200)).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(loops).await.map(drop)
    }

    async fn clear(&self, target: &Target) -> Result<()> {
        target.connect().await?.call(Method::DELETE, &collection(), JSON, Bytes::new()).await.map(drop)
    }

    async fn fan_out(&self, target: &Target) -> Result<f64> {
        let mut writer = target.connect().await?;
        writer.call(Method::POST, &collection(), JSON, config_map("watched", 256)).await?;
        let listed = writer.get(&collection()).await?;
        let list: serde_json::Value = serde_json::from_slice(&listed)?;
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        let path = format!("{}?watch=1&resourceVersion={revision}&fieldSelector=metadata.name%3Dwatched", collection());
        let mut watches = Vec::new();
        for _ in 0..WATCHERS {
            let mut client = target.connect().await?;
            let response = client.send(Method::GET, &path, JSON, Bytes::new()).await?;
            watches.push((client, response.into_body()));
        }
        let started = Instant::now();
        let readers = watches.into_iter().map(|(client, mut body)| {
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < WATCHED_UPDATES {
                    let frame = body.frame().await.context("a watch ended early")??;
                    let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
                    seen += data.iter().filter(|b| **b == b'\n').count();
                }
                drop(client);
                anyhow::Ok(())
            })
        });
        let readers: Vec<_> = readers.collect();
        let at = format!("{}/watched", collection());
        for i in 0..WATCHED_UPDATES {
            writer.call(Method::PATCH, &at, MERGE, json!({ "data": { "n": i.to_string() } }).to_string()).await?;
        }
        for reader in readers {
            reader.await??;
        }
        Ok((WATCHERS * WATCHED_UPDATES) as f64 / started.elapsed().as_secs_f64())
    }
}
