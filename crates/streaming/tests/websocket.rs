//! Remote commands and port forward over WebSocket channels, and the answers to bad requests.
#![allow(clippy::unwrap_used)]

mod support;

use futures::{SinkExt, StreamExt};
use ironkeel_streaming::*;
use support::*;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn v4_tells_output_and_exit_code() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("echo out; echo err >&2; exit 3")).unwrap();
    let mut socket = websocket(&url, "v4.channel.k8s.io").await;
    let [_, stdout, stderr, error, _] = drain(&mut socket).await;
    assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let status = status(&error);
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0], serde_json::json!({"reason": "ExitCode", "message": "3"}));
}

#[tokio::test]
async fn v5_ends_stdin_and_keeps_the_output() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("cat; echo done")).unwrap();
    let mut socket = websocket(&url, "v5.channel.k8s.io").await;
    send(&mut socket, 0, b"hello ").await;
    send(&mut socket, 255, &[0]).await;
    let [_, stdout, _, error, _] = drain(&mut socket).await;
    assert_eq!(stdout, b"hello done\n");
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn ten_mebibytes_arrive_whole() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("head -c 10485760 /dev/zero")).unwrap();
    let mut socket = websocket(&url, "v5.channel.k8s.io").await;
    let [_, stdout, _, error, _] = drain(&mut socket).await;
    assert_eq!(stdout.len(), 10 << 20);
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let (server, _guard) = server().await;
    let request = ExecRequest { cmd: vec!["sizes".into()], tty: true, ..sh("") };
    let mut socket = websocket(&server.exec_url(request).unwrap(), "v4.channel.k8s.io").await;
    send(&mut socket, 4, b"not a size").await;
    send(&mut socket, 4, br#"{"Width":9,"Height":24}"#).await;
    let [_, stdout, ..] = drain(&mut socket).await;
    assert_eq!(stdout, b"9x24;");
}

#[tokio::test]
async fn base64_carries_text() {
    let (server, _guard) = server().await;
    let url = server.exec_url(sh("read line; echo $line")).unwrap();
    let mut socket = websocket(&url, "v4.base64.channel.k8s.io").await;
    socket.send(Message::Text("0aGkK".into())).await.unwrap();
    let mut texts = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            texts.push(text.to_string());
        }
    }
    assert_eq!(texts[..2], ["1", "1aGkK"]);
    assert!(texts[2].starts_with('3'));
}

#[tokio::test]
async fn the_first_version_says_only_failures() {
    let (server, _guard) = server().await;
    for (script, failure) in [("exit 0", ""), ("exit 4", "exit code 4")] {
        let mut socket = websocket(&server.exec_url(sh(script)).unwrap(), "channel.k8s.io").await;
        let [_, _, _, error, _] = drain(&mut socket).await;
        let error = String::from_utf8(error).unwrap();
        assert!(error.ends_with(failure) && error.is_empty() == failure.is_empty(), "{error}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_start_is_an_internal_error() {
    let (server, _guard) = server().await;
    let request = ExecRequest { cmd: vec!["/nonexistent".into()], ..sh("") };
    let mut socket = websocket(&server.exec_url(request).unwrap(), "v5.channel.k8s.io").await;
    let [_, _, _, error, _] = drain(&mut socket).await;
    assert_eq!(status(&error)["reason"], "InternalError");
}

#[tokio::test]
async fn attach_connects_both_ways() {
    let (server, _guard) = server().await;
    let request = AttachRequest { container_id: "c".into(), tty: true, stdin: true, stdout: true, stderr: false };
    let mut socket = websocket(&server.attach_url(request).unwrap(), "v4.channel.k8s.io").await;
    send(&mut socket, 0, b"12345").await;
    let [_, stdout, _, error, _] = drain(&mut socket).await;
    assert_eq!(stdout, b"12345");
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn ports_have_two_channels() {
    let (server, _guard) = server().await;
    let (open, closed) = (echo_port().await, closed_port().await);
    let request = PortForwardRequest { sandbox_id: "s".into(), ports: vec![open, closed] };
    let mut socket = websocket(&server.port_forward_url(request).unwrap(), "v4.channel.k8s.io").await;
    send(&mut socket, 0, b"ping").await;
    let mut channels: [Vec<u8>; 4] = Default::default();
    while channels[0].len() < 6 || channels[3].len() < 3 {
        let message = socket.next().await.unwrap().unwrap().into_data();
        channels[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    assert_eq!(channels[0], [&open.to_le_bytes()[..], b"ping"].concat());
    assert_eq!(channels[1], open.to_le_bytes());
    assert_eq!(channels[3][..2], closed.to_le_bytes());
    assert!(String::from_utf8_lossy(&channels[3][2..]).starts_with("error forwarding port"));
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused() {
    let (server, _guard) = server().await;
    let websocket =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AA==\r\n";
    let check = async |headers: String, status: &str| {
        let url = server.exec_url(sh("")).unwrap();
        let (answer, _) = request(&url, &headers).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{headers}: {answer}");
        let (answer, _) = request(&url, &headers).await;
        assert!(answer.starts_with("http/1.1 404"), "a token worked twice: {answer}");
        let (answer, _) = request(&server.exec_url(sh("")).unwrap().replace("/exec/", "/attach/"), &headers).await;
        assert!(answer.starts_with("http/1.1 404"), "a token worked for another verb: {answer}");
    };
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    check(String::new(), "400").await;
    check(spdy.into(), "400").await;
    check(format!("{spdy}X-Stream-Protocol-Version: v9\r\n"), "403").await;
    check(format!("{websocket}Sec-WebSocket-Protocol: v9\r\n"), "403").await;
    check("Connection: Upgrade\r\nUpgrade: websocket\r\n".into(), "400").await;
}

#[tokio::test]
async fn hostile_messages_end_at_most_their_own_session() {
    let (server, _guard) = server().await;
    let mut socket = websocket(&server.exec_url(sh("cat; echo end")).unwrap(), "v5.channel.k8s.io").await;
    for message in [&[][..], &[9, 1], &[200], &[255, 77], &[4, b'{'], &[3, b'x'], &[1, b'y']] {
        socket.send(Message::Binary(message.to_vec().into())).await.unwrap();
    }
    send(&mut socket, 0, b"fine ").await;
    send(&mut socket, 255, &[0]).await;
    assert_eq!(drain(&mut socket).await[1], b"fine end\n");

    let mut socket = websocket(&server.exec_url(sh("cat")).unwrap(), "v4.channel.k8s.io").await;
    let oversized = vec![0; ironkeel_streaming::websocket::MAX_MESSAGE_BYTES + 1];
    // The server may hang up before it has all been sent.
    let _ = socket.send(Message::Binary(oversized.into())).await;
    assert!(drain(&mut socket).await[1].is_empty());

    let mut socket = websocket(&server.exec_url(sh("cat")).unwrap(), "v4.base64.channel.k8s.io").await;
    for text in ["0!!!", "z", " ", "9aGkK"] {
        socket.send(Message::Text(text.into())).await.unwrap();
    }
    socket.close(None).await.unwrap();
    drain(&mut socket).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_stdin_and_cancels() {
    let (server, _guard) = server().await;
    let directory = std::env::temp_dir().join(format!("streaming-{}", std::process::id()));
    let script = format!("cat; echo left > {}", directory.display());
    let mut socket = websocket(&server.exec_url(sh(&script)).unwrap(), "v4.channel.k8s.io").await;
    send(&mut socket, 0, b"x").await;
    while socket.next().await.unwrap().unwrap().into_data()[..] != [1, b'x'] {}
    drop(socket);
    let written = async {
        while tokio::fs::read(&directory).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), written).await.unwrap();
    std::fs::remove_file(&directory).unwrap();
}

#[tokio::test]
async fn shutdown_closes_sessions_and_the_listener() {
    let (server, guard) = server().await;
    let mut socket = websocket(&server.exec_url(sh("cat")).unwrap(), "v4.channel.k8s.io").await;
    drop(guard);
    assert!(drain(&mut socket).await[3].is_empty());
    let refused = async { while tokio::net::TcpStream::connect(server.address()).await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), refused).await.unwrap();
}
