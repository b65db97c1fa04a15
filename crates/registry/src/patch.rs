//! PATCH in its four kinds, as a [`Change`].
//!
//! The patched tree is checked against its type again, so an unknown field that a patch brings is
//! answered as `fieldValidation` asks.

use std::sync::Arc;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_patch::{ApplyError, ApplyOptions, PatchError};
use ironkeel_schema::TypeId;
use parking_lot::Mutex;

use crate::error::{ApiError, Cause, Details, Reason};
use crate::storage::Row;
use crate::update::Change;

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
    pub fn judge(self, problems: Vec<String>, warnings: &Mutex<Vec<String>>) -> Result<(), ApiError> {
        if problems.is_empty() {
            return Ok(());
        }
        match self {
            FieldValidation::Ignore => Ok(()),
            FieldValidation::Warn => {
                let mut warnings = warnings.lock();
                for p in problems {
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

/// A patch with all that applying it needs.
#[derive(Clone, Debug)]
pub struct Patch {
    /// What to do.
    pub body: PatchBody,
    /// The type of what is patched.
    pub type_id: TypeId,
    /// The row that is patched.
    pub row: Arc<Row>,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Name in `managedFields`.
    pub field_manager: String,
    /// Now, as RFC 3339.
    pub now: String,
    /// What to do about unknown fields.
    pub validation: FieldValidation,
    /// Warnings for the client.
    pub warnings: Arc<Mutex<Vec<String>>>,
}

impl Patch {
    fn options(&self) -> ApplyOptions<'_> {
        ApplyOptions {
            manager: &self.field_manager,
            api_version: &self.row.api_version,
            subresource: &self.subresource,
            now: &self.now,
            type_id: Some(self.type_id),
        }
    }

    /// Applies the patch to any tree of its type.
    pub fn patched(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = match &self.body {
            PatchBody::Apply { object, force } => {
                ironkeel_patch::apply(current, object, *force, &self.options()).map_err(|e| apply_error(&e))?
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
        let mut problems = Vec::new();
        ironkeel_codec::conform(&mut out, self.type_id, &mut problems).map_err(|e| {
            let kind = self.row.kind_name();
            ApiError::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: {e}",
                self.row.kind.resource.version
            ))
        })?;
        self.validation.judge(problems.iter().map(ToString::to_string).collect(), &self.warnings)?;
        Ok(out)
    }
}

impl Change for Patch {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        self.patched(current)
    }

    fn create(&self) -> Result<Option<Value>, ApiError> {
        if !matches!(self.body, PatchBody::Apply { .. }) {
            return Ok(None);
        }
        let mut nothing = Value::object();
        nothing.set_gvk(&self.row.api_version, self.row.kind_name());
        self.patched(&nothing).map(Some)
    }

    fn tracks_fields(&self) -> bool {
        matches!(self.body, PatchBody::Apply { .. })
    }
}

fn patch_error(e: &PatchError) -> ApiError {
    let reason = match e.status() {
        400 => Reason::BadRequest,
        413 => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    };
    let message = match e {
        PatchError::Inapplicable(why) => {
            format!("the server rejected our request due to an error in our request: {why}")
        }
        other => other.to_string(),
    };
    ApiError::new(reason, message)
}

fn apply_error(e: &ApplyError) -> ApiError {
    let ApplyError::Conflicts(conflicts) = e else { return ApiError::bad_request(e.to_string()) };
    let causes = conflicts
        .iter()
        .map(|c| Cause { reason: "FieldManagerConflict".to_owned(), message: c.to_string(), field: c.field.clone() })
        .collect();
    ApiError {
        details: Some(Box::new(Details { causes, ..Details::default() })),
        ..ApiError::new(Reason::Conflict, e.to_string())
    }
}
