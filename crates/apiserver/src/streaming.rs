//! Logs, exec, attach, port-forward and proxies: requests that go on to a kubelet, a Pod, a node or a
//! Service. Where to is [`crate::targets`]'; how, [`crate::forward`]'s.

use std::sync::Arc;

use http::header::{HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
use ironkeel_auth::Attributes;
use ironkeel_registry::{ApiError, Operation, Row};

use crate::body::Body;
use crate::connect_options::connect_options;
use crate::context::Context;
use crate::forward::{self, is_upgrade};
use crate::{layers, targets};

/// Answers a streaming subresource.
pub(crate) async fn respond(c: Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    let sub = c.info.subresource.as_str();
    let known = matches!((row.plural(), sub), ("pods", _) | ("nodes" | "services", "proxy"));
    if !known {
        return Err(ApiError::no_such_resource());
    }
    let allowed = match sub {
        "log" => matches!(c.parts.method, Method::GET | Method::HEAD),
        "proxy" => true,
        _ => matches!(c.parts.method, Method::GET | Method::HEAD | Method::POST),
    };
    if !allowed {
        return Err(ApiError::method_not_supported(row.group(), row.plural(), c.info.verb));
    }
    let request = c.write_request(row)?;
    if sub != "log" {
        let name = c.info.name.as_str();
        let attributes = request.attributes(Operation::Connect, name);
        let options = connect_options(row, sub, &c);
        request.admission.validate(&attributes, Some(&options), None).await?;
    }
    if matches!(sub, "exec" | "attach" | "portforward") {
        may_create(&c).await?;
    }
    let forward = match (row.plural(), sub) {
        ("pods", "proxy") => Some(targets::pod_proxy(&c)?),
        ("pods", _) => targets::pod_stream(&c)?,
        ("nodes", _) => Some(targets::node_proxy(&c).await?),
        _ => Some(targets::service_proxy(&c)?),
    };
    if sub == "proxy"
        && c.info.rest.is_empty()
        && !is_upgrade(&c.parts.headers)
        && let Some(answer) = to_root(&c)
    {
        return Ok(answer);
    }
    match forward {
        Some(forward) => forward::forward(c, forward).await,
        None => Ok(nothing_yet()),
    }
}

/// A WebSocket can only begin with GET. Commands run by it are no reading all the same: whoever begins
/// one must be allowed to `create` the subresource, whatever the method (upstream's gate
/// AuthorizePodWebsocketUpgradeCreatePermission).
async fn may_create(c: &Context) -> Result<(), ApiError> {
    let info = &c.info;
    if info.verb == "create" {
        return Ok(());
    }
    let attributes = Attributes {
        subresource: &info.subresource,
        namespace: info.scope(),
        name: &info.name,
        ..Attributes::for_resource(&c.user, "create", &info.group, &info.version, &info.resource)
    };
    let decision = layers::decide(&c.server, &attributes).await;
    if decision.is_allowed() {
        return Ok(());
    }
    Err(ApiError::forbidden(&info.group, &info.resource, &info.name, decision.reason()))
}

/// 204: the Pod waits for its node, so there is no log.
fn nothing_yet() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A proxy without a path leads to its root, so that a page's relative links hold.
fn to_root(c: &Context) -> Option<Response<Body>> {
    if !matches!(c.parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut location = format!("{}/", c.parts.uri.path());
    if let Some(query) = c.parts.uri.query().filter(|q| !q.is_empty()) {
        location.push('?');
        location.push_str(query);
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    answer.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).ok()?);
    Some(answer)
}
