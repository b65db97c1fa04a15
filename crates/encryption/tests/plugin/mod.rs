//! A KMS v2 plugin that "encrypts" into base64.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_encryption::Kms;
use ironkeel_encryption::v2::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use ironkeel_encryption::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

#[derive(Default)]
pub struct Behaviour {
    pub key: AtomicUsize,
    pub ill: AtomicBool,
    pub encrypted: AtomicUsize,
    pub decrypted: AtomicUsize,
}

pub struct Plugin {
    pub behaviour: Arc<Behaviour>,
    pub socket: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plugin {
    pub fn start(dir: &Path) -> Plugin {
        let socket = dir.join("kms.sock");
        let _ = std::fs::remove_file(&socket);
        let behaviour = Arc::new(Behaviour::default());
        behaviour.key.store(1, Ordering::SeqCst);
        let listener = UnixListener::bind(&socket).unwrap();
        let service = KeyManagementServiceServer::new(Service(behaviour.clone()));
        let serving = tonic::transport::Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            serving.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Plugin { behaviour, socket, task }
    }

    pub fn kms(&self) -> Arc<Kms> {
        Arc::new(Kms::new("plugin", self.socket.clone(), Duration::from_secs(3)))
    }
}

struct Service(Arc<Behaviour>);

impl Service {
    fn key_id(&self) -> String {
        format!("key-{}", self.0.key.load(Ordering::SeqCst))
    }
}

#[tonic::async_trait]
impl KeyManagementService for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let healthz = if self.0.ill.load(Ordering::SeqCst) { "the safe is locked" } else { "ok" };
        Ok(Response::new(StatusResponse { version: "v2".into(), healthz: healthz.into(), key_id: self.key_id() }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        self.0.encrypted.fetch_add(1, Ordering::SeqCst);
        let ciphertext = STANDARD.encode(&request.get_ref().plaintext).into_bytes();
        let annotations = [("version.example.com", "1"), ("zone.example.com", "a")];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into();
        Ok(Response::new(EncryptResponse { ciphertext, key_id: self.key_id(), annotations }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        self.0.decrypted.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        if request.annotations.get("version.example.com").map(Vec::as_slice) != Some(b"1") || request.uid.is_empty() {
            return Err(Status::invalid_argument("the annotation is gone"));
        }
        let plaintext = STANDARD.decode(request.ciphertext).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}
