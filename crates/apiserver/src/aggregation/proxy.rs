//! A request for a remote group version: on to its server, with the caller's identity in headers
//! under the front proxy's certificate.

use http::Response;
use ironkeel_registry::{ApiError, Reason};

use super::Remote;
use super::remote::front_proxy_headers;
use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::forward::{Forward, forward};
use crate::request_info::passed_on;

fn plain(code: u16, text: impl Into<String>) -> Response<Body> {
    answer::with_type(code, "text/plain; charset=utf-8", text.into() + "\n")
}

/// Passes the request on. Upstream answers its own failures in plain text, and so does this.
pub(crate) async fn proxy(c: Context, remote: &Remote) -> Result<Response<Body>, ApiError> {
    if !remote.available {
        return Ok(plain(503, "service unavailable"));
    }
    let backend = match remote.backend(&c.server.registry) {
        Ok(backend) => backend,
        Err(error) => {
            tracing::info!(%error, apiservice = remote.name, "an APIService cannot be resolved");
            return Ok(plain(503, "service unavailable"));
        }
    };
    let mut path = passed_on(c.parts.uri.path(), &c.info.path).into_owned();
    if let Some(query) = c.parts.uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let headers = front_proxy_headers(&c.user);
    let request = Forward { backend, path, headers, rewrite: None, upgrade_required: false };
    match forward(c, request).await {
        Err(e) if e.reason == Reason::ServiceUnavailable => Ok(plain(503, e.message.clone())),
        other => other,
    }
}
