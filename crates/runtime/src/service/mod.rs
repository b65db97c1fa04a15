//! The CRI's two gRPC services on a [`Runtime`].

mod images;
mod runtime;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use ironkeel_cri::MAX_MESSAGE_BYTES;
use ironkeel_cri::v1::image_service_server::ImageServiceServer;
use ironkeel_cri::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::runtime::Runtime;

/// What a client gets when it asks for the runtime by a stream of items: all, in portions.
pub(crate) type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, tonic::Status>> + Send>>;

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Runtime>);

pub(crate) async fn serve_socket(
    runtime: &Arc<Runtime>,
    path: &Path,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(Error::path("creating", dir))?;
    }
    // A former process's socket; a living one would have been asked to stop.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(Error::path("listening on", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(Error::path("changing", path))?;
    let service = Service(runtime.clone());
    let served = tonic::transport::Server::builder()
        .add_service(RuntimeServiceServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(ImageServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled())
        .await;
    let _ = std::fs::remove_file(path);
    served.map_err(|e| Error::io(format!("serving {}", path.display()))(std::io::Error::other(e)))
}
