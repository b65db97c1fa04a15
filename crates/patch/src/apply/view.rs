//! How apply looks at a value: whole, by member, or element by element. Built-in types are seen
//! through the tables, custom resources through their [`Structure`].

use ironkeel_object::{Key, Value};
use ironkeel_schema::{Field, ListType, Shape, TypeId, type_by_name};

use super::set;
use super::structure::{Others, Structure};

/// Where apply finds how an object is put together.
#[derive(Clone, Copy, Debug)]
pub enum Schema<'s> {
    /// A built-in type.
    Table(TypeId),
    /// A custom resource with its schema.
    Custom(&'s Structure),
    /// A custom resource that nothing is known of.
    Deduced,
}

/// The structure of a value as apply sees it.
#[derive(Clone, Copy)]
pub(super) enum View<'s> {
    /// One owner for the whole value, whose shape the table tells.
    Leaf(Option<&'static Shape>),
    /// An object of the table.
    Struct(TypeId),
    /// An object with free names.
    Map(&'static Shape),
    /// A list of objects told apart by keys.
    Keyed(TypeId, &'static [&'static str]),
    /// A list of scalars, each owned on its own.
    Set,
    /// A value of a custom resource.
    Custom(&'s Structure),
    /// A custom resource without a schema: metadata is known, the rest deduced.
    Unknown,
    /// A value without a schema: objects by member, lists whole.
    Deduced,
}

/// A member of an object.
#[derive(Clone, Copy)]
pub(super) struct Member<'s> {
    pub(super) view: View<'s>,
    /// The schema names it: it is not owned for itself.
    pub(super) declared: bool,
    /// Go writes it even when nobody set it: such a struct or list counts as there.
    pub(super) always: bool,
}

impl<'s> View<'s> {
    pub(super) fn root(schema: Schema<'s>) -> View<'s> {
        match schema {
            Schema::Table(id) => View::Struct(id),
            Schema::Custom(structure) => View::Custom(structure),
            Schema::Deduced => View::Unknown,
        }
    }

    fn of_shape(shape: &'static Shape) -> View<'s> {
        match shape {
            Shape::Struct(id) if !id.get().atomic => View::Struct(*id),
            Shape::Map(inner) => View::Map(inner),
            shape => View::Leaf(Some(shape)),
        }
    }

    fn of_field(field: &'static Field) -> View<'s> {
        if field.atomic {
            return View::Leaf(Some(&field.shape));
        }
        match (&field.shape, field.list) {
            (Shape::List(Shape::Struct(id)), ListType::Map(keys)) => View::Keyed(*id, keys),
            (Shape::List(_) | Shape::StringItems, ListType::Set) => View::Set,
            (shape, _) => View::of_shape(shape),
        }
    }

    fn of(structure: &'s Structure) -> View<'s> {
        match structure {
            Structure::Leaf => View::Leaf(None),
            Structure::Known(id) => View::Struct(*id),
            Structure::Set => View::Set,
            Structure::Deduced => View::Deduced,
            Structure::Object { .. } | Structure::Keyed { .. } => View::Custom(structure),
        }
    }

    /// The view of a member; `None` where the schema has no such member and takes no others.
    pub(super) fn known_member(self, name: &str) -> Option<Member<'s>> {
        let free = |view| Some(Member { view, declared: false, always: false });
        match self {
            View::Struct(id) => id.get().field(name).map(|field| Member {
                view: View::of_field(field),
                declared: true,
                always: !field.omit_empty || !field.pointer && field.shape.has_no_empty(),
            }),
            View::Map(shape) => free(View::of_shape(shape)),
            View::Custom(Structure::Object { members, others }) => match (members.get(name), others) {
                (Some(member), _) => Some(Member {
                    view: View::of(member),
                    declared: true,
                    always: matches!(member, Structure::Known(_)),
                }),
                (None, Others::Refused) => None,
                (None, Others::Deduced) => free(View::Deduced),
                (None, Others::Each(each)) => free(View::of(each)),
            },
            View::Unknown if name == "metadata" => {
                let view = type_by_name("meta/v1.ObjectMeta").map_or(View::Deduced, View::Struct);
                Some(Member { view, declared: true, always: true })
            }
            _ => free(View::Deduced),
        }
    }

    /// The view of a member.
    pub(super) fn member(self, name: &str) -> Member<'s> {
        self.known_member(name).unwrap_or(Member { view: View::Deduced, declared: false, always: false })
    }

    /// The view of a keyed list's element.
    pub(super) fn element(self) -> View<'s> {
        match self {
            View::Keyed(id, _) if !id.get().atomic => View::Struct(id),
            View::Custom(Structure::Keyed { element, .. }) => View::of(element),
            _ => View::Leaf(None),
        }
    }

    /// Whether this value is walked into; a value of another type than the schema says is a leaf.
    pub(super) fn is_object(self, value: &Value) -> bool {
        let by_member = matches!(
            self,
            View::Struct(_) | View::Map(_) | View::Unknown | View::Deduced | View::Custom(Structure::Object { .. })
        );
        by_member && matches!(value, Value::Object(_))
    }

    pub(super) fn is_list(self, value: &Value) -> bool {
        let by_element = matches!(self, View::Keyed(..) | View::Set | View::Custom(Structure::Keyed { .. }));
        by_element && matches!(value, Value::Array(_))
    }

    /// The key under which an element is owned.
    pub(super) fn key_of(self, element: &Value) -> Key {
        Key::Owned(match self {
            View::Keyed(row, keys) => set::element_key(element, &sorted_defaults(row, keys)),
            View::Custom(Structure::Keyed { keys, .. }) => {
                let keys: Vec<_> = keys.iter().map(|(k, d)| (k.as_ref(), d.as_ref().map(Default::Value))).collect();
                set::element_key(element, &keys)
            }
            _ => set::value_key(element),
        })
    }

    /// Names of the members that tell elements apart.
    pub(super) fn keys(self) -> Vec<&'s str> {
        match self {
            View::Keyed(_, keys) => keys.to_vec(),
            View::Custom(Structure::Keyed { keys, .. }) => keys.iter().map(|(k, _)| k.as_ref()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a key of the element may be absent.
    pub(super) fn key_has_default(self, key: &str) -> bool {
        match self {
            View::Keyed(row, _) => row.get().field(key).is_some_and(|f| default_of(f).is_some()),
            View::Custom(Structure::Keyed { keys, .. }) => keys.iter().any(|(k, d)| &**k == key && d.is_some()),
            _ => true,
        }
    }
}

/// The value of a key that an element leaves out.
#[derive(Clone, Copy)]
pub(super) enum Default<'s> {
    /// As JSON text.
    Text(&'static str),
    /// As a value.
    Value(&'s Value),
}

/// What a field is when nobody sets it: what is declared, or the zero value of what Go always writes.
fn default_of(field: &Field) -> Option<&'static str> {
    match (field.default, field.shape) {
        (Some(declared), _) => Some(declared),
        _ if field.pointer || field.omit_empty => None,
        (None, Shape::String | Shape::Enum(_)) => Some("\"\""),
        (None, Shape::Int32 | Shape::Int64) => Some("0"),
        (None, Shape::Bool) => Some("false"),
        (None, _) => None,
    }
}

fn sorted_defaults(row: TypeId, keys: &'static [&'static str]) -> Vec<(&'static str, Option<Default<'static>>)> {
    let default = |key: &str| row.get().field(key).and_then(default_of).map(Default::Text);
    let mut out: Vec<_> = keys.iter().map(|k| (*k, default(k))).collect();
    out.sort_unstable_by_key(|(k, _)| *k);
    out
}
