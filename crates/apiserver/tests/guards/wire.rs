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
