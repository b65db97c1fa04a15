//! One connection: find the address, connect, shake hands.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{DEFAULT_SERVICE_PORT, Endpoint, Place, Resolver, Target, TargetError, tls};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Resolve(String),
    #[error("dial tcp: lookup {host}: {why}")]
    Lookup { host: String, why: String },
    #[error("dial tcp {address}: connect: {why}")]
    Dial { address: SocketAddr, why: String },
    #[error("{0}")]
    Tls(String),
}

#[derive(Clone)]
enum Destination {
    Fixed(String, u16),
    Service { namespace: String, name: String, port: u16 },
}

/// Connects to one target.
#[derive(Clone)]
pub(crate) struct Connector {
    destination: Destination,
    resolver: Arc<dyn Resolver>,
    server_name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn new(target: &Target, base: &Uri, resolver: Arc<dyn Resolver>) -> Result<Self, TargetError> {
        let bad = || TargetError::Url(base.to_string());
        let host = base.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']');
        let destination = match &target.endpoint {
            Endpoint::Url(_) => Destination::Fixed(host.to_owned(), base.port_u16().unwrap_or(DEFAULT_SERVICE_PORT)),
            Endpoint::Service { namespace, name, port, .. } => {
                Destination::Service { namespace: namespace.clone(), name: name.clone(), port: *port }
            }
        };
        let server_name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::from(ip),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(|_| bad())?,
        };
        let tls = TlsConnector::from(Arc::new(tls::config(&target.ca_bundle_pem, &target.credentials)?));
        Ok(Connector { destination, resolver, server_name, tls })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let (host, port) = match &self.destination {
            Destination::Fixed(host, port) => (host.clone(), *port),
            Destination::Service { namespace, name, port } => {
                match self.resolver.resolve(namespace, name, *port).map_err(ConnectError::Resolve)? {
                    Place::Address(address) => return Ok(vec![address]),
                    Place::Host(host, port) => (host, port),
                }
            }
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        match found.map(Iterator::collect::<Vec<_>>) {
            Ok(all) if !all.is_empty() => Ok(all),
            _ => Err(ConnectError::Lookup { host, why: "no such host".into() }),
        }
    }

    async fn connect(self) -> Result<Stream, ConnectError> {
        let mut last = ConnectError::Resolve("no address".into());
        for address in self.addresses().await? {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    // A webhook's answer is one small message; waiting to fill packets gains nothing.
                    let _ = socket.set_nodelay(true);
                    let name = self.server_name.clone();
                    return match self.tls.connect(name, socket).await {
                        Ok(stream) => Ok(Stream(TokioIo::new(stream))),
                        Err(e) => Err(ConnectError::Tls(tls::handshake_text(&e))),
                    };
                }
                Err(e) => last = ConnectError::Dial { address, why: dial_text(&e) },
            }
        }
        Err(last)
    }
}

fn dial_text(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => e.to_string(),
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A TLS connection as hyper's pool wants it.
pub(crate) struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
