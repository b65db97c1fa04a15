//! `serviceaccounts/token`: TokenRequest.

use http::Response;
use ironkeel_auth::token::Reference;
use ironkeel_auth::{BoundObject, TokenRequest};
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_registry::{ApiError, Registry, rfc3339};
use ironkeel_schema::type_by_name;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::decode;
use crate::sent;

/// Lifetime where none is asked for, in seconds.
const DEFAULT_SECONDS: i64 = 3600;

fn stored(registry: &Registry, plural: &str, namespace: &str, name: &str) -> Option<std::sync::Arc<Value>> {
    ObjectSource::get(registry, ironkeel_schema::resource("", "v1", plural)?, namespace, name)
}

/// POST of `serviceaccounts/<name>/token`.
pub(crate) async fn create(c: Context) -> Result<Response<Body>, ApiError> {
    let type_id = type_by_name("authentication/v1.TokenRequest").ok_or_else(ApiError::no_such_resource)?;
    let mut body = decode::object(&c, "authentication.k8s.io/v1", "TokenRequest", type_id)?;
    let (namespace, name) = (c.info.namespace.as_str(), c.info.name.as_str());
    let registry = &c.server.registry;
    let account = stored(registry, "serviceaccounts", namespace, name)
        .ok_or_else(|| ApiError::not_found("", "serviceaccounts", name))?;
    let row = registry.row("", "v1", "serviceaccounts").ok_or_else(ApiError::no_such_resource)?;
    let write = c.write_request(&row)?;
    sent::place(&write, &mut body)?;
    sent::mutate(&write, &mut body).await?;
    if !body.name().is_empty() && body.name() != name {
        let error = ironkeel_kinds::FieldError {
            path: ironkeel_kinds::Path::new("metadata").child("name"),
            kind: ironkeel_kinds::FieldErrorKind::Invalid,
            message: format!("Invalid value: {:?}: must match the service account name if specified", body.name()),
        };
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &[error]));
    }
    if !body.uid().is_empty() && body.uid() != account.uid() {
        let why = format!(
            "the UID in the token request ({}) does not match the UID of the service account ({})",
            body.uid(),
            account.uid()
        );
        return Err(ApiError::conflict("authentication.k8s.io", "TokenRequest", name, &why));
    }
    let now = registry.clock().now();
    if body.items_at(&["spec", "audiences"]).is_empty() {
        *body.slot(&["spec", "audiences"]) = c.server.issuer.api_audiences().to_vec().into();
    }
    let seconds = body.i64_at(&["spec", "expirationSeconds"]).unwrap_or(DEFAULT_SECONDS);
    *body.slot(&["spec", "expirationSeconds"]) = seconds.into();
    let meta = body.meta_mut();
    meta.insert("name", name);
    meta.insert("uid", account.uid());
    meta.insert("creationTimestamp", rfc3339(now));
    *body.slot(&["status"]) = Value::object();
    sent::validate(&write, &body).await?;
    let audiences: Vec<String> =
        body.items_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let bound_object = bound(registry, &c, &body, &account)?;
    let request = TokenRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: account.uid().to_owned(),
        audiences,
        expiration_seconds: seconds,
        bound_object,
    };
    let (token, expires) = c.server.issuer.issue(request, now.as_second()).map_err(|e| {
        let error = ironkeel_kinds::FieldError {
            path: ironkeel_kinds::Path::new("spec").child("expirationSeconds"),
            kind: ironkeel_kinds::FieldErrorKind::Invalid,
            message: format!("Invalid value: {seconds}: {e}"),
        };
        ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error])
    })?;
    *body.slot(&["status", "token"]) = token.into();
    let expiry = jiff::Timestamp::from_second(expires).map_err(ApiError::internal)?;
    *body.slot(&["status", "expirationTimestamp"]) = rfc3339(expiry).into();
    Ok(answer::value(201, &body, &c.output))
}

fn bound(registry: &Registry, c: &Context, body: &Value, account: &Value) -> Result<Option<BoundObject>, ApiError> {
    let Some(reference) = body.at(&["spec", "boundObjectRef"]).filter(|r| !r.is_null()) else { return Ok(None) };
    let text = |key: &str| reference.str_at(&[key]).unwrap_or_default();
    let namespace = c.info.namespace.as_str();
    let (plural, home) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            let slash = if version.contains('/') { "" } else { "/" };
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {slash}{version}, Kind={kind}"
            )));
        }
    };
    let name = text("name");
    let object = stored(registry, plural, home, name).ok_or_else(|| ApiError::not_found("", plural, name))?;
    let uid = text("uid");
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", text("kind"), name, &why));
    }
    let to = |o: &Value| Reference { name: o.name().to_owned(), uid: o.uid().to_owned() };
    Ok(Some(match plural {
        "pods" => {
            let of = object.str_at(&["spec", "serviceAccountName"]).unwrap_or("default");
            if of != account.name() {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    account.name()
                )));
            }
            let node = object.str_at(&["spec", "nodeName"]).filter(|n| !n.is_empty());
            let node = node.and_then(|n| stored(registry, "nodes", "", n)).map(|n| to(&n));
            BoundObject::Pod { pod: to(&object), node }
        }
        "secrets" => BoundObject::Secret(to(&object)),
        _ => BoundObject::Node(to(&object)),
    }))
}
