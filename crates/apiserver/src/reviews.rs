//! Reviews: who a token is, and what somebody may do. Nothing of them is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Response;
use ironkeel_auth::authorize::aggregate;
use ironkeel_auth::{Attributes, AuthError, Decision, UserInfo};
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Row, rfc3339};

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::review_selectors::{self, Read, Selector};
use crate::{decode, layers};

/// POST of any of the review resources.
pub(crate) async fn create(c: Context, row: &Arc<Row>) -> Result<Response<Body>, ApiError> {
    let mut body = decode::object(&c, &row.api_version, row.kind_name(), row.kind.resource.type_id)?;
    match row.plural() {
        "tokenreviews" if body.str_at(&["spec", "token"]).is_none_or(str::is_empty) => {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        "tokenreviews" => token(&c, &mut body).await,
        "subjectaccessreviews" => {
            check(row, &body, "")?;
            let user = subject(&body["spec"]);
            access(&c, &mut body, &user, "").await?;
        }
        "localsubjectaccessreviews" => {
            let namespace = c.info.namespace.clone();
            if !body.namespace().is_empty() && body.namespace() != namespace {
                let why = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(ApiError::bad_request(why));
            }
            check(row, &body, &namespace)?;
            let user = subject(&body["spec"]);
            access(&c, &mut body, &user, &namespace).await?;
        }
        "selfsubjectaccessreviews" => {
            check(row, &body, "")?;
            access(&c, &mut body, &c.user, "").await?;
        }
        "selfsubjectrulesreviews" => rules(&c, &mut body)?,
        "selfsubjectreviews" => {
            *body.slot(&["metadata", "creationTimestamp"]) = rfc3339(c.server.registry.clock().now()).into();
            *body.slot(&["status", "userInfo"]) = user_value(&c.user);
        }
        _ => return Err(ApiError::method_not_supported(row.group(), row.plural(), "create")),
    }
    Ok(answer::value(201, &body, &c.output))
}

/// What is wrong with an access review.
fn check(row: &Row, body: &Value, namespace: &str) -> Result<(), ApiError> {
    let spec = Path::new("spec");
    let member = |key: &str| body.at(&["spec", key]).filter(|v| !v.is_null());
    let mut errors = Vec::new();
    let wrong = |path: Path, value: &Value, why: &str| {
        let mut shown = Vec::new();
        ironkeel_codec::encode_json(value, &mut shown);
        let message = format!("Invalid value: {}: {why}", String::from_utf8_lossy(&shown));
        FieldError { path, kind: FieldErrorKind::Invalid, message }
    };
    let paths = member("nonResourceAttributes");
    match (member("resourceAttributes"), paths) {
        (Some(_), Some(paths)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(wrong(spec.child("nonResourceAttributes"), paths, why));
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(wrong(spec.child("resourceAttributes"), &Value::Null, why));
        }
        _ => {}
    }
    let user = body.str_at(&["spec", "user"]).unwrap_or_default();
    if row.plural() != "selfsubjectaccessreviews" && user.is_empty() && texts(&body["spec"]["groups"]).is_empty() {
        errors.push(wrong(spec.child("user"), &"".into(), "at least one of user or group must be specified"));
    }
    if let Some(attributes) = member("resourceAttributes") {
        review_selectors::check(attributes, &mut errors);
    }
    let namespaced = row.plural() == "localsubjectaccessreviews";
    let metadata = body.get("metadata").and_then(Value::as_object).into_iter().flat_map(Map::iter);
    let mut filled = metadata.filter(|(key, value)| {
        let key: &str = key.as_ref();
        let empty = value.is_null() || value.as_str() == Some("");
        !empty && key != "managedFields" && !(namespaced && key == "namespace")
    });
    if filled.next().is_some() {
        let why = if namespaced { "must be empty except for namespace" } else { "must be empty" };
        errors.push(wrong(Path::new("metadata"), &body["metadata"], why));
    }
    if let Some(attributes) = member("resourceAttributes")
        && namespaced
    {
        let asked = attributes.str_at(&["namespace"]).unwrap_or_default();
        if asked != namespace {
            let at = spec.child("resourceAttributes").child("namespace");
            errors.push(wrong(at, &asked.into(), "must match metadata.namespace"));
        }
    }
    if let Some(paths) = paths
        && namespaced
    {
        errors.push(wrong(spec.child("nonResourceAttributes"), paths, "disallowed on this kind of request"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(row.group(), "", "", &errors))
}

fn user_value(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.insert("username", user.name.as_str());
    if !user.uid.is_empty() {
        out.insert("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        out.insert("groups", user.groups.clone());
    }
    if !user.extra.is_empty() {
        let extra: Map = user.extra.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
        out.insert("extra", extra);
    }
    Value::Object(out)
}

async fn token(c: &Context, body: &mut Value) {
    let audiences: Vec<String> =
        body.items_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let token = body.str_at(&["spec", "token"]).unwrap_or_default().to_owned();
    let mut status = Map::new();
    let mut outcome = c.server.authenticator.authenticate_token(&token, &audiences);
    if matches!(outcome, Err(AuthError::UnknownToken)) {
        let own = c.server.issuer.api_audiences();
        let asked = if audiences.is_empty() { own } else { &audiences };
        let now = c.server.registry.clock().now().as_second();
        if let Some(who) = c.server.delegates.authenticate(&token, asked, own, now).await {
            outcome = Ok(who);
        }
    }
    match outcome {
        Ok(who) => {
            status.insert("authenticated", true);
            status.insert("user", user_value(&who.user));
            if !who.audiences.is_empty() {
                status.insert("audiences", who.audiences);
            }
        }
        Err(e) => {
            status.insert("authenticated", false);
            status.insert("error", e.to_string());
        }
    }
    *body.slot(&["status"]) = Value::Object(status);
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_default().iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(spec: &Value) -> UserInfo {
    let text = |key: &str| spec.str_at(&[key]).unwrap_or_default().to_owned();
    let extra: BTreeMap<String, Vec<String>> = spec
        .get("extra")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
        .map(|(k, v)| (k.to_string(), texts(v)))
        .collect();
    UserInfo { name: text("user"), uid: text("uid"), groups: texts(&spec["groups"]), extra }
}

async fn access(c: &Context, body: &mut Value, user: &UserInfo, namespace: &str) -> Result<(), ApiError> {
    let spec = body["spec"].clone();
    let resource = spec.get("resourceAttributes").filter(|r| !r.is_null());
    let path = spec.get("nonResourceAttributes").filter(|r| !r.is_null());
    let (mut fields, mut labels) = (Read::default(), Read::default());
    let decision = match (resource, path) {
        (Some(r), None) => {
            let text = |key: &str| r.str_at(&[key]).unwrap_or_default();
            fields = review_selectors::read(r, Selector::Fields);
            labels = review_selectors::read(r, Selector::Labels);
            let version = if text("version").is_empty() { "*" } else { text("version") };
            let attributes = Attributes {
                subresource: text("subresource"),
                namespace: if namespace.is_empty() { text("namespace") } else { namespace },
                name: text("name"),
                field_selector: &fields.text,
                label_selector: &labels.text,
                ..Attributes::for_resource(user, text("verb"), text("group"), version, text("resource"))
            };
            layers::decide(&c.server, &attributes).await
        }
        (None, Some(p)) => {
            let text = |key: &str| p.str_at(&[key]).unwrap_or_default();
            layers::decide(&c.server, &Attributes::for_path(user, text("verb"), text("path"))).await
        }
        _ => {
            return Err(ApiError::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    let mut status = Map::new();
    status.insert("allowed", decision.is_allowed());
    if matches!(decision, Decision::Deny(_)) {
        status.insert("denied", true);
    }
    let errors: Vec<String> = [fields.error, labels.error].into_iter().flatten().collect();
    let reason = decision.reason();
    if !reason.is_empty() {
        status.insert("reason", reason);
    }
    if !errors.is_empty() {
        status.insert("evaluationError", errors.join("; "));
    }
    *body.slot(&["status"]) = Value::Object(status);
    Ok(())
}

fn rules(c: &Context, body: &mut Value) -> Result<(), ApiError> {
    let namespace = body.str_at(&["spec", "namespace"]).unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let known = c.server.delegates.rules_for(&c.server.authorizer, &c.user, &namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in known.iter().flat_map(|k| &k.rules) {
        let (resource, path) = rule.to_review();
        resources.extend(resource);
        paths.extend(path);
    }
    let mut status = Map::new();
    status.insert("resourceRules", resources);
    status.insert("nonResourceRules", paths);
    status.insert("incomplete", known.iter().any(|k| k.incomplete));
    let errors: Vec<String> = known.into_iter().filter_map(|k| k.error).collect();
    if !errors.is_empty() {
        status.insert("evaluationError", aggregate(errors));
    }
    // The answer does not say again what was asked.
    *body.slot(&["metadata"]) = Value::object();
    *body.slot(&["spec"]) = Value::object();
    *body.slot(&["status"]) = Value::Object(status);
    Ok(())
}
