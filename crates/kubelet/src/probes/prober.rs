//! One probe or hook, made once: HTTP, HTTPS, TCP, gRPC or a command in the container.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::runtime::Runtime;

/// Characters of a failed probe's output that are kept.
const OUTPUT_CHARACTERS: usize = 10 << 10;
/// Redirects to the same host that a probe follows.
const MAX_REDIRECTS: usize = 10;

/// What a probe found: fine, or the reason why not.
pub(crate) type Outcome = Result<(), String>;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    Exec(ExecAction),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Grpc(GRPCAction),
}

/// Whom it is asked of.
#[derive(Clone)]
pub(crate) struct Subject<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) container: &'a Container,
    pub(crate) container_id: &'a str,
    pub(crate) pod_ip: Option<&'a str>,
}

/// Asks once, within `timeout`.
pub(crate) async fn check(check: &Check, subject: &Subject<'_>, timeout: Duration) -> Outcome {
    match check {
        Check::Exec(action) => exec(action, subject, timeout).await,
        _ => {
            let asked = async {
                match check {
                    Check::Http(action) => http_get(action, subject).await.map(drop),
                    Check::Tcp(action) => tcp(action, subject).await,
                    Check::Grpc(action) => grpc(action, subject).await,
                    Check::Exec(_) => Ok(()),
                }
            };
            let late = || Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned());
            tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| late())
        }
    }
}

async fn exec(action: &ExecAction, subject: &Subject<'_>, timeout: Duration) -> Outcome {
    let command = action.command.clone().unwrap_or_default();
    match subject.runtime.exec_sync(subject.container_id, &command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let mut output = String::from_utf8_lossy(&answer.stdout).into_owned();
            output.push_str(&String::from_utf8_lossy(&answer.stderr));
            Err(output.chars().take(OUTPUT_CHARACTERS).collect())
        }
        Err(error) => Err(format!("command {command:?} failed: {error}")),
    }
}

/// A port by number or by the container's name for it.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let mut ports = container.ports.iter().flatten();
            ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port)
        }),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port {port:?} of container {}", container.name))
}

fn host<'a>(given: Option<&'a str>, subject: &Subject<'a>) -> Result<&'a str, String> {
    given.filter(|host| !host.is_empty()).or(subject.pod_ip).ok_or_else(|| "the pod has no address".to_owned())
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = host.parse::<IpAddr>().map(|ip| std::net::SocketAddr::from((ip, port)));
    let stream = match address {
        Ok(address) => TcpStream::connect(address).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    stream.map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

async fn tcp(action: &TCPSocketAction, subject: &Subject<'_>) -> Outcome {
    let host = host(action.host.as_deref(), subject)?;
    connect(host, port(&action.port, subject.container)?).await.map(drop)
}

/// The answer's status code, when it is between 200 and 399.
pub(crate) async fn http_get(action: &HTTPGetAction, subject: &Subject<'_>) -> Result<u16, String> {
    let host = host(action.host.as_deref(), subject)?;
    let port = port(&action.port, subject.container)?;
    let https = action.scheme.as_deref() == Some("HTTPS");
    let mut path = action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into());
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    for _ in 0..MAX_REDIRECTS {
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = http::Request::get(&path);
        let headers = action.http_headers.iter().flatten();
        let named = |wanted: &str| headers.clone().any(|header| header.name.eq_ignore_ascii_case(wanted));
        if !named("host") {
            request = request.header("Host", &authority);
        }
        if !named("user-agent") {
            request = request.header("User-Agent", "kube-probe/1.36");
        }
        if !named("accept") {
            request = request.header("Accept", "*/*");
        }
        for header in headers.clone() {
            request = request.header(&header.name, &header.value);
        }
        let request = request.header("Connection", "close").body(Full::new(Bytes::new())).map_err(|e| e.to_string())?;
        let stream = connect(host, port).await?;
        let (parts, body) =
            if https { send(tls(stream, host).await?, request).await? } else { send(stream, request).await? };
        let code = parts.status.as_u16();
        let location = parts.headers.get(http::header::LOCATION).and_then(|location| location.to_str().ok());
        match location {
            Some(location) if (300..400).contains(&code) => match same_host(location, &authority, https) {
                Some(next) => path = next,
                None => return Ok(code),
            },
            _ if (200..400).contains(&code) => return Ok(code),
            _ => {
                tracing::trace!(code, body = %String::from_utf8_lossy(&body), "probe refused");
                return Err(format!("HTTP probe failed with statuscode: {code}"));
            }
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// The path of a redirect that stays where it is.
fn same_host(location: &str, authority: &str, https: bool) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    let prefix = format!("{}://{authority}", if https { "https" } else { "http" });
    let rest = location.strip_prefix(&prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| if rest.is_empty() { "/".into() } else { rest.to_owned() })
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: http::Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    let answer = answer?;
    let (parts, body) = answer.into_parts();
    let body = http_body_util::Limited::new(body, OUTPUT_CHARACTERS).collect().await;
    connection.abort();
    Ok((parts, body.map(|body| body.to_bytes()).unwrap_or_default()))
}

async fn tls(stream: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
}

/// Probes do not verify certificates: upstream's rule.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// grpc.health.v1.Health/Check: field 1 of the request is the service, field 1 of the answer the status; 1 is SERVING.
async fn grpc(action: &GRPCAction, subject: &Subject<'_>) -> Outcome {
    let host = host(None, subject)?;
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port {}", action.port))?;
    let stream = connect(host, port).await?;
    let service = action.service.as_deref().unwrap_or_default().as_bytes();
    let mut message = Vec::with_capacity(service.len() + 7);
    if !service.is_empty() && service.len() < 128 {
        message.extend([0x0a, service.len() as u8]);
        message.extend(service);
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let body = http_body_util::Limited::new(answer.into_body(), OUTPUT_CHARACTERS).collect().await;
    connection.abort();
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    match body.get(5..7) {
        Some([0x08, 1]) => Ok(()),
        _ => Err("service unhealthy (responded with something other than SERVING)".into()),
    }
}
