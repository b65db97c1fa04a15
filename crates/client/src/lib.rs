//! kube-rs, pinned in one place, and its transports.
//!
//! Here: how a component gets a [`kube::Client`], either over TLS from a kubeconfig or over any tower service (the
//! in-process transport). Not here: caches (the informer crate) and who the caller is allowed to be (the API server).
//! The kubeconfig is read as client-go reads it: current context, certificates, keys and tokens inline or by path.

mod connect;
mod credentials;
mod error;
mod exec;
mod identity;
mod kubeconfig;
mod tls;

use std::path::Path;

use http::{HeaderValue, Request, Response, header};
use tower::{BoxError, Service, ServiceExt as _};

pub use error::{Error, ExecError, KubeconfigError};
pub use kube;
pub use kube::Client;
pub use kubeconfig::Kubeconfig;

use credentials::Credential;
use kube::client::Body;
use kubeconfig::ClientCertificate;

/// Makes ring the process-wide rustls provider. Safe to call any number of times; the first call wins.
pub fn install_crypto_provider() {
    // A provider that is already there is what we want too.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client over TLS from the kubeconfig at `path`, using its current context.
///
/// Reads and writes have no deadline of their own: a watch may be silent for minutes, and callers bound what they wait
/// for.
///
/// # Errors
/// The file is missing or malformed, or names certificates that cannot be read.
pub async fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Client, Error> {
    from_kubeconfig_context(path, None).await
}

/// As [`from_kubeconfig`], with another context than the current one.
///
/// # Errors
/// As [`from_kubeconfig`]; the context is not there.
pub async fn from_kubeconfig_context(path: impl AsRef<Path>, context: Option<&str>) -> Result<Client, Error> {
    let access = Kubeconfig::read_from(path.as_ref())?.access(context)?;
    connect(path.as_ref(), access).await
}

/// As [`from_kubeconfig`], without the user's credentials: the server alone is taken from the file.
///
/// # Errors
/// As [`from_kubeconfig`].
pub async fn anonymous_from_kubeconfig(path: impl AsRef<Path>) -> Result<Client, Error> {
    let mut access = Kubeconfig::read_from(path.as_ref())?.access(None)?;
    access.certificate = ClientCertificate::None;
    access.credential = Credential::None;
    access.impersonate.clear();
    connect(path.as_ref(), access).await
}

async fn connect(path: &Path, access: kubeconfig::Access) -> Result<Client, Error> {
    install_crypto_provider();
    connect::client(access, |source| Error::Kubeconfig { path: path.to_owned(), source }).await
}

/// A client over any tower service: the in-process transport.
///
/// `identity` names the component and becomes the User-Agent of its requests; it grants nothing. Who the requests are
/// from is what the service stamps on them. Must be called inside a tokio runtime.
pub fn from_service<S, B>(service: S, identity: &str) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let agent =
        HeaderValue::try_from(format!("ironkeel/{identity}")).unwrap_or_else(|_| HeaderValue::from_static("ironkeel"));
    let service = service.map_request(move |mut request: Request<Body>| {
        request.headers_mut().entry(header::USER_AGENT).or_insert_with(|| agent.clone());
        request
    });
    Client::new(service, "default")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[tokio::test]
    async fn a_tower_service_is_a_transport_and_sees_the_identity() {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let agent = request.headers()[header::USER_AGENT].to_str().unwrap().to_owned();
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{{"agent":"{agent}","path":"{}"}}}}"#,
                request.uri().path()
            );
            Ok::<_, std::io::Error>(Response::new(Body::from(body.into_bytes())))
        });
        let client = from_service(service, "kube-scheduler");
        let got = kube::Api::<ConfigMap>::namespaced(client, "default").get("a").await.unwrap();
        let data = got.data.unwrap();
        assert_eq!(data["agent"], "ironkeel/kube-scheduler");
        assert_eq!(data["path"], "/api/v1/namespaces/default/configmaps/a");
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = from_kubeconfig("/nonexistent/kubeconfig").await.err().unwrap();
        assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
    }
}
