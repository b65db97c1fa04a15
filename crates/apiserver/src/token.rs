//! `serviceaccounts/token`: TokenRequest.

use http::Response;
use ironkeel_auth::token::Reference;
use ironkeel_auth::{BoundObject, TokenRequest};
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_registry::{ApiError, Operation, Registry, rfc3339};
use ironkeel_schema::type_by_name;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::decode;

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
    let audiences: Vec<String> =
        body.items_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let seconds = body.i64_at(&["spec", "expirationSeconds"]).unwrap_or(DEFAULT_SECONDS);
    let row = registry.row("", "v1", "serviceaccounts").ok_or_else(ApiError::no_such_resource)?;
    let write = c.write_request(&row)?;
    c.server.admission.validate(&write.attributes(Operation::Create, name), Some(&body), None).await?;
    let bound_object = bound(registry, &c, &body, &account)?;
    let request = TokenRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: account.uid().to_owned(),
        audiences: audiences.clone(),
        expiration_seconds: seconds,
        bound_object,
    };
    let now = registry.clock().now();
    let (token, expires) = c.server.issuer.issue(request, now.as_second()).map_err(|e| {
        let error = ironkeel_kinds::FieldError {
            path: ironkeel_kinds::Path::new("spec").child("expirationSeconds"),
            kind: ironkeel_kinds::FieldErrorKind::Invalid,
            message: format!("Invalid value: {seconds}: {e}"),
        };
        ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error])
    })?;
    if audiences.is_empty() {
        *body.slot(&["spec", "audiences"]) = c.server.issuer.api_audiences().to_vec().into();
    }
    *body.slot(&["spec", "expirationSeconds"]) = seconds.into();
    let meta = body.meta_mut();
    meta.insert("name", name);
    meta.insert("namespace", namespace);
    meta.insert("creationTimestamp", rfc3339(now));
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
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to resource {version}/{kind}"
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
        return Err(ApiError::conflict("", plural, name, &why));
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
