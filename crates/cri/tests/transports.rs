//! The client over a unix socket; the call in process is tested where a whole server exists (the runtime).
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::task::{Context, Poll};

use ironkeel_cri::CriClient;
use ironkeel_cri::v1::{VersionRequest, VersionResponse};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};

#[derive(Clone)]
struct VersionOnly;

impl NamedService for VersionOnly {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl UnaryService<VersionRequest> for VersionOnly {
    type Response = VersionResponse;
    type Future = std::future::Ready<Result<tonic::Response<VersionResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<VersionRequest>) -> Self::Future {
        let version = request.into_inner().version;
        std::future::ready(Ok(tonic::Response::new(VersionResponse { version, ..Default::default() })))
    }
}

impl tower::Service<http::Request<Body>> for VersionOnly {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != "/runtime.v1.RuntimeService/Version" {
                return Ok(tonic::Status::unimplemented("only Version").into_http());
            }
            Ok(Grpc::new(tonic_prost::ProstCodec::default()).unary(VersionOnly, request).await)
        })
    }
}

#[tokio::test]
async fn connects_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cri.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let server =
        tokio::spawn(tonic::transport::Server::builder().add_service(VersionOnly).serve_with_incoming(incoming));
    let mut client = CriClient::connect(&format!("unix://{}", path.display())).await.unwrap();
    let answer = client.runtime.version(VersionRequest { version: "v1".into() }).await.unwrap().into_inner();
    assert_eq!(answer.version, "v1");
    let other = client.runtime.status(ironkeel_cri::v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::Unimplemented);
    server.abort();
}

#[tokio::test]
async fn only_unix_sockets_are_accepted() {
    let refused = CriClient::connect("tcp://127.0.0.1:1").await.err().unwrap();
    assert!(refused.to_string().contains("only unix sockets"), "{refused}");
    let absent = CriClient::connect("/nonexistent/cri.sock").await.err().unwrap();
    assert!(absent.to_string().contains("/nonexistent/cri.sock"), "{absent}");
}
