//! The transport of a kubeconfig: pooled connections over TLS, with who we are on every request.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tower::retry::Retry;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::credentials::Credential;
use crate::identity::{Identity, Shown};
use crate::kubeconfig::{Access, ClientCertificate};
use crate::{Error, KubeconfigError, tls};

/// How long a connection may take, its TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be silent before the peer is asked whether it is there, how often it is asked, and when a
/// peer that does not answer is lost: client-go's times of HTTP/2. A watch of a server that lost its power would wait
/// for ever otherwise.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const LOST_PEER_TIMEOUT: Duration = Duration::from_secs(45);

/// Connections to one server, and what every request over them gets.
struct Transport<C> {
    server: Uri,
    credential: Credential,
    certificate: ClientCertificate,
    impersonate: HeaderMap,
    connector: C,
    connections: Mutex<Connections<C>>,
    /// What those that begin show.
    shown: Arc<Shown>,
}

/// Connections that began with the same certificate.
struct Connections<C> {
    pool: Pool<C, Body>,
    identity: Option<Arc<Identity>>,
}

/// A client with what `access` says; `wrong` says of which file.
pub(crate) async fn client(
    access: Access,
    wrong: impl Fn(KubeconfigError) -> Error + Send + Sync,
) -> Result<Client, Error> {
    let (_, plugged) = match access.certificate {
        ClientCertificate::None => access.credential.current().await?,
        ClientCertificate::Fixed(_) | ClientCertificate::Files(_) => (None, None),
    };
    let first = access.certificate.current(plugged);
    let shown = Arc::new(Shown::default());
    if let Some(identity) = &first {
        shown.show(identity).map_err(&wrong)?;
    }
    let tls = tls::config(access.authorities.as_deref(), access.insecure, shown.clone()).map_err(&wrong)?;
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = access.server_name {
        let form = "a DNS name or an address";
        let name =
            ServerName::try_from(name).map_err(|_| wrong(KubeconfigError::Form { member: "tls-server-name", form }))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_keepalive(Some(KEEPALIVE_TIME));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    connector.set_tcp_user_timeout(Some(LOST_PEER_TIMEOUT));
    let connector = ServiceBuilder::new()
        .map_future(Box::pin)
        .timeout(CONNECT_TIMEOUT)
        .service(builder.enable_http1().wrap_connector(connector));
    let transport = Arc::new(Transport {
        server: access.server,
        credential: access.credential,
        certificate: access.certificate,
        impersonate: access.impersonate,
        connections: Mutex::new(Connections::new(&connector, first)),
        connector,
        shown,
    });
    let service = tower::service_fn(move |request: Request<Body>| transport.clone().send(request));
    Ok(Client::new(Retry::new(RetryPolicy::server_retry(), service).boxed(), access.namespace))
}

impl<C: Connect + Clone> Connections<C> {
    fn new(connector: &C, identity: Option<Arc<Identity>>) -> Self {
        Self { pool: Pool::builder(TokioExecutor::new()).build(connector.clone()), identity }
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Transport<C> {
    async fn send(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        *request.uri_mut() = beneath(&self.server, request.uri().path_and_query())?;
        let (header, plugged) = self.credential.current().await?;
        if let Some(header) = &header {
            request.headers_mut().insert(header::AUTHORIZATION, header.clone());
        }
        for (name, value) in &self.impersonate {
            request.headers_mut().append(name, value.clone());
        }
        let pool = self.pool_that_shows(self.certificate.current(plugged))?;
        let response = pool.request(request).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.credential.refused(header.as_ref()).await;
            if let ClientCertificate::Files(files) = &self.certificate {
                files.refused();
            }
        }
        Ok(response)
    }

    /// Connections that show another certificate are left to the requests that are on them.
    fn pool_that_shows(&self, identity: Option<Arc<Identity>>) -> Result<Pool<C, Body>, KubeconfigError> {
        let mut current = self.connections.lock();
        let is_shown = |new: &Arc<Identity>| current.identity.as_ref().is_some_and(|old| Arc::ptr_eq(old, new));
        if let Some(identity) = identity.filter(|new| !is_shown(new)) {
            self.shown.show(&identity)?;
            *current = Connections::new(&self.connector, Some(identity));
        }
        Ok(current.pool.clone())
    }
}

/// The request's path below the server's.
fn beneath(server: &Uri, path: Option<&PathAndQuery>) -> Result<Uri, http::Error> {
    let mut parts = server.clone().into_parts();
    let base = server.path().trim_end_matches('/');
    let path = path.map_or("/", PathAndQuery::as_str);
    parts.path_and_query = Some(format!("{base}{path}").parse()?);
    Ok(Uri::from_parts(parts)?)
}
