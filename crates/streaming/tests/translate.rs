//! A WebSocket client before a server that is spoken SPDY to.
#![allow(clippy::unwrap_used)]

mod support;

use futures::{SinkExt, StreamExt};
use ironkeel_streaming::translate::{CommandStreams, Translation, accept, requested, spdy_headers, translate};
use ironkeel_streaming::*;
use support::*;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const ALL: CommandStreams = CommandStreams { stdin: true, stdout: true, stderr: true, tty: false };

/// A WebSocket whose other end is translated to the SPDY of `url`.
async fn client(url: &str, protocol: &str, translation: Translation) -> WebSocketStream<DuplexStream> {
    assert_eq!(spdy_headers(translation)["x-stream-protocol-version"], protocol);
    let server = upgrade(url, protocol).await;
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(translate(theirs, server, translation));
    WebSocketStream::from_raw_socket(ours, Role::Client, None).await
}

async fn run(socket: &mut WebSocketStream<DuplexStream>, input: &[u8]) -> [Vec<u8>; 5] {
    let (mut sink, mut source) = socket.split();
    let write = async {
        for part in input.chunks(30 << 10) {
            sink.send(Message::Binary([&[0], part].concat().into())).await.unwrap();
        }
        sink.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    };
    let read = async {
        let mut channels: [Vec<u8>; 5] = Default::default();
        while let Some(Ok(message)) = source.next().await {
            if let Message::Binary(data) = message {
                channels[usize::from(data[0])].extend_from_slice(&data[1..]);
            }
        }
        channels
    };
    tokio::join!(write, read).1
}

#[tokio::test]
async fn a_command_keeps_its_streams_and_its_status() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("cat; echo err >&2; exit 7")).unwrap();
    let mut socket = client(&url, "v4.channel.k8s.io", Translation::Command(ALL)).await;
    let input = vec![b'x'; 3 << 20];
    let [_, stdout, stderr, error, _] = run(&mut socket, &input).await;
    assert!(stdout == input, "{} bytes", stdout.len());
    assert_eq!(stderr, b"err\n");
    assert_eq!(status(&error)["details"]["causes"][0]["message"], "7");
}

#[tokio::test]
async fn sizes_of_a_terminal_arrive() {
    let (server, _guard) = server().await;
    let cmd = vec!["sizes".to_owned()];
    let request = ExecRequest { container_id: "c".into(), cmd, tty: true, stdin: true, stdout: true, stderr: false };
    let url = server.exec_url(request).unwrap();
    let streams = CommandStreams { tty: true, ..ALL };
    let mut socket = client(&url, "v4.channel.k8s.io", Translation::Command(streams)).await;
    socket.send(Message::Binary([&[4], &br#"{"Width":9,"Height":5}"#[..]].concat().into())).await.unwrap();
    let [_, stdout, _, error, _] = run(&mut socket, b"").await;
    assert_eq!(stdout, b"9x5;");
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn a_server_that_breaks_off_is_told_as_a_failure() {
    let (client, theirs) = tokio::io::duplex(1 << 10);
    let (server, gone) = tokio::io::duplex(1 << 10);
    drop(gone);
    tokio::spawn(translate(theirs, server, Translation::Command(ALL)));
    let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let [.., error, _] = run(&mut socket, b"").await;
    assert_eq!((&status(&error)["status"], &status(&error)["code"]), (&"Failure".into(), &500.into()));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_servers_connection() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("cat")).unwrap();
    let server = upgrade(&url, "v4.channel.k8s.io").await;
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let translating = tokio::spawn(translate(theirs, server, Translation::Command(ALL)));
    let mut socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    socket.send(Message::Binary(vec![0, b'x'].into())).await.unwrap();
    while !matches!(socket.next().await.unwrap().unwrap(), Message::Binary(data) if &data[..] == b"\x01x") {}
    drop(socket);
    let patience = std::time::Duration::from_secs(10);
    tokio::time::timeout(patience, translating).await.expect("the end in time").unwrap().unwrap();
}

#[tokio::test]
async fn port_forward_is_carried_as_it_is() {
    let (server, _guard) = server().await;
    let port = echo_port().await.to_string();
    let url = server.port_forward_url(PortForwardRequest { sandbox_id: "s".into(), ports: Vec::new() }).unwrap();
    let socket = client(&url, "portforward.k8s.io", Translation::PortForward).await;
    let mut connection = spdy::Connection::client(websocket::ByteTunnel::new(socket));
    let of = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
    let error = connection.open(&of("error")).await.unwrap();
    let (mut from, to) = connection.open(&of("data")).await.unwrap().split();
    to.send(b"hello").await;
    to.finish().await;
    let mut found = Vec::new();
    from.read_to_end(&mut found).await.unwrap();
    assert_eq!(found, b"hello|end");
    drop(error);
}

#[test]
fn only_the_newest_protocols_are_translated() {
    let check = |protocol: &str, upgrade: &str, translation: Translation, wanted: bool| {
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", upgrade),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(requested(&headers, translation), wanted, "{protocol} {upgrade}");
        headers
    };
    let command = Translation::Command(ALL);
    let headers = check("v5.channel.k8s.io", "websocket", command, true);
    let answer = accept::<()>(&headers, command).unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    check("v4.channel.k8s.io, v5.channel.k8s.io", "WebSocket", command, true);
    check("v4.channel.k8s.io", "websocket", command, false);
    check("v5.channel.k8s.io", "SPDY/3.1", command, false);
    check("v5.channel.k8s.io", "websocket", Translation::PortForward, false);
    check("SPDY/3.1+portforward.k8s.io", "websocket", Translation::PortForward, true);
    assert!(accept::<()>(&http::HeaderMap::new(), command).is_none());
}
