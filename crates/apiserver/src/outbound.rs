//! Connections that the API server makes itself: to kubelets, Pods, Services and extension API
//! servers. One connection a request, never used again: whatever a backend answers to an upgrade, no
//! later request can ride on it (CVE-2018-1002105).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ironkeel_auth::pki::AnyCertificate;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::Body;

/// How long connecting to one address may take, in seconds.
const CONNECT_SECONDS: u64 = 10;
/// Where hosts keep the certificates of public authorities.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Both directions of a connection.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Where a backend is to be found.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    /// At any of these, tried in order.
    Addresses(Vec<SocketAddr>),
    /// Under a DNS name.
    Name(String, u16),
}

impl Host {
    pub(crate) fn at(address: IpAddr, port: u16) -> Self {
        Host::Addresses(vec![SocketAddr::new(address, port)])
    }

    /// `host:port`, for messages and the `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self {
            Host::Addresses(all) => all.first().map(SocketAddr::to_string).unwrap_or_default(),
            Host::Name(name, port) => format!("{name}:{port}"),
        }
    }
}

/// TLS, and the name to check (none: the address).
pub(crate) type BackendTls = (Arc<ClientConfig>, Option<String>);

/// A server to connect to.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) host: Host,
    /// Absent for plain HTTP.
    pub(crate) tls: Option<BackendTls>,
}

/// A client certificate with its key.
#[derive(Debug)]
pub struct ClientIdentity {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// Whose certificates a backend may show.
pub(crate) enum Trust<'a> {
    /// Anybody's.
    Anyone,
    /// The authorities of the host.
    System,
    /// These, in PEM.
    Bundle(&'a [u8]),
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("unable to load root certificates: {e}"))?;
        // A bundle of a host may hold what webpki refuses; the others still count.
        let _ = store.add(certificate);
    }
    if store.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    Ok(store)
}

/// TLS towards a backend, HTTP/1.1 only.
pub(crate) fn client_tls(trust: Trust<'_>, identity: Option<&ClientIdentity>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match trust {
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::default())),
        Trust::System => {
            let pem = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
            let store = match pem {
                Some(pem) => roots(&pem)?,
                None => RootCertStore::empty(),
            };
            builder.with_root_certificates(store)
        }
        Trust::Bundle(pem) => builder.with_root_certificates(roots(pem)?),
    };
    let mut config = match identity {
        Some(i) => builder.with_client_auth_cert(i.chain.clone(), i.key.clone_key()).map_err(|e| e.to_string())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS towards kubelets: whom to believe (PEM; anybody where absent), and our own certificate.
///
/// # Errors
/// Certificates that cannot be used.
pub fn kubelet_tls(ca_pem: Option<&[u8]>, identity: Option<&ClientIdentity>) -> Result<Arc<ClientConfig>, String> {
    client_tls(ca_pem.map_or(Trust::Anyone, Trust::Bundle), identity)
}

/// Makes a rustls client configuration speak HTTP/1.1 alone.
pub(crate) fn http1_only(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn dial(address: SocketAddr) -> Result<TcpStream, String> {
    let wait = Duration::from_secs(CONNECT_SECONDS);
    match tokio::time::timeout(wait, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {address}: connect: connection refused"))
        }
        Ok(Err(e)) => Err(format!("dial tcp {address}: {e}")),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Connects, with TLS where the backend has it.
pub(crate) async fn connect(backend: &Backend) -> Result<Box<dyn Duplex>, String> {
    let resolved;
    let addresses: &[SocketAddr] = match &backend.host {
        Host::Addresses(addresses) => addresses,
        Host::Name(name, port) => {
            resolved = tokio::net::lookup_host((name.as_str(), *port))
                .await
                .map_err(|e| format!("dial tcp: lookup {name}: {e}"))?
                .collect::<Vec<_>>();
            &resolved
        }
    };
    let mut outcome = Err("no address to connect to".to_owned());
    for address in addresses {
        outcome = dial(*address).await.map(|socket| (socket, *address));
        if outcome.is_ok() {
            break;
        }
    }
    let (socket, address) = outcome?;
    let _ = socket.set_nodelay(true);
    let Some((config, name)) = &backend.tls else { return Ok(Box::new(socket)) };
    let name = match name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| format!("{name:?} is no server name"))?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    let handshake = tokio_rustls::TlsConnector::from(config.clone()).connect(name, socket);
    match tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS), handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(e)) => Err(format!("tls: failed to verify certificate: {e}")),
        Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
    }
}

/// Sends one request over a connection of its own, which may become a tunnel.
pub(crate) async fn send(backend: &Backend, request: Request<Body>) -> Result<Response<Incoming>, String> {
    let io = connect(backend).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(io)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a backend ended early");
        }
    });
    sender.send_request(request).await.map_err(|e| e.to_string())
}
