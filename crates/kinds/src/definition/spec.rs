//! Rules of a definition's spec: names, versions, columns, subresources, selectable fields, conversion.

use std::collections::HashSet;

use ironkeel_object::Value;

use super::tolerance::{self, Tolerance};
use super::{is_true, schema};
use crate::custom::Schema;
use crate::error::Errors;
use crate::repeats::{repeated_text, repeated_whole};
use crate::{Path, names as rules};

/// Most selectable fields of one version.
const SELECTABLE_FIELDS_MAX: usize = 8;
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn flag(v: &Value, field: &str) -> bool {
    v.get(field).and_then(Value::as_bool) == Some(true)
}

fn joined(e: &mut Errors, at: &Path, value: &str, prefix: &str, messages: Vec<String>) {
    if !messages.is_empty() {
        e.invalid(at, value, &format!("{prefix}{}", messages.join(",")));
    }
}

/// Checks a definition; `old` is what it replaces.
pub(super) fn validate(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = o.get("spec").unwrap_or(&Value::Null);
    let at = Path::new("spec");
    let text = |path: &[&str]| spec.str_at(path).unwrap_or_default();
    let group = text(&["group"]);
    let required = format!("{}.{group}", text(&["names", "plural"]));
    let name = ironkeel_object::ObjectMeta::name(o);
    if old.is_none() && !name.is_empty() && name != required {
        let at_name = Path::new("metadata").child("name");
        e.invalid(&at_name, name, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        e.required(&at.child("group"), "");
    } else if !rules::subdomain(group).is_empty() {
        joined(e, &at.child("group"), group, "", rules::subdomain(group));
    } else if !group.contains('.') {
        e.invalid(&at.child("group"), group, "should be a domain with at least one dot");
    }
    match text(&["scope"]) {
        "" => e.required(&at.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => e.not_supported(&at.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    let tolerance = Tolerance::of(spec, old);
    versions(spec, old, &tolerance, &at, e);
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(&["names", field]).is_empty() {
            e.required(&at.child("names").child(field), "");
        }
    }
    names(spec.get("names"), &at.child("names"), e);
    shared(spec, old, &tolerance, &at, e);
    conversion(spec, old, &tolerance, &at, e);
    names(o.at(&["status", "acceptedNames"]), &Path::new("status").child("acceptedNames"), e);
    stored_versions(o, e);
    let preserved = |o: &Value| o.get("spec").is_some_and(|s| flag(s, "preserveUnknownFields"));
    if preserved(o) && !old.is_some_and(preserved) {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        e.invalid(&at.child("preserveUnknownFields"), true, detail);
    }
}

/// What all versions have in common: upstream checks that once, and tells it of the spec.
struct Shared<'v> {
    schema: Option<&'v Value>,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl<'v> Shared<'v> {
    fn of(versions: &'v [Value]) -> Self {
        let same = |field: &str| {
            let first = versions.first().and_then(|v| v.get(field)).filter(|f| !f.is_empty());
            versions.iter().all(|v| v.get(field).filter(|f| !f.is_empty()) == first)
        };
        Shared {
            schema: versions.first().and_then(schema_of).filter(|_| same("schema")),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

fn has_status(version: &Value) -> bool {
    version.at(&["subresources", "status"]).is_some_and(|s| !s.is_null())
}

fn versions(spec: &Value, old: Option<&Value>, tolerance: &Tolerance, at: &Path, e: &mut Errors) {
    let list = spec.items_at(&["versions"]);
    let path = at.child("versions");
    for (i, _) in list.iter().enumerate().filter(|(_, v)| schema_of(v).is_none()) {
        let place = path.index(i).child("schema").child("openAPIV3Schema");
        if !tolerance.no_schema {
            e.required(&place, "");
        } else if !flag(spec, "preserveUnknownFields") && flag(&list[i], "served") {
            e.required(&place, "because otherwise all fields are pruned");
        }
    }
    if tolerance::has_defaults(spec) && flag(spec, "preserveUnknownFields") {
        e.invalid(&at.child("preserveUnknownFields"), true, "must be false in order to use defaults in the schema");
    }
    let shared = Shared::of(list);
    let mut storage = 0;
    let unique = !repeated_text(list, "name").contains(&true);
    for (i, v) in list.iter().enumerate() {
        let at = path.index(i);
        let name = v.str_at(&["name"]).unwrap_or_default();
        storage += usize::from(flag(v, "storage"));
        joined(e, &at.child("name"), name, "", rules::label_1035(name));
        version(v, &shared, old, tolerance, &at, e);
    }
    if !unique {
        e.invalid(&path, list.to_vec(), "must contain unique version names");
    }
    if storage != 1 {
        e.invalid(&path, list.to_vec(), "must have exactly one version marked as storage version");
    }
    // The single version of long ago is the first of these.
    if let Some(first) = list.first().and_then(|v| v.str_at(&["name"])).filter(|n| !n.is_empty()) {
        joined(e, &at.child("version"), first, "", rules::label_1035(first));
    }
}

/// The schema of a version; null is none.
pub(super) fn schema_of(version: &Value) -> Option<&Value> {
    version.at(&["schema", "openAPIV3Schema"]).filter(|s| !s.is_null())
}

/// The version of this name in an older definition.
fn version_of<'v>(old: Option<&'v Value>, name: &str) -> Option<&'v Value> {
    old?.items_at(&["spec", "versions"]).iter().find(|v| v.str_at(&["name"]) == Some(name))
}

fn version(v: &Value, shared: &Shared<'_>, old: Option<&Value>, tolerance: &Tolerance, at: &Path, e: &mut Errors) {
    if let Some(warning) = v.str_at(&["deprecationWarning"]) {
        deprecation(warning, flag(v, "deprecated"), &at.child("deprecationWarning"), e);
    }
    let before = version_of(old, v.str_at(&["name"]).unwrap_or_default());
    if let (Some(s), None) = (schema_of(v), shared.schema) {
        let before = before.and_then(schema_of);
        schema::validate(s, before, tolerance, has_status(v), &at.child("schema"), e);
    }
    if !shared.subresources {
        subresources(v, &at.child("subresources"), e);
    }
    if !shared.columns {
        columns(v, &at.child("additionalPrinterColumns"), e);
    }
    if !shared.selectable {
        selectable_of(v, before, &at.child("selectableFields"), e);
    }
}

/// What [`version`] leaves out since all versions have it alike.
fn shared(spec: &Value, old: Option<&Value>, tolerance: &Tolerance, at: &Path, e: &mut Errors) {
    let list = spec.items_at(&["versions"]);
    let shared = Shared::of(list);
    let Some(first) = list.first() else { return };
    let before = version_of(old, first.str_at(&["name"]).unwrap_or_default());
    if let Some(s) = shared.schema {
        let status = list.iter().any(has_status);
        schema::validate(s, before.and_then(schema_of), tolerance, status, &at.child("validation"), e);
    }
    if shared.subresources {
        subresources(first, &at.child("subresources"), e);
    }
    if shared.columns {
        columns(first, &at.child("additionalPrinterColumns"), e);
    }
    if shared.selectable {
        selectable_of(first, before, &at.child("selectableFields"), e);
    }
}

fn deprecation(warning: &str, deprecated: bool, at: &Path, e: &mut Errors) {
    if !deprecated {
        return e.invalid(at, warning, "can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        e.invalid(at, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        e.invalid(at, warning, "must not be an empty string");
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {i}");
        e.invalid(at, warning, &detail);
    }
}

fn columns(v: &Value, at: &Path, e: &mut Errors) {
    for (i, c) in v.items_at(&["additionalPrinterColumns"]).iter().enumerate() {
        column(c, &at.index(i), e);
    }
}

fn selectable_of(v: &Value, before: Option<&Value>, at: &Path, e: &mut Errors) {
    let fields = v.items_at(&["selectableFields"]);
    if fields.is_empty() {
        return;
    }
    let Some(s) = schema_of(v) else {
        return e.invalid(at, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
    };
    // More than are allowed may stay as they are.
    let held = before.is_some_and(|b| b.items_at(&["selectableFields"]) == fields);
    selectable(fields, &Schema::read(s), held, at, e);
}

fn selectable(fields: &[Value], schema: &Schema, held: bool, at: &Path, e: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (i, f) in fields.iter().enumerate() {
        let place = at.index(i).child("jsonPath");
        let path = f.str_at(&["jsonPath"]).unwrap_or_default();
        if path.is_empty() {
            e.required(&place, "");
            continue;
        }
        let simple = path.starts_with('.')
            && path.len() > 1
            && !path.contains(['[', ']'])
            && !path[1..].split('.').any(str::is_empty);
        let found = if simple { schema.at(path) } else { None };
        let Some(found) = found else {
            let why = if path.contains('[') {
                "only dot notation is supported: array notation is not allowed".to_owned()
            } else if !path.starts_with('.') {
                "invalid path: must start with a dot".to_owned()
            } else {
                "does not refer to a valid field".to_owned()
            };
            e.invalid(&place, path, &format!("is an invalid path: {why}"));
            continue;
        };
        if path == ".metadata" || path.starts_with(".metadata.") {
            e.invalid(&place, path, "must not point to fields in metadata");
        }
        if !matches!(found.kind.as_str(), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            e.invalid(&place, path, detail);
        }
        if !seen.insert(path) {
            e.duplicate(&place, path);
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX && !held {
        e.too_many(at, seen.len(), SELECTABLE_FIELDS_MAX);
    }
}

fn simple_path(path: &str, at: &Path, e: &mut Errors) -> bool {
    if !path.starts_with('.') {
        e.invalid(at, path, "must be a simple json path starting with .");
        return false;
    }
    true
}

fn column(c: &Value, at: &Path, e: &mut Errors) {
    let text = |f: &str| c.str_at(&[f]).unwrap_or_default();
    if text("name").is_empty() {
        e.required(&at.child("name"), "");
    }
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    match text("type") {
        "" => e.required(&at.child("type"), &types),
        t if !COLUMN_TYPES.contains(&t) => e.invalid(&at.child("type"), t, &types),
        _ => {}
    }
    let format = text("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        e.invalid(&at.child("format"), format, &format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    match text("jsonPath") {
        "" => e.required(&at.child("JSONPath"), ""),
        path => _ = simple_path(path, &at.child("JSONPath"), e),
    }
}

fn subresources(v: &Value, at: &Path, e: &mut Errors) {
    let Some(scale) = v.at(&["subresources", "scale"]).filter(|s| !s.is_null()) else { return };
    for (field, roots, needed, why) in [
        ("specReplicasPath", &[".spec."][..], true, "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], true, "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], false, "should be a json path under either .spec or .status"),
    ] {
        let path = scale.str_at(&[field]).unwrap_or_default();
        let place = at.child(&format!("scale.{field}"));
        if path.is_empty() {
            if needed {
                e.required(&place, "");
            }
        } else if simple_path(path, &place, e) && !roots.iter().any(|r| path.starts_with(r)) {
            e.invalid(&place, path, why);
        }
    }
}

/// Rules of a set of names, wanted or accepted.
pub(super) fn names(value: Option<&Value>, at: &Path, e: &mut Errors) {
    let Some(value) = value else { return };
    let text = |f: &str| value.str_at(&[f]).unwrap_or_default();
    for field in ["plural", "singular"] {
        let name = text(field);
        if !name.is_empty() {
            joined(e, &at.child(field), name, "", rules::label_1035(name));
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(field);
        if !name.is_empty() {
            let messages = rules::label_1035(&name.to_lowercase());
            joined(e, &at.child(field), name, "may have mixed case, but should otherwise match: ", messages);
        }
    }
    for (i, name) in value.items_at(&["shortNames"]).iter().filter_map(Value::as_str).enumerate() {
        joined(e, &at.child("shortNames").index(i), name, "", rules::label_1035(name));
    }
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        e.invalid(&at.child("listKind"), text("listKind"), "kind and listKind may not be the same");
    }
    for (i, name) in value.items_at(&["categories"]).iter().filter_map(Value::as_str).enumerate() {
        joined(e, &at.child("categories").index(i), name, "", rules::label_1035(name));
    }
}

fn conversion(spec: &Value, old: Option<&Value>, tolerance: &Tolerance, at: &Path, e: &mut Errors) {
    let Some(c) = spec.get("conversion").filter(|c| !c.is_null()) else { return };
    let at = at.child("conversion");
    let strategy = c.str_at(&["strategy"]).unwrap_or_default();
    let webhook = c.get("webhook").filter(|w| !w.is_null());
    let client = webhook.and_then(|w| w.get("clientConfig")).filter(|c| !c.is_null());
    let reviews = webhook.map(|w| w.items_at(&["conversionReviewVersions"])).unwrap_or_default();
    match strategy {
        "" => e.required(&at.child("strategy"), ""),
        "None" | "Webhook" => {}
        other => e.not_supported(&at.child("strategy"), other, &["None", "Webhook"]),
    }
    let place = at.child("webhookClientConfig");
    if strategy != "Webhook" {
        if client.is_some() {
            e.forbidden(&place, "should not be set when strategy is not set to Webhook");
        }
        if !reviews.is_empty() {
            let detail = "should not be set when strategy is not set to Webhook";
            e.forbidden(&at.child("conversionReviewVersions"), detail);
        }
        return;
    }
    if flag(spec, "preserveUnknownFields") {
        e.invalid(&at.child("strategy"), strategy, "must be None if spec.preserveUnknownFields is true");
    }
    match client {
        None => e.required(&place, "required when strategy is set to Webhook"),
        Some(c) => {
            let url = c.str_at(&["url"]);
            let service = c.get("service").filter(|s| !s.is_null());
            match (url, service) {
                (Some(url), None) => webhook_url(url, &place.child("url"), e),
                (None, Some(s)) => webhook_service(s, &place.child("service"), e),
                _ => e.required(&place, "exactly one of url or service is required"),
            }
            let bundle = c.str_at(&["caBundle"]).unwrap_or_default();
            let held = old.is_some_and(|o| is_true(o, "Established") && !has_invalid_bundle(o));
            if !bundle.is_empty() && held && !is_pem(bundle) {
                let detail = "unable to load root certificates: unable to parse bytes as PEM block";
                e.invalid(&place.child("caBundle"), bundle, detail);
            }
        }
    }
    let place = at.child("conversionReviewVersions");
    if reviews.is_empty() {
        e.required(&place, "");
        return;
    }
    let twice = repeated_whole(reviews);
    for (i, v) in reviews.iter().filter_map(Value::as_str).enumerate() {
        if twice[i] {
            e.invalid(&place.index(i), v, "duplicate version");
            continue;
        }
        e.invalid_each(&place.index(i), v, rules::label_1035(v));
    }
    if !tolerance.reviews && !reviews.iter().any(|v| matches!(v.as_str(), Some("v1" | "v1beta1"))) {
        e.invalid(&place, reviews.to_vec(), "must include at least one of v1, v1beta1");
    }
}

/// Whether the conversion webhook's certificates are none. A definition may be written so, but is not
/// established.
pub fn has_invalid_bundle(definition: &Value) -> bool {
    let bundle = definition.str_at(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]);
    bundle.is_some_and(|b| !b.is_empty() && !is_pem(b))
}

/// Whether base64 text holds a PEM block.
fn is_pem(bundle: &str) -> bool {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----")
}

fn webhook_url(url: &str, at: &Path, e: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        e.required(at, &format!("url must be a valid URL{FORM}"));
        return;
    };
    if scheme != "https" {
        e.invalid(at, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        e.invalid(at, host, &format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = host.split_once('@') {
        e.invalid(at, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        e.invalid(at, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split('#').next().unwrap_or_default().split_once('?') {
        e.invalid(at, query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(s: &Value, at: &Path, e: &mut Errors) {
    for (field, what) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
        if s.str_at(&[field]).unwrap_or_default().is_empty() {
            e.required(&at.child(field), what);
        }
    }
    if let Some(path) = s.str_at(&["path"]) {
        let place = at.child("path");
        if !path.starts_with('/') {
            e.invalid(&place, path, "must start with a '/'");
        } else if path.len() > 1 && path.trim_end_matches('/').contains("//") {
            e.invalid(&place, path, "segment[0] may not be empty");
        }
    }
    if let Some(port) = s.i64_at(&["port"]).filter(|p| !(1..=65535).contains(p)) {
        e.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
}

fn stored_versions(o: &Value, e: &mut Errors) {
    let at = Path::new("status").child("storedVersions");
    let stored = o.items_at(&["status", "storedVersions"]);
    if stored.is_empty() {
        e.invalid(&at, Value::Array(Vec::new()), "must have at least one stored version");
        return;
    }
    let versions = o.items_at(&["spec", "versions"]);
    let in_store: HashSet<&str> = stored.iter().filter_map(Value::as_str).collect();
    let listed: HashSet<&str> = versions.iter().filter_map(|v| v.str_at(&["name"])).collect();
    for v in versions.iter().filter(|v| flag(v, "storage")) {
        let name = v.str_at(&["name"]).unwrap_or_default();
        if !in_store.contains(name) {
            e.invalid(&at, stored.to_vec(), &format!("must have the storage version {name}"));
        }
    }
    for (i, name) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !listed.contains(name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            e.invalid(&at.index(i), name, &detail);
        }
    }
}
