//! What one kind adds to the generic strategy. A file of hooks holds one implementation of
//! [`Rules`]; [`crate::strategy::Strategy`] makes the public [`crate::Hooks`] of it.

use ironkeel_object::Value;
use ironkeel_schema::Resource;

use crate::error::Errors;
use crate::names::NameRule;
use crate::structural::Depth;
use crate::{DeletePlan, Scale, TableContext};

/// Which members count as the desired state: a change of one raises `metadata.generation`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Generation {
    /// The kind has no generation.
    None,
    /// These members, 1 for a new object.
    Of(&'static [&'static str]),
    /// The same, but a new object has none: the first change makes it 1.
    Changes(&'static [&'static str]),
    /// 1 for ever.
    Constant,
}

/// One kind's own rules. Every method has the answer of a kind without any.
pub(crate) trait Rules: Sync + Send {
    /// Defaults that the schema does not declare.
    fn default(&self, _object: &mut Value) {}
    /// After the generic preparation of a create.
    fn prepare_create(&self, _object: &mut Value) {}
    /// After the generic preparation of an update.
    fn prepare_update(&self, _object: &mut Value, _old: &Value, _subresource: Option<&str>) {}
    /// Whether the kind's own preparation of an update stands for the generic one too.
    fn owns_update(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn generation(&self) -> Generation {
        Generation::None
    }
    fn validate(&self, _object: &Value, _e: &mut Errors) {}
    /// What only a new object must not have.
    fn validate_create(&self, _object: &Value, _e: &mut Errors) {}
    /// What a change must not do; [`Rules::validate`] is checked besides, where
    /// [`Rules::revalidates`] says so.
    fn validate_update(&self, _object: &Value, _old: &Value, _subresource: Option<&str>, _e: &mut Errors) {}
    /// Whether an update by this way is checked with [`Rules::validate`] too.
    fn revalidates(&self, subresource: Option<&str>) -> bool {
        subresource.is_none()
    }
    /// Whether what may not change is told before what is wrong with the object as it is.
    fn tells_changes_first(&self) -> bool {
        false
    }
    fn depth(&self) -> Depth {
        Depth::Full
    }
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }
    fn extra_name_rule(&self, _name: &str, _prefix: bool) -> Vec<String> {
        Vec::new()
    }
    /// The key of the kind's columns; empty for Name and Created At.
    fn columns(&self) -> &'static str {
        ""
    }
    /// The name cell, where it is not the name alone.
    fn shown_name(&self, _object: &Value) -> Option<String> {
        None
    }
    /// Cells after the name.
    fn cells(&self, _object: &Value, _context: &TableContext) -> Vec<Value> {
        Vec::new()
    }
    fn field(&self, _object: &Value, _path: &str) -> Option<String> {
        None
    }
    fn scale(&self, _object: &Value) -> Option<Scale> {
        None
    }
    /// Times that the server notes.
    fn stamp(&self, _object: &mut Value, _old: Option<&Value>, _subresource: Option<&str>, _now: &str) {}
    /// See [`crate::Hooks::prepare_delete`].
    fn prepare_delete(&self, _object: &mut Value, _now: &str) {}
    fn plan_delete(&self, _object: &Value, _grace_seconds: Option<i64>) -> DeletePlan {
        DeletePlan::Now
    }
    fn create_on_update(&self) -> bool {
        false
    }
    fn unconditional_update(&self) -> bool {
        true
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    fn to_stored(&self, _resource: &Resource, _object: &mut Value) {}
    #[allow(clippy::wrong_self_convention)]
    fn from_stored(&self, _resource: &Resource, _object: &mut Value) {}
}
