//! POST, PUT, PATCH and DELETE of stored objects. Each runs on a task of its own, so a client that
//! hangs up cannot cut a write in half.

use std::future::Future;
use std::sync::Arc;

use http::Response;
use http::header::CONTENT_TYPE;
use ironkeel_codec::Format;
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{
    ApiError, Change, DeleteOptions, Deleted, ListAnswer, Patch, PatchBody, Propagation, Replace, Row, ScaleChange,
    ScaleWrite, Written, rfc3339, scale_of,
};
use ironkeel_schema::{TypeId, type_by_name};

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::negotiate::{body_format, unsupported};
use crate::{decode, read};

/// Runs to the end whatever becomes of the caller.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(e) => Err(ApiError::internal(e)),
    }
}

fn answer_written(c: &Context, row: &Row, written: &Written) -> Result<Response<Body>, ApiError> {
    let code = if written.created { 201 } else { 200 };
    answer::entry(&c.server.registry, row, &written.entry, code, &c.output, c.include_object())
}

/// POST of a collection.
pub(crate) async fn create(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    if row.namespaced() && c.info.namespace.is_empty() {
        return Err(ApiError::method_not_supported(row.group(), row.plural(), "create"));
    }
    let object = decode::object(&c, &row.api_version, row.kind_name(), row.kind.resource.type_id)?;
    let request = c.write_request(&row)?;
    let registry = c.server.registry.clone();
    let written = detached(async move { registry.create(&request, object).await }).await?;
    answer_written(&c, &row, &written)
}

async fn update(c: &Context, row: &Arc<Row>, change: impl Change + 'static) -> Result<Written, ApiError> {
    let request = c.write_request(row)?;
    let registry = c.server.registry.clone();
    detached(async move { registry.update(&request, &change).await }).await
}

/// PUT of an object or of a subresource that writes it.
pub(crate) async fn replace(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let object = decode::object(&c, &row.api_version, row.kind_name(), row.kind.resource.type_id)?;
    let written = update(&c, &row, Replace(object)).await?;
    answer_written(&c, &row, &written)
}

/// PATCH of an object or of a subresource that writes it.
pub(crate) async fn patch(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let patch = decode_patch(&c, &row, row.kind.resource.type_id)?;
    let written = update(&c, &row, patch).await?;
    answer_written(&c, &row, &written)
}

fn decode_patch(c: &Context, row: &Arc<Row>, type_id: TypeId) -> Result<Patch, ApiError> {
    let content_type = c.parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let validation = c.field_validation()?;
    let parse = || {
        let (value, problems) = ironkeel_codec::parse_json_strict(&c.body)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        validation.judge(problems.iter().map(ToString::to_string).collect(), &c.warnings)?;
        Ok::<Value, ApiError>(value)
    };
    let object = |value: Value| match value {
        Value::Object(_) => Ok(value),
        other => Err(ApiError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.type_name()
        ))),
    };
    let body = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => PatchBody::Json(parse()?),
        "application/merge-patch+json" => PatchBody::Merge(object(parse()?)?),
        "application/strategic-merge-patch+json" => PatchBody::Strategic(object(parse()?)?),
        "application/apply-patch+yaml" => {
            if c.query.get("fieldManager").is_none_or(|m| m.is_empty()) {
                return Err(c.invalid_option("fieldManager", "Required value: is required for apply patch"));
            }
            let (value, problems) = decode::bytes(&c.body, Format::Yaml, &row.api_version, row.kind_name(), type_id)?;
            validation.judge(problems, &c.warnings)?;
            PatchBody::Apply { object: value, force: c.query.flag("force") }
        }
        _ => {
            return Err(unsupported(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ]));
        }
    };
    if c.query.get("force").is_some() && !matches!(body, PatchBody::Apply { .. }) {
        return Err(c.invalid_option("force", "Forbidden: may not be specified for non-apply patch"));
    }
    Ok(Patch {
        body,
        type_id,
        row: row.clone(),
        subresource: c.info.subresource.clone(),
        field_manager: c.field_manager()?,
        now: rfc3339(c.server.registry.clock().now()),
        validation,
        warnings: c.warnings.clone(),
    })
}

/// GET, PUT and PATCH of `scale`.
pub(crate) async fn scale(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let registry = c.server.registry.clone();
    let scale_type = type_by_name("autoscaling/v1.Scale").ok_or_else(ApiError::no_such_resource)?;
    let entry = match c.info.verb {
        "get" => registry.get(&row, &c.info.namespace, &c.info.name)?,
        "update" | "patch" => {
            let change = if c.info.verb == "update" {
                ScaleChange::Replace(decode::object(&c, "autoscaling/v1", "Scale", scale_type)?)
            } else {
                ScaleChange::Patch(Box::new(decode_patch(&c, &row, scale_type)?))
            };
            let request = c.write_request(&row)?;
            let (registry, row) = (registry.clone(), row.clone());
            let written = detached(async move {
                let write = ScaleWrite { row: &row, change };
                registry.update(&request, &write).await
            });
            written.await?.entry
        }
        other => return Err(ApiError::method_not_supported(row.group(), row.plural(), other)),
    };
    let scale = scale_of(&row, &registry.tree(&row, &entry)?)?;
    Ok(answer::value(200, &scale, &c.output))
}

fn delete_options(c: &Context) -> Result<DeleteOptions, ApiError> {
    let mut out = DeleteOptions::default();
    let mut orphan = None;
    let mut policy = None;
    if !c.body.is_empty() {
        let format = body_format(&c.parts.headers)?;
        let type_id = type_by_name("meta/v1.DeleteOptions").ok_or_else(ApiError::no_such_resource)?;
        let (body, problems) = decode::bytes(&c.body, format, "v1", "DeleteOptions", type_id)?;
        c.field_validation()?.judge(problems, &c.warnings)?;
        out.grace_seconds = body.i64_at(&["gracePeriodSeconds"]);
        let text = |path: &[&str]| body.str_at(path).map(str::to_owned);
        out.uid = text(&["preconditions", "uid"]);
        out.resource_version = text(&["preconditions", "resourceVersion"]);
        orphan = body.get("orphanDependents").and_then(Value::as_bool);
        policy = text(&["propagationPolicy"]);
    } else {
        if let Some(grace) = c.query.get("gracePeriodSeconds") {
            let grace = grace
                .parse()
                .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{grace}\": invalid syntax")))?;
            out.grace_seconds = Some(grace);
        }
        orphan = c.query.get("orphanDependents").map(|v| v == "true").or(orphan);
        policy = c.query.get("propagationPolicy").map(|p| p.into_owned()).or(policy);
    }
    if out.grace_seconds.is_some_and(|g| g < 0) {
        out.grace_seconds = Some(1);
    }
    if orphan.is_some() && policy.is_some() {
        return Err(c.invalid_option(
            "propagationPolicy",
            "Invalid value: orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    out.propagation = match (policy.as_deref(), orphan) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (None | Some(""), None) => None,
        (Some(other), _) => {
            return Err(c.invalid_option("propagationPolicy", &format!("Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"")));
        }
    };
    Ok(out)
}

/// Resources whose delete is answered with the object, not with a Status (upstream's
/// `ReturnDeletedObject`).
const ANSWERS_DELETED: &[(&str, &str)] = &[
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// DELETE of one object.
pub(crate) async fn delete(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let options = delete_options(&c)?;
    let request = c.write_request(&row)?;
    let registry = c.server.registry.clone();
    let deleted = detached(async move { registry.delete(&request, &options).await }).await?;
    match deleted {
        Deleted::Gone(entry) if !ANSWERS_DELETED.contains(&(row.group(), row.plural())) => {
            let tree = entry.tree()?;
            let status = answer::success(row.group(), row.plural(), entry.name(), tree.uid());
            Ok(answer::value(200, &status, &c.output))
        }
        Deleted::Gone(entry) | Deleted::Pending(entry) => {
            answer::entry(&c.server.registry, &row, &entry, 200, &c.output, c.include_object())
        }
    }
}

/// DELETE of a collection.
pub(crate) async fn delete_collection(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let options = delete_options(&c)?;
    let selection = read::selection(&c, &row)?;
    let request = c.write_request(&row)?;
    let registry = c.server.registry.clone();
    let entries = detached(async move { registry.delete_collection(&request, &options, &selection).await }).await?;
    let revision = c.server.registry.revision();
    let answer = ListAnswer { entries, revision, continue_token: String::new(), remaining: None };
    read::respond(&c.server.registry, &row, answer, &c.output, c.include_object())
}
