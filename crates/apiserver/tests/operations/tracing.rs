//! Spans of requests, at a collector that speaks gRPC; and slow requests, in the log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ironkeel_apiserver::{DelegatesConfig, TracingConfig};
use ironkeel_embedded::{Embedded, Options};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::gated::Gated;
use crate::support::{start_over, start_tuned};

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    number: i64,
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let shown = |v: &AnyValue| if v.text.is_empty() { v.number.to_string() } else { v.text.clone() };
    all.iter().map(|a| (a.key.clone(), a.value.as_ref().map(shown).unwrap_or_default())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A gRPC server that takes spans.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Export>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let sender = sender.clone();
                async move {
                    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
                    assert_eq!(request.uri().path(), path);
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    // A flag for compression and the length stand before the message.
                    assert_eq!(body[0], 0);
                    sender.send(Export::decode(&body[5..]).unwrap()).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    let frames = [
                        http_body::Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0])),
                        http_body::Frame::trailers(trailers),
                    ];
                    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
                    Ok::<_, std::convert::Infallible>(
                        Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                    )
                }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(socket), service));
        }
    });
    (address, receiver)
}

/// A webhook for authorization that says yes; the heads of its requests.
async fn authorizer() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut seen, mut buffer) = (Vec::new(), [0; 8192]);
            loop {
                let n = socket.read(&mut buffer).await.unwrap();
                seen.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&seen).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                if serde_json::from_str::<Value>(body).is_ok() {
                    kept.lock().push(head.to_ascii_lowercase());
                    break;
                }
            }
            let answer = json!({ "status": { "allowed": true } }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
            socket.write_all([head, answer].concat().as_bytes()).await.unwrap();
        }
    });
    (address, heads)
}

#[tokio::test]
async fn spans_of_requests_reach_the_collector() {
    const GIVEN: &str = "0af7651916cd43dd8448eb211c80319c";
    let (address, mut exports) = collector().await;
    let (webhook, heads) = authorizer().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let kubeconfig = dir.path().join("webhook.yaml");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k" } }],
        "clusters": [{ "name": "k", "cluster": { "server": format!("http://{webhook}/access") } }],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let access = ironkeel_apiserver::WebhookConfig::from_kubeconfig(&kubeconfig).unwrap();
    let tracing = TracingConfig::new(Some(&address.to_string()), Some(1_000_000), "me").unwrap();
    let c = start_tuned(dir, Options::default(), |c| {
        c.tracing = Some(tracing);
        c.delegates = Arc::new(DelegatesConfig { access: Some(access), ..DelegatesConfig::default() });
    })
    .await;
    let admin = c.admin();
    let hook = json!({ "metadata": { "name": "w" }, "webhooks": [{ "name": "w.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1,
        "clientConfig": { "url": "https://127.0.0.1:1/w" }, "rules": [{ "operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"] }] }] });
    let group = "/apis/admissionregistration.k8s.io/v1";
    admin.post(&format!("{group}/validatingwebhookconfigurations"), &hook).await.expect(201);
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }).to_string();
    let parent = format!("00-{GIVEN}-b7ad6b7169203331-01");
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", parent.as_str()),
        ("audit-id", "id-a"),
        ("user-agent", "t"),
    ];
    admin.send(http::Method::POST, maps, &headers, object).await.expect(201);
    // A caller that we do not know well: a trace of its own, with a link.
    let ann = c.as_user("ann", &[]);
    ann.send(http::Method::GET, &format!("{maps}/a"), &[("traceparent", parent.as_str())], "").await.expect(200);
    // A trusted caller's decision not to record holds.
    let unsampled = "00-11111111111111111111111111111111-b7ad6b7169203331-00";
    admin.send(http::Method::GET, "/version", &[("traceparent", unsampled)], "").await.expect(200);
    drop((admin, ann));
    c.shutdown.cancel();
    c.serving.await.unwrap();

    let (mut spans, mut resources) = (Vec::new(), Vec::new());
    while let Ok(export) = exports.try_recv() {
        for of in export.resource_spans {
            resources.push(attributes(&of.resource.unwrap().attributes));
            spans.extend(of.scope_spans.into_iter().flat_map(|s| s.spans));
        }
    }
    assert_eq!(
        (resources[0]["service.name"].as_str(), resources[0]["service.instance.id"].as_str()),
        ("apiserver", "me")
    );
    let of = |trace: &str| -> Vec<&Span> { spans.iter().filter(|s| hex(&s.trace_id) == trace).collect() };
    assert!(of("11111111111111111111111111111111").is_empty());
    let created = of(GIVEN);
    let named = |name: &str| *created.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name}: {created:#?}"));
    let root = named("POST /api/v1/namespaces/{:namespace}/configmaps");
    assert_eq!((hex(&root.parent).as_str(), root.kind, root.links.len()), ("b7ad6b7169203331", 2, 0));
    let said = attributes(&root.attributes);
    for (key, value) in
        [("http.method", "POST"), ("http.target", maps), ("http.status_code", "201"), ("audit-id", "id-a")]
    {
        assert_eq!(said[key], value, "{key}");
    }
    for stage in ["authenticate", "wait for a seat", "authorize", "read the body", "handle"] {
        assert_eq!(named(stage).parent, root.span_id, "{stage}");
    }
    assert_eq!(named("decode").parent, root.span_id);
    assert_eq!((named("store").kind, &named("store").parent), (3, &root.span_id));
    let validating = named("validating admission");
    let call = named("Call validating webhook");
    assert_eq!((&call.parent, call.kind), (&validating.span_id, 3));
    assert_eq!(attributes(&call.attributes)["webhook"], "w.example.com");
    for span in &created {
        assert!(root.start <= span.start && span.start <= span.end && span.end <= root.end + 1_000_000, "{span:?}");
        assert_eq!(span.span_id.len(), 8);
    }
    let read = spans.iter().find(|s| s.name == "GET /api/v1/namespaces/{:namespace}/configmaps/{:name}").unwrap();
    assert_ne!(hex(&read.trace_id), GIVEN);
    assert!(read.parent.is_empty());
    assert_eq!(
        (hex(&read.links[0].trace_id).as_str(), hex(&read.links[0].span_id).as_str()),
        (GIVEN, "b7ad6b7169203331")
    );
    // Whoever was asked on behalf of the request was told of its trace.
    let passed = format!("traceparent: 00-{}-{}-01", hex(&read.trace_id), hex(&read.span_id));
    let heads = heads.lock().clone();
    assert!(heads.iter().any(|h| h.contains(&passed)), "{passed} is not in {heads:?}");
}

/// Keeps the log's lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.level() <= &tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }
}

#[tokio::test]
async fn the_log_names_the_slow_step_of_a_slow_request() {
    let lines = Lines::default();
    // Of a single subscriber tracing asks only the thread that comes to a line first, which may be another test's,
    // and takes its word for good. With two it asks the subscribers.
    let _another = tracing::Dispatch::new(Lines::default());
    let _guard = tracing::subscriber::set_default(lines.clone());
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let inner = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
    let (gate, open) = watch::channel(false);
    let c = start_over(dir, Arc::new(Gated { inner, part: "/slow", open }), |_| {}).await;
    let admin = c.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let post = async |name: &str| {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } }).to_string();
        let id = format!("id-{name}");
        let headers = [("content-type", "application/json"), ("audit-id", &*id), ("user-agent", "t/1")];
        admin.send(http::Method::POST, &format!("{maps}?fieldManager=m"), &headers, object).await.expect(201)
    };
    post("quick").await;
    let opening = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(900)).await;
        gate.send(true).unwrap();
        gate
    });
    post("slow").await;
    drop(opening.await.unwrap());
    // On a busy machine the quick one may be slow as well.
    let slow = |line: &&String| line.contains("slow request") && line.contains("id-slow");
    let told: Vec<String> = lines.0.lock().iter().filter(slow).cloned().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "verb=\"create\"",
        "uri=\"/api/v1/namespaces/default/configmaps?fieldManager=m\"",
        "code=201",
        "agent=\"t/1\"",
        "audit_id=\"id-slow\"",
        "slowest=\"store\"",
        "authenticate ",
        "decode ",
        "validating admission ",
    ] {
        assert!(told[0].contains(part), "{part} is not in {}", told[0]);
    }
}
