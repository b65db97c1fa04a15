//! The transport of a kubeconfig: pooled connections over TLS, with who we are on every request.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, header};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use rustls::pki_types::ServerName;
use tower::retry::Retry;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::credentials::Credential;
use crate::kubeconfig::Access;
use crate::{Error, KubeconfigError, tls};

/// How long a connection may take, its TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What every request gets.
struct Stamp {
    server: Uri,
    credential: Credential,
    impersonate: HeaderMap,
}

/// A client with what `access` says; `wrong` says of which file.
pub(crate) async fn client(
    access: Access,
    wrong: impl Fn(KubeconfigError) -> Error + Send + Sync,
) -> Result<Client, Error> {
    let mut identity = access.identity.map(Arc::new);
    if identity.is_none()
        && let Credential::Plugin(plugin) = &access.credential
    {
        identity = plugin.current().await?.identity;
    }
    let tls = tls::config(access.authorities.as_deref(), access.insecure, identity.as_deref()).map_err(&wrong)?;
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = access.server_name {
        let form = "a DNS name or an address";
        let name =
            ServerName::try_from(name).map_err(|_| wrong(KubeconfigError::Form { member: "tls-server-name", form }))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let connector = ServiceBuilder::new()
        .map_future(Box::pin)
        .timeout(CONNECT_TIMEOUT)
        .service(builder.enable_http1().wrap_connector(connector));
    let pool: Pool<_, Body> = Pool::builder(TokioExecutor::new()).build(connector);
    let stamp =
        Arc::new(Stamp { server: access.server, credential: access.credential, impersonate: access.impersonate });
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (stamp, pool) = (stamp.clone(), pool.clone());
        async move {
            stamp.put(&mut request).await?;
            pool.request(request).await.map_err(BoxError::from)
        }
    });
    Ok(Client::new(Retry::new(RetryPolicy::server_retry(), service).boxed(), access.namespace))
}

impl Stamp {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        *request.uri_mut() = beneath(&self.server, request.uri().path_and_query())?;
        if let Some(header) = self.credential.header().await? {
            request.headers_mut().insert(header::AUTHORIZATION, header);
        }
        for (name, value) in &self.impersonate {
            request.headers_mut().append(name, value.clone());
        }
        Ok(())
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
