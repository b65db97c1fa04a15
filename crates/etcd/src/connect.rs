//! One HTTP/2 connection an endpoint, made again when it breaks; TLS with our own rustls.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::{Config, EtcdError};

/// How long a connection may take until it is there, TLS included (upstream's client waits 20 s in all).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An open call's connection is asked so often whether it lives; etcd minds less than 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long that question may go unanswered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 windows, in bytes: a list is many MiB.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An endpoint's scheme, host and port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn parse(endpoint: &str) -> Result<Address, EtcdError> {
        let fault = |reason| EtcdError::Endpoint { endpoint: endpoint.to_owned(), reason };
        let (tls, rest) = match endpoint.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(fault("only http and https are spoken")),
            None => (false, endpoint),
        };
        let authority: http::uri::Authority =
            rest.trim_end_matches('/').parse().map_err(|_| fault("not a host and a port"))?;
        let port = authority.port_u16().ok_or_else(|| fault("the port is missing"))?;
        if authority.as_str().contains('@') {
            return Err(fault("a user has no place here: use a client certificate"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(fault("the host is missing"));
        }
        Ok(Address { tls, host, port })
    }

    fn url(&self, scheme: &str) -> String {
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{}{}{}:{}", brackets.0, self.host, brackets.1, self.port)
    }
}

/// The client's half of TLS, from the files of the configuration; `None` when no endpoint needs it.
pub(crate) fn tls(config: &Config, addresses: &[Address]) -> Result<Option<TlsConnector>, EtcdError> {
    if !addresses.iter().any(|a| a.tls) {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    let file = match &config.ca {
        Some(file) => Some(file.as_path()),
        None => SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists()),
    };
    for certificate in certificates(file.ok_or(EtcdError::NoRoots)?)? {
        // Systems hold certificates that no standard admits; one bad root is not the user's fault.
        if let Err(error) = roots.add(certificate)
            && let Some(path) = &config.ca
        {
            return Err(EtcdError::Pem { path: path.clone(), reason: error.to_string() });
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| EtcdError::Pem { path: file.map(Into::into).unwrap_or_default(), reason: e.to_string() })?
        .with_root_certificates(roots);
    let mut client = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let fault = |reason: String| EtcdError::Pem { path: key.clone(), reason };
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(format!("no private key: {e}")))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|e| fault(format!("does not belong to {}: {e}", cert.display())))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(EtcdError::HalfAnIdentity),
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(client))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let fault = |reason: String| EtcdError::Pem { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| fault(e.to_string()))?;
    if all.is_empty() { Err(fault("holds no certificate".to_owned())) } else { Ok(all) }
}

/// A channel that connects with its first call.
pub(crate) fn channel(address: Address, tls: Option<TlsConnector>) -> Result<Channel, EtcdError> {
    let scheme = if address.tls { "https" } else { "http" };
    let fault = |reason| EtcdError::Endpoint { endpoint: address.url(scheme), reason };
    let origin: Uri = address.url(scheme).parse().map_err(|_| fault("not a URL"))?;
    // TLS is the connector's matter; of the URL only the origin shows on the wire.
    let endpoint = Endpoint::from_shared(address.url("http"))
        .map_err(|_| fault("not a URL"))?
        .origin(origin)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let name = ServerName::try_from(address.host.clone()).map_err(|_| fault("not a host name"))?;
    let address = Arc::new(address);
    let connector = tower::service_fn(move |_: Uri| {
        let (address, tls, name) = (address.clone(), tls.clone(), name.clone());
        async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, dial(&address, tls, name)).await {
                Ok(done) => done,
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
            }
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn dial(
    address: &Address,
    tls: Option<TlsConnector>,
    name: ServerName<'static>,
) -> std::io::Result<TokioIo<Box<dyn Io>>> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
    tcp.set_nodelay(true)?;
    let io: Box<dyn Io> = match tls {
        Some(tls) if address.tls => Box::new(tls.connect(name, tcp).await?),
        _ => Box::new(tcp),
    };
    Ok(TokioIo::new(io))
}

/// A call on behalf of a request carries the request's trace.
pub(crate) fn traced<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(value) = ironkeel_trace::traceparent().and_then(|t| t.parse().ok()) {
        request.metadata_mut().insert(ironkeel_trace::TRACEPARENT, value);
    }
    request
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_read_as_upstream_reads_them() {
        let address = |tls, host: &str, port| Address { tls, host: host.to_owned(), port };
        for (text, wanted) in [
            ("https://etcd-1.example:2379", address(true, "etcd-1.example", 2379)),
            ("http://127.0.0.1:2379/", address(false, "127.0.0.1", 2379)),
            ("127.0.0.1:2379", address(false, "127.0.0.1", 2379)),
            ("https://[::1]:2379", address(true, "::1", 2379)),
        ] {
            assert_eq!(Address::parse(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "https://host", "ftp://host:1", "host", "https://user@host:1", "http://:1"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(address(true, "::1", 1).url("https"), "https://[::1]:1");
    }
}
