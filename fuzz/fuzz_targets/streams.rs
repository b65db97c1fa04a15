//! SPDY and WebSocket frames of a stranger, on both sides, and the sessions made of them: nothing panics, and every
//! session ends when its client has gone. The first byte chooses what reads.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ironkeel_streaming::spdy::Connection;
use ironkeel_streaming::websocket::{ByteTunnel, config};
use ironkeel_streaming::{
    AttachRequest, Backend, ExecRequest, ExitStatus, PortForwardRequest, PortStream, SessionIo, StreamError,
    StreamingServer,
};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

/// After this a session that has lost its client is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

const UPGRADES: &[(bool, &str)] = &[
    (false, "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io"),
    (true, "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io"),
    (false, "Upgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io"),
    (false, "Upgrade: websocket\r\nSec-WebSocket-Protocol: v4.base64.channel.k8s.io"),
    (false, "Upgrade: websocket\r\nSec-WebSocket-Protocol: channel.k8s.io"),
    (true, "Upgrade: websocket\r\nSec-WebSocket-Protocol: v4.channel.k8s.io"),
    (true, "Upgrade: websocket\r\nSec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io"),
];

/// Gives everything back.
struct Echo;

#[async_trait]
impl Backend for Echo {
    async fn exec(&self, _: &ExecRequest, io: SessionIo) -> Result<ExitStatus, StreamError> {
        if let (Some(mut stdin), Some(mut stdout)) = (io.stdin, io.stdout) {
            let _ = tokio::io::copy(&mut stdin, &mut stdout).await;
        }
        Ok(ExitStatus(3))
    }

    async fn attach(&self, _: &AttachRequest, _: SessionIo) -> Result<(), StreamError> {
        Ok(())
    }

    async fn port_forward(&self, _: &str, _: u16, mut stream: PortStream) -> Result<(), StreamError> {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(&all).await;
        let _ = stream.shutdown().await;
        Ok(())
    }
}

/// Accepts what the peer opens and sends its data back.
async fn spdy(bytes: &[u8], server: bool) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut connection = if server { Connection::server(theirs) } else { Connection::client(theirs) };
    let (mut reader, mut writer) = tokio::io::split(ours);
    let bytes = bytes.to_vec();
    let peer = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        let mut sink = Vec::new();
        let _ = reader.read_to_end(&mut sink).await;
    });
    if !server {
        // The answer is the fuzzer's, or never comes.
        let opened = tokio::time::timeout(Duration::from_secs(1), connection.open(&[("streamtype", "data")])).await;
        drop(opened);
    }
    let mut sessions = tokio::task::JoinSet::new();
    while let Some(stream) = connection.next_stream().await {
        sessions.spawn(async move {
            if stream.id() % 3 == 0 {
                return stream.refuse().await;
            }
            if stream.accept().await.is_ok() {
                let (mut data, out) = stream.split();
                out.copy_from(&mut data).await;
            }
        });
    }
    while sessions.join_next().await.is_some() {}
    connection.close().await;
    let _ = peer.await;
}

async fn tunnel(bytes: &[u8], role: Role) {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let mut tunnel = ByteTunnel::new(WebSocketStream::from_raw_socket(theirs, role, Some(config())).await);
    ours.write_all(bytes).await.expect("room in the pipe");
    let _ = ours.shutdown().await;
    let mut all = Vec::new();
    let _ = tunnel.read_to_end(&mut all).await;
    let _ = tunnel.write_all(&all).await;
    let _ = tunnel.shutdown().await;
}

/// A session over a socket, from the upgrade on.
async fn session(bytes: &[u8], forward: bool, upgrade: &str) {
    let shutdown = CancellationToken::new();
    let server = StreamingServer::start(Arc::new(Echo), shutdown.clone()).await.expect("a listener");
    let url = if forward {
        server.port_forward_url(PortForwardRequest { sandbox_id: "s".into(), ports: vec![80] })
    } else {
        let cmd = vec!["x".into()];
        let container_id = "c".into();
        server.exec_url(ExecRequest { container_id, cmd, tty: false, stdin: true, stdout: true, stderr: true })
    };
    let url = url.expect("a URL");
    let path = &url[url.find("//").map_or(0, |at| at + 2)..];
    let path = &path[path.find('/').unwrap_or(0)..];
    let mut socket = tokio::net::TcpStream::connect(server.address()).await.expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{upgrade}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let method = if upgrade.contains("websocket") { head.replacen("POST", "GET", 1) } else { head };
    let _ = socket.write_all(method.as_bytes()).await;
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the session ends");
    let head = String::from_utf8_lossy(&answer);
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 101"), "{head}");
    shutdown.cancel();
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let choice = usize::from(*first) % (4 + UPGRADES.len());
    // Waits for a client's politeness cost nothing where no socket is involved.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(choice < 4).build();
    runtime.expect("a runtime").block_on(async {
        match choice {
            0 => spdy(bytes, true).await,
            1 => spdy(bytes, false).await,
            2 => tunnel(bytes, Role::Server).await,
            3 => tunnel(bytes, Role::Client).await,
            other => {
                let (forward, upgrade) = UPGRADES[other - 4];
                session(bytes, forward, upgrade).await;
            }
        }
    });
});
