//! The structure of a custom resource as apply sees it, read once from the structural schema of its
//! version; built-in types come from the tables (`view`).

use std::collections::BTreeMap;

use ironkeel_object::Value;
use ironkeel_schema::{TypeId, type_by_name};

/// How a value of a custom resource is owned.
#[derive(Clone, Debug)]
pub enum Structure {
    /// One owner for the whole value.
    Leaf,
    /// A type of the tables, such as `metadata`.
    Known(TypeId),
    /// An object, member by member.
    Object {
        /// Members that the schema names.
        members: BTreeMap<Box<str>, Structure>,
        /// All other members.
        others: Others,
    },
    /// A list of objects told apart by keys.
    Keyed {
        /// Key names and their defaults, in order.
        keys: Vec<(Box<str>, Option<Value>)>,
        /// One element.
        element: Box<Structure>,
    },
    /// A list of scalars, each owned on its own.
    Set,
    /// Not described: objects by member, lists whole.
    Deduced,
}

/// Members of an object that its schema does not name.
#[derive(Clone, Debug)]
pub enum Others {
    /// An apply that names one is refused.
    Refused,
    /// They are kept as they are.
    Deduced,
    /// All alike.
    Each(Box<Structure>),
}

impl Structure {
    /// Reads the `openAPIV3Schema` of a custom resource's version.
    pub fn of_resource(schema: &Value) -> Structure {
        embedded(of(schema))
    }
}

/// Adds what every object has.
fn embedded(structure: Structure) -> Structure {
    let (mut members, others) = match structure {
        Structure::Object { members, others } => (members, others),
        Structure::Deduced => (BTreeMap::new(), Others::Deduced),
        other => return other,
    };
    for name in ["apiVersion", "kind"] {
        members.insert(name.into(), Structure::Leaf);
    }
    let metadata = type_by_name("meta/v1.ObjectMeta").map_or(Structure::Deduced, Structure::Known);
    members.insert("metadata".into(), metadata);
    Structure::Object { members, others }
}

fn of(schema: &Value) -> Structure {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
    if flag("x-kubernetes-int-or-string") {
        return Structure::Leaf;
    }
    let structure = match text("type") {
        "array" => list(schema, text("x-kubernetes-list-type")),
        "object" if text("x-kubernetes-map-type") == "atomic" => Structure::Leaf,
        "object" => object(schema, flag("x-kubernetes-preserve-unknown-fields")),
        "" => Structure::Deduced,
        _ => Structure::Leaf,
    };
    if flag("x-kubernetes-embedded-resource") { embedded(structure) } else { structure }
}

fn object(schema: &Value, preserves: bool) -> Structure {
    let named = schema.get("properties").and_then(Value::as_object);
    let members: BTreeMap<Box<str>, Structure> =
        named.into_iter().flat_map(|m| m.iter()).map(|(name, s)| (name.as_ref().into(), of(s))).collect();
    let others = match schema.get("additionalProperties") {
        Some(each @ Value::Object(_)) => Others::Each(Box::new(of(each))),
        Some(Value::Bool(true)) => Others::Deduced,
        _ if preserves || members.is_empty() => Others::Deduced,
        _ => Others::Refused,
    };
    if members.is_empty() && matches!(others, Others::Deduced) {
        return Structure::Deduced;
    }
    Structure::Object { members, others }
}

fn list(schema: &Value, list_type: &str) -> Structure {
    let items = schema.get("items").unwrap_or(&Value::Null);
    match list_type {
        "set" => Structure::Set,
        "map" => {
            let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).unwrap_or_default();
            let default = |name: &str| items.at(&["properties", name, "default"]).cloned();
            let mut keys: Vec<_> = names.iter().filter_map(Value::as_str).map(|n| (n.into(), default(n))).collect();
            keys.sort_by(|a: &(Box<str>, _), b| a.0.cmp(&b.0));
            Structure::Keyed { keys, element: Box::new(of(items)) }
        }
        _ => Structure::Leaf,
    }
}
