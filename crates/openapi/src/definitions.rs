//! Types as OpenAPI schemas, and everything that a set of types refers to.

use std::collections::BTreeMap;

use ironkeel_schema::{Field, ListType, Shape, Type, TypeId, resources, type_by_name, type_id_for_kind};
use serde_json::{Map, Value, json};

use crate::names::{self, definition_name};
use crate::{Row, custom, descriptions, exceptions};

/// Which OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `swagger: "2.0"`.
    V2,
    /// `openapi: "3.0.0"`.
    V3,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }

    pub(crate) fn reference(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.prefix()) })
    }
}

/// Every group and version that upstream has ever had types of its own in: the shared kinds say that they are of each.
const REGISTERED: &[(&str, &[&str])] = &[
    ("", &["v1"]),
    ("admission.k8s.io", &["v1", "v1beta1"]),
    ("admissionregistration.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("apiextensions.k8s.io", &["v1", "v1beta1"]),
    ("apiregistration.k8s.io", &["v1", "v1beta1"]),
    ("apps", &["v1", "v1beta1", "v1beta2"]),
    ("authentication.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("authorization.k8s.io", &["v1", "v1beta1"]),
    ("autoscaling", &["v1", "v2"]),
    ("batch", &["v1", "v1beta1"]),
    ("certificates.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("coordination.k8s.io", &["v1", "v1alpha2", "v1beta1"]),
    ("discovery.k8s.io", &["v1", "v1beta1"]),
    ("events.k8s.io", &["v1", "v1beta1"]),
    ("extensions", &["v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", &["v1", "v1beta1", "v1beta2", "v1beta3"]),
    ("imagepolicy.k8s.io", &["v1alpha1"]),
    ("internal.apiserver.k8s.io", &["v1alpha1"]),
    ("networking.k8s.io", &["v1", "v1beta1"]),
    ("node.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("policy", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("resource.k8s.io", &["v1", "v1alpha3", "v1beta1", "v1beta2"]),
    ("scheduling.k8s.io", &["v1", "v1alpha2", "v1beta1"]),
    ("storage.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("storagemigration.k8s.io", &["v1beta1"]),
];

/// Collects schemas by name; asking for a type adds all that it refers to.
pub(crate) struct Definitions {
    dialect: Dialect,
    all: BTreeMap<String, Value>,
}

impl Definitions {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Definitions { dialect, all: BTreeMap::new() }
    }

    pub(crate) fn into_value(mut self) -> Value {
        descriptions::describe(self.all.iter_mut(), self.dialect == Dialect::V3);
        Value::Object(self.all.into_iter().collect())
    }

    /// A reference to a type, which is added where it is new.
    pub(crate) fn of_type(&mut self, id: TypeId) -> Value {
        let t = id.get();
        let name = definition_name(t.name);
        if !self.all.contains_key(&name) {
            // Reserve the name first: types refer to themselves.
            self.all.insert(name.clone(), Value::Null);
            let schema = self.schema(t);
            self.all.insert(name.clone(), schema);
            // A kind is one in every document that it stands in.
            if let Some(r) = resources().iter().find(|r| r.type_id == id) {
                self.mark(&name, r.group, r.version, r.kind);
            } else if matches!(t.name, "meta/v1.APIGroup") {
                self.mark(&name, "", "v1", t.short_name());
            }
        }
        self.dialect.reference(&name)
    }

    pub(crate) fn of_name(&mut self, type_name: &str) -> Option<Value> {
        type_by_name(type_name).map(|id| self.of_type(id))
    }

    /// The object type of a row, marked with its kind.
    pub(crate) fn of_row(&mut self, row: &Row<'_>) -> Value {
        let r = row.resource;
        let Some(schema) = row.schema else {
            let reference = self.of_type(r.type_id);
            self.mark(&definition_name(r.type_id.get().name), r.group, r.version, r.kind);
            return reference;
        };
        let name = names::custom_name(r);
        let meta = self.of_name("meta/v1.ObjectMeta").unwrap_or_default();
        let schema =
            custom::published(schema, self.dialect == Dialect::V2, &self.described(meta, descriptions::METADATA));
        self.all.insert(name.clone(), schema);
        self.mark(&name, r.group, r.version, r.kind);
        self.dialect.reference(&name)
    }

    /// The list type of a row, marked with its kind.
    pub(crate) fn list_of_row(&mut self, row: &Row<'_>) -> Value {
        let r = row.resource;
        let kind = format!("{}List", r.kind);
        if row.schema.is_none()
            && let Some(id) = type_id_for_kind(r.group, r.version, &kind)
        {
            let reference = self.of_type(id);
            self.mark(&definition_name(id.get().name), r.group, r.version, &kind);
            return reference;
        }
        let item = self.of_row(row);
        let meta = self.of_name("meta/v1.ListMeta").unwrap_or_default();
        let name = format!("{}List", names::custom_name(r));
        let mut schema = json!({
            "type": "object",
            "description": format!("{kind} is a list of {}", r.kind),
            "required": ["items"],
            "properties": {
                "apiVersion": custom::api_version(),
                "kind": custom::kind(),
                "metadata": self.described(meta, descriptions::LIST_METADATA),
                "items": { "type": "array", "items": item, "description": descriptions::items(r.plural) },
            },
        });
        if let Some(fields) = row.schema.and_then(|s| s.get(custom::SELECTABLE)) {
            schema[custom::SELECTABLE] = fields.clone();
        }
        self.all.insert(name.clone(), schema);
        self.mark(&name, r.group, r.version, &kind);
        self.dialect.reference(&name)
    }

    /// Says that a schema is that of a kind; a shared one (DeleteOptions) may be of many.
    pub(crate) fn mark(&mut self, name: &str, group: &str, version: &str, kind: &str) {
        let Some(schema) = self.all.get_mut(name).and_then(Value::as_object_mut) else { return };
        let marks = schema.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
        let mark = json!({ "group": group, "version": version, "kind": kind });
        if let Some(marks) = marks.as_array_mut()
            && !marks.contains(&mark)
        {
            marks.push(mark);
        }
    }

    fn schema(&mut self, t: &Type) -> Value {
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in t.fields {
            properties.insert(field.name.into(), self.property(t, field));
            // Where a field is marked as both, it is not required.
            if !field.optional && (field.required || !field.omit_empty) {
                required.push(Value::from(field.name));
            }
        }
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if t.atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if let Some(unions) = exceptions::unions(t.name) {
            schema.insert("x-kubernetes-unions".into(), unions);
        }
        Value::Object(schema)
    }

    fn property(&mut self, t: &Type, field: &Field) -> Value {
        let mut extra = Map::new();
        if let Some((keyword, value)) = exceptions::keyword(t.name, field.name) {
            extra.insert(keyword.into(), value.into());
        }
        if let Some(values) = exceptions::values(t.name, field.name) {
            extra.insert("enum".into(), json!(values));
        }
        match field.list {
            ListType::Undeclared => {}
            ListType::Atomic => {
                extra.insert("x-kubernetes-list-type".into(), "atomic".into());
            }
            ListType::Set => {
                extra.insert("x-kubernetes-list-type".into(), "set".into());
            }
            ListType::Map(keys) => {
                extra.insert("x-kubernetes-list-type".into(), "map".into());
                extra.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            }
        }
        if field.atomic {
            extra.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        let strategy = match (field.patch_merge, field.patch_retain_keys) {
            (true, true) => Some("merge,retainKeys"),
            (true, false) => Some("merge"),
            (false, true) => Some("retainKeys"),
            (false, false) => None,
        };
        if let Some(strategy) = strategy {
            extra.insert("x-kubernetes-patch-strategy".into(), strategy.into());
        }
        if let Some(key) = field.merge_key {
            extra.insert("x-kubernetes-patch-merge-key".into(), key.into());
        }
        if let Some(default) = default_of(field).filter(|_| self.dialect == Dialect::V3) {
            extra.insert("default".into(), default);
        }
        let schema = self.shape(field.shape);
        self.wrap(schema, extra)
    }

    /// Puts keywords beside a schema. OpenAPI v3 ignores what stands beside a reference, so there
    /// the reference goes into `allOf`.
    fn wrap(&self, schema: Value, extra: Map<String, Value>) -> Value {
        let reference = schema.get("$ref").is_some();
        let mut object = if reference && self.dialect == Dialect::V3 && !extra.is_empty() {
            Map::from_iter([("allOf".to_owned(), json!([schema]))])
        } else if let Value::Object(object) = schema {
            object
        } else {
            Map::new()
        };
        object.extend(extra);
        Value::Object(object)
    }

    fn described(&self, schema: Value, text: &str) -> Value {
        self.wrap(schema, Map::from_iter([("description".to_owned(), text.into())]))
    }

    fn shape(&mut self, shape: Shape) -> Value {
        match shape {
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
            Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
            Shape::Float64 => json!({ "type": "number", "format": "double" }),
            Shape::String => json!({ "type": "string" }),
            Shape::Enum(e) if e.closed => {
                json!({ "type": "string", "enum": e.values })
            }
            Shape::Enum(_) => json!({ "type": "string" }),
            Shape::Bytes => json!({ "type": "string", "format": "byte" }),
            Shape::Quantity => self.special(names::QUANTITY),
            Shape::IntOrString => self.special(names::INT_OR_STRING),
            Shape::Time => self.special(names::TIME),
            Shape::MicroTime => self.special(names::MICRO_TIME),
            Shape::Duration => self.special(names::DURATION),
            Shape::FieldsV1 => self.special(names::FIELDS_V1),
            Shape::RawExtension => self.special(names::RAW_EXTENSION),
            Shape::Json => self.special(names::JSON),
            Shape::Any => json!({ "type": "object" }),
            Shape::SchemaOrArray(_) => self.special(names::SCHEMA_OR_ARRAY),
            Shape::SchemaOrBool(_) => self.special(names::SCHEMA_OR_BOOL),
            Shape::SchemaOrStringArray(_) => self.special(names::SCHEMA_OR_STRINGS),
            Shape::Struct(id) => self.of_type(id),
            Shape::List(item) => json!({ "type": "array", "items": self.shape(*item) }),
            Shape::StringItems => json!({ "type": "array", "items": { "type": "string" } }),
            Shape::Map(value) => json!({ "type": "object", "additionalProperties": self.shape(*value) }),
        }
    }

    pub(crate) fn special(&mut self, name: &str) -> Value {
        if !self.all.contains_key(name) {
            let v3 = self.dialect == Dialect::V3;
            let schema = match name {
                names::QUANTITY if v3 => json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
                names::INT_OR_STRING if v3 => {
                    json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
                }
                names::QUANTITY | names::DURATION => json!({ "type": "string" }),
                names::INT_OR_STRING => json!({ "type": "string", "format": "int-or-string" }),
                names::TIME | names::MICRO_TIME => json!({ "type": "string", "format": "date-time" }),
                names::VERSION_INFO => version_info(self.dialect),
                names::FIELDS_V1 | names::RAW_EXTENSION | names::PATCH => json!({ "type": "object" }),
                _ => json!({}),
            };
            self.all.insert(name.to_owned(), schema);
        }
        self.dialect.reference(name)
    }

    /// A body or answer of `meta/v1` that stands for every group version.
    pub(crate) fn shared(&mut self, kind: &str, group: &str, version: &str) -> Value {
        let type_name = format!("meta/v1.{kind}");
        let reference = self.of_name(&type_name).unwrap_or_default();
        let name = definition_name(&type_name);
        self.mark(&name, "", "v1", kind);
        if matches!(kind, "DeleteOptions" | "WatchEvent") {
            let all = if self.dialect == Dialect::V2 { REGISTERED } else { &[] };
            for (group, versions) in all {
                versions.iter().for_each(|version| self.mark(&name, group, version, kind));
            }
            self.mark(&name, group, version, kind);
        }
        reference
    }
}

/// The declared default, or the zero value of what Go always has.
fn default_of(field: &Field) -> Option<Value> {
    if let Some(named) = field.default.and_then(exceptions::named_default) {
        return Some(named.into());
    }
    if let Some(declared) = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        return Some(declared);
    }
    match field.shape {
        _ if field.pointer => None,
        Shape::Struct(_) => Some(json!({})),
        _ if field.omit_empty => None,
        Shape::Bool => Some(false.into()),
        Shape::Int32 | Shape::Int64 | Shape::Float64 => Some(0.into()),
        Shape::String | Shape::Enum(_) => Some("".into()),
        _ => None,
    }
}

/// What `/version` answers.
fn version_info(dialect: Dialect) -> Value {
    const ALWAYS: [&str; 9] =
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    const SOMETIMES: [(&str, &str); 4] = [
        ("emulationMajor", "EmulationMajor is the major version of the emulation version"),
        ("emulationMinor", "EmulationMinor is the minor version of the emulation version"),
        ("minCompatibilityMajor", "MinCompatibilityMajor is the major version of the minimum compatibility version"),
        ("minCompatibilityMinor", "MinCompatibilityMinor is the minor version of the minimum compatibility version"),
    ];
    let always = match dialect {
        Dialect::V2 => json!({ "type": "string" }),
        Dialect::V3 => json!({ "type": "string", "default": "" }),
    };
    let mut properties = Map::new();
    for name in ALWAYS {
        properties.insert(name.to_owned(), always.clone());
    }
    for (name, text) in SOMETIMES {
        properties.insert(name.to_owned(), json!({ "type": "string", "description": text }));
    }
    json!({
        "description": "Info contains versioning information.",
        "type": "object",
        "required": ALWAYS,
        "properties": properties,
    })
}
