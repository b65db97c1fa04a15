//! One client type for runtimes behind a socket and runtimes in this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;
use tower::util::{BoxCloneSyncService, ServiceExt as _};

use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};

/// The longest message, as upstream's kubelet and runtimes allow: 16 MiB.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a runtime's socket may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How requests travel: over a socket, or straight into a service of this process.
pub type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, TransportError>;

/// A request did not reach the runtime. A type of its own, because futures over a boxed error cannot be proven `Send`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(Box<dyn std::error::Error + Send + Sync>);

/// Both services of a runtime. Cloning is cheap; clones share the connection.
#[derive(Clone, Debug)]
pub struct CriClient {
    /// Sandboxes and containers.
    pub runtime: RuntimeServiceClient<Transport>,
    /// Images.
    pub image: ImageServiceClient<Transport>,
}

/// The runtime's socket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is not a unix socket.
    #[error("runtime endpoint {0}: only unix sockets (unix:///path or a path) are supported")]
    Scheme(String),
    /// Nobody answers there.
    #[error("connecting to the container runtime at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
}

impl CriClient {
    /// Connects to the runtime behind `unix:///path` or a plain path. A connection that breaks later
    /// is made again by the next call.
    pub async fn connect(endpoint: &str) -> Result<Self, ConnectError> {
        Self::connect_both(endpoint, endpoint).await
    }

    /// Like [`connect`](Self::connect), for an image service with a socket of its own.
    pub async fn connect_both(runtime: &str, image: &str) -> Result<Self, ConnectError> {
        let channel = dial(&socket_path(runtime)?).await?;
        let images = if image == runtime { channel.clone() } else { dial(&socket_path(image)?).await? };
        Ok(Self::new(boxed(channel), boxed(images)))
    }

    /// Calls the services directly; nothing leaves the process.
    pub fn in_process<R: RuntimeService, I: ImageService>(runtime: R, image: I) -> Self {
        let runtime = RuntimeServiceServer::new(runtime).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let image = ImageServiceServer::new(image).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Self::new(boxed(runtime), boxed(image))
    }

    fn new(runtime: Transport, image: Transport) -> Self {
        CriClient {
            runtime: RuntimeServiceClient::new(runtime).max_decoding_message_size(MAX_MESSAGE_BYTES),
            image: ImageServiceClient::new(image).max_decoding_message_size(MAX_MESSAGE_BYTES),
        }
    }
}

fn boxed<S>(service: S) -> Transport
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service.map_err(|error: S::Error| TransportError(error.into())))
}

fn socket_path(endpoint: &str) -> Result<PathBuf, ConnectError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') { Ok(path.into()) } else { Err(ConnectError::Scheme(endpoint.into())) }
}

async fn dial(path: &Path) -> Result<Channel, ConnectError> {
    let socket = path.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address only fills the :authority header; the connector ignores it.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError::Connect { path: path.into(), source })
}
