//! CEL's types, and the object types that schemas declare.
//!
//! Names are printed as cel-go prints them, because they stand in error messages that users read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::escaping;

/// The type of an expression or a variable.
#[derive(Clone, Debug)]
pub enum Type {
    /// Not known until the expression runs; agrees with every type.
    Dyn,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// 64-bit signed integer.
    Int,
    /// 64-bit unsigned integer.
    Uint,
    /// 64-bit float.
    Double,
    /// Unicode text.
    String,
    /// Octets.
    Bytes,
    /// A moment, between the years 1 and 9999.
    Timestamp,
    /// A span of time in nanoseconds.
    Duration,
    /// A list and how it is compared.
    List(Arc<ListType>),
    /// A map from the first to the second.
    Map(Arc<(Type, Type)>),
    /// The type of a type: `type(1)`.
    Type(Arc<Type>),
    /// A value that may be absent: `optional.of(1)`.
    Optional(Arc<Type>),
    /// An object with declared fields.
    Object(Arc<ObjectType>),
    /// A type of a library, without fields.
    Opaque(Opaque),
    /// A type parameter of an overload, or a type still to be found; never in a checked program's variables.
    Param(u32),
}

/// A list's type.
#[derive(Clone, Debug)]
pub struct ListType {
    /// The elements' type.
    pub element: Type,
    /// How lists are compared and added (`x-kubernetes-list-type`).
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`: decides equality and `+`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// Compared in order; `+` appends.
    #[default]
    Atomic,
    /// Compared without order; `+` is the union.
    Set,
    /// Compared by the named keys, without order; `+` merges by key. The names are as in JSON.
    Map(Vec<String>),
}

/// A type that a library brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// `quantity("1Gi")`.
    Quantity,
    /// `url("https://…")`.
    Url,
    /// `ip("::1")`.
    Ip,
    /// `cidr("10.0.0.0/8")`.
    Cidr,
    /// `semver("1.2.3")`.
    Semver,
    /// `format.dns1123Label()`.
    Format,
    /// The variable `authorizer`.
    Authorizer,
    /// `authorizer.path("/healthz")`.
    PathCheck,
    /// `authorizer.group("apps")`.
    GroupCheck,
    /// `authorizer.group("").resource("pods")`.
    ResourceCheck,
    /// The answer of `check("get")`.
    Decision,
}

impl Opaque {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Opaque::Quantity => "kubernetes.Quantity",
            Opaque::Url => "kubernetes.URL",
            Opaque::Ip => "net.IP",
            Opaque::Cidr => "net.CIDR",
            Opaque::Semver => "kubernetes.Semver",
            Opaque::Format => "kubernetes.NamedFormat",
            Opaque::Authorizer => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision => "kubernetes.authorization.Decision",
        }
    }
}

/// An object with declared fields.
#[derive(Clone, Debug, Default)]
pub struct ObjectType {
    name: String,
    fields: BTreeMap<String, Field>,
}

/// A declared field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub json_name: String,
    /// Its type.
    pub ty: Type,
}

impl ObjectType {
    /// A type without fields yet; the name stands in messages and must be unlike others' names.
    pub fn new(name: impl Into<String>) -> Self {
        ObjectType { name: name.into(), fields: BTreeMap::new() }
    }

    /// Declares a field by its JSON name. The expression writes it escaped (`__namespace__`, `a__dash__b`);
    /// a name that cannot be escaped is not reachable and is left out.
    pub fn field(mut self, json_name: &str, ty: Type) -> Self {
        self.add_field(json_name, ty);
        self
    }

    /// As [`ObjectType::field`], in place.
    pub fn add_field(&mut self, json_name: &str, ty: Type) {
        if let Some(name) = escaping::escape(json_name) {
            self.fields.insert(name.into_owned(), Field { json_name: json_name.to_owned(), ty });
        }
    }

    /// Declares a field that the expression writes as it is, though it be a word of CEL's own, as upstream has
    /// it in types that no schema describes: `request.resourceAttributes.namespace`.
    pub fn plain_field(mut self, name: &str, ty: Type) -> Self {
        self.fields.insert(name.to_owned(), Field { json_name: name.to_owned(), ty });
        self
    }

    /// The type's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A field by the name that expressions write.
    pub fn get(&self, escaped: &str) -> Option<&Field> {
        self.fields.get(escaped)
    }

    /// All fields, by the name that expressions write.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }
}

/// Finds message types by name, for literals such as `Config{limit: 1}`.
pub trait TypeProvider: Send + Sync {
    /// The object type of that name.
    fn object_type(&self, name: &str) -> Option<Arc<ObjectType>>;
}

impl Type {
    /// A list compared in order.
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(ListType { element, kind: ListKind::Atomic }))
    }

    /// A list with `x-kubernetes-list-type`.
    pub fn list_of_kind(element: Type, kind: ListKind) -> Type {
        Type::List(Arc::new(ListType { element, kind }))
    }

    /// A map.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    /// An optional value.
    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    /// An object.
    pub fn object(of: ObjectType) -> Type {
        Type::Object(Arc::new(of))
    }

    /// What an apply configuration is: `Object{…}`.
    pub fn patch_object() -> Type {
        Type::object(ObjectType::new("Object"))
    }

    /// One operation of a JSON patch: `JSONPatch{op: "add", path: "/a", value: 1}`.
    pub fn json_patch() -> Type {
        let of = ObjectType::new("JSONPatch").field("op", Type::String).field("path", Type::String);
        Type::object(of.field("from", Type::String).field("value", Type::Dyn))
    }

    /// The type of a type.
    pub(crate) fn type_of(of: Type) -> Type {
        Type::Type(Arc::new(of))
    }

    /// The name with parameters, as declarations have it; messages of the type check have shorter ones.
    pub(crate) fn declared_name(&self) -> String {
        match self {
            Type::List(l) => format!("list({})", l.element.declared_name()),
            Type::Map(m) => format!("map({}, {})", m.0.declared_name(), m.1.declared_name()),
            Type::Optional(t) => format!("optional_type({})", t.declared_name()),
            Type::Null | Type::Timestamp | Type::Duration => self.runtime_name().to_owned(),
            other => other.to_string(),
        }
    }

    /// The name without parameters, as `type(x)` tells it at run time.
    pub(crate) fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Type(_) => "type",
            Type::Optional(_) => "optional_type",
            Type::Object(o) => o.name(),
            Type::Opaque(o) => o.name(),
            Type::Param(_) => "type_param",
        }
    }
}

/// Equality of what expressions can tell apart: how a list is compared does not count.
impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) => a.element == b.element,
            (Type::Map(a), Type::Map(b)) => a == b,
            (Type::Type(a), Type::Type(b)) | (Type::Optional(a), Type::Optional(b)) => a == b,
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Param(a), Type::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::List(l) => write!(f, "list({})", l.element),
            Type::Map(m) => write!(f, "map({}, {})", m.0, m.1),
            Type::Type(t) => write!(f, "type({t})"),
            Type::Optional(t) => write!(f, "optional_type({t})"),
            Type::Null => f.write_str("null"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            // What is still unknown when a message is written agrees with everything.
            Type::Param(_) => f.write_str("dyn"),
            other => f.write_str(other.runtime_name()),
        }
    }
}
