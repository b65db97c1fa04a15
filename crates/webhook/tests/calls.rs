//! Calls over real TLS sockets: who is believed, what is followed, how long is waited.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ironkeel_webhook::{Endpoint, NoServices, Place, RESPONSE_MAX_BYTES, Resolver, Target, WebhookClient};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Server {
    address: SocketAddr,
    ca_pem: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers by path; a certificate for 127.0.0.1 and `hook.ns.svc`, self-signed or of an authority.
async fn server(self_signed: bool) -> Server {
    let names = vec!["127.0.0.1".to_owned(), "hook.ns.svc".to_owned()];
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names).unwrap();
    let (cert, ca_pem) = if self_signed {
        let cert = params.self_signed(&key).unwrap();
        let pem = cert.pem();
        (cert, pem)
    } else {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        (params.signed_by(&key, &issuer).unwrap(), pem)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let task = tokio::spawn({
        let (connections, requests) = (connections.clone(), requests.clone());
        async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, connections, requests) = (acceptor.clone(), connections.clone(), requests.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    connections.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(move |r| {
                        requests.fetch_add(1, Ordering::SeqCst);
                        answer(r)
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }
    });
    Server { address, ca_pem, connections, requests, task }
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let respond = |code: u16, bytes: Bytes| Response::builder().status(code).body(Full::new(bytes)).unwrap();
    Ok(match parts.uri.path() {
        "/redirect" => Response::builder().status(302).header("location", "/echo").body(Full::default()).unwrap(),
        "/slow" => std::future::pending().await,
        "/busy" => respond(429, Bytes::new()),
        "/later" => Response::builder().status(503).header("retry-after", "1").body(Full::default()).unwrap(),
        "/away" => respond(503, Bytes::new()),
        "/broken" => respond(500, "it hurts".into()),
        "/secret" => respond(403, "s".repeat(1 << 20).into()),
        "/page" => Response::builder()
            .status(500)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from("{\"password\": 1}")))
            .unwrap(),
        "/absent" => respond(404, Bytes::new()),
        "/huge" => respond(200, vec![b'x'; RESPONSE_MAX_BYTES + 1].into()),
        _ => respond(200, format!("{} {}", parts.uri, String::from_utf8_lossy(&body)).into()),
    })
}

struct Local(SocketAddr);

impl Resolver for Local {
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Place, String> {
        match (namespace, name, port) {
            ("ns", "hook", 8443) => Ok(Place::Address(self.0)),
            _ => Err(format!("service {name:?} not found")),
        }
    }
}

fn url(s: &Server, path: &str) -> Target {
    Target::new(Endpoint::Url(format!("https://{}{path}", s.address)), s.ca_pem.clone().into_bytes())
}

async fn ask(client: &WebhookClient, target: &Target) -> Result<String, String> {
    let answer = client.post(target, "{}".into(), Duration::from_millis(1500)).await;
    answer.map(|b| String::from_utf8(b.to_vec()).unwrap()).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_over_a_connection_that_is_kept() {
    for self_signed in [false, true] {
        let s = server(self_signed).await;
        let client = WebhookClient::new(Arc::new(NoServices));
        // A connection is free again a moment after its answer is read: the next request may come too soon for it.
        let mut kept = false;
        for _ in 0..100 {
            let before = s.connections.load(Ordering::SeqCst);
            assert_eq!(ask(&client, &url(&s, "/echo")).await.unwrap(), "/echo?timeout=2s {}");
            kept = before > 0 && s.connections.load(Ordering::SeqCst) == before;
            if kept {
                break;
            }
        }
        assert!(kept, "{} connections", s.connections.load(Ordering::SeqCst));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_resolved_and_its_name_is_verified() {
    let s = server(false).await;
    let client = WebhookClient::new(Arc::new(Local(s.address)));
    let service = |name: &str, path: &str| {
        let endpoint = Endpoint::Service { namespace: "ns".into(), name: name.into(), path: path.into(), port: 8443 };
        Target::new(endpoint, s.ca_pem.clone().into_bytes())
    };
    assert_eq!(ask(&client, &service("hook", "a/b")).await.unwrap(), "/a/b?timeout=2s {}");
    let e = ask(&client, &service("other", "")).await.unwrap_err();
    assert_eq!(e, "Post \"https://other.ns.svc:8443/?timeout=2s\": service \"other\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_redirects_and_silence_are_errors() {
    let s = server(false).await;
    let client = WebhookClient::new(Arc::new(NoServices));
    let stranger = server(false).await;
    let mut target = url(&s, "/echo");
    target.ca_bundle_pem = stranger.ca_pem.clone().into_bytes();
    let e = ask(&client, &target).await.unwrap_err();
    assert!(e.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"), "{e}");

    let e = ask(&client, &url(&s, "/redirect")).await.unwrap_err();
    assert_eq!(e, "the server responded with the status code 302 but did not return more information");
    assert_eq!(s.requests.load(Ordering::SeqCst), 1, "the redirect was not followed");

    let e = ask(&client, &url(&s, "/slow")).await.unwrap_err();
    assert_eq!(e, format!("Post \"https://{}/slow?timeout=2s\": context deadline exceeded", s.address));
    let e = ask(&client, &url(&s, "/broken")).await.unwrap_err();
    assert_eq!(e, "an error on the server (\"it hurts\") has prevented the request from succeeding");
    let e = ask(&client, &url(&s, "/absent")).await.unwrap_err();
    assert_eq!(e, "the server could not find the requested resource");
    let e = client.post(&url(&s, "/huge"), "{}".into(), Duration::from_secs(30)).await.unwrap_err().to_string();
    assert!(e.starts_with("the response is longer than"), "{e}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = Target::new(Endpoint::Url(format!("https://{free}/x")), s.ca_pem.clone().into_bytes());
    let e = ask(&client, &refused).await.unwrap_err();
    assert_eq!(e, format!("Post \"https://{free}/x?timeout=2s\": dial tcp {free}: connect: connection refused"));
    let plain = Target::new(Endpoint::Url(format!("http://{free}/x")), Vec::new());
    assert!(ask(&client, &plain).await.unwrap_err().contains("is not an https URL"));
}

/// What somebody's server says to the API server ends in messages to users, in logs and in audit records.
#[tokio::test(flavor = "multi_thread")]
async fn little_of_an_error_page_is_passed_on_and_only_text() {
    let s = server(true).await;
    let client = WebhookClient::new(Arc::new(NoServices));
    assert_eq!(ask(&client, &url(&s, "/secret")).await.unwrap_err(), "s".repeat(2048));
    let hidden = ask(&client, &url(&s, "/page")).await.unwrap_err();
    assert_eq!(hidden, "an error on the server (\"unknown\") has prevented the request from succeeding");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_asked_again_and_nothing_else() {
    let client = WebhookClient::new(Arc::new(NoServices));
    let quick = Duration::from_millis(1);
    for (path, calls) in [("/broken", 5), ("/busy", 5), ("/later", 5), ("/away", 1), ("/absent", 1), ("/echo", 1)] {
        let s = server(false).await;
        let asked = client.post_retried(&url(&s, path), "{}".into(), Duration::from_secs(5), quick).await;
        assert_eq!((asked.is_ok(), s.requests.load(Ordering::SeqCst)), (path == "/echo", calls), "{path}");
    }
    let s = server(false).await;
    let late = client.post_retried(&url(&s, "/slow"), "{}".into(), Duration::from_millis(1500), quick).await;
    assert!(late.unwrap_err().to_string().ends_with("context deadline exceeded"));
    assert_eq!(s.requests.load(Ordering::SeqCst), 1, "silence is not asked again");
}
