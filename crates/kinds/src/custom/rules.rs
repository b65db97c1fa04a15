//! CEL rules of a schema (`x-kubernetes-validations`): checked when a definition is written.

use ironkeel_object::Value;

use crate::Path;
use crate::error::Errors;

/// Checks the rules of a root schema; `before` is the schema that it replaces.
pub(crate) fn validate(_schema: &Value, _before: Option<&Value>, _at: &Path, _e: &mut Errors) {}
