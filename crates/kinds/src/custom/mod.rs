//! Kinds that CustomResourceDefinitions define: the same row as a built-in kind's, made at run time.
//!
//! [`kinds_of`] makes the rows of a definition. What does not live here: rules of the definition
//! itself (`definition`), conversion by webhook (`registry` knows when, the API server whom to ask).

mod correlation;
pub(crate) mod embedded;
mod formats;
mod hooks;
mod json_path;
mod prune;
pub(crate) mod rules;
mod schema;
mod values;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ironkeel_object::Value;
use ironkeel_schema::{Resource, Scope, Subresource, intern, intern_list, type_by_name};

pub(crate) use json_path::JsonPath;
pub(crate) use schema::{Schema, compile_pattern};

use crate::{ColumnDefinition, FieldError, Kind, Path};

/// One version of a custom resource.
#[derive(Debug)]
pub struct Version {
    /// The definition's `openAPIV3Schema`; null where it has none.
    pub openapi: Value,
    /// What a client that uses this version is warned of.
    pub deprecation: Option<String>,
    /// Its definition is being deleted: nothing is created any more.
    pub terminating: Arc<AtomicBool>,
    /// Another server converts between versions: stored objects of another version stay as they are.
    pub(crate) converted_elsewhere: bool,
    /// Fields that the schema does not name stay.
    pub(crate) preserve_unknown: bool,
    pub(crate) schema: Schema,
    pub(crate) rules: Option<rules::Rules>,
    pub(crate) has_defaults: bool,
    has_embedded: bool,
    pub(crate) api_version: String,
    pub(crate) status: bool,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) columns: Vec<(ColumnDefinition, Option<JsonPath>)>,
    pub(crate) definitions: Vec<ColumnDefinition>,
    /// Selectable fields, without the leading dot.
    pub(crate) selectable: Vec<&'static str>,
}

/// Where the scale subresource finds its values.
#[derive(Debug)]
pub(crate) struct ScalePaths {
    pub(crate) replicas: ScalePath,
    pub(crate) status_replicas: ScalePath,
    pub(crate) selector: Option<ScalePath>,
}

/// One such path.
#[derive(Debug)]
pub(crate) struct ScalePath {
    /// As the definition has it: with its leading dot.
    pub(crate) text: String,
    /// Members from the root.
    pub(crate) members: Vec<String>,
}

impl ScalePath {
    fn of(text: &str) -> Self {
        ScalePath {
            text: text.to_owned(),
            members: text.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// What stands there; an error names the type that would have been right.
    pub(crate) fn find<'v, T>(
        &self,
        object: &'v Value,
        wanted: &str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let mut here = object;
        for (i, name) in self.members.iter().enumerate() {
            match here {
                Value::Object(m) => match m.get(name) {
                    Some(v) => here = v,
                    None => return Ok(None),
                },
                other => {
                    let at = self.members[..i].join(".");
                    let (value, kind) = (crate::print::scalar(Some(other)), go_type(other));
                    return Err(format!(
                        ".{at} accessor error: {value} is of the type {kind}, expected map[string]interface{{}}"
                    ));
                }
            }
        }
        read(here).map(Some).ok_or_else(|| {
            let (at, value, kind) = (self.members.join("."), crate::print::scalar(Some(here)), go_type(here));
            format!(".{at} accessor error: {value} is of the type {kind}, expected {wanted}")
        })
    }
}

/// The type that Go has for a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(ironkeel_object::Number::Int(_)) => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

impl Version {
    /// Visits every object inside an object, outer ones first, with its path.
    pub fn embedded<E>(
        &self,
        object: &mut Value,
        each: &mut dyn FnMut(&mut Value, &Path) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.has_embedded { embedded::visit(object, &self.schema, &Path::default(), each) } else { Ok(()) }
    }

    /// Brings an object to what the schema says: unknown fields go (their paths are answered), nulls
    /// that mean nothing go, defaults come in.
    pub fn shape(&self, object: &mut Value) -> Vec<String> {
        let unknown = if self.preserve_unknown { Vec::new() } else { prune::prune(object, &self.schema) };
        prune::drop_nulls(object, &self.schema);
        if self.has_defaults {
            prune::default(object, &self.schema);
        }
        unknown
    }
}

/// A default as pruning leaves it.
pub(crate) fn pruned_default(default: &Value, schema: &Schema) -> Value {
    let mut clean = default.clone();
    prune::prune_below(&mut clean, schema);
    clean
}

/// What the schema of a default has against it; paths begin at the default.
pub(crate) fn check_default(default: &Value, schema: &Schema) -> Vec<FieldError> {
    values::validate(default, None, schema)
}

/// Whether nothing checks a format.
pub(crate) fn format_is_unknown(format: &str) -> bool {
    formats::check(format, "").is_none()
}

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const WRITES: &[&str] = &["get", "patch", "update"];

/// The rows of a definition, one a version in the order of `spec.versions`, named as
/// `status.acceptedNames` says.
pub fn kinds_of(definition: &Value, terminating: &Arc<AtomicBool>) -> Vec<Kind> {
    let names = definition.at(&["status", "acceptedNames"]).unwrap_or(&Value::Null);
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let versions = spec.items_at(&["versions"]);
    versions.iter().map(|v| kind_of(spec, names, v, terminating)).collect()
}

fn kind_of(spec: &Value, names: &Value, version: &Value, terminating: &Arc<AtomicBool>) -> Kind {
    let text = |v: &Value, path: &[&str]| v.str_at(path).unwrap_or_default().to_owned();
    let list = |field: &str| -> Vec<String> {
        names.items_at(&[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let kind = intern(&text(names, &["kind"]));
    let name = text(version, &["name"]);
    let mut subresources = Vec::new();
    let status = version.at(&["subresources", "status"]).is_some_and(|s| !s.is_null());
    if status {
        let sub = Subresource { name: "status", group: None, version: None, kind, verbs: WRITES, type_id: None };
        subresources.push(sub);
    }
    let scale = version.at(&["subresources", "scale"]).filter(|s| !s.is_null());
    if scale.is_some() {
        subresources.push(Subresource {
            name: "scale",
            group: Some("autoscaling"),
            version: Some("v1"),
            kind: "Scale",
            verbs: WRITES,
            type_id: type_by_name("autoscaling/v1.Scale"),
        });
    }
    let known = type_by_name("meta/v1.PartialObjectMetadata").expect("the tables have PartialObjectMetadata");
    let resource = Resource {
        group: intern(&text(spec, &["group"])),
        version: intern(&name),
        plural: intern(&text(names, &["plural"])),
        singular: intern(&text(names, &["singular"])),
        kind,
        scope: if spec.str_at(&["scope"]) == Some("Cluster") { Scope::Cluster } else { Scope::Namespaced },
        verbs: VERBS,
        short_names: intern_list(&list("shortNames")),
        categories: intern_list(&list("categories")),
        type_id: known,
        subresources: Cow::Owned(subresources),
    };
    let openapi = version.at(&["schema", "openAPIV3Schema"]).cloned().unwrap_or_default();
    let schema = Schema::read(&openapi);
    let columns = columns_of(version.items_at(&["additionalPrinterColumns"]));
    let api_version = resource.api_version();
    let deprecated = version.get("deprecated").and_then(Value::as_bool) == Some(true);
    let warning = version.str_at(&["deprecationWarning"]).map(str::to_owned);
    let custom = Arc::new(Version {
        deprecation: deprecated.then(|| warning.unwrap_or_else(|| format!("{api_version} {kind} is deprecated"))),
        terminating: terminating.clone(),
        converted_elsewhere: spec.str_at(&["conversion", "strategy"]) == Some("Webhook"),
        preserve_unknown: spec.get("preserveUnknownFields").and_then(Value::as_bool) == Some(true) || openapi.is_null(),
        has_defaults: prune::has_defaults(&schema),
        has_embedded: embedded::any(&schema),
        rules: rules::Rules::of(&openapi, true),
        schema,
        openapi,
        api_version,
        status,
        scale: scale.map(|s| ScalePaths {
            replicas: ScalePath::of(&text(s, &["specReplicasPath"])),
            status_replicas: ScalePath::of(&text(s, &["statusReplicasPath"])),
            selector: s.str_at(&["labelSelectorPath"]).filter(|p| !p.is_empty()).map(ScalePath::of),
        }),
        definitions: columns.iter().map(|c| c.0.clone()).collect(),
        columns,
        selectable: version
            .items_at(&["selectableFields"])
            .iter()
            .filter_map(|f| f.str_at(&["jsonPath"]))
            .map(|p| intern(p.trim_start_matches('.')))
            .collect(),
    });
    Kind { resource: Arc::new(resource), hooks: Arc::new(hooks::Custom(custom.clone())), custom: Some(custom) }
}

fn columns_of(own: &[Value]) -> Vec<(ColumnDefinition, Option<JsonPath>)> {
    let mut out = vec![(ColumnDefinition::new("Name", "string", "name", "", 0), JsonPath::parse(".metadata.name"))];
    if own.is_empty() {
        let description = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
        out.push((
            ColumnDefinition::new("Age", "date", "", description, 0),
            JsonPath::parse(".metadata.creationTimestamp"),
        ));
    }
    for c in own {
        let text = |f: &str| Cow::Owned(c.str_at(&[f]).unwrap_or_default().to_owned());
        let description = match c.str_at(&["description"]) {
            Some(d) if !d.is_empty() => Cow::Owned(d.to_owned()),
            _ => Cow::Owned(format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath"))),
        };
        let definition = ColumnDefinition {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description,
            priority: c.i64_at(&["priority"]).unwrap_or(0) as i32,
        };
        out.push((definition, JsonPath::parse(&text("jsonPath"))));
    }
    out
}
