//! From an authorized request to its handler.

use std::sync::Arc;
use std::time::Instant;

use http::Response;
use ironkeel_registry::{ApiError, Row};

use crate::body::Body;
use crate::context::Context;
use crate::negotiate::{Shape, not_acceptable};
use crate::{
    aggregation, answer, binding, component_status, documents, eviction, read, reviews, routes, streaming, token,
    watch_stream, write,
};

/// Answers a request.
pub(crate) async fn dispatch(mut c: Context) -> Result<Response<Body>, ApiError> {
    if let Some(remote) = aggregated(&c) {
        return aggregation::proxy(c, &remote).await;
    }
    if !c.info.is_resource {
        return documents::respond(&c).await;
    }
    let i = &c.info;
    let Some(row) = c.server.registry.row(&i.group, &i.version, &i.resource) else {
        // No group of that name is served: nobody is there to answer.
        if !c.server.registry.rows().iter().any(|r| r.group() == i.group) {
            return Ok(routes::page_not_found());
        }
        return Err(ApiError::no_such_resource());
    };
    if !row.namespaced() && !i.namespace.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    if row.kind.custom.is_none() {
        routes::check(&c, &row)?;
    } else if row.namespaced() && i.namespace.is_empty() && !matches!(i.verb, "list" | "watch") {
        return Ok(routes::page_not_found());
    }
    if row.kind.custom.is_some() && i.name.is_empty() && matches!(i.verb, "update" | "patch") {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if !i.name.is_empty() {
        path_segment(&i.name)?;
    }
    if let Some(refused) = &c.unacceptable {
        return Err(refused.clone());
    }
    if let Some(custom) = &row.kind.custom {
        if let Some(warning) = &custom.deprecation {
            c.warnings.lock().push(warning.clone());
        }
        c.output = c.output.without_protobuf(&c.parts.headers)?;
    } else {
        c.warnings.lock().extend(ironkeel_kinds::deprecation(&row.kind.resource));
    }
    if wants_the_present(&c) {
        let started = Instant::now();
        let fresh = c.server.registry.fresh().await;
        if c.server.registry.store().shared() {
            c.server.metrics.caches.waited(row.group(), row.plural(), started.elapsed(), fresh.is_ok());
        }
        fresh?;
    }
    if i.subresource.is_empty() { object(c, row).await } else { subresource(c, row).await }
}

/// No stored object has such a name: its key would be another's.
fn path_segment(name: &str) -> Result<(), ApiError> {
    let why = match name {
        "." => "may not be '.'",
        ".." => "may not be '..'",
        _ if name.contains('%') => "may not contain '%'",
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(format!("Name parameter invalid: {name:?}: {why}")))
}

/// Whether the caches must not be older than the request: all but reads that name a revision.
fn wants_the_present(c: &Context) -> bool {
    let reads = matches!(c.info.verb, "get" | "list" | "watch");
    !reads || c.query.get("resourceVersion").is_none_or(|v| v.is_empty())
}

/// The extension API server that this request is for.
fn aggregated(c: &Context) -> Option<Arc<aggregation::Remote>> {
    let info = &c.info;
    if let Some(document) = info.path.strip_prefix("/openapi/v3/apis/") {
        let (group, version) = document.split_once('/')?;
        return c.server.aggregator.remote(group, version);
    }
    c.server.aggregator.remote(&info.group, &info.version)
}

async fn object(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let verb = c.info.verb;
    if row.stored.is_none() {
        let components = row.plural() == "componentstatuses";
        if c.output.shape != Shape::Objects && !components {
            return Err(not_acceptable(false));
        }
        return match (verb, row.plural()) {
            ("create", "bindings") => binding::legacy(c).await,
            ("create", _) => reviews::create(c, &row).await,
            ("list" | "get", _) if components => component_status::answer(&c, &row).await,
            _ => Err(ApiError::method_not_supported(row.group(), row.plural(), verb)),
        };
    }
    if !row.kind.resource.has_verb(verb) {
        return Err(ApiError::method_not_supported(row.group(), row.plural(), verb));
    }
    let named = !c.info.name.is_empty();
    match verb {
        "get" => read::get(&c, &row).await,
        "list" => read::list(&c, &row).await,
        "watch" => watch_stream::watch(&c, &row).await,
        // Upstream gives the paths of custom resources no routes of their own.
        "create" if !named || row.kind.custom.is_some() => write::create(c, row).await,
        "update" if named => write::replace(c, row).await,
        "patch" if named => write::patch(c, row).await,
        "delete" => write::delete(c, row).await,
        "deletecollection" => write::delete_collection(c, row).await,
        _ => Err(ApiError::method_not_supported(row.group(), row.plural(), verb)),
    }
}

async fn subresource(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let sub = row.kind.resource.subresource(&c.info.subresource).ok_or_else(|| match row.kind.custom {
        Some(_) => ApiError::not_found(row.group(), row.plural(), &c.info.name),
        None => ApiError::no_such_resource(),
    })?;
    let verb = c.info.verb;
    let streams = matches!(sub.name, "exec" | "attach" | "portforward" | "log" | "proxy");
    if !streams && !sub.verbs.contains(&verb) {
        return Err(ApiError::method_not_supported(row.group(), row.plural(), verb));
    }
    match (sub.name, verb) {
        ("scale", _) => write::scale(c, row).await,
        ("binding", "create") => binding::create(c).await,
        ("eviction", "create") => eviction::create(c).await,
        ("token", "create") => token::create(c).await,
        _ if streams => streaming::respond(c, &row).await,
        (_, "get") => {
            let entry = c.server.registry.get(&row, &c.info.namespace, &c.info.name)?;
            c.server.registry.prepare(&row, std::slice::from_ref(&entry)).await?;
            answer::entry(&c.server.registry, &row, &entry, 200, &c.output, c.include_object())
        }
        (_, "update") => write::replace(c, row).await,
        (_, "patch") => write::patch(c, row).await,
        _ => Err(ApiError::method_not_supported(row.group(), row.plural(), verb)),
    }
}
