//! Clients on real sockets, and a server that answers what a test says.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ironkeel_auth::pki::CertificateKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::Cluster;

/// A TLS connection, with or without a client certificate.
pub(crate) async fn tls(c: &Cluster, pair: Option<&CertificateKey>, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut config = (*c.pki.client_tls_with(pair).unwrap()).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(c.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

pub(crate) struct Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

/// One HTTP/1.1 connection.
pub(crate) async fn http1(c: &Cluster, pair: Option<&CertificateKey>) -> Http1 {
    let io = TokioIo::new(tls(c, pair, b"http/1.1").await);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    Http1(sender)
}

impl Http1 {
    pub(crate) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Response<Bytes> {
        request.headers_mut().insert("host", "api".parse().unwrap());
        self.0.ready().await.unwrap();
        let (parts, body) = self.0.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri(path);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        self.send(request.body(Full::default()).unwrap()).await.status().as_u16()
    }
}

/// One HTTP/2 connection; the handle ends with it.
pub(crate) async fn http2(
    c: &Cluster,
    pair: Option<&CertificateKey>,
) -> (hyper::client::conn::http2::SendRequest<Full<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(tls(c, pair, b"h2").await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// A plain HTTP server whose answers are JSON made of path and body.
pub(crate) async fn answering<F>(answer: F) -> SocketAddr
where
    F: Fn(&str, serde_json::Value) -> serde_json::Value + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = answer.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let text = answer(&path, serde_json::from_slice(&body).unwrap_or_default()).to_string();
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// A TLS server on the loopback address: its address, and its certificate in PEM. It answers a path and an
/// `Authorization` with a status and a body.
pub(crate) async fn secure<F>(answer: F) -> (SocketAddr, String)
where
    F: Fn(&str, &str) -> (u16, String) + Send + Sync + 'static,
{
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let given =
                        request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
                    let (status, text) = answer(request.uri().path(), given);
                    let response = Response::builder().status(status).body(Full::new(Bytes::from(text))).unwrap();
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, cert.pem())
}
