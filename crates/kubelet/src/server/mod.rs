//! The kubelet's HTTPS server on port 10250: who calls ([`auth`]), what it is about (a request attribute of nodes),
//! and the answer. Logs and statistics are answered here; exec, attach and port-forward are tunnelled to the runtime.

mod auth;
mod stats;
mod stream;

use std::{convert::Infallible, net::TcpListener, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use jiff::Timestamp;
use k8s_openapi::{List, api::core::v1::Pod};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    Error,
    config::{Config, ServingCertificate},
    kubelet::Kubelet,
    logs::read,
    names,
    runtime::State,
};

use auth::{Caller, Subject};

/// A response's body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// How long a client may take to say who it is, in seconds.
const HANDSHAKE_SECONDS: u64 = 10;
/// How long a client may take for a request's headers, also for those of the next one, in seconds (upstream's idle
/// time).
const HEADER_SECONDS: u64 = 90;
/// A connection that nothing comes on is asked so often whether its peer is there: of a lost API server, logs and
/// terminals would stay open for ever.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 9;
/// Wait after a connection that could not be accepted: mostly, one of the open ones has to end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Chunks of a log on their way to a slow client.
const LOG_CHUNKS: usize = 16;

/// Binds the server's port, or takes the listener that was given.
pub(crate) fn bind(config: &mut Config) -> Result<TcpListener, Error> {
    let address = config.listen;
    let listener = match config.listener.take() {
        Some(listener) => listener,
        None => TcpListener::bind(address).map_err(|source| Error::Listen { address, source })?,
    };
    listener.set_nonblocking(true).map_err(|source| Error::Listen { address, source })?;
    // What is accepted inherits it.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_RETRIES);
    if let Err(error) = SockRef::from(&listener).set_tcp_keepalive(&probes) {
        tracing::warn!(%error, "the loss of a connection's peer will be noticed late");
    }
    Ok(listener)
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    if !bytes.starts_with(b"-----") && bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(bytes.to_vec())]);
    }
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    parsed.map_err(|error| Error::Tls(error.to_string()))
}

/// The server's TLS: client certificates are asked for, and verified when they come.
pub(crate) fn tls(config: &Config) -> Result<TlsAcceptor, Error> {
    let bad = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
    let serving = match &config.serving {
        Some(serving) => serving.clone(),
        None => self_signed(config)?,
    };
    let chain = certificates(&serving.certificate)?;
    let key = match serving.key.first() {
        Some(0x30) => PrivateKeyDer::try_from(serving.key.clone()).map_err(|error| bad(&error))?,
        _ => PrivateKeyDer::from_pem_slice(&serving.key).map_err(|error| bad(&error))?,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?;
    let builder = match &config.client_ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build().map_err(|error| bad(&error))?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| bad(&error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn self_signed(config: &Config) -> Result<ServingCertificate, Error> {
    let mut subjects = vec![config.node_name.clone(), config.hostname.clone()];
    subjects.extend(config.node_ips.iter().map(ToString::to_string));
    let made = rcgen::generate_simple_self_signed(subjects).map_err(|error| Error::Tls(error.to_string()))?;
    Ok(ServingCertificate { certificate: made.cert.der().to_vec(), key: made.signing_key.serialize_der() })
}

/// Serves until shutdown.
pub(crate) async fn run(kubelet: Arc<Kubelet>, listener: TcpListener, tls: TlsAcceptor) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the server's socket cannot be used");
            return;
        }
    };
    let authorizer = Arc::new(auth::Authorizer::new(kubelet.client.clone()));
    loop {
        let accepted = tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (kubelet, tls, authorizer) = (kubelet.clone(), tls.clone(), authorizer.clone());
        tokio::spawn(async move {
            let stop = kubelet.shutdown.clone();
            let serving = async {
                let greeting = tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECONDS), tls.accept(stream));
                let stream = greeting.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let caller = peer.and_then(|certificate| Caller::from_certificate(certificate));
                let service = service_fn(move |request| {
                    let (kubelet, authorizer, caller) = (kubelet.clone(), authorizer.clone(), caller.clone());
                    async move { Ok::<_, Infallible>(handle(kubelet, &authorizer, caller, request).await) }
                });
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(HEADER_SECONDS));
                builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(HEADER_SECONDS));
                builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await
            };
            tokio::select! {
                () = stop.cancelled() => {}
                result = serving => if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                },
            }
        });
    }
}

/// A plain answer.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text.into().into_bytes())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn handle(
    kubelet: Arc<Kubelet>,
    authorizer: &auth::Authorizer,
    caller: Option<Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let caller = match caller {
        Some(caller) => Some(caller),
        None => authorizer.authenticate(request.headers()).await,
    };
    let Some(caller) = caller else { return text(StatusCode::UNAUTHORIZED, "Unauthorized") };
    let subject = Subject { node: &kubelet.config.node_name, path: &path, method: request.method() };
    if !authorizer.allows(&caller, &subject).await {
        let message = format!(
            "Forbidden (user={}, verb={}, resource=nodes, subresource={})",
            caller.user,
            subject.verb(),
            subject.subresources().join(",")
        );
        return text(StatusCode::FORBIDDEN, message);
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => health(&kubelet),
        (&Method::GET, ["healthz", "ping" | "log" | "syncloop"]) => text(StatusCode::OK, "ok"),
        (&Method::GET, ["pods"]) => json(&pods(&kubelet)),
        (&Method::GET, ["runningpods"]) => running_pods(&kubelet).await,
        (&Method::GET, ["configz"]) => json(&configz(&kubelet)),
        (&Method::GET, ["stats", "summary"]) => json(&stats::summary(&kubelet).await),
        (&Method::GET, ["metrics"]) => text(StatusCode::OK, stats::metrics(&kubelet)),
        (&Method::GET, ["metrics", "resource"]) => text(StatusCode::OK, stats::resource_metrics(&kubelet).await),
        (&Method::GET, ["metrics", "cadvisor"]) => text(StatusCode::OK, stats::cadvisor_metrics(&kubelet).await),
        (&Method::GET, ["metrics", "probes"]) => text(StatusCode::OK, ""),
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            logs(&kubelet, namespace, pod, container, request.uri().query().unwrap_or_default()).await
        }
        (&Method::GET | &Method::POST, ["exec" | "attach" | "portForward" | "run", ..]) => {
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            stream::handle(&kubelet, &parts, request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn health(kubelet: &Kubelet) -> Response<Body> {
    if kubelet.node.runtime_ready() {
        text(StatusCode::OK, "ok")
    } else {
        text(StatusCode::INTERNAL_SERVER_ERROR, "the container runtime is not ready")
    }
}

fn pods(kubelet: &Kubelet) -> List<Pod> {
    let handles: Vec<_> = kubelet.pods.lock().values().cloned().collect();
    let with_status = |handle: &Arc<crate::pods::worker::Handle>| {
        let mut pod = (*handle.wish.lock().pod).clone();
        if let Some(status) = handle.status.lock().clone() {
            pod.status = Some(status);
        }
        pod
    };
    List { items: handles.iter().map(with_status).collect(), ..List::default() }
}

async fn running_pods(kubelet: &Kubelet) -> Response<Body> {
    let known = match kubelet.runtime.known_pods().await {
        Ok(known) => known,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let items = known.into_iter().map(|known| {
        let mut pod = Pod::default();
        pod.metadata.name = Some(known.name);
        pod.metadata.namespace = Some(known.namespace);
        pod.metadata.uid = Some(known.uid);
        pod
    });
    json(&List::<Pod> { items: items.collect(), ..List::default() })
}

fn configz(kubelet: &Kubelet) -> serde_json::Value {
    let config = &kubelet.config;
    serde_json::json!({"kubeletconfig": {
        "maxPods": config.max_pods,
        "clusterDNS": config.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "clusterDomain": config.cluster_domain,
        "cgroupRoot": config.cgroup_root,
        "cgroupDriver": match config.cgroup_driver {
            crate::CgroupDriver::Cgroupfs => "cgroupfs",
            crate::CgroupDriver::Systemd => "systemd",
        },
        "containerLogMaxSize": config.container_log_max_bytes.to_string(),
        "containerLogMaxFiles": config.container_log_max_files,
        "imageGCHighThresholdPercent": config.image_gc.high_percent,
        "imageGCLowThresholdPercent": config.image_gc.low_percent,
        "nodeStatusReportFrequency": "5m0s",
        "nodeLeaseDurationSeconds": 40,
    }})
}

/// A pod of this node by name, the live one first.
pub(crate) fn find_pod(kubelet: &Kubelet, namespace: &str, name: &str) -> Option<Arc<Pod>> {
    let handles: Vec<_> = kubelet.pods.lock().values().cloned().collect();
    let mut found: Vec<_> = handles
        .iter()
        .map(|handle| handle.wish.lock().clone())
        .filter(|wish| names::namespace(&wish.pod) == namespace && names::name(&wish.pod) == name)
        .collect();
    found.sort_by_key(|wish| wish.gone);
    found.into_iter().next().map(|wish| wish.pod)
}

/// The decoded value of a query parameter.
pub(crate) fn parameters(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let bytes = text.as_bytes();
        let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
        while at < bytes.len() {
            let hex =
                bytes.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
            match (bytes[at], hex) {
                (b'%', Some(byte)) => {
                    out.push(byte);
                    at += 2;
                }
                (b'+', _) => out.push(b' '),
                (byte, _) => out.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

async fn logs(kubelet: &Arc<Kubelet>, namespace: &str, name: &str, container: &str, query: &str) -> Response<Body> {
    let parameters = parameters(query);
    let get = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let is = |key: &str| get(key).is_some_and(|value| value == "true" || value == "1");
    let Some(pod) = find_pod(kubelet, namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found\n"));
    };
    if crate::pods::spec::find(&pod, container).is_none() {
        let message = format!("container \"{container}\" not found in pod \"{name}\"\n");
        return text(StatusCode::NOT_FOUND, message);
    }
    let view = match kubelet.runtime.pod(names::uid(&pod)).await {
        Ok(view) => view,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let previous = is("previous");
    let chosen = view.history(container).nth(usize::from(previous)).cloned();
    let Some(chosen) = chosen else {
        let message = if previous {
            format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
        } else {
            let waiting = kubelet.pods.lock().get(names::uid(&pod)).and_then(|handle| {
                let status = handle.status.lock().clone()?;
                let all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
                let own = all.into_iter().find(|status| status.name == container)?;
                own.state?.waiting?.reason
            });
            let why = match waiting.as_deref() {
                Some("ContainerCreating" | "PodInitializing") | None => {
                    waiting.unwrap_or_else(|| "ContainerCreating".into())
                }
                Some(reason) => format!("trying and failing to pull image or start: {reason}"),
            };
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}")
        };
        return text(StatusCode::BAD_REQUEST, message);
    };
    let since = match (get("sinceSeconds").and_then(|s| s.parse::<i64>().ok()), get("sinceTime")) {
        (Some(seconds), _) => Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
        (None, Some(time)) => time.parse().ok(),
        (None, None) => None,
    };
    let options = read::Options {
        follow: is("follow") && !previous,
        tail: get("tailLines").and_then(|lines| lines.parse().ok()),
        since,
        timestamps: is("timestamps"),
        limit_bytes: get("limitBytes").and_then(|bytes| bytes.parse().ok()),
        stream: get("stream").filter(|stream| *stream != "All").map(str::to_lowercase),
    };
    let path = match chosen.log_path.as_str() {
        "" => kubelet.paths.pod_logs(&pod).join(names::Paths::container_log(container, chosen.restarts)),
        path => path.into(),
    };
    let (sender, receiver) = mpsc::channel(LOG_CHUNKS);
    let (kubelet, id) = (kubelet.clone(), chosen.id);
    tokio::spawn(async move {
        let running = move || {
            let (kubelet, id) = (kubelet.clone(), id.clone());
            async move { kubelet.runtime.container(&id).await.is_ok_and(|view| view.state == State::Running) }
        };
        read::stream(path, options, sender, running).await;
    });
    let frames = ReceiverStream::new(receiver).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}
