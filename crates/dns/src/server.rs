//! DNS over UDP and TCP (RFC 1035, RFC 7766).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{Error, Resolver};

/// Largest UDP answer, in bytes (the size that avoids fragments: DNS flag day 2020).
pub(crate) const MAX_UDP_BYTES: usize = 1_232;
/// Largest UDP answer to a client without EDNS, in bytes.
const PLAIN_UDP_BYTES: u16 = 512;
/// Queries in work at once; more wait in the sockets' buffers.
const MAX_QUERIES: usize = 1_024;
/// TCP connections at once.
const MAX_CONNECTIONS: usize = 256;
/// A TCP client that says nothing for so long is hung up on, in seconds.
const TCP_IDLE_SECONDS: u64 = 10;

/// Sockets of one address, open before anyone is told of them.
#[derive(Debug)]
pub struct Bound {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Bound {
    /// Opens UDP and TCP at `address`.
    pub async fn bind(address: SocketAddr) -> Result<Bound, Error> {
        let fail = |source| Error::Bind { address, source };
        let tcp = TcpListener::bind(address).await.map_err(fail)?;
        let address = tcp.local_addr().map_err(fail)?;
        let udp = UdpSocket::bind(address).await.map_err(fail)?;
        Ok(Bound { udp, tcp })
    }

    /// Where the sockets are.
    pub fn address(&self) -> Option<SocketAddr> {
        self.udp.local_addr().ok()
    }
}

pub(crate) async fn serve(sockets: Vec<Bound>, resolver: Arc<Resolver>, shutdown: CancellationToken) {
    let queries = Arc::new(Semaphore::new(MAX_QUERIES));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    for Bound { udp, tcp } in sockets {
        tasks.spawn(serve_udp(Arc::new(udp), resolver.clone(), queries.clone()));
        tasks.spawn(serve_tcp(tcp, resolver.clone(), connections.clone()));
    }
    shutdown.cancelled().await;
    tasks.shutdown().await;
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>, limit: Arc<Semaphore>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let (n, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error of an earlier answer; the socket goes on.
            Err(_) => continue,
        };
        let (bytes, socket, resolver) = (buffer[..n].to_vec(), socket.clone(), resolver.clone());
        tokio::spawn(async move {
            if let Some(reply) = resolver.resolve(&bytes).await {
                let limit = reply.edns.as_ref().map_or(PLAIN_UDP_BYTES, |e| e.max_payload());
                if let Some(bytes) = encode(&reply, limit.into()) {
                    // The client may be gone; nobody is waiting then.
                    let _ = socket.send_to(&bytes, client).await;
                }
            }
            drop(permit);
        });
    }
}

/// The reply's bytes; cut to its head with the truncation bit when it is too long.
fn encode(reply: &Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.truncate().to_vec().ok()
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>, limit: Arc<Semaphore>) {
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a DNS connection");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let resolver = resolver.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &resolver).await {
                tracing::trace!(%error, "DNS over TCP");
            }
            drop(permit);
        });
    }
}

async fn converse(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; length.into()];
            stream.read_exact(&mut bytes).await?;
            std::io::Result::Ok(bytes)
        };
        let bytes = tokio::time::timeout(Duration::from_secs(TCP_IDLE_SECONDS), read).await??;
        let Some(reply) = resolver.resolve(&bytes).await else { return Ok(()) };
        let reply = reply.to_vec().map_err(std::io::Error::other)?;
        stream.write_u16(reply.len() as u16).await?;
        stream.write_all(&reply).await?;
    }
}
