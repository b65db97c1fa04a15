//! POST, PUT, PATCH and DELETE of stored objects. Each runs on a task of its own, so a client that
//! hangs up cannot cut a write in half.

use std::future::Future;
use std::num::IntErrorKind;
use std::sync::Arc;

use http::Response;
use http::header::CONTENT_TYPE;
use ironkeel_auth::Attributes;
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{
    ApiError, Change, DeleteOptions, Deleted, FieldTerm, FieldValidation, Patch, PatchBody, Propagation, Reason,
    Replace, Row, ScaleChange, ScaleWrite, WriteRequest, Written, rfc3339, scale_of,
};
use ironkeel_schema::{TypeId, type_by_name};

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::negotiate::{body_format, unsupported};
use crate::tasks::Tasks;
use crate::{decode, layers, read};

/// Runs to the end whatever becomes of the caller.
pub(crate) async fn detached<T: Send + 'static>(
    tasks: &Tasks,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tasks.spawn(ironkeel_trace::carried(work)).await {
        Ok(Some(done)) => done,
        Ok(None) => Err(ApiError::new(Reason::ServiceUnavailable, "the server has stopped")),
        Err(e) => Err(ApiError::internal(e)),
    }
}

async fn answer_written(c: &Context, row: &Row, written: &Written) -> Result<Response<Body>, ApiError> {
    c.server.registry.prepare(row, std::slice::from_ref(&written.entry)).await?;
    let code = if written.created { 201 } else { 200 };
    answer::entry(&c.server.registry, row, &written.entry, code, &c.output, c.include_object())
}

/// POST of a collection.
pub(crate) async fn create(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    if row.namespaced() && c.info.namespace.is_empty() {
        return Err(ApiError::method_not_supported(row.group(), row.plural(), "create"));
    }
    c.check_options(Vec::new())?;
    let object = decode::of_row(&c, &row)?;
    let mut request = c.write_request(&row)?;
    // Upstream lets the path of a custom resource's create name anything. The authorizer was asked about that name.
    if !std::mem::take(&mut request.name).is_empty() {
        named_as_asked(&c, &object)?;
    }
    let registry = c.server.registry.clone();
    let written = detached(&c.server.tasks, async move { registry.create(&request, object).await }).await?;
    answer_written(&c, &row, &written).await
}

async fn update(c: &Context, row: &Arc<Row>, change: impl Change + 'static) -> Result<Written, ApiError> {
    let request = c.write_request(row)?;
    let registry = c.server.registry.clone();
    detached(&c.server.tasks, async move { registry.update(&request, &change).await }).await
}

/// PUT of an object or of a subresource that writes it.
pub(crate) async fn replace(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    c.check_options(Vec::new())?;
    let object = decode::of_row(&c, &row)?;
    named_as_asked(&c, &object)?;
    let refused = if row.kind.hooks.create_on_update() { creation_refused(&c, &row).await } else { None };
    let put = Put { object: Replace(object), refused };
    let written = update(&c, &row, put).await?;
    answer_written(&c, &row, &written).await
}

/// A PUT's body must bear the name that the path does.
fn named_as_asked(c: &Context, object: &Value) -> Result<(), ApiError> {
    let (asked, namespace) = (&c.info.namespace, object.namespace());
    if !asked.is_empty() && !namespace.is_empty() && namespace != asked {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let (asked, name) = (&c.info.name, object.name());
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != asked {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({asked})"
        )));
    }
    Ok(())
}

/// PUT: of an absent name it creates, for who may.
struct Put {
    object: Replace,
    refused: Option<ApiError>,
}

impl Change for Put {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        self.object.apply(current)
    }

    fn create(&self) -> Result<Option<Value>, ApiError> {
        match &self.refused {
            Some(refused) => Err(refused.clone()),
            None => self.object.create(),
        }
    }

    fn names_what_it_changes(&self) -> bool {
        true
    }
}

/// PATCH of an object or of a subresource that writes it.
pub(crate) async fn patch(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let patch = decode_patch(&c, &row, row.kind.resource.type_id).await?;
    let written = update(&c, &row, patch).await?;
    answer_written(&c, &row, &written).await
}

/// Patches of built-in kinds, in upstream's order.
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    APPLY_YAML,
];
/// Patches of custom resources, which have no strategic merge.
const CUSTOM_PATCH_TYPES: &[&str] = &["application/json-patch+json", "application/merge-patch+json", APPLY_YAML];
const APPLY_YAML: &str = "application/apply-patch+yaml";

async fn decode_patch(c: &Context, row: &Arc<Row>, type_id: TypeId) -> Result<Patch, ApiError> {
    let content_type = c.parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let scaled = !c.info.subresource.is_empty() && type_id != row.kind.resource.type_id;
    let supported = if row.kind.custom.is_some() && !scaled { CUSTOM_PATCH_TYPES } else { PATCH_TYPES };
    if !supported.contains(&content_type) {
        return Err(unsupported(supported));
    }
    let apply = content_type == APPLY_YAML;
    let wrong = |field: &str, kind, message: &str| FieldError { path: Path::new(field), kind, message: message.into() };
    let mut errors = Vec::new();
    if apply && c.query.get("fieldManager").is_none_or(|m| m.is_empty()) {
        let why = "Required value: is required for apply patch";
        errors.push(wrong("fieldManager", FieldErrorKind::Required, why));
    }
    if !apply && c.query.get("force").is_some() {
        let why = "Forbidden: may not be specified for non-apply patch";
        errors.push(wrong("force", FieldErrorKind::Forbidden, why));
    }
    c.check_options(errors)?;
    let validation = c.field_validation()?;
    let field_manager = c.field_manager()?;
    let mut problems = Vec::new();
    let body = if apply {
        let (mut value, found) = ironkeel_codec::decode_yaml(&c.body, None)
            .map_err(|e| ApiError::bad_request(format!("error decoding YAML: error converting YAML to JSON: {e}")))?;
        if value.is_null() {
            value = Value::object();
        }
        if !matches!(value, Value::Object(_)) {
            return Err(ApiError::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type \
                 map[string]interface {{}}",
                value.type_name()
            )));
        }
        if !found.is_empty() {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            match validation {
                FieldValidation::Strict => {
                    let why = found.join(", ");
                    let message = format!("error strict decoding YAML: error converting YAML to JSON: {why}");
                    return Err(ApiError::bad_request(message));
                }
                other => other.judge(found, &c.warnings)?,
            }
        }
        PatchBody::Apply { object: value, force: c.query.flag("force") }
    } else {
        let doing = if content_type == PATCH_TYPES[2] { "" } else { "error decoding patch: " };
        let (value, found) =
            ironkeel_codec::parse_json_strict(&c.body).map_err(|e| ApiError::bad_request(format!("{doing}{e}")))?;
        problems.extend(found.iter().map(ToString::to_string));
        match content_type {
            "application/json-patch+json" => {
                problems =
                    problems.into_iter().chain(unknown_members(&value)).map(|p| format!("json patch {p}")).collect();
                PatchBody::Json(value)
            }
            "application/merge-patch+json" if value.is_null() => {
                return Err(ApiError::bad_request("Invalid JSON Patch"));
            }
            "application/merge-patch+json" => PatchBody::Merge(an_object(value, doing)?),
            _ if value.is_null() => PatchBody::Strategic(Value::object()),
            _ => PatchBody::Strategic(an_object(value, doing)?),
        }
    };
    Ok(Patch {
        create_refused: if apply { creation_refused(c, row).await } else { None },
        body,
        type_id,
        row: row.clone(),
        name: c.info.name.clone(),
        subresource: c.info.subresource.clone(),
        field_manager,
        now: rfc3339(c.server.registry.clock().now()),
        validation,
        problems,
        warnings: c.warnings.clone(),
    })
}

fn an_object(value: Value, doing: &str) -> Result<Value, ApiError> {
    match value {
        Value::Object(_) => Ok(value),
        other => Err(ApiError::bad_request(format!(
            "{doing}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.type_name()
        ))),
    }
}

/// Members that no operation of a JSON patch has.
fn unknown_members(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().unwrap_or_default().iter().enumerate();
    let known = |name: &str| matches!(name, "op" | "path" | "from" | "value");
    operations
        .flat_map(|(i, o)| o.as_object().into_iter().flat_map(|m| m.keys()).map(move |name| (i, name)))
        .filter(|(_, name)| !known(name))
        .map(|(i, name)| format!("unknown field \"[{i}].{name}\""))
        .collect()
}

/// An apply or a PUT may create the object only for who may create it, by the word of every authorizer.
async fn creation_refused(c: &Context, row: &Row) -> Option<ApiError> {
    let info = &c.info;
    let attributes = Attributes {
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        ..Attributes::for_resource(&c.user, "create", row.group(), row.kind.resource.version, row.plural())
    };
    let decision = layers::decide(&c.server, &attributes).await;
    if decision.is_allowed() {
        return None;
    }
    Some(ApiError::forbidden(row.group(), row.plural(), &info.name, &attributes.refusal(decision.reason())))
}

/// GET, PUT and PATCH of `scale`.
pub(crate) async fn scale(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let registry = c.server.registry.clone();
    let scale_type = type_by_name("autoscaling/v1.Scale").ok_or_else(ApiError::no_such_resource)?;
    let entry = match c.info.verb {
        "get" => registry.get(&row, &c.info.namespace, &c.info.name)?,
        "update" | "patch" => {
            let change = if c.info.verb == "update" {
                let scale = decode::object(&c, "autoscaling/v1", "Scale", scale_type)?;
                named_as_asked(&c, &scale)?;
                ScaleChange::Replace(scale)
            } else {
                ScaleChange::Patch(Box::new(decode_patch(&c, &row, scale_type).await?))
            };
            let request = c.write_request(&row)?;
            let (registry, row) = (registry.clone(), row.clone());
            let written = detached(&c.server.tasks, async move {
                let write = ScaleWrite { row: &row, change };
                registry.update(&request, &write).await
            });
            written.await?.entry
        }
        other => return Err(ApiError::method_not_supported(row.group(), row.plural(), other)),
    };
    let object = registry.current(&row, &entry).await?;
    if let Some(path) = row.kind.hooks.replicas_missing(&object) {
        return Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    let scale = scale_of(&row, &object)?;
    Ok(answer::value(200, &scale, &c.output))
}

fn delete_options(c: &Context) -> Result<DeleteOptions, ApiError> {
    let mut out = DeleteOptions::default();
    let mut dry_run = Vec::new();
    let (orphan, policy, ignore);
    let mut preconditions = false;
    // With a body, what the query says is no matter.
    if !c.body.is_empty() {
        let format = body_format(&c.parts.headers, false)?;
        let type_id = type_by_name("meta/v1.DeleteOptions").ok_or_else(ApiError::no_such_resource)?;
        // What the options do not have is nobody's concern, whatever `fieldValidation` says.
        let (body, _) = decode::plain(&c.body, format, "DeleteOptions", type_id)?;
        if let Some(other) = body.str_at(&["kind"]).filter(|k| !matches!(*k, "" | "DeleteOptions")) {
            let version = body.str_at(&["apiVersion"]).filter(|v| !v.is_empty()).unwrap_or("meta.k8s.io/v1");
            return Err(ApiError::bad_request(format!(
                "no kind {other:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\""
            )));
        }
        out.grace_seconds = body.i64_at(&["gracePeriodSeconds"]);
        dry_run.extend(body.items_at(&["dryRun"]).iter().filter_map(Value::as_str).map(str::to_owned));
        let text = |path: &[&str]| body.str_at(path).map(str::to_owned);
        out.uid = text(&["preconditions", "uid"]);
        out.resource_version = text(&["preconditions", "resourceVersion"]);
        orphan = body.get("orphanDependents").and_then(Value::as_bool);
        policy = text(&["propagationPolicy"]);
        preconditions = body.get("preconditions").is_some_and(|p| !p.is_null());
        ignore = body.get(IGNORE_READ_ERROR).and_then(Value::as_bool);
    } else {
        if let Some(grace) = c.query.get("gracePeriodSeconds") {
            out.grace_seconds = Some(go_integer(&grace)?);
        }
        dry_run.extend(c.query.all("dryRun").iter().map(|v| v.to_string()));
        orphan = c.query.get("orphanDependents").map(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"));
        policy = c.query.get("propagationPolicy").map(|p| p.into_owned());
        ignore = Some(c.query.flag(IGNORE_READ_ERROR));
        if c.info.verb == "delete" {
            let text = |name: &str| c.query.get(name).filter(|v| !v.is_empty()).map(|v| v.into_owned());
            out.uid = text("uid");
            out.resource_version = text("resourceVersion");
        }
    }
    if out.grace_seconds.is_some_and(|g| g < 0) {
        out.grace_seconds = Some(1);
    }
    out.ignore_read_error = ignore == Some(true) && c.server.has_feature("AllowUnsafeMalformedObjectDeletion");
    let mut errors = Vec::new();
    let mut wrong = |kind, message: String| {
        errors.push(FieldError { path: Path::new("propagationPolicy"), kind, message });
    };
    if let (Some(_), Some(policy)) = (orphan, &policy) {
        let why = format!("Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set");
        wrong(FieldErrorKind::Invalid, why);
    }
    let together = [
        ("dryRun", !dry_run.is_empty()),
        ("propagationPolicy", policy.is_some()),
        ("orphanDependents", orphan.is_some()),
        ("gracePeriodSeconds", out.grace_seconds.is_some()),
        ("preconditions", preconditions || out.uid.is_some() || out.resource_version.is_some()),
    ];
    out.orphan_dependents = orphan;
    out.propagation = match policy.as_deref() {
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        None => None,
        Some(other) => {
            let supported = "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
            wrong(FieldErrorKind::NotSupported, format!("Unsupported value: {other:?}: {supported}"));
            None
        }
    };
    for (field, _) in together.iter().filter(|(_, set)| *set && out.ignore_read_error) {
        errors.push(not_to_ignore(&format!("cannot be set together with .{field}")));
    }
    c.check_delete(&dry_run, errors)?;
    out.dry_run = !dry_run.is_empty();
    Ok(out)
}

/// The option that lets an object be deleted that cannot be read.
const IGNORE_READ_ERROR: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

fn not_to_ignore(why: &str) -> FieldError {
    let message = format!("Invalid value: true: {why}");
    FieldError { path: Path::new(IGNORE_READ_ERROR), kind: FieldErrorKind::Invalid, message }
}

/// DELETE of an object that cannot be read, without admission, finalizers or preconditions: nobody knows them. It
/// takes a permission of its own.
async fn delete_unreadable(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    const VERB: &str = "unsafe-delete-ignore-read-errors";
    c.annotations.lock().push(("apiserver.k8s.io/unsafe-delete-ignore-read-error".to_owned(), String::new()));
    let info = &c.info;
    let attributes = Attributes {
        namespace: info.scope(),
        name: &info.name,
        ..Attributes::for_resource(&c.user, VERB, &info.group, &info.version, &info.resource)
    };
    let decision = layers::decide(&c.server, &attributes).await;
    if !decision.is_allowed() {
        let why = format!("not permitted to do {VERB:?}, reason: {}", decision.reason());
        return Err(ApiError::forbidden(row.group(), row.plural(), &info.name, &why));
    }
    let request = c.request(&row, false)?;
    let registry = c.server.registry.clone();
    let only = not_to_ignore("is exclusively used to delete corrupt object(s), try again by removing this option");
    let (group, plural, name) = (row.group().to_owned(), row.plural().to_owned(), info.name.clone());
    if !detached(&c.server.tasks, async move { registry.delete_unreadable(&request).await }).await? {
        return Err(ApiError::invalid(&group, &plural, &name, &[only]));
    }
    let mut status = answer::success("", row.kind.resource.kind, &name, "");
    status.slot(&["code"]).clone_from(&200i64.into());
    Ok(answer::value(200, &status, &c.output))
}

/// An integer as Go's `strconv.ParseInt` reads it.
pub(crate) fn go_integer(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|e: std::num::ParseIntError| {
        let why = match e.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

/// A delete as the registry sees it; admission is shown `DeleteOptions`, wherever they came from.
fn delete_request(c: &Context, row: &Arc<Row>, options: &DeleteOptions) -> Result<WriteRequest, ApiError> {
    let mut request = c.request(row, options.dry_run)?;
    request.options = Arc::new(options.to_value(request.dry_run));
    Ok(request)
}

/// DELETE of one object.
pub(crate) async fn delete(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let options = delete_options(&c)?;
    if options.ignore_read_error {
        return delete_unreadable(c, row).await;
    }
    let request = delete_request(&c, &row, &options)?;
    // Who asks for a cascade in the old way is told that it is not over.
    let pending = if options.orphan_dependents == Some(false) { 202 } else { 200 };
    let registry = c.server.registry.clone();
    let deleted = detached(&c.server.tasks, async move { registry.delete(&request, &options).await }).await?;
    match deleted {
        Deleted::Gone(entry) if !row.kind.resource.answers_deleted() => {
            let tree = entry.tree()?;
            let status = answer::success(row.group(), row.plural(), entry.name(), tree.uid());
            Ok(answer::value(200, &status, &c.output))
        }
        Deleted::Gone(_) | Deleted::Pending(_) => {
            let (entry, code) = match deleted {
                Deleted::Gone(entry) => (entry, 200),
                Deleted::Pending(entry) => (entry, pending),
            };
            c.server.registry.prepare(&row, std::slice::from_ref(&entry)).await?;
            answer::entry(&c.server.registry, &row, &entry, code, &c.output, c.include_object())
        }
    }
}

/// DELETE of a collection.
pub(crate) async fn delete_collection(c: Context, row: Arc<Row>) -> Result<Response<Body>, ApiError> {
    let options = delete_options(&c)?;
    if options.ignore_read_error {
        let why = "is not allowed with DELETECOLLECTION, try again after removing the option";
        c.check_delete(&[], vec![not_to_ignore(why)])?;
    }
    let mut list = read::list_request(&c, &row)?;
    let terms = list.selection.take_converted(&row, &row.selectable());
    if !terms.is_empty() {
        let (registry, selection) = (&c.server.registry, &mut list.selection);
        row.home()?.cache.all_readable(&selection.namespace)?;
        let all = row.home()?.cache.snapshot(&selection.namespace, "", |e| selection.matches(e)).entries;
        registry.prepare(&row, &all).await?;
        let wanted = all.iter().filter(|e| FieldTerm::holds(&terms, registry, &row, e));
        selection.keep(wanted.map(|e| e.key().to_owned()).collect());
    }
    let request = delete_request(&c, &row, &options)?;
    let registry = c.server.registry.clone();
    let deleting = async move { registry.delete_collection(&request, &options, &list).await };
    let deleted = detached(&c.server.tasks, deleting).await?;
    c.server.registry.prepare(&row, &deleted.entries).await?;
    read::respond(&c.server.registry, &row, deleted, &c.output, c.include_object())
}
