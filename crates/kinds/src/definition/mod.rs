//! CustomResourceDefinition: defaults, what may change, and rules as strict as upstream's.
//!
//! `spec` holds the rules of the definition itself, `schema` those of the OpenAPI schemas in it,
//! `structural` what makes a schema structural, `defaults` those of the defaults inside, and `tolerance`
//! what an older definition broke already. What comes of
//! a definition that is accepted stands in `custom`.

mod defaults;
mod names;
mod schema;
mod spec;
mod structural;
mod tolerance;

use std::collections::HashSet;

use ironkeel_object::{ObjectMeta, Value};

pub use names::{Approval, accepted_names, approval};
pub use spec::has_invalid_bundle;

use crate::error::Errors;
use crate::rules::{self, Generation};
use crate::structural::Depth;
use crate::{Path, equality};

/// The annotation that definitions in protected groups need.
pub const APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";
/// Holds a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// See the module.
pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = crate::strategy::spec(o) else { return };
        let blank = spec.get("conversion").is_none_or(Value::is_null);
        let conversion = spec.object("conversion");
        if blank {
            conversion.insert("strategy", "None");
        }
        if let Some(service) =
            conversion.get_mut("webhook").and_then(|w| w.get_mut("clientConfig")).and_then(|c| c.get_mut("service"))
            && service.as_object().is_some()
            && service.get("port").is_none_or(Value::is_null)
        {
            *service.slot(&["port"]) = 443_i64.into();
        }
        let names = spec.object("names");
        let kind = names.str("kind").unwrap_or_default().to_owned();
        if names.str("singular").unwrap_or_default().is_empty() && !kind.is_empty() {
            names.insert("singular", kind.to_lowercase());
        }
        if names.str("listKind").unwrap_or_default().is_empty() && !kind.is_empty() {
            names.insert("listKind", format!("{kind}List"));
        }
    }

    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }

    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status", "storedVersions"]) = Value::Array(storage_version(o).into_iter().collect());
    }

    fn prepare_update(&self, o: &mut Value, _old: &Value, subresource: Option<&str>) {
        if subresource.is_some() {
            return;
        }
        let Some(name) = storage_version(o) else { return };
        let mut all = o.items_at(&["status", "storedVersions"]).to_vec();
        if !all.contains(&name) {
            all.push(name);
            *o.slot(&["status", "storedVersions"]) = all.into();
        }
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, o: &Value, e: &mut Errors) {
        spec::validate(o, None, e);
        approval_rule(o, None, e);
        unknown_formats(o, None, e);
    }

    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }

    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            spec::names(o.at(&["status", "acceptedNames"]), &Path::new("status").child("acceptedNames"), e);
            return;
        }
        spec::validate(o, Some(old), e);
        approval_rule(o, Some(old), e);
        let mut fixed: Vec<&[&str]> = vec![&["spec", "group"], &["spec", "names", "plural"]];
        if is_true(old, "Established") {
            fixed.extend([&["spec", "scope"][..], &["spec", "names", "kind"]]);
        }
        for p in fixed {
            let at = p[1..].iter().fold(Path::new(p[0]), |at, f| at.child(f));
            e.immutable(&at, o.at(p), old.at(p));
        }
        unknown_formats(o, Some(old), e);
    }

    fn depth(&self) -> Depth {
        Depth::Enums
    }

    fn prepare_delete(&self, o: &mut Value, now: &str) {
        let mut finalizers: Vec<String> = o.finalizers().into_iter().map(str::to_owned).collect();
        if !finalizers.iter().any(|f| f == CLEANUP_FINALIZER) {
            finalizers.push(CLEANUP_FINALIZER.to_owned());
            o.meta_mut().insert("finalizers", finalizers);
        }
        let slot = o.slot(&["status", "conditions"]);
        if slot.as_array().is_none() {
            *slot = Value::Array(Vec::new());
        }
        if let Some(all) = slot.as_array_mut() {
            all.retain(|c| c.str_at(&["type"]) != Some("Terminating"));
            let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
            all.push(ironkeel_object::object!({
                "lastTransitionTime": now, "message": message, "reason": "InstanceDeletionPending",
                "status": "True", "type": "Terminating",
            }));
        }
    }
}

/// Warns of formats that nothing checks, and that `old` does not have: they are most likely misspelt.
fn unknown_formats(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let before: HashSet<String> = old.map(formats).unwrap_or_default().into_iter().collect();
    for format in formats(o).into_iter().filter(|f| !before.contains(f)) {
        e.tolerated(&Path::default(), format!("unrecognized format {}", crate::error::shown(&format.into())));
    }
}

/// Formats in a definition's schemas that nothing checks.
fn formats(definition: &Value) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    for s in definition.items_at(&["spec", "versions"]).iter().filter_map(spec::schema_of) {
        tolerance::some_node(s, &|node| {
            let format = node.str_at(&["format"]).unwrap_or_default();
            let known = match node.str_at(&["type"]).unwrap_or_default() {
                "" | "string" => format == "password" || !crate::custom::format_is_unknown(format),
                "integer" => matches!(format, "int32" | "int64"),
                "number" => matches!(format, "float" | "double"),
                _ => false,
            };
            if !format.is_empty() && !known {
                found.borrow_mut().push(format.to_owned());
            }
            false
        });
    }
    found.into_inner()
}

/// Whether a condition of a definition is true.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition.items_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.str_at(&["type"]) == Some(condition) && c.str_at(&["status"]) == Some("True"))
}

/// What keeps the schemas of a definition from being structural; for its condition.
pub fn structural_violations(definition: &Value) -> Vec<String> {
    let mut e = Errors::default();
    if definition.at(&["spec", "preserveUnknownFields"]).and_then(Value::as_bool) == Some(true) {
        e.invalid(&Path::new("spec").child("preserveUnknownFields"), true, "must be false");
    }
    loose_schemas(definition, &mut e);
    e.into_vec().iter().map(ToString::to_string).collect()
}

/// What keeps schemas from being structural.
fn loose_schemas(definition: &Value, e: &mut Errors) {
    for (i, v) in definition.items_at(&["spec", "versions"]).iter().enumerate() {
        let at = Path::new("spec").child("versions").index(i).child("schema").child("openAPIV3Schema");
        if let Some(s) = spec::schema_of(v) {
            structural::validate(s, &at, e);
        }
    }
}

fn storage_version(o: &Value) -> Option<Value> {
    let versions = o.items_at(&["spec", "versions"]);
    let found = versions.iter().find(|v| v.get("storage").and_then(Value::as_bool) == Some(true))?;
    found.get("name").cloned()
}

fn approval_rule(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let Some((state, why)) = approval(o) else { return };
    if old.is_some_and(|old| {
        equality::same(annotations(old), annotations(o)) || approval(old).map(|a| a.0) == Some(state)
    }) {
        return;
    }
    let at = Path::new("metadata").child("annotations").key(APPROVED_ANNOTATION);
    match state {
        names::Approval::Missing => e.required(&at, &why),
        names::Approval::Invalid => e.invalid(&at, o.annotation(APPROVED_ANNOTATION).unwrap_or_default(), &why),
        names::Approval::Approved | names::Approval::Bypassed => {}
    }
}

fn annotations(o: &Value) -> Option<&Value> {
    o.at(&["metadata", "annotations"])
}
