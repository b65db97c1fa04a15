//! What a kind can say about itself.

use std::borrow::Cow;

use ironkeel_object::Value;

use crate::{FieldError, Path};

/// One column of `kubectl get`.
#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    /// Header.
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `boolean`, `date`.
    pub kind: Cow<'static, str>,
    /// OpenAPI format (`name` for the first column), or empty.
    pub format: Cow<'static, str>,
    /// For people.
    pub description: Cow<'static, str>,
    /// 0 always; 1 only with `-o wide`.
    pub priority: i32,
}

impl ColumnDefinition {
    /// A column of a built-in kind.
    pub const fn new(
        name: &'static str,
        kind: &'static str,
        format: &'static str,
        description: &'static str,
        priority: i32,
    ) -> Self {
        ColumnDefinition {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(kind),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(description),
            priority,
        }
    }
}

/// What a row of a table needs besides the object.
#[derive(Clone, Copy, Debug)]
pub struct TableContext {
    /// Seconds since 1970; ages count to here.
    pub now_unix: i64,
}

/// `autoscaling/v1.Scale` of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Desired.
    pub replicas: i64,
    /// Observed.
    pub status_replicas: i64,
    /// The label selector in its text form; empty for none.
    pub selector: String,
}

/// How a delete goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePlan {
    /// At once (finalizers permitting).
    Now,
    /// Mark with a `deletionTimestamp` so many seconds ahead and let the node finish it.
    Graceful {
        /// Grace period in seconds; with 0 it goes as soon as it is marked.
        seconds: i64,
    },
}

/// Behaviour of one kind. Every method has the behaviour that suits most kinds.
pub trait Hooks: Sync + Send {
    /// Fills in defaults; a second call changes nothing.
    fn default(&self, _object: &mut Value) {}

    /// Before a create: clears what a client may not set (`status`), sets `generation` to 1 where
    /// the kind has one.
    fn prepare_create(&self, object: &mut Value);

    /// Before an update of the object itself or through a subresource (`Some("status")`): takes
    /// over from `old` what this way may not change, and raises `generation` when the spec changed.
    fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>);

    /// After [`Hooks::prepare_create`] or [`Hooks::prepare_update`]: notes when something happened. `now` is RFC 3339.
    fn stamp(&self, _object: &mut Value, _old: Option<&Value>, _subresource: Option<&str>, _now: &str) {}

    /// Rules for a new object; metadata is checked by [`crate::validate_metadata`] before.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Rules for a change, [`Hooks::validate`]'s included.
    fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError>;

    /// Warnings for the client (deprecated fields, what has no effect), for a create or (with `old`) an update.
    fn warnings(&self, _object: &Value, _old: Option<&Value>, _subresource: Option<&str>) -> Vec<String> {
        Vec::new()
    }

    /// The rule for `metadata.name`; answers what is wrong with it. Most kinds: DNS subdomain.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String>;

    /// Columns of `kubectl get`.
    fn columns(&self) -> &[ColumnDefinition];

    /// Cells in the order of the columns.
    fn cells(&self, object: &Value, context: &TableContext) -> Vec<Value>;

    /// The value of a selectable field besides `metadata.name` and `metadata.namespace`; `None`
    /// when the kind does not have that field selector (answered with 400).
    fn field(&self, _object: &Value, _path: &str) -> Option<String> {
        None
    }

    /// The paths that [`Hooks::field`] knows, where the kind can tell them (custom resources).
    fn selectable(&self) -> Option<Vec<&'static str>> {
        None
    }

    /// Reads the `scale` subresource; `None` where the kind has none.
    fn scale(&self, _object: &Value) -> Option<Scale> {
        None
    }

    /// The path of the desired replicas, where the object has none there (custom resources).
    fn replicas_missing(&self, _object: &Value) -> Option<&str> {
        None
    }

    /// Writes the desired replicas of `scale`.
    fn set_replicas(&self, _object: &mut Value, _replicas: i64) {}

    /// Before a delete that is the first of its object: finalizers and conditions that it begins with.
    /// `now` is RFC 3339.
    fn prepare_delete(&self, _object: &mut Value, _now: &str) {}

    /// How a delete with this grace period (`None`: the client named none) goes on.
    fn plan_delete(&self, _object: &Value, _grace_seconds: Option<i64>) -> DeletePlan {
        DeletePlan::Now
    }

    /// A PUT (or apply) of an absent name creates it (leases, events, …).
    fn create_on_update(&self) -> bool {
        false
    }

    /// An update without `resourceVersion` is accepted as "whatever is there".
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Where the object stands in the store: the `(group, version)` whose form is stored. Rows of
    /// other versions convert with [`Hooks::to_stored`] and [`Hooks::from_stored`].
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// From this row's version to the stored one; `apiVersion` is set by the caller.
    fn to_stored(&self, _object: &mut Value) {}

    /// From the stored version to this row's; `apiVersion` is set by the caller.
    #[allow(clippy::wrong_self_convention)]
    fn from_stored(&self, _object: &mut Value) {}

    /// Root path of field errors; for tests of the hooks alone.
    fn root(&self) -> Path {
        Path::default()
    }
}
