//! Which methods a path of a built-in resource has, and the media types that they take and give: what
//! upstream's router (go-restful) finds out before any handler runs. Custom resources have no routes;
//! their handler says itself what it does not know.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, Response, StatusCode};
use ironkeel_registry::{ApiError, Reason, Row};

use crate::body::Body;
use crate::context::Context;

/// What answers about objects are written in.
pub(crate) const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What lists are written in, which may be watched.
const LISTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
/// What logs are written in.
const LOGS: &[&str] = &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Patches, in upstream's order.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// The methods of a path; none where there is no such path.
fn methods(c: &Context, row: &Row) -> Vec<Method> {
    let (info, resource) = (&c.info, &row.kind.resource);
    let has = |verb: &str| resource.has_verb(verb);
    let when = |there: bool, method: Method| there.then_some(method);
    let everywhere = row.namespaced() && info.namespace.is_empty();
    if info.deprecated_watch {
        let known = has("watch") && info.subresource.is_empty() && (info.name.is_empty() || !everywhere);
        return when(known, Method::GET).into_iter().collect();
    }
    if everywhere && !info.name.is_empty() {
        return Vec::new();
    }
    if info.name.is_empty() && !info.subresource.is_empty() {
        // `pods//log`: a route with an empty name.
        return of_subresource(c, row);
    }
    if info.name.is_empty() {
        return [
            when(has("list"), Method::GET),
            when(has("create") && !everywhere, Method::POST),
            when(has("deletecollection") && !everywhere, Method::DELETE),
        ]
        .into_iter()
        .flatten()
        .collect();
    }
    if info.subresource.is_empty() {
        return [("get", Method::GET), ("update", Method::PUT), ("patch", Method::PATCH), ("delete", Method::DELETE)]
            .into_iter()
            .filter_map(|(verb, method)| when(has(verb), method))
            .collect();
    }
    of_subresource(c, row)
}

fn of_subresource(c: &Context, row: &Row) -> Vec<Method> {
    let Some(sub) = row.kind.resource.subresource(&c.info.subresource) else { return Vec::new() };
    if sub.name == "proxy" {
        return vec![
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::HEAD,
            Method::OPTIONS,
        ];
    }
    if !c.info.rest.is_empty() {
        return Vec::new();
    }
    let of = |verb: &&str| match *verb {
        "get" => Some(Method::GET),
        "create" => Some(Method::POST),
        "update" => Some(Method::PUT),
        "patch" => Some(Method::PATCH),
        "delete" => Some(Method::DELETE),
        _ => None,
    };
    sub.verbs.iter().filter_map(of).collect()
}

/// 404, 405, 415 or 406, in this order, where no route of the resource takes the request.
pub(crate) fn check(c: &Context, row: &Row) -> Result<(), ApiError> {
    let methods = methods(c, row);
    if methods.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    if !methods.contains(&c.parts.method) {
        return Err(wrong_method());
    }
    let info = &c.info;
    let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    if c.parts.method == Method::PATCH && !connects && !takes(&c.parts.headers, PATCHES) {
        return Err(bare(Reason::UnsupportedMediaType, "415: Unsupported Media Type"));
    }
    if connects {
        return Ok(());
    }
    let reads_many = info.name.is_empty() && c.parts.method == Method::GET && row.kind.resource.has_verb("watch");
    acceptable(
        &c.parts.headers,
        match info.subresource.as_str() {
            "log" => LOGS,
            _ if reads_many || info.deprecated_watch => LISTS,
            _ => OBJECTS,
        },
    )?;
    if info.name.is_empty() && !info.subresource.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    Ok(())
}

/// 405 by the router, which knows nothing of resources.
pub(crate) fn wrong_method() -> ApiError {
    bare(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

fn bare(reason: Reason, message: impl Into<String>) -> ApiError {
    ApiError { details: Some(Box::default()), ..ApiError::new(reason, message) }
}

/// 406 where the client takes none of these, by name or by `*/*`.
pub(crate) fn acceptable(headers: &HeaderMap, produced: &[&str]) -> Result<(), ApiError> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        media == "*/*" || produced.contains(&media)
    };
    if accept.is_empty() || accept.split(',').any(media) {
        return Ok(());
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", produced.join(", "));
    Err(bare(Reason::NotAcceptable, message))
}

fn takes(headers: &HeaderMap, consumed: &[&str]) -> bool {
    let sent = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    sent.split(',').any(|clause| consumed.contains(&clause.split(';').next().unwrap_or_default().trim()))
}

/// What Go's `http.NotFound` writes, for paths that nobody has.
pub(crate) fn page_not_found() -> Response<Body> {
    let mut response = Response::new(Body::whole("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
