//! Remote commands and port forward over SPDY, forwarded and tunnelled, and hostile peers.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ironkeel_streaming::spdy::Connection;
use ironkeel_streaming::*;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const V4: &str = "v4.channel.k8s.io";

async fn run(connection: &mut Connection, input: &[u8]) -> [Vec<u8>; 3] {
    let mut reads = Vec::new();
    let error = connection.open(&[("streamtype", "error")]).await.unwrap();
    let stdin = connection.open(&[("streamtype", "stdin")]).await.unwrap();
    let (_stdin, to_stdin) = stdin.split();
    let stdout = connection.open(&[("streamtype", "stdout")]).await.unwrap();
    let stderr = connection.open(&[("streamtype", "stderr")]).await.unwrap();
    for stream in [error, stdout, stderr] {
        reads.push(async {
            let (mut from, writer) = stream.split();
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await.unwrap();
            drop(writer);
            bytes
        });
    }
    let write = async {
        to_stdin.send(input).await;
        to_stdin.finish().await;
    };
    let (outputs, ()) = tokio::join!(futures::future::join_all(reads), write);
    outputs.try_into().unwrap()
}

#[tokio::test]
async fn a_command_runs_with_all_streams() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("cat; echo err >&2; exit 7")).unwrap();
    let input = vec![b'x'; 3 << 20];
    let [error, stdout, stderr] = run(&mut spdy(&url, V4).await, &input).await;
    assert!(stdout == input, "{} bytes", stdout.len());
    assert_eq!(stderr, b"err\n");
    assert_eq!(status(&error)["details"]["causes"][0]["message"], "7");
}

#[tokio::test]
async fn ten_mebibytes_arrive_whole() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("head -c 10485760 /dev/zero")).unwrap();
    let [error, stdout, _] = run(&mut spdy(&url, V4).await, b"").await;
    assert_eq!(stdout.len(), 10 << 20);
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let (server, _guard) = server().await;
    let request = ExecRequest { cmd: vec!["sizes".into()], tty: true, stdin: false, ..sh("") };
    let mut connection = spdy(&server.exec_url(request).unwrap(), V4).await;
    let _error = connection.open(&[("streamtype", "error")]).await.unwrap();
    let stdout = connection.open(&[("streamtype", "stdout")]).await.unwrap();
    let (_resize, sizes) = connection.open(&[("streamtype", "resize")]).await.unwrap().split();
    sizes.send(b"{\"Width\":9,\"Hei").await;
    sizes.send(b"ght\":24}\n").await;
    let (mut stdout, _writer) = stdout.split();
    let mut bytes = String::new();
    stdout.read_to_string(&mut bytes).await.unwrap();
    assert_eq!(bytes, "9x24;");
}

async fn forward(connection: &mut Connection, request: &str, port: u16, send: &[u8]) -> (Vec<u8>, String) {
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request)];
    let (mut error, error_writer) = connection.open(&headers("error")).await.unwrap().split();
    error_writer.finish().await;
    let (mut data, writer) = connection.open(&headers("data")).await.unwrap().split();
    writer.send(send).await;
    writer.finish().await;
    let (mut bytes, mut failure) = (Vec::new(), String::new());
    data.read_to_end(&mut bytes).await.unwrap();
    error.read_to_string(&mut failure).await.unwrap();
    (bytes, failure)
}

async fn check_port_forward(mut connection: Connection) {
    let (open, closed) = (echo_port().await, closed_port().await);
    for request in ["0", "1"] {
        let answer = forward(&mut connection, request, open, b"hello").await;
        assert_eq!(answer, (b"hello|end".to_vec(), String::new()));
    }
    let (bytes, failure) = forward(&mut connection, "2", closed, b"").await;
    assert!(bytes.is_empty() && failure.contains("connect to port"), "{failure}");
    assert_eq!(forward(&mut connection, "3", open, b"").await.0, b"|end");
    let bad = [("streamtype", "data"), ("port", "seventy"), ("requestid", "4")];
    assert!(connection.open(&bad).await.is_err());
}

fn sandbox() -> PortForwardRequest {
    PortForwardRequest { sandbox_id: "s".into(), ports: Vec::new() }
}

#[tokio::test]
async fn ports_are_forwarded() {
    let (server, _guard) = server().await;
    check_port_forward(spdy(&server.port_forward_url(sandbox()).unwrap(), "portforward.k8s.io").await).await;
}

#[tokio::test]
async fn ports_are_forwarded_through_a_websocket() {
    let (server, _guard) = server().await;
    let url = server.port_forward_url(sandbox()).unwrap();
    let socket = support::websocket(&url, "SPDY/3.1+portforward.k8s.io").await;
    check_port_forward(Connection::client(websocket::ByteTunnel::new(socket))).await;
}

/// An HTTP server that forwards one connection's requests to `target`.
async fn proxy(target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request| {
            let target: http::Uri = target.parse().unwrap();
            async move {
                let address = target.authority().unwrap().to_string();
                proxy_upgrade(request, &target, || TcpStream::connect(address)).await
            }
        });
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await.unwrap();
    });
    format!("http://{address}/anything")
}

#[tokio::test]
async fn an_upgrade_is_forwarded() {
    let (server, _guard) = server().await;
    let url = proxy(server.exec_url(sh("cat; exit 2")).unwrap()).await;
    let [error, stdout, _] = run(&mut spdy(&url, V4).await, b"through").await;
    assert_eq!(stdout, b"through");
    assert_eq!(status(&error)["details"]["causes"][0]["message"], "2");

    let url = proxy(server.exec_url(sh("echo hello")).unwrap()).await;
    let mut socket = support::websocket(&url, "v5.channel.k8s.io").await;
    assert_eq!(drain(&mut socket).await[1], b"hello\n");
}

#[tokio::test]
async fn a_refusal_is_forwarded_with_its_body() {
    let (server, _guard) = server().await;
    let url = proxy(format!("http://{}/exec/unknown", server.address())).await;
    let (answer, mut stream) = request(&url, "Connection: close\r\n").await;
    assert!(answer.starts_with("http/1.1 404"), "{answer}");
    let mut body = String::new();
    stream.read_to_string(&mut body).await.unwrap();
    assert_eq!(body, "404 page not found");
}

fn frame(kind: u16, length: u32, body: &[u8]) -> Vec<u8> {
    [&0x8003_u16.to_be_bytes()[..], &kind.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_is_sent_away() {
    let (server, _guard) = server().await;
    let hostile: [(&str, Vec<u8>); 8] = [
        ("an oversized control frame", frame(1, 0x00ff_ffff, &[])),
        ("garbage instead of zlib", frame(1, 14, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef])),
        ("a short SYN_STREAM", frame(1, 4, &[0, 0, 0, 1])),
        ("an empty SYN_STREAM", frame(1, 0, &[])),
        ("an empty RST_STREAM", frame(3, 0, &[])),
        ("a short PING", frame(6, 1, &[0])),
        ("garbage in HEADERS", frame(8, 8, &[0, 0, 0, 1, 9, 9, 9, 9])),
        ("another version", [&[0x80, 2, 0, 1][..], &[0; 4]].concat()),
    ];
    for (what, bytes) in hostile {
        let url = server.port_forward_url(sandbox()).unwrap();
        let mut stream = upgrade(&url, "portforward.k8s.io").await;
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        read.unwrap_or_else(|_| panic!("{what}: the connection stays")).unwrap();
        assert_eq!(answer[..4], [0x80, 3, 0, 7], "{what}: no GOAWAY");
    }
}

#[tokio::test]
async fn frames_without_meaning_are_ignored() {
    let (server, _guard) = server().await;
    let mut stream = upgrade(&server.port_forward_url(sandbox()).unwrap(), "portforward.k8s.io").await;
    // Data and a reset for streams that never were, settings, a window, a kind from another protocol.
    stream.write_all(&[0, 0, 0, 9, 0, 0, 0, 2, 1, 2]).await.unwrap();
    stream.write_all(&frame(3, 8, &[0, 0, 0, 9, 0, 0, 0, 1])).await.unwrap();
    stream.write_all(&frame(4, 4, &[0; 4])).await.unwrap();
    stream.write_all(&frame(9, 8, &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff])).await.unwrap();
    stream.write_all(&frame(77, 2, &[0; 2])).await.unwrap();
    stream.write_all(&frame(6, 4, &[0, 0, 0, 5])).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..], frame(6, 4, &[0, 0, 0, 5])[..]);
    check_port_forward(Connection::client(stream)).await;
}

#[tokio::test]
async fn an_ended_forward_gives_its_streams_places_back() {
    let (server, _guard) = server().await;
    let mut connection = spdy(&server.port_forward_url(sandbox()).unwrap(), "portforward.k8s.io").await;
    let port = echo_port().await;
    // More in all than a connection may have at a time, so an ended stream has to give its place back.
    for request in 0..spdy::MAX_STREAMS {
        let (bytes, _) = forward(&mut connection, &request.to_string(), port, b"x").await;
        assert_eq!(bytes, b"x|end");
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (server, _guard) = server().await;
    let mut connection = spdy(&server.port_forward_url(sandbox()).unwrap(), "portforward.k8s.io").await;
    let mut open = Vec::new();
    for request in 0..spdy::MAX_STREAMS {
        let request = request.to_string();
        let headers = [("streamtype", "error"), ("port", "1"), ("requestid", request.as_str())];
        open.push(connection.open(&headers).await.unwrap());
    }
    let headers = [("streamtype", "error"), ("port", "1"), ("requestid", "one more")];
    assert!(connection.open(&headers).await.is_err());
}
