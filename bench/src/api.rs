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
use tokio_rustls::client::TlsStream;

use crate::watch::CountedWatch;

/// Clients at once in the write and read rows.
const CLIENTS: usize = 32;
/// Objects of the list row.
const LIST_OBJECTS: usize = 5_000;
/// Watchers of the fan-out row, and updates that each must see.
const WATCHERS: usize = 500;
const WATCHED_UPDATES: usize = 200;
const NAMESPACE: &str = "default";
/// What a ConfigMap holds.
const PAYLOAD_BYTES: usize = 1024;
/// Requests to delete everything before it is given up.
const CLEAR_ATTEMPTS: usize = 10;

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

    pub(crate) async fn stream(&self) -> Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        Ok(TlsConnector::from(self.tls.clone()).connect(name, socket).await?)
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        let stream = self.stream().await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, host: self.address.to_string(), accept: JSON })
    }
}

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    accept: &'static str,
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
            .header("accept", self.accept)
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

/// One load, measured on both sides in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// New 1 KiB ConfigMaps.
    Create,
    /// One ConfigMap a client.
    Get(Form),
    /// A merge patch of one ConfigMap a client.
    Patch,
    /// All of [`LIST_OBJECTS`].
    List(Form),
    /// [`WATCHERS`] connections see each of [`WATCHED_UPDATES`] updates of one ConfigMap.
    FanOut,
}

/// How answers are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `application/json`.
    Json,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Form::Json => JSON,
            Form::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

impl Load {
    /// In the order in which they run.
    pub(crate) const ALL: [Load; 7] = [
        Load::Create,
        Load::Get(Form::Json),
        Load::Get(Form::Protobuf),
        Load::Patch,
        Load::List(Form::Json),
        Load::List(Form::Protobuf),
        Load::FanOut,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Load::Create => "create a 1 KiB ConfigMap, 32 clients, a second",
            Load::Get(Form::Json) => "get it, 32 clients, a second",
            Load::Get(Form::Protobuf) => "get it as protobuf, 32 clients, a second",
            Load::Patch => "patch it, 32 clients, a second",
            Load::List(Form::Json) => "list 5,000 objects (7 MiB), 32 clients, a second",
            Load::List(Form::Protobuf) => "list them as protobuf, 32 clients, a second",
            Load::FanOut => "500 watchers x 200 updates, events a second",
        }
    }

    /// How many 1 KiB ConfigMaps must be there; `None` where it does not matter.
    fn needs(self) -> Option<usize> {
        match self {
            Load::Create | Load::FanOut => Some(0),
            Load::Get(_) | Load::Patch => Some(CLIENTS),
            Load::List(_) => Some(LIST_OBJECTS),
        }
    }
}

fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn config_map(name: &str, bytes: usize) -> Vec<u8> {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "payload": "x".repeat(bytes) } })
        .to_string()
        .into_bytes()
}

/// A server under load.
pub(crate) struct Loaded<'a> {
    target: &'a Target,
    seconds: u64,
    /// Objects that [`Loaded::fill`] has left there.
    filled: Option<usize>,
}

impl<'a> Loaded<'a> {
    pub(crate) fn new(target: &'a Target, seconds: u64) -> Self {
        Loaded { target, seconds, filled: None }
    }

    /// What a second came to.
    pub(crate) async fn measure(&mut self, load: Load) -> Result<f64> {
        if let Some(wanted) = load.needs()
            && self.filled != Some(wanted)
        {
            self.clear().await?;
            self.fill(wanted).await?;
        }
        let path = collection();
        match load {
            Load::Create => {
                self.filled = None;
                let call = |c: Arc<tokio::sync::Mutex<Client>>, client, i| {
                    let (path, body) = (path.clone(), config_map(&format!("bench-{client}-{i}"), PAYLOAD_BYTES));
                    async move { c.lock().await.call(Method::POST, &path, JSON, body).await.map(drop) }
                };
                self.rate(JSON, call).await
            }
            Load::Get(form) => {
                let call = |c: Arc<tokio::sync::Mutex<Client>>, client, _| {
                    let path = format!("{path}/filled-{client}");
                    async move { c.lock().await.get(&path).await.map(drop) }
                };
                self.rate(form.media_type(), call).await
            }
            Load::Patch => {
                let call = |c: Arc<tokio::sync::Mutex<Client>>, client, i: usize| {
                    let (path, body) =
                        (format!("{path}/filled-{client}"), json!({ "data": { "n": i.to_string() } }).to_string());
                    async move { c.lock().await.call(Method::PATCH, &path, MERGE, body).await.map(drop) }
                };
                self.rate(JSON, call).await
            }
            Load::List(form) => {
                let call = |c: Arc<tokio::sync::Mutex<Client>>, _, _| {
                    let path = path.clone();
                    async move { c.lock().await.get(&path).await.map(drop) }
                };
                self.rate(form.media_type(), call).await
            }
            Load::FanOut => {
                self.filled = None;
                self.fan_out().await
            }
        }
    }

    /// Calls a second over all clients.
    async fn rate<F, Fut>(&self, accept: &'static str, call: F) -> Result<f64>
    where
        F: Fn(Arc<tokio::sync::Mutex<Client>>, usize, usize) -> Fut + Clone,
        Fut: Future<Output = Result<()>>,
    {
        let duration = Duration::from_secs(self.seconds);
        let clients = try_join_all((0..CLIENTS).map(|_| self.target.connect())).await?;
        let done = AtomicU64::new(0);
        let started = Instant::now();
        let loops = clients.into_iter().enumerate().map(|(client, connection)| {
            let (call, done) = (call.clone(), &done);
            let connection = Arc::new(tokio::sync::Mutex::new(Client { accept, ..connection }));
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

    /// Makes so many ConfigMaps.
    pub(crate) async fn fill(&mut self, objects: usize) -> Result<()> {
        let target = self.target;
        let loops = (0..CLIENTS.min(objects)).map(|client| async move {
            let mut connection = target.connect().await?;
            for i in (client..objects).step_by(CLIENTS) {
                let body = config_map(&format!("filled-{i}"), PAYLOAD_BYTES);
                connection.call(Method::POST, &collection(), JSON, body).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(loops).await?;
        self.filled = Some(objects);
        Ok(())
    }

    async fn clear(&mut self) -> Result<()> {
        self.filled = None;
        // A collection may take longer than a request may.
        for _ in 0..CLEAR_ATTEMPTS {
            let mut client = self.target.connect().await?;
            if client.call(Method::DELETE, &collection(), JSON, Bytes::new()).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    async fn fan_out(&self) -> Result<f64> {
        let mut writer = self.target.connect().await?;
        writer.call(Method::POST, &collection(), JSON, config_map("watched", 256)).await?;
        let listed = writer.get(&collection()).await?;
        let list: serde_json::Value = serde_json::from_slice(&listed)?;
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        let path = format!("{}?watch=1&resourceVersion={revision}&fieldSelector=metadata.name%3Dwatched", collection());
        let mut watches = Vec::new();
        for _ in 0..WATCHERS {
            watches.push(CountedWatch::open(self.target, &path).await?);
        }
        let started = Instant::now();
        let readers = watches.into_iter().map(|watch| tokio::spawn(watch.count(WATCHED_UPDATES)));
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
