//! What several targets need: a runtime of one thread, a whole API server without sockets, a folder in memory.

use std::path::PathBuf;
use std::sync::Arc;

use ironkeel_apiserver::{ApiServer, Config};
use ironkeel_auth::{AuthenticatorConfig, KeySet, ServiceAccountIssuer, SigningKey};
use ironkeel_store::Store;

/// An issuer and audience that nobody resolves.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A runtime in the calling thread: what an input sets off has run when its end is awaited, and nothing of it runs on
/// beside the next.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A folder of this process in memory, where there is such a file system.
pub fn scratch(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let dir = parent.join(format!("ironkeel-fuzz-{name}-{}", std::process::id()));
    // Left over from another process of the same number.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a folder in memory");
    dir
}

/// An API server over a store, as a cluster has it, but that it listens nowhere.
pub async fn api_server(store: Arc<dyn Store>) -> ApiServer {
    let key = SigningKey::generate().expect("a key");
    let mut keys = KeySet::default();
    keys.add_signing_key(&key);
    let issuer = ServiceAccountIssuer::new(ISSUER, vec![ISSUER.into()], key, keys.clone());
    let authenticator = AuthenticatorConfig {
        issuers: vec![ISSUER.into()],
        keys,
        api_audiences: vec![ISSUER.into()],
        ..AuthenticatorConfig::default()
    };
    ApiServer::start(Config::new(authenticator, issuer), store).await.expect("an API server")
}
