//! What an older definition broke already, and the new one may go on breaking: rules that came after
//! it was written do not lock it.

use ironkeel_object::Value;

use super::schema::{TYPES, has_nullable_keys, is_open_set};
use super::{defaults, loose_schemas, spec};
use crate::custom::Schema;
use crate::error::Errors;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tolerance {
    /// Versions without a schema.
    pub(super) no_schema: bool,
    /// Types that OpenAPI does not have.
    pub(super) types: bool,
    /// Schemas that are not structural.
    pub(super) loose: bool,
    /// Defaults that pruning would change.
    pub(super) unpruned: bool,
    /// Sets whose elements are not atomic.
    pub(super) open_sets: bool,
    /// Keys of lists that may be absent or null.
    pub(super) open_keys: bool,
    /// Conversion reviews of versions that nobody knows.
    pub(super) reviews: bool,
}

impl Tolerance {
    /// For the spec of a definition that replaces `old`.
    pub(super) fn of(spec: &Value, old: Option<&Value>) -> Tolerance {
        let Some(old) = old else { return Tolerance::default() };
        let before: Vec<&Value> = old.items_at(&["spec", "versions"]).iter().filter_map(spec::schema_of).collect();
        let any = |pred: &dyn Fn(&Value) -> bool| before.iter().any(|s| some_node(s, pred));
        Tolerance {
            no_schema: old.items_at(&["spec", "versions"]).iter().any(|v| spec::schema_of(v).is_none()),
            types: any(&|s| s.str_at(&["type"]).is_some_and(|t| !t.is_empty() && !TYPES.contains(&t))),
            loose: spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(true)
                && !has_defaults(spec)
                && !schemas(spec).any(|s| some_node(s, &is_extended))
                && is_loose(old),
            unpruned: before.iter().any(|s| defaults::has_unpruned(&Schema::read(s))),
            open_sets: any(&is_open_set),
            open_keys: any(&has_nullable_keys),
            reviews: {
                let listed = old.items_at(&["spec", "conversion", "webhook", "conversionReviewVersions"]);
                !listed.is_empty() && !listed.iter().any(|v| matches!(v.as_str(), Some("v1" | "v1beta1")))
            },
        }
    }
}

fn is_loose(definition: &Value) -> bool {
    let mut e = Errors::default();
    loose_schemas(definition, &mut e);
    e.len() > 0
}

fn schemas(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.items_at(&["versions"]).iter().filter_map(spec::schema_of)
}

/// Whether any schema of a spec has a default.
pub(super) fn has_defaults(spec: &Value) -> bool {
    schemas(spec).any(|s| some_node(s, &|n| n.get("default").is_some_and(|d| !d.is_null())))
}

/// Extensions that only structural schemas can have.
fn is_extended(s: &Value) -> bool {
    let is_set = |name: &str| match s.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(a)) => !a.is_empty(),
        Some(Value::Bool(b)) => *b || name == "x-kubernetes-preserve-unknown-fields",
        Some(_) => true,
    };
    [
        "x-kubernetes-embedded-resource",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-validations",
    ]
    .into_iter()
    .any(is_set)
}

/// Whether a predicate holds for a schema or any below it.
pub(super) fn some_node(s: &Value, pred: &dyn Fn(&Value) -> bool) -> bool {
    if pred(s) {
        return true;
    }
    let each = |name: &str| match s.get(name) {
        Some(Value::Array(list)) => list.iter().any(|n| some_node(n, pred)),
        Some(Value::Object(_)) if matches!(name, "items" | "not" | "additionalProperties" | "additionalItems") => {
            s.get(name).is_some_and(|n| some_node(n, pred))
        }
        Some(Value::Object(m)) => m.values().any(|n| n.as_object().is_some() && some_node(n, pred)),
        _ => false,
    };
    ["items", "allOf", "anyOf", "oneOf", "not", "properties", "additionalProperties", "patternProperties"]
        .into_iter()
        .chain(["additionalItems", "definitions", "dependencies"])
        .any(each)
}
