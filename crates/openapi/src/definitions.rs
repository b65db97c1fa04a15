//! Types as OpenAPI schemas, and everything that a set of types refers to.

use std::collections::BTreeMap;

use ironkeel_schema::{Field, ListType, Shape, Type, TypeId, type_by_name, type_id_for_kind};
use serde_json::{Map, Value, json};

use crate::names::{self, definition_name};
use crate::{Row, api_version, custom, descriptions};

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
            properties.insert(field.name.into(), self.property(field));
            if field.required || !(field.optional || field.omit_empty || field.pointer) {
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
        Value::Object(schema)
    }

    fn property(&mut self, field: &Field) -> Value {
        let mut extra = Map::new();
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
        if let Some(default) = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
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
            Shape::Enum(e) if e.closed => json!({ "type": "string", "enum": e.values }),
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
        self.mark(&definition_name(&type_name), "", "v1", kind);
        if kind != "Status" && api_version(group, version) != "v1" {
            self.mark(&definition_name(&type_name), group, version, kind);
        }
        reference
    }
}
