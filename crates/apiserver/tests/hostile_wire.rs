//! Bytes on the wire that no client of good will sends: smuggled requests, broken heads, floods of frames, slow
//! bodies; and backends that lead elsewhere. The server refuses, closes, and goes on serving others.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ironkeel_auth::Identity;
use ironkeel_embedded::Options;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use support::{Cluster, cluster, start_tuned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

/// What the server may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(c: &Cluster, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut tls = (*c.pki.client_tls(Identity::Admin).unwrap()).clone();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(c.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap()
}

/// Sends bytes as they are, and reads what comes back until the server closes.
async fn converse(c: &Cluster, bytes: &[u8]) -> String {
    let (mut read, mut write) = tokio::io::split(connect(c, b"http/1.1").await);
    let bytes = bytes.to_vec();
    // The server may have heard enough before the end.
    let writing = tokio::spawn(async move {
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
        write
    });
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("the server closes in time");
    writing.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

/// As [`converse`], and says that there is no more: what is half a request stays that.
async fn hang_up(c: &Cluster, bytes: &[u8]) -> String {
    let mut io = connect(c, b"http/1.1").await;
    if io.write_all(bytes).await.is_ok() {
        let _ = io.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, io.read_to_end(&mut answer)).await.expect("the server closes in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers in a conversation.
fn statuses(conversation: &str) -> Vec<u16> {
    let heads = conversation.split("HTTP/1.1 ").skip(1);
    heads.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// That others are served as ever.
async fn serves(c: &Cluster) {
    c.ready().await;
    let all = converse(c, b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    assert_eq!(c.admin().get("/api/v1/namespaces/default").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_two_readers_could_read_in_two_ways_are_refused() {
    let c = cluster().await;
    let long = |n: usize| "a".repeat(n);
    for (what, request, expected) in [
        (
            "two lengths",
            "POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
            400,
        ),
        ("a list of lengths", "POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 2\r\n\r\nab".to_owned(), 400),
        ("a signed length", "POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na".to_owned(), 400),
        ("a negative length", "POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\na".to_owned(), 400),
        ("a length in hex", "POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: 0x1\r\n\r\na".to_owned(), 400),
        ("a folded header", "GET /api HTTP/1.1\r\nhost: x\r\nimpersonate-user: a\r\n b\r\n\r\n".to_owned(), 400),
        ("a null in a header", "GET /api HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n".to_owned(), 400),
        ("a return in a header", "GET /api HTTP/1.1\r\nhost: x\r\nx: a\rb\r\n\r\n".to_owned(), 400),
        (
            "a space before the colon",
            "GET /api HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n".to_owned(),
            400,
        ),
        ("a header without a name", "GET /api HTTP/1.1\r\nhost: x\r\n: a\r\n\r\n".to_owned(), 400),
        ("a null in the target", "GET /api\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400),
        ("a space in the target", "GET /api /x HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400),
        (
            "an unknown coding",
            "POST /api HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(),
            400,
        ),
        (
            "chunked, but not last",
            "POST /api HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n".to_owned(),
            400,
        ),
        ("another version", "GET /api HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(), 400),
        ("a target of 100 KB", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", long(100_000)), 414),
        ("a header of 2 MB", format!("GET /api HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", long(2 << 20)), 431),
        ("10,000 headers", format!("GET /api HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(10_000)), 431),
    ] {
        let found = converse(&c, request.as_bytes()).await;
        assert_eq!(statuses(&found), [expected], "{what}: {:.300}", found);
    }
    serves(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_ends_where_its_encoding_says() {
    let c = cluster().await;
    // With both, the chunks count, as in Go: what follows them is the same client's next request.
    let both = "POST /apis/authorization.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nhost: x\r\ncontent-length: 60\r\n\
                transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let found = converse(&c, both.as_bytes()).await;
    let codes = statuses(&found);
    assert!(codes[0] < 500 && (codes.len() == 1 || codes[1..] == [200]), "{found}");
    for (what, chunks) in [
        ("a chunk longer than all memory", "ffffffffffffffff\r\n"),
        ("a chunk's length that overflows", "10000000000000000f\r\n"),
        ("a chunk's length that is none", "zz\r\n"),
        ("a negative chunk", "-1\r\nx\r\n"),
        ("a chunk without an end", "1\r\nxy\r\n0\r\n\r\n"),
    ] {
        let head =
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let found = hang_up(&c, format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}").as_bytes()).await;
        let codes = statuses(&found);
        assert!(codes.len() <= 1 && codes.iter().all(|c| *c == 400), "{what}: {found}");
    }
    // A body that never ends is cut at the limit, whatever its length claims.
    let mut io = connect(&c, b"http/1.1").await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    io.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(io);
    let writing = tokio::spawn(async move {
        let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
        let mut sent = 0_usize;
        while sent < 256 << 20 && write.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        sent
    });
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("the server closes in time");
    drop(read);
    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), [413]);
    assert!(writing.await.unwrap() < 64 << 20, "the server reads no more than it needs");
    serves(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_holds_nothing_up() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let c = start_tuned(dir, Options::default(), |config| config.request_timeout = Duration::from_secs(1)).await;
    let mut io = connect(&c, b"http/1.1").await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    io.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let n = tokio::time::timeout(PATIENCE, io.read(&mut answer)).await.expect("an answer in time").unwrap();
    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert_eq!(statuses(&answer), [504], "{answer}");
    serves(&c).await;
}

/// Frames of HTTP/2 (RFC 9113).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET https://x/`, by HPACK's static table.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 0x01, b'x'];

/// Floods a new connection with what `next` makes until the server closes, or `limit` bytes are sent. Answers how many
/// were sent, and the code of the GOAWAY that came back.
async fn flood(
    c: &Cluster,
    limit: usize,
    mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static,
) -> (usize, Option<u32>) {
    let mut io = connect(c, b"h2").await;
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let (mut read, mut write) = tokio::io::split(io);
    let writing = tokio::spawn(async move {
        let (mut sent, mut turn) = (0, 0);
        while sent < limit {
            let bytes = next(turn);
            turn += 1;
            if write.write_all(&bytes).await.is_err() {
                break;
            }
            sent += bytes.len();
        }
        let _ = write.shutdown().await;
        sent
    });
    let reading = async {
        let mut goaway = None;
        let mut head = [0; 9];
        while read.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if read.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == GOAWAY {
                goaway = payload.get(4..8).and_then(|b| Some(u32::from_be_bytes(b.try_into().ok()?)));
            }
        }
        goaway
    };
    let goaway = tokio::time::timeout(PATIENCE, reading).await.expect("the server closes in time");
    drop(read);
    (writing.await.unwrap(), goaway)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reset_as_fast_as_they_are_opened_end_the_connection() {
    let c = cluster().await;
    let limit = 8 << 20;
    // CVE-2023-44487.
    let (sent, goaway) = flood(&c, limit, |turn| {
        let id = turn * 2 + 1;
        [frame(HEADERS, END_STREAM | END_HEADERS, id, GET), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    })
    .await;
    assert!(sent < limit, "the server took {sent} bytes of resets");
    // ENHANCE_YOUR_CALM, where the server could still say so.
    assert!(goaway.is_none_or(|code| code == 11), "{goaway:?}");
    serves(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_blocks_without_an_end_end_the_connection() {
    let c = cluster().await;
    let limit = 64 << 20;
    // CVE-2023-45288 and its like: each frame is a header of 16 KB that nobody asked for.
    let literal = [&[0x00, 0x01, b'a', 0x7f, 0x80, 0x7f][..], &vec![b'x'; 16_000 + 255]].concat();
    let (sent, _) = flood(&c, limit, move |turn| match turn {
        0 => frame(HEADERS, END_STREAM, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &literal[..16_000]),
    })
    .await;
    assert!(sent < limit, "the server took {sent} bytes of headers");
    let (sent, _) = flood(&c, limit, |turn| match turn {
        0 => frame(HEADERS, END_STREAM, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &[]),
    })
    .await;
    assert!(sent < limit, "the server took {sent} bytes of empty continuations");
    // One header of 4 KB in the table, named thousands of times: 64 MB in 16 KB.
    let mut block = GET.to_vec();
    block.extend_from_slice(&[0x40, 0x01, b'a', 0x7f, 0x81, 0x1e]);
    block.extend_from_slice(&vec![b'x'; 0x7f + 1 + (0x1e << 7)]);
    block.resize(16_000, 0xbe);
    let (_, _) = flood(&c, 1 << 20, move |turn| frame(HEADERS, END_STREAM | END_HEADERS, turn * 2 + 1, &block)).await;
    serves(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_small_frames_leave_others_served() {
    let c = cluster().await;
    let limit = 2 << 20;
    flood(&c, limit, |_| frame(PING, 0, 0, &[7; 8])).await;
    flood(&c, limit, |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])).await;
    flood(&c, limit, |turn| frame(8, 0, 0, &(turn % 2 + 1).to_be_bytes())).await;
    flood(&c, limit, |turn| match turn {
        0 => frame(HEADERS, END_HEADERS, 1, &[0x83, 0x87, 0x84, 0x41, 0x01, b'x']),
        _ => frame(0, 0, 1, &[]),
    })
    .await;
    flood(&c, limit, |turn| frame((turn % 16) as u8, (turn / 16) as u8, turn % 7, &[0; 5])).await;
    serves(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_at_all_is_hung_up_on() {
    let c = cluster().await;
    // To the socket beneath TLS: other protocols, half a hello, nothing.
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff\x01", b"\0\0\0\0", b"SSH-2.0-x\r\n", &[0x16; 70_000]]
    {
        let mut socket = TcpStream::connect(c.address).await.unwrap();
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the server closes in time");
        assert!(answer.len() < 100, "{answer:?}");
    }
    for bytes in
        [&b"\0\0\0\0"[..], b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff", b"\r\n\r\n\r\n\r\n"]
    {
        let found = hang_up(&c, bytes).await;
        assert!(statuses(&found).iter().all(|code| *code == 400), "{found}");
    }
    serves(&c).await;
}

/// A TLS server of the node's certificate that answers with `status` and counts what it is asked.
async fn kubelet(c: &Cluster, status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(c.pki.kubelet_tls().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), count.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.unwrap();
                let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = Response::builder().status(status).body(Full::new(bytes::Bytes::from("refused")));
                    async move { Ok::<_, std::convert::Infallible>(answer.unwrap()) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, asked)
}

/// CVE-2018-1002105: behind a refused upgrade the connection was left open to the kubelet, as the API server.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_opens_no_way_to_the_kubelet() {
    let c = cluster().await;
    let (address, asked) = kubelet(&c, 403).await;
    let http = c.admin();
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    http.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
    http.patch("/api/v1/nodes/n1/status", "application/merge-patch+json", &status).await.expect(200);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    http.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let exec = "POST /api/v1/namespaces/default/pods/p/exec?command=x&stdout=1 HTTP/1.1\r\nhost: x\r\n\
                connection: Upgrade\r\nupgrade: SPDY/3.1\r\ncontent-length: 0\r\n\r\n";
    // What the attacker hopes that the kubelet reads, with the API server's rights.
    let smuggled = "GET /runningpods/ HTTP/1.1\r\nhost: kubelet\r\nconnection: close\r\n\r\n";
    let found = converse(&c, format!("{exec}{smuggled}").as_bytes()).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "{found}");
    let codes = statuses(&found);
    assert_eq!(codes[0], 403, "{found}");
    // Where the connection goes on, it goes on with the API server.
    assert!(codes.len() == 1 || codes[1..] == [404], "{found}");
    serves(&c).await;
}

/// CVE-2020-8561: a webhook's redirect would make the API server ask whatever the webhook likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_cannot_send_the_server_elsewhere() {
    let c = cluster().await;
    let http = c.admin();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(tls)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let serving = tokio::spawn(async move {
        loop {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let count = count.clone();
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                TokioIo::new(stream),
                service_fn(move |request: Request<hyper::body::Incoming>| {
                    count.fetch_add(1, Ordering::SeqCst);
                    let code: u16 = request.uri().path()[1..].parse().unwrap();
                    let away = Response::builder().status(code).header("location", format!("https://{address}/200"));
                    async move { Ok::<_, std::convert::Infallible>(away.body(Full::<bytes::Bytes>::default()).unwrap()) }
                }),
            ));
        }
    });
    for (i, code) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        let ca = base64::engine::general_purpose::STANDARD.encode(cert.pem());
        let hook = json!({"metadata": {"name": "away"}, "webhooks": [{"name": "away.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"url": format!("https://{address}/{code}"), "caBundle": ca},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]});
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        http.post(path, &hook).await.expect(201);
        let map = json!({"metadata": {"name": "x"}});
        let answer = http.post("/api/v1/namespaces/default/configmaps", &map).await;
        answer.refused(500, "InternalError", "failed calling webhook \"away.example.com\"");
        assert_eq!(asked.load(Ordering::SeqCst), i + 1, "{code} is not followed");
        http.delete(&format!("{path}/away")).await.expect(200);
    }
    serving.abort();
}
