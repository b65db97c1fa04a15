//! How apply looks at a value: whole, by member, or element by element.

use ironkeel_object::Value;
use ironkeel_schema::{Field, ListType, Shape, TypeId, type_by_name};

/// The structure of a value as apply sees it.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// One owner for the whole value.
    Leaf,
    /// An object of the table.
    Struct(TypeId),
    /// An object with free names.
    Map(&'static Shape),
    /// A list of objects told apart by keys.
    Keyed(TypeId, &'static [&'static str]),
    /// A list of scalars, each owned on its own.
    Set,
    /// A custom resource: metadata is known, the rest deduced.
    Custom,
    /// A value without a schema: objects by member, lists whole.
    Deduced,
}

impl View {
    pub(super) fn root(type_id: Option<TypeId>) -> View {
        type_id.map_or(View::Custom, View::Struct)
    }

    fn of_shape(shape: &'static Shape) -> View {
        match shape {
            Shape::Struct(id) if !id.get().atomic => View::Struct(*id),
            Shape::Map(inner) => View::Map(inner),
            _ => View::Leaf,
        }
    }

    fn of_field(field: &'static Field) -> View {
        if field.atomic {
            return View::Leaf;
        }
        match (&field.shape, field.list) {
            (Shape::List(Shape::Struct(id)), ListType::Map(keys)) => View::Keyed(*id, keys),
            (Shape::List(_) | Shape::StringItems, ListType::Set) => View::Set,
            (shape, _) => View::of_shape(shape),
        }
    }

    /// The view of a member, and the field where the schema knows it.
    pub(super) fn member(self, name: &str) -> (View, Option<&'static Field>) {
        match self {
            View::Struct(id) => match id.get().field(name) {
                Some(field) => (View::of_field(field), Some(field)),
                None => (View::Deduced, None),
            },
            View::Map(shape) => (View::of_shape(shape), None),
            View::Custom if name == "metadata" => {
                (type_by_name("meta/v1.ObjectMeta").map_or(View::Deduced, View::Struct), None)
            }
            _ => (View::Deduced, None),
        }
    }

    /// The view of a keyed list's element.
    pub(super) fn element(self) -> View {
        match self {
            View::Keyed(id, _) if !id.get().atomic => View::Struct(id),
            _ => View::Leaf,
        }
    }

    /// Whether this value is walked into; a value of another type than the schema says is a leaf.
    pub(super) fn is_object(self, value: &Value) -> bool {
        let by_member = matches!(self, View::Struct(_) | View::Map(_) | View::Custom | View::Deduced);
        by_member && matches!(value, Value::Object(_))
    }

    pub(super) fn is_list(self, value: &Value) -> bool {
        matches!(self, View::Keyed(..) | View::Set) && matches!(value, Value::Array(_))
    }
}

/// Whether Go writes the field even when nobody set it: such a struct or list counts as there.
pub(super) fn always_there(field: Option<&Field>, custom_metadata: bool) -> bool {
    field.map_or(custom_metadata, |f| !f.pointer && (!f.omit_empty || matches!(f.shape, Shape::Struct(_))))
}
