//! The Kubernetes API as data: one row a type, a field, a resource.
//!
//! Codecs, strict validation, patches, apply, pruning and OpenAPI all read these tables; nobody
//! types a field number or a merge key by hand. The rows under `generated/` are written by
//! `cargo xtask codegen` from the API's facts (Kubernetes v1.36); the row types stand here.
//! What does not live here: behaviour (defaults that need code, validation, conversion: `kinds`).

use std::borrow::Cow;

#[rustfmt::skip]
mod generated;
mod intern;
mod lookup;

pub use intern::{intern, intern_list};
pub use lookup::{package_of, resource, resources, type_by_name, type_id_for_kind, types};

/// Position of a [`Type`] in the table. Stable within one build only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u16);

impl TypeId {
    /// The row itself.
    pub fn get(self) -> &'static Type {
        &generated::types::TYPES[self.0 as usize]
    }
}

/// One message type of the API, for example `core/v1.PodSpec`.
#[derive(Debug)]
pub struct Type {
    /// `group/version.Name`; `meta/v1.ObjectMeta` and other shared types likewise.
    pub name: &'static str,
    /// The JSON view: inlined structs are merged in, sorted by JSON name (search with [`Type::field`]).
    pub fields: &'static [Field],
    /// The protobuf view: in order of field number; an inlined struct is one sub-message.
    pub proto: &'static [ProtoField],
    /// `structType=atomic`: apply replaces the whole value.
    pub atomic: bool,
    /// The struct embeds `meta/v1.TypeMeta`: `apiVersion` and `kind` are among [`Type::fields`],
    /// and have no place in the protobuf message (they travel in `runtime.Unknown`).
    pub has_type_meta: bool,
}

impl Type {
    /// Finds a field by its JSON name; case matters.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// The bare kind: `Pod` for `core/v1.Pod`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// One JSON field of a [`Type`].
#[derive(Debug)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// What the value looks like.
    pub shape: Shape,
    /// A Go pointer: absent differs from zero, and protobuf writes it only when set.
    pub pointer: bool,
    /// `omitempty`: a zero value is not written. Without it the field is always written
    /// (a nil list or map then as `null`).
    pub omit_empty: bool,
    /// Marked required by the API's own markers.
    pub required: bool,
    /// Marked optional by the API's own markers.
    pub optional: bool,
    /// How apply (and strategic merge, with `merge_key`) treat a list.
    pub list: ListType,
    /// `mapType=atomic` or a field-level `structType=atomic`.
    pub atomic: bool,
    /// `patchStrategy` contains `merge`.
    pub patch_merge: bool,
    /// `patchStrategy` contains `retainKeys`.
    pub patch_retain_keys: bool,
    /// `patchMergeKey`; differs from the apply keys in [`ListType::Map`] at times.
    pub merge_key: Option<&'static str>,
    /// A declared default, as JSON text.
    pub default: Option<&'static str>,
    /// Feature gates that the field belongs to.
    pub gates: &'static [&'static str],
}

/// `listType` and `listMapKey` of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Not declared: apply treats it as atomic.
    Undeclared,
    /// One owner for the whole list.
    Atomic,
    /// Scalars, each owned on its own.
    Set,
    /// Items told apart by these keys.
    Map(&'static [&'static str]),
}

/// One field of a protobuf message.
#[derive(Debug)]
pub struct ProtoField {
    /// Field number.
    pub number: u32,
    /// What it carries.
    pub content: ProtoContent,
    /// proto2 presence: written only when set. A non-pointer scalar is written even when zero;
    /// repeated fields and maps are written entry by entry.
    pub pointer: bool,
}

/// What stands under a protobuf field number.
#[derive(Debug)]
pub enum ProtoContent {
    /// The JSON field at this index of [`Type::fields`].
    Field(u16),
    /// A sub-message whose fields are merged into the parent's JSON object. Its own
    /// [`Type::fields`] are a subset of the parent's.
    Inline(TypeId),
}

/// A named string type with declared constants.
#[derive(Debug)]
pub struct Enum {
    /// `group/version.Name`.
    pub name: &'static str,
    /// The constants.
    pub values: &'static [&'static str],
    /// Marked as an enum: other values are invalid, and OpenAPI lists the values.
    pub closed: bool,
}

/// The form of a value, in JSON and in protobuf.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// JSON boolean; varint.
    Bool,
    /// JSON number; varint.
    Int32,
    /// JSON number; varint.
    Int64,
    /// JSON number; fixed64.
    Float64,
    /// JSON string; bytes.
    String,
    /// JSON string out of a set of constants; bytes.
    Enum(&'static Enum),
    /// Base64 in JSON; raw bytes in protobuf.
    Bytes,
    /// Canonical text in JSON (numbers are accepted); message `{string = 1}`.
    Quantity,
    /// Number or string in JSON; message `{type = 1, intVal = 2, strVal = 3}`.
    IntOrString,
    /// RFC 3339 with seconds, or null; message `{seconds = 1, nanos = 2}`.
    Time,
    /// RFC 3339 with six decimals, or null; message `{seconds = 1, nanos = 2}`.
    MicroTime,
    /// Go duration text (`1h30m0s`); message `{duration = 1}` in nanoseconds.
    Duration,
    /// Any JSON object; message `{raw = 1}` holding JSON text.
    FieldsV1,
    /// Any JSON object; message `{raw = 1}` holding JSON text.
    RawExtension,
    /// Any JSON value; message `{raw = 1}` holding JSON text.
    Json,
    /// Any JSON value without a protobuf form (table cells).
    Any,
    /// apiextensions' schema or list of schemas; message `{schema = 1, JSONSchemas = 2}`.
    SchemaOrArray(TypeId),
    /// apiextensions' schema or boolean; message `{allows = 1, schema = 2}`.
    SchemaOrBool(TypeId),
    /// apiextensions' schema or list of strings; message `{schema = 1, property = 2}`.
    SchemaOrStringArray(TypeId),
    /// A nested object of the table.
    Struct(TypeId),
    /// JSON array; a repeated field.
    List(&'static Shape),
    /// JSON array of strings; a message with `repeated items = 1` (`meta/v1.Verbs`, `ExtraValue`).
    StringItems,
    /// JSON object with free keys; repeated entries `{key = 1, value = 2}`, sorted by key.
    Map(&'static Shape),
}

impl Shape {
    /// Whether `omitempty` has no hold on values of this shape: Go writes them whatever they are.
    pub fn has_no_empty(&self) -> bool {
        matches!(
            self,
            Shape::Struct(_)
                | Shape::Time
                | Shape::MicroTime
                | Shape::Duration
                | Shape::Quantity
                | Shape::IntOrString
                | Shape::FieldsV1
                | Shape::RawExtension
                | Shape::Json
        )
    }
}

/// Where the objects of a resource live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Below a namespace.
    Namespaced,
    /// Cluster-wide.
    Cluster,
}

/// One served resource: a group, a version and a plural name. The row of a custom resource is made at
/// run time (names by [`intern`]).
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Plural, as in the path.
    pub plural: &'static str,
    /// Singular.
    pub singular: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Scope.
    pub scope: Scope,
    /// Verbs that discovery announces.
    pub verbs: &'static [&'static str],
    /// Short names of `kubectl`.
    pub short_names: &'static [&'static str],
    /// Categories (`all`).
    pub categories: &'static [&'static str],
    /// The type of one object; of a custom resource the part that the tables know
    /// (`meta/v1.PartialObjectMetadata`).
    pub type_id: TypeId,
    /// Subresources.
    pub subresources: Cow<'static, [Subresource]>,
}

/// Group and plural of what [`Resource::answers_deleted`] is true of (upstream's `ReturnDeletedObject`).
const ANSWERS_DELETED: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "devicetaintrules"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourcepoolstatusrequests"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether DELETE answers with the object that went, not with a Status.
    pub fn answers_deleted(&self) -> bool {
        ANSWERS_DELETED.contains(&(self.group, self.plural))
    }

    /// Whether discovery announces this verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Finds a subresource by its name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// One subresource, such as `status` or `scale`.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Last path segment.
    pub name: &'static str,
    /// Group of its kind, where it differs from the resource's.
    pub group: Option<&'static str>,
    /// Version of its kind, where it differs from the resource's.
    pub version: Option<&'static str>,
    /// Kind of its body.
    pub kind: &'static str,
    /// Verbs that discovery announces.
    pub verbs: &'static [&'static str],
    /// The type of its body, where the table has one.
    pub type_id: Option<TypeId>,
}
