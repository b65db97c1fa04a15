//! PATCH in its four kinds, as a [`Change`].
//!
//! The patched tree is checked against its type again, so an unknown field that a patch brings is
//! answered as `fieldValidation` asks.

use std::sync::Arc;

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{ObjectMeta, Value};
use ironkeel_patch::{ApplyError, ApplyOptions, LAST_APPLIED, PatchError};
use ironkeel_schema::TypeId;
use parking_lot::Mutex;

use crate::custom::{schema_of, structure_of};
use crate::error::{ApiError, Cause, Details, Reason};
use crate::managed_fields;
use crate::storage::Row;
use crate::update::{Change, garbled_version};

/// A decoded patch.
#[derive(Clone, Debug)]
pub enum PatchBody {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Strategic merge patch.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// What the manager wants.
        object: Value,
        /// Takes over what others own.
        force: bool,
    },
}

/// `fieldValidation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop silently.
    Ignore,
    /// Drop, and warn.
    #[default]
    Warn,
    /// Refuse.
    Strict,
}

impl FieldValidation {
    /// What strict decoding found, as an error or as warnings.
    pub fn judge(self, mut problems: Vec<String>, warnings: &Mutex<Vec<String>>) -> Result<(), ApiError> {
        problems.truncate(MAX_STRICT_PROBLEMS);
        if problems.is_empty() {
            return Ok(());
        }
        match self {
            FieldValidation::Ignore => Ok(()),
            FieldValidation::Warn => {
                let mut warnings = warnings.lock();
                // Each line about a YAML document is a warning of its own.
                let lines = problems.iter().flat_map(|p| match p.strip_prefix("yaml: unmarshal errors:") {
                    Some(lines) => lines.trim().split('\n').map(str::trim).collect(),
                    None => vec![p.as_str()],
                });
                for p in lines.map(str::to_owned) {
                    if !warnings.contains(&p) {
                        warnings.push(p);
                    }
                }
                Ok(())
            }
            FieldValidation::Strict => {
                Err(ApiError::bad_request(format!("strict decoding error: {}", problems.join(", "))))
            }
        }
    }
}

/// What strict decoding found is told up to here, as upstream's decoder does.
const MAX_STRICT_PROBLEMS: usize = 100;

/// A patch with all that applying it needs.
#[derive(Clone, Debug)]
pub struct Patch {
    /// What to do.
    pub body: PatchBody,
    /// The type of what is patched.
    pub type_id: TypeId,
    /// The row that is patched.
    pub row: Arc<Row>,
    /// Name of the path.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Name in `managedFields`.
    pub field_manager: String,
    /// Now, as RFC 3339.
    pub now: String,
    /// What to do about unknown fields.
    pub validation: FieldValidation,
    /// What strict decoding found in the patch itself.
    pub problems: Vec<String>,
    /// Why this user may not create the object, should an apply find none.
    pub create_refused: Option<ApiError>,
    /// Warnings for the client.
    pub warnings: Arc<Mutex<Vec<String>>>,
}

impl Patch {
    fn apply_to(&self, current: &Value, config: &Value, force: bool) -> Result<Value, ApiError> {
        let row = &self.row;
        let structure = structure_of(row);
        let options = ApplyOptions {
            manager: &self.field_manager,
            api_version: &row.api_version,
            subresource: &self.subresource,
            now: &self.now,
            schema: schema_of(row, structure.as_ref()),
            reset: managed_fields::reset_fields(row, &self.subresource),
        };
        let last = current.annotation(LAST_APPLIED).filter(|_| self.field_manager == KUBECTL);
        let last = last.and_then(|text| ironkeel_codec::parse_json(text.as_bytes()).ok());
        let mut out =
            ironkeel_patch::apply(current, config, force, last.as_ref(), &options).map_err(|e| apply_error(&e))?;
        // Client-side apply, should its user go back to it, finds what was applied last.
        if self.field_manager == KUBECTL && out.annotation(LAST_APPLIED).is_some_and(|a| !a.is_empty()) {
            let text = last_applied_text(config);
            *out.slot(&["metadata", "annotations", LAST_APPLIED]) = text.into();
        }
        Ok(out)
    }

    /// The replicas that an apply through `scale` sets on the object itself.
    pub(crate) fn applied_scale(&self, current: &Value) -> Option<Result<Value, ApiError>> {
        let PatchBody::Apply { object, force } = &self.body else { return None };
        let expected = ("autoscaling/v1", "Scale");
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        if (text("apiVersion"), text("kind")) != expected {
            return Some(Err(ApiError::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
                text("apiVersion"),
                expected.0
            ))));
        }
        let mut config = Value::object();
        config.set_gvk(&self.row.api_version, self.row.kind_name());
        if let Some(replicas) = object.i64_at(&["spec", "replicas"]) {
            self.row.kind.hooks.set_replicas(&mut config, replicas);
        }
        Some(self.apply_to(current, &config, *force))
    }

    /// Applies the patch to any tree of its type.
    pub fn patched(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = match &self.body {
            PatchBody::Apply { object, force } => {
                let mut out = self.apply_to(current, object, *force)?;
                keep_expectations(&mut out, object);
                if out.name().is_empty() || object.str_at(&["metadata", "name"]) == Some("") {
                    return Err(undeterminable(&self.name));
                }
                return self.conformed(out, object);
            }
            PatchBody::Json(p) => {
                let mut out = current.clone();
                ironkeel_patch::json_patch(&mut out, p).map_err(|e| patch_error(&e))?;
                out
            }
            PatchBody::Merge(p) => {
                let mut out = current.clone();
                ironkeel_patch::merge_patch(&mut out, p);
                out
            }
            PatchBody::Strategic(p) => {
                let mut out = current.clone();
                ironkeel_patch::strategic_merge(&mut out, p, self.type_id).map_err(|e| patch_error(&e))?;
                out
            }
        };
        if !matches!(self.body, PatchBody::Strategic(_)) {
            self.same_kind(current, &out)?;
        }
        // Upstream shows what a strategic merge was asked to do, and what other patches made.
        let refuse = |out: &Value, why: &str| match &self.body {
            PatchBody::Strategic(p) => unpatchable(ironkeel_patch::shown(p), why),
            _ => unpatchable(sorted_text(out), why),
        };
        if matches!(self.body, PatchBody::Strategic(_)) {
            ironkeel_patch::from_unstructured(&mut out, self.type_id).map_err(|why| refuse(&out, &why))?;
        }
        let mut problems = self.problems.clone();
        match self.check(&mut out) {
            Ok(found) => problems.extend(found),
            Err(e) => return Err(refuse(&out, self.without_kind(&e.message))),
        }
        if let Err(refused) = self.validation.judge(problems, &self.warnings) {
            return Err(refuse(&out, &refused.message));
        }
        let name = current.name();
        if out.name().is_empty() && !name.is_empty() {
            return Err(undeterminable(name));
        }
        Ok(out)
    }

    /// Refuses a patch that makes another kind of the object.
    fn same_kind(&self, current: &Value, out: &Value) -> Result<(), ApiError> {
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text(out, "apiVersion"), text(out, "kind"));
        let (expected_version, expected_kind) = (text(current, "apiVersion"), text(current, "kind"));
        if (&version, &kind) == (&expected_version, &expected_kind) {
            return Ok(());
        }
        if self.row.kind.custom.is_some() && self.subresource != "scale" {
            for member in ["apiVersion", "kind"] {
                if let Some(other) = out.get(member).filter(|v| !matches!(v, Value::Null | Value::String(_))) {
                    let why = format!(
                        "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field \
                         .{member} of type string",
                        other.type_name()
                    );
                    return Err(unpatchable(sorted_text(out), &why));
                }
            }
            if version.matches('/').count() > 1 {
                let why = format!("unexpected GroupVersion string: {version}");
                return Err(unpatchable(sorted_text(out), &why));
            }
            if kind.is_empty() {
                let shown = sorted_text(out);
                let why = format!("Object 'Kind' is missing in '{shown}'");
                return Err(unpatchable(shown, &why));
            }
            if version.is_empty() {
                let why = "Object 'apiVersion' is missing in 'object has no apiVersion field'";
                return Err(ApiError::bad_request(why));
            }
            // Nothing but the status is written this way.
            if self.subresource == "status" {
                return Ok(());
            }
            let wrong = [("kind", &kind, &expected_kind), ("apiVersion", &version, &expected_version)];
            let errors: Vec<FieldError> = wrong
                .into_iter()
                .filter(|(_, found, expected)| found != expected)
                .map(|(field, found, expected)| FieldError {
                    path: Path::new(field),
                    kind: FieldErrorKind::Invalid,
                    message: format!("Invalid value: {found:?}: must be {expected}"),
                })
                .collect();
            let group = version.split_once('/').map_or("", |(group, _)| group);
            return Err(ApiError::invalid(group, &kind, current.name(), &errors));
        }
        // What is left out is what the path says; another version of the same kind is read as the path's.
        if version.is_empty() || kind.is_empty() || (kind == expected_kind && known(&version, &kind)) {
            return Ok(());
        }
        let why = if known(&version, &kind) {
            let of = |version: &str| version.rsplit('/').next().unwrap_or_default().to_owned();
            let group = expected_version.split_once('/').map_or("core", |(group, _)| group);
            let group = group.split('.').next().unwrap_or_default();
            format!("converting ({}.{kind}) to ({group}.{expected_kind}): unknown conversion", of(&version))
        } else {
            format!("no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\"")
        };
        Err(unpatchable(sorted_text(out), &why))
    }

    /// What is wrong, without what it is wrong about.
    fn without_kind<'m>(&self, message: &'m str) -> &'m str {
        let r = &self.row.kind.resource;
        message
            .strip_prefix(&format!("{} in version {:?} cannot be handled as a {}: ", r.kind, r.version, r.kind))
            .unwrap_or(message)
    }

    /// Brings a patched tree to its type; answers the fields that the type does not have.
    fn check(&self, tree: &mut Value) -> Result<Vec<String>, ApiError> {
        if self.type_id == self.row.kind.resource.type_id {
            return self.row.conform(tree);
        }
        let mut found = Vec::new();
        let refuse = |e: ironkeel_codec::DecodeError| ApiError::bad_request(e.to_string());
        ironkeel_codec::conform(tree, self.type_id, &mut found).map_err(refuse)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    fn conformed(&self, mut applied: Value, config: &Value) -> Result<Value, ApiError> {
        if self.row.kind.custom.is_some() {
            self.check(&mut applied)?;
            return Ok(applied);
        }
        let refuse = |why: &str| {
            let (version, kind) = (&self.row.api_version, self.row.kind_name());
            let slash = if version.contains('/') { "" } else { "/" };
            ApiError::bad_request(format!(
                "failed to convert new object ({}/{}; {slash}{version}, Kind={kind}) to proper version: unable to convert \
                 unstructured object to {slash}{version}, Kind={kind}: {why}",
                config.namespace(),
                config.name()
            ))
        };
        ironkeel_patch::from_unstructured(&mut applied, self.type_id).map_err(|why| refuse(&why))?;
        self.check(&mut applied).map_err(|e| refuse(self.without_kind(&e.message)))?;
        Ok(applied)
    }
}

/// Whether a kind stands in the schema.
fn known(api_version: &str, kind: &str) -> bool {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ironkeel_schema::type_id_for_kind(group, version, kind).is_some()
}

/// What an apply says of the object that it means holds although the apply changes nothing.
fn keep_expectations(out: &mut Value, config: &Value) {
    for key in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(expected) = config.str_at(&["metadata", key]).filter(|t| !t.is_empty()) {
            out.meta_mut().insert(key, expected);
        }
    }
}

/// The manager for which client-side apply's annotation is kept up to date.
const KUBECTL: &str = "kubectl";

/// The configuration as client-side apply notes it.
fn last_applied_text(config: &Value) -> String {
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.get_mut("metadata").and_then(|m| m.get_mut("annotations")) {
        annotations.remove(LAST_APPLIED);
    }
    sorted_text(&config) + "\n"
}

/// 400: nothing says which object it is.
fn undeterminable(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the name of the object ({name} based on URL) was undeterminable: name must be provided"
    ))
}

/// JSON with all members in order; only the outermost object of a text begins with its kind.
fn sorted_text(value: &Value) -> String {
    let mut text = Vec::new();
    ironkeel_codec::encode_json(&Value::Array(vec![value.clone()]), &mut text);
    let text = String::from_utf8(text).unwrap_or_default();
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// 422: the patch fits, but what it makes is no object of the kind.
fn unpatchable(shown: String, why: &str) -> ApiError {
    let error = FieldError {
        path: Path::new("patch"),
        kind: FieldErrorKind::Invalid,
        message: format!("Invalid value: {shown:?}: {why}"),
    };
    ApiError::invalid("", "", "", &[error])
}

impl Change for Patch {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        self.patched(current)
    }

    fn create(&self) -> Result<Option<Value>, ApiError> {
        if !matches!(self.body, PatchBody::Apply { .. }) {
            return Ok(None);
        }
        if let Some(refused) = &self.create_refused {
            return Err(refused.clone());
        }
        let mut nothing = Value::object();
        nothing.set_gvk(&self.row.api_version, self.row.kind_name());
        let mut object = self.patched(&nothing)?;
        garbled_version(&object)?;
        object.meta_mut().remove("resourceVersion");
        if !object.uid().is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                object.uid()
            );
            return Err(ApiError::conflict(self.row.group(), self.row.plural(), object.name(), &why));
        }
        Ok(Some(object))
    }

    fn tracks_fields(&self) -> bool {
        matches!(self.body, PatchBody::Apply { .. })
    }
}

fn patch_error(e: &PatchError) -> ApiError {
    match e {
        // Upstream keeps to itself which operation it was.
        PatchError::Inapplicable(_) => ApiError {
            details: Some(Box::default()),
            ..ApiError::new(Reason::Invalid, "the server rejected our request due to an error in our request")
        },
        PatchError::TooManyOperations { .. } => {
            ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {e}"))
        }
        PatchError::Malformed(_) => ApiError::bad_request(e.to_string()),
    }
}

fn apply_error(e: &ApplyError) -> ApiError {
    let conflicts = match e {
        ApplyError::Conflicts(conflicts) => conflicts,
        _ => return ApiError::bad_request(e.to_string()),
    };
    let causes = conflicts
        .iter()
        .map(|c| Cause { reason: "FieldManagerConflict".to_owned(), message: c.to_string(), field: c.field.clone() })
        .collect();
    ApiError {
        details: Some(Box::new(Details { causes, ..Details::default() })),
        ..ApiError::new(Reason::Conflict, e.to_string())
    }
}
