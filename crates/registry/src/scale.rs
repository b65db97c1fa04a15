//! The `scale` subresource: `autoscaling/v1.Scale` as a view of the object's replicas.

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{Map, ObjectMeta, Value};

use crate::error::ApiError;
use crate::patch::Patch;
use crate::storage::Row;
use crate::update::Change;

/// A write through `scale`.
#[derive(Debug)]
pub enum ScaleChange {
    /// PUT of a Scale.
    Replace(Value),
    /// PATCH of the Scale.
    Patch(Box<Patch>),
}

/// The Scale of an object; 404 where the kind has none.
pub fn scale_of(row: &Row, object: &Value) -> Result<Value, ApiError> {
    let scale = row.kind.hooks.scale(object).ok_or_else(ApiError::no_such_resource)?;
    let mut meta = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        meta.insert(key, object.meta_str(key));
    }
    let mut spec = Map::new();
    if scale.replicas != 0 {
        spec.insert("replicas", scale.replicas);
    }
    let mut status = Map::new();
    status.insert("replicas", scale.status_replicas);
    if !scale.selector.is_empty() {
        status.insert("selector", scale.selector);
    }
    let mut out = Map::new();
    out.insert("apiVersion", "autoscaling/v1");
    out.insert("kind", "Scale");
    out.insert("metadata", meta);
    out.insert("spec", spec);
    out.insert("status", status);
    Ok(Value::Object(out))
}

/// [`ScaleChange`] for one row.
#[derive(Debug)]
pub struct ScaleWrite<'a> {
    /// The row of the scaled object.
    pub row: &'a Row,
    /// What to write.
    pub change: ScaleChange,
}

impl Change for ScaleWrite<'_> {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let missing = self.row.kind.hooks.replicas_missing(current);
        let mut before = scale_of(self.row, current)?;
        if missing.is_some() {
            // Never a wish: a patch that leaves it there names no replicas.
            *before.slot(&["spec", "replicas"]) = i64::from(i32::MIN).into();
        }
        if let ScaleChange::Patch(patch) = &self.change
            && let Some(applied) = patch.applied_scale(current)
        {
            return applied;
        }
        let scale = match &self.change {
            ScaleChange::Replace(scale) => scale.clone(),
            ScaleChange::Patch(patch) => patch.patched(&before)?,
        };
        let (name, namespace) = (scale.name(), scale.namespace());
        if !name.is_empty() && name != current.name() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                current.name()
            )));
        }
        if !namespace.is_empty() && namespace != current.namespace() {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let replicas = scale.i64_at(&["spec", "replicas"]).unwrap_or(0);
        if let Some(path) = missing.filter(|_| replicas == i64::from(i32::MIN)) {
            return Err(ApiError::bad_request(format!("the spec replicas field {path:?} cannot be empty")));
        }
        if replicas < 0 {
            let error = FieldError {
                path: Path::new("spec").child("replicas"),
                kind: FieldErrorKind::Invalid,
                message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            };
            return Err(ApiError::invalid("autoscaling", "Scale", current.name(), &[error]));
        }
        let mut out = current.clone();
        self.row.kind.hooks.set_replicas(&mut out, replicas);
        out.meta_mut().insert("resourceVersion", scale.resource_version());
        if !scale.uid().is_empty() {
            out.meta_mut().insert("uid", scale.uid());
        }
        Ok(out)
    }

    fn names_what_it_changes(&self) -> bool {
        matches!(&self.change, ScaleChange::Replace(_))
    }

    fn tracks_fields(&self) -> bool {
        matches!(&self.change, ScaleChange::Patch(patch) if patch.tracks_fields())
    }
}
