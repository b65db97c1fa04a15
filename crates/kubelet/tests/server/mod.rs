//! An API server of the test's own over a store in a temporary directory, without a socket.

use std::path::Path;
use std::sync::Arc;

use ironkeel_apiserver::{ApiServer, Config, UserInfo};
use ironkeel_auth::{AuthenticatorConfig, Identity, Pki, PkiConfig, ServiceAccountIssuer};
use ironkeel_embedded::{Embedded, Options};
use tempfile::TempDir;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The server; its data goes with it.
pub struct Api {
    /// The server.
    pub server: ApiServer,
    /// Its certificates.
    pub pki: Arc<Pki>,
    _dir: TempDir,
}

impl Api {
    /// Starts one.
    ///
    /// # Panics
    /// When anything fails: this is for tests.
    pub async fn start() -> Api {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (server, pki) = open(dir.path()).await;
        Api { server, pki, _dir: dir }
    }

    /// A client in the name of a component.
    pub fn client(&self, identity: Identity) -> kube::Client {
        self.client_of(identity.user(self.pki.node_name()))
    }

    /// A client in anybody's name.
    pub fn client_of(&self, user: UserInfo) -> kube::Client {
        let name = user.name.clone();
        ironkeel_client::from_service(self.server.in_process(user), &name)
    }
}

async fn open(dir: &Path) -> (ApiServer, Arc<Pki>) {
    let store = Embedded::open(dir.join("store"), Options::default()).expect("the store opens");
    let config = PkiConfig { node_name: "node-1".into(), ..PkiConfig::default() };
    let pki = Arc::new(Pki::load_or_create(&dir.join("pki"), config).expect("certificates are made"));
    let keys = pki.service_account_public_keys().clone();
    let audiences = vec![ISSUER.to_owned()];
    let issuer = ServiceAccountIssuer::new(ISSUER, audiences.clone(), pki.service_account_key().clone(), keys.clone());
    let authenticator = AuthenticatorConfig {
        issuers: audiences.clone(),
        keys,
        api_audiences: audiences,
        ..AuthenticatorConfig::default()
    };
    let server = ApiServer::start(Config::new(authenticator, issuer), store).await.expect("the API server starts");
    (server, pki)
}
