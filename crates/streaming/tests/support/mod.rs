//! A backend that runs real processes, and clients for it.
#![allow(clippy::unwrap_used, dead_code)]

use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use ironkeel_streaming::spdy::Connection;
use ironkeel_streaming::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) struct Processes;

#[async_trait]
impl Backend for Processes {
    async fn exec(&self, request: &ExecRequest, mut io: SessionIo) -> Result<ExitStatus, StreamError> {
        if request.cmd[0] == "sizes" {
            let mut stdout = io.stdout.unwrap();
            while let Some(size) = io.resize.recv().await {
                stdout.write_all(format!("{}x{};", size.width, size.height).as_bytes()).await?;
                if size.width == 9 {
                    break;
                }
            }
            return Ok(ExitStatus(0));
        }
        let mut child = tokio::process::Command::new(&request.cmd[0])
            .args(&request.cmd[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| StreamError::Start { command: request.cmd[0].clone(), reason: e.to_string() })?;
        let (mut to, mut out, mut err) =
            (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        if let Some(mut stdin) = io.stdin {
            tokio::spawn(async move { tokio::io::copy(&mut stdin, &mut to).await });
        }
        let outputs = async {
            tokio::join!(
                async {
                    if let Some(mut stdout) = io.stdout {
                        let _ = tokio::io::copy(&mut out, &mut stdout).await;
                    }
                },
                async {
                    if let Some(mut stderr) = io.stderr {
                        let _ = tokio::io::copy(&mut err, &mut stderr).await;
                    }
                }
            )
        };
        let (status, _) = tokio::join!(child.wait(), outputs);
        Ok(ExitStatus(status?.code().unwrap_or(137)))
    }

    async fn attach(&self, _: &AttachRequest, mut io: SessionIo) -> Result<(), StreamError> {
        let mut line = [0; 5];
        io.stdin.as_mut().unwrap().read_exact(&mut line).await?;
        io.stdout.as_mut().unwrap().write_all(&line).await?;
        Ok(())
    }

    async fn port_forward(&self, _: &str, port: u16, stream: PortStream) -> Result<(), StreamError> {
        let pod =
            TcpStream::connect(("127.0.0.1", port)).await.map_err(|source| StreamError::Connect { port, source })?;
        pod.set_nodelay(true)?;
        tunnel(stream, pod).await?;
        Ok(())
    }
}

pub(crate) async fn server() -> (StreamingServer, DropGuard) {
    let shutdown = CancellationToken::new();
    (StreamingServer::start(Arc::new(Processes), shutdown.clone()).await.unwrap(), shutdown.drop_guard())
}

pub(crate) fn sh(script: &str) -> ExecRequest {
    let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecRequest { container_id: "c".into(), cmd, tty: false, stdin: true, stdout: true, stderr: true }
}

/// Every byte that it gets, back; the end when it is the client's.
pub(crate) async fn echo_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.write_all(b"|end").await.unwrap();
            });
        }
    });
    port
}

/// A port of loopback that nobody listens on.
pub(crate) async fn closed_port() -> u16 {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

pub(crate) async fn websocket(url: &str, protocol: &str) -> Socket {
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
}

pub(crate) async fn send(socket: &mut Socket, channel: u8, data: &[u8]) {
    socket.send(Message::Binary([&[channel], data].concat().into())).await.unwrap();
}

/// What came on each channel until the server closed.
pub(crate) async fn drain(socket: &mut Socket) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(data) = message {
            channels[usize::from(data[0])].extend_from_slice(&data[1..]);
        }
    }
    channels
}

pub(crate) fn status(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Sends a request as it is and returns the head of the answer.
pub(crate) async fn request(url: &str, headers: &str) -> (String, TcpStream) {
    let url: http::Uri = url.parse().unwrap();
    let mut stream = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = format!("POST {} HTTP/1.1\r\nHost: loopback\r\n{headers}\r\n", url.path());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), stream)
}

pub(crate) async fn upgrade(url: &str, protocol: &str) -> TcpStream {
    let headers = format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n");
    let (answer, stream) = request(url, &headers).await;
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains(&format!("x-stream-protocol-version: {protocol}")), "{answer}");
    stream
}

pub(crate) async fn spdy(url: &str, protocol: &str) -> Connection {
    Connection::client(upgrade(url, protocol).await)
}
